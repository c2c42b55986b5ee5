"""A sandbox for others: checks programs that come over HTTP, or over its own standard input, each in a `Worker` here.

    GET  /about    {"isolation", "python", "preload", ...} of the workers
    POST /run      {"program", "trial", "limits"} -> {"about", "events", "report"}, or {"failed": why}

Only who knows the token is answered. What runs here runs confined, by the mode that the server was started with; a
request cannot ask for less. There is no encryption: listen on the loopback, behind a proxy or a tunnel that has some.
"""

from __future__ import annotations

import hmac
import json
import queue
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from amenable.errors import SandboxError
from amenable.sandbox import wire
from amenable.sandbox.provider import Limits, Provider, ProviderFailed

_WAIT_SECONDS = 30.0  # for a worker to be free
_LEAST_TOKEN = 16
MOST_SECONDS, MOST_MB = 600.0, 1 << 16


def held(provider: Provider, order: Any) -> dict[str, Any]:
    """The answer to one order. Raises ValueError for what is no order."""
    program, trial, limits = understood(order)
    try:
        evidence = provider.run(program, trial, limits)
    except (ProviderFailed, SandboxError) as error:
        return {"failed": str(error)[:400]}
    return {"about": provider.about, "events": evidence.events, "report": evidence.report}


def understood(order: Any) -> tuple[str, dict[str, Any] | None, Limits]:
    """An order's program, trial and limits. Raises ValueError naming what is wrong."""
    match order:
        case {"program": str(program), "trial": trial, "limits": {"seconds": s, "cpu_seconds": c, "memory_mb": m}}:
            pass
        case _:
            raise ValueError("an order has program, trial and limits")
    match trial:
        case None:
            pass
        case {"setup": str(), "tests": [_, *_] as tests, "entry_point": str()} if len(trial) == 3:
            if not all(isinstance(test, str) for test in tests):
                raise ValueError("tests are text")
        case _:
            raise ValueError("a trial is null, or has setup, tests and entry_point")
    numbers = all(type(value) in (int, float) for value in (s, c)) and type(m) is int
    if not numbers or not (0 < s <= MOST_SECONDS and 0 < c <= MOST_SECONDS and 64 <= m <= MOST_MB):
        raise ValueError(f"limits are seconds in (0, {MOST_SECONDS:g}] and memory_mb in [64, {MOST_MB}]")
    return program, trial, Limits(float(s), float(c), m)


def over_standard_input(provider: Provider) -> None:
    """Answers frames from descriptor 0 on descriptor 1 until it is closed; the first says what `provider` is."""
    try:
        provider.start()
        wire.send(1, {"ready": provider.about})
        while True:
            wire.send(1, held(provider, wire.receive(0, cap=wire.QUESTION_CAP)), cap=wire.QUESTION_CAP)
    except SandboxError as error:
        wire.send(1, {"failed": str(error)[:400]})
    except wire.Closed:
        return
    finally:
        provider.stop()


class Server(ThreadingHTTPServer):
    """Listens at once; call `serve_forever`. Raises SandboxError where its workers cannot confine programs."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], token: str, providers: list[Provider]) -> None:
        if len(token) < _LEAST_TOKEN:
            raise SandboxError(
                f"a token of {len(token)} characters can be guessed",
                "set AMENABLE_SANDBOX_TOKEN to a long random text, such as from `openssl rand -hex 16`",
            )
        self.token, self._providers = token, providers
        self.idle: queue.SimpleQueue[Provider] = queue.SimpleQueue()
        for provider in providers:
            provider.start()
            self.idle.put(provider)
        self.about = providers[0].about
        super().__init__(address, _Handler)

    def server_close(self) -> None:
        """Stops listening, and every worker."""
        super().server_close()
        for provider in self._providers:
            provider.stop()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is nobody's concern."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 60.0  # seconds that a client may be silent

    def do_GET(self) -> None:
        if self._known():
            self._say(200, self.server.about) if self.path == "/about" else self._say(404, {"failed": "no such path"})

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > wire.QUESTION_CAP:
            self.close_connection = True
            self._say(413, {"failed": f"an order has a Content-Length of at most {wire.QUESTION_CAP}"})
            return
        body = self.rfile.read(int(length))
        if not self._known():
            return
        if self.path != "/run":
            self._say(404, {"failed": "no such path"})
            return
        try:
            order = json.loads(body)
            understood(order)
            provider = self.server.idle.get(timeout=_WAIT_SECONDS)
        except (ValueError, RecursionError) as error:
            self._say(400, {"failed": str(error)[:400]})
        except queue.Empty:
            self._say(503, {"failed": f"no worker was free within {_WAIT_SECONDS:g} s"})
        else:
            try:
                answer = held(provider, order)
            finally:
                self.server.idle.put(provider)
            self._say(200, answer)

    def _known(self) -> bool:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if hmac.compare_digest(given.encode(), self.server.token.encode()):
            return True
        self._say(401, {"failed": "the token is not the server's"})
        return False

    def _say(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Programs and tests are not for logs."""
