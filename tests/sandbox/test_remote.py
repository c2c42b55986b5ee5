"""A sandbox on another machine: the same verdicts over a real server, and no verdict at all from one that fails or lies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from amenable.errors import SandboxError
from amenable.sandbox import Job, Sandbox, remote, server
from amenable.sandbox.worker import Worker

TESTS = ["assert f(2) == 4"]
RIGHT = "def f(x): return x * 2"
TOKEN = "a token that nobody guesses"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server.Server(("127.0.0.1", 0), TOKEN, [Worker("light"), Worker("light")]) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(remote.TOKEN, TOKEN)


def test_verdicts_are_those_of_the_machine_that_runs_them(url: str) -> None:
    with Sandbox(mode=url, workers=2) as far, Sandbox(mode="light", workers=1) as near:
        assert far.report()["isolation"] == "remote+" + near.report()["isolation"]
        jobs = [
            Job(RIGHT, TESTS),
            Job("def f(x): return x + 1", [*TESTS, "assert f(3) == 4"]),
            Job("def f(x):\n    print('hello')\n    return x / 0", TESTS),
            Job("import os\ndef f(x): os._exit(0)", TESTS),
            Job("def f(x):\n    while True: pass", TESTS, timeout=0.5),
            Job("def f(x): return [0] * 10**10", TESTS),
        ]
        for here, there in zip(near.check_many(jobs), far.check_many(jobs), strict=True):
            assert there.isolation == "remote+" + here.isolation
            assert {**there.as_row(), "isolation": here.isolation} == here.as_row()
        assert far.run("print(1)").outcome == "pass"


def test_who_does_not_know_the_token_is_not_answered(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(remote.TOKEN, "another token, as long")
    with (
        Sandbox(mode=url, workers=1) as box,
        pytest.raises(SandboxError, match="the token is not the server's") as error,
    ):
        box.check(RIGHT, TESTS)
    assert TOKEN not in str(error.value)
    monkeypatch.delenv(remote.TOKEN)
    with Sandbox(mode=url, workers=1) as box, pytest.raises(SandboxError, match="no token"):
        box.check(RIGHT, TESTS)
    with pytest.raises(SandboxError, match="can be guessed"):
        server.Server(("127.0.0.1", 0), "short", [])


def test_what_is_not_encrypted_stays_on_the_machine() -> None:
    with pytest.raises(SandboxError, match="not encrypted"):
        Sandbox(mode="http://example.org:8377")
    with pytest.raises(SandboxError, match="no address"):
        Sandbox(mode="https://user@example.org")


@pytest.mark.parametrize(
    ("order", "says"),
    [
        (b"{", "Expecting"),
        (b"[" * 100000, "recursion"),
        (b"{}", "program, trial and limits"),
        (json.dumps({"program": 1, "trial": None, "limits": {}}).encode(), "program, trial and limits"),
        ({"trial": {"setup": "", "tests": [], "entry_point": ""}}, "setup, tests"),
        ({"trial": {"setup": "", "tests": [1], "entry_point": ""}}, "tests are text"),
        ({"limits": {"seconds": 1e9, "cpu_seconds": 1, "memory_mb": 256}}, "limits are"),
        ({"limits": {"seconds": float("nan"), "cpu_seconds": 1, "memory_mb": 256}}, "limits are"),
        ({"limits": {"seconds": True, "cpu_seconds": 1, "memory_mb": 256}}, "limits are"),
        ({"limits": {"seconds": 1, "cpu_seconds": 1, "memory_mb": 1 << 40}}, "limits are"),
    ],
)
def test_what_is_no_order_is_refused_and_the_server_goes_on(url: str, order: Any, says: str) -> None:
    if isinstance(order, dict):
        whole = {"program": "x = 1", "trial": None, "limits": {"seconds": 1, "cpu_seconds": 1, "memory_mb": 256}}
        order = json.dumps(whole | order).encode()
    request = urllib.request.Request(f"{url}/run", order, {"Authorization": f"Bearer {TOKEN}"})
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=10)
    assert error.value.code == 400
    assert says in json.loads(error.value.read())["failed"]
    with Sandbox(mode=url, workers=1) as box:
        assert box.check(RIGHT, TESTS).ok


def test_a_server_that_dies_gives_no_verdict_and_nothing_is_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    running = server.Server(("127.0.0.1", 0), TOKEN, [Worker("light")])
    threading.Thread(target=running.serve_forever, daemon=True).start()
    with Sandbox(mode=f"http://127.0.0.1:{running.server_address[1]}", workers=1) as box:
        assert box.check(RIGHT, TESTS).ok
        monkeypatch.setattr(server, "held", lambda *_: {"failed": "the disk is on fire"})
        verdict = box.check(RIGHT, TESTS)
        assert (verdict.outcome, verdict.passed) == ("infra", (None,))
        assert verdict.failure is not None
        assert "the disk is on fire" in verdict.failure.error
        running.shutdown()
        running.server_close()
        assert box.check(RIGHT, TESTS).outcome == "infra"
    with Sandbox(mode="http://127.0.0.1:9", workers=1) as box, pytest.raises(SandboxError, match="does not answer"):
        box.check(RIGHT, TESTS)


LIES: dict[str, tuple[int, bytes]] = {
    "not JSON": (200, b"<html>"),
    "no evidence": (200, b"{}"),
    "a list": (200, b"[1]"),
    "events that are none": (200, b'{"events": 3, "report": {}}'),
    "a redirect": (302, b"{}"),
    "an error": (500, b'{"failed": "out of order"}'),
    "nested": (200, b'{"a":' * 100000),
}
CLAIMS: dict[str, bytes] = {  # evidence in form, but not of what a judge says
    "no events": b'{"events": [], "report": {}}',
    "strange events": b'{"events": [[], [1], {"a": 1}, null, ["done", 7, "pass", {}]], "report": {"seconds": "x"}}',
    "pass for another test": b'{"events": [["done", 1, "pass", {}], ["end", false]], "report": {}}',
    "a kind that is none": b'{"events": [["done", 0, "glory", {}], ["end", false]], "report": {"output": 3}}',
    "a failure of numbers": b'{"events": [["done", 0, "fail", {"got": 1, "line": "x"}]], "report": {"defendant": "x"}}',
}


@pytest.mark.parametrize("name", [*LIES, *CLAIMS])
def test_a_server_that_lies_about_its_form_is_not_believed(name: str) -> None:
    status, body = LIES.get(name, (200, CLAIMS.get(name, b"")))

    class Liar(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(200, b'{"isolation": "none", "light": true}')

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(status, body)

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:9/")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Liar) as liar:
        threading.Thread(target=liar.serve_forever, daemon=True).start()
        with Sandbox(mode=f"http://127.0.0.1:{liar.server_address[1]}", workers=1, timeout=1.0) as box:
            verdict = box.check(RIGHT, TESTS)
        liar.shutdown()
    assert not verdict.ok
    assert verdict.outcome in (("infra",) if name in LIES else ("infra", "protocol", "fail"))


def test_the_command_serves_until_it_is_stopped() -> None:
    command = [sys.executable, "-m", "amenable", "sandbox", "--port", "0", "--mode", "light", "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            with Sandbox(mode=address, workers=1) as box:
                assert box.check(RIGHT, TESTS).ok
        finally:
            process.terminate()
        began = time.monotonic()
        assert process.wait(timeout=20) == 143
        assert time.monotonic() - began < 10
    without = {name: value for name, value in os.environ.items() if name != remote.TOKEN}
    done = subprocess.run(command, capture_output=True, text=True, env=without, check=False)
    assert done.returncode == SandboxError.exit_code
    assert "AMENABLE_SANDBOX_TOKEN" in done.stderr
