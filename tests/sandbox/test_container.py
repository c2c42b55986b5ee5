"""Programs in a container: without a daemon an error, never less; with one, and AMENABLE_TEST_IMAGE, real checks."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from amenable.errors import SandboxError
from amenable.sandbox import Sandbox

TESTS = ["assert f(2) == 4"]
RIGHT = "def f(x): return x * 2"
IMAGE = os.environ.get("AMENABLE_TEST_IMAGE", "")
"""An image with a Python >= 3.11 that this machine's docker has; without it the checks in containers are skipped."""
COMMAND = next((name for name in ("docker", "podman") if shutil.which(name)), "")


@pytest.mark.parametrize("mode", ["docker", "podman:some/image", "container"])
def test_without_a_daemon_nothing_is_run(mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with Sandbox(mode=mode, workers=1) as box, pytest.raises(SandboxError, match="answers here"):
        box.check(f"open({str(tmp_path / 'ran')!r}, 'w')", TESTS)
    assert not (tmp_path / "ran").exists()


def test_a_daemon_that_does_not_answer_is_no_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with Sandbox(mode="docker", workers=1) as box, pytest.raises(SandboxError, match="no docker answers here"):
        box.check(RIGHT, TESTS)
    with pytest.raises(SandboxError, match="cannot be had in a container"):
        Sandbox(mode="docker", preload=["numpy"])


def test_an_image_that_is_not_there_and_cannot_be_pulled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = '#!/bin/sh\n[ "$1" = info ] && exit 0\necho "pull access denied" >&2\nexit 1\n'
    (tmp_path / "docker").write_text(script)
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with Sandbox(mode="docker:no/such", workers=1) as box, pytest.raises(SandboxError, match="pull access denied"):
        box.check(RIGHT, TESTS)


@pytest.mark.skipif(not (IMAGE and COMMAND), reason="no docker or podman here, or no AMENABLE_TEST_IMAGE")
def test_verdicts_from_a_container() -> None:
    with Sandbox(mode=f"{COMMAND}:{IMAGE}", workers=1, timeout=2.0) as box:
        assert box.report()["isolation"].startswith(f"{COMMAND}+processes+rlimits+landlock")
        for program, outcome in (
            (RIGHT, "pass"),
            ("def f(x): return 3", "fail"),
            ("import os\ndef f(x): os._exit(0)", "crash"),
            ("def f(x):\n    while True: pass", "timeout"),
            ("import socket\ndef f(x): socket.create_connection(('1.1.1.1', 80))", "fail"),
            ("def f(x): open('/etc/passwd')", "fail"),
            ("import os\ndef f(x): os.kill(1, 9)", "fail"),
            ("class A:\n    def __eq__(self, other): return True\ndef f(x): return A()", "fail"),
        ):
            assert box.check(program, TESTS).outcome == outcome, program
        assert box.run("print('hello')").output == "hello\n"
    left = subprocess.run([COMMAND, "ps", "-aq", "--filter", f"ancestor={IMAGE}"], capture_output=True, check=True)
    assert not left.stdout
