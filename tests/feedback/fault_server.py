"""A server on localhost that speaks just enough HTTP to do everything wrong: a script says how it treats each request."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def answer(text: object, *, tokens: int = 7) -> bytes:
    """A right chat completion."""
    body = json.dumps({"choices": [{"message": {"content": text}}], "usage": {"total_tokens": tokens}})
    return http(200, body)


def http(status: int, body: str = "", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body.encode())}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


class FaultServer:
    """`treat(number, request)` gives the bytes to send, or does worse to the socket itself and gives None."""

    def __init__(self, treat: Callable[[int, dict[str, object], socket.socket], bytes | None]) -> None:
        self.treat = treat
        self.requests: list[dict[str, object]] = []
        self.heads: list[str] = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection:
            data = b""
            while b"\r\n\r\n" not in data:
                part = connection.recv(65536)
                if not part:
                    return
                data += part
            head, _, body = data.partition(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            while len(body) < length:
                body += connection.recv(65536)
            with self._lock:
                number = len(self.requests)
                self.requests.append(json.loads(body))
                self.heads.append(head.decode())
                self.at_once += 1
                self.most_at_once = max(self.at_once, self.most_at_once)
            try:
                reply = self.treat(number, json.loads(body), connection)
                if reply is not None:
                    connection.sendall(reply)
            except OSError:
                pass
            finally:
                with self._lock:
                    self.at_once -= 1

    def close(self) -> None:
        self._socket.close()


@contextmanager
def serving(treat: Callable[[int, dict[str, object], socket.socket], bytes | None]) -> Iterator[FaultServer]:
    server = FaultServer(treat)
    try:
        yield server
    finally:
        server.close()


def dropped(connection: socket.socket) -> None:
    connection.close()


def stalled(connection: socket.socket, seconds: float = 30.0) -> None:
    """One byte of a header now and then: no single wait is long."""
    until = time.monotonic() + seconds
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while time.monotonic() < until:
        connection.sendall(b"a")
        time.sleep(0.05)


def dripped(connection: socket.socket, seconds: float = 30.0) -> None:
    """A right answer, a byte of its body now and then."""
    body = b'{"choices": [{"message": {"content": "1"}}]}' + b" " * 10_000
    connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode())
    until = time.monotonic() + seconds
    for byte in body:
        if time.monotonic() > until:
            return
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def silent(connection: socket.socket, seconds: float = 30.0) -> None:
    """Nothing at all, until whoever asked goes away."""
    connection.settimeout(seconds)
    connection.recv(1)


def flooded(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4000000000\r\n\r\n")
    for _ in range(4000):
        connection.sendall(b"x" * 1_000_000)


def _lie(body: str) -> Callable[[socket.socket], bytes | None]:
    return lambda connection: http(200, body)


def _status(status: int, **headers: str) -> Callable[[socket.socket], bytes | None]:
    return lambda connection: http(status, "no", **headers)


FAULTS: dict[str, Callable[[socket.socket], bytes | None]] = {
    "drops": dropped,  # type: ignore[dict-item]
    "truncates": lambda connection: b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"choices": [',
    "floods": flooded,  # type: ignore[dict-item]
    "is no HTTP": lambda connection: b"\x00\xff\x00 hello\r\n\r\n",
    "says 500": _status(500),
    "says 503": _status(503),
    "says 408": _status(408),
    "says 409": _status(409),
    "says 429": _status(429, Retry_After="0"),
    "lies: HTML": _lie("<html>login</html>"),
    "lies: no choices": _lie('{"choices": []}'),
    "lies: no text": _lie('{"choices": [{"message": {"content": null}}]}'),
    "lies: a list": _lie("[1]"),
    "lies: choices are no list": _lie('{"choices": {"message": "1"}}'),
    "lies: half of it": _lie('{"choices": [{"message": {"content": "1"'),
    "lies: deep": _lie("[" * 100_000),
    "lies: zipped": lambda connection: http(200, "not zipped", Content_Encoding="gzip"),
}
"""Faults that another try may be spared: how the server treats one request."""

DELAYS: dict[str, Callable[[socket.socket], bytes | None]] = {
    "hangs": silent,  # type: ignore[dict-item]
    "drips its head": stalled,  # type: ignore[dict-item]
    "drips its body": dripped,  # type: ignore[dict-item]
}
"""Faults that only a deadline ends."""
