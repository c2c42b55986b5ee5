"""`RemoteProvider`: programs run on another machine, by a `server` there. Nothing is run here if it does not answer."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from amenable.errors import SandboxError
from amenable.sandbox.provider import Evidence, Limits, ProviderFailed

TOKEN = "AMENABLE_SANDBOX_TOKEN"
_ANSWER_CAP = 8 << 20
_WAIT_SECONDS = 35.0  # longer than a server lets one wait for a free worker
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class RemoteProvider:
    """`url` such as https://host:8377; the token is in the environment variable AMENABLE_SANDBOX_TOKEN."""

    def __init__(self, url: str, preload: Sequence[str] = ()) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise SandboxError(f"{url!r} is no address of a sandbox server", "such as https://host:8377")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise SandboxError(
                f"{url} is not encrypted: who is in between could change verdicts, and read the token",
                "use https, or a tunnel: ssh -L 8377:localhost:8377 HOST, and http://localhost:8377",
            )
        self._url, self._parts, self._preload = url, parts, list(preload)
        self._path = parts.path.rstrip("/")
        self._connection: http.client.HTTPConnection | None = None
        self.about: dict[str, Any] = {}

    def start(self) -> None:
        """Asks the server what it is. Raises SandboxError if it does not answer, or cannot confine programs."""
        if self.about:
            return
        if not os.environ.get(TOKEN):
            raise SandboxError(f"no token for {self._url}", f"set the environment variable {TOKEN} as on the server")
        try:
            about = self._ask("GET", "/about", b"", time.monotonic() + 10.0)
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            self.stop()
            raise SandboxError(
                f"the sandbox at {self._url} does not answer: {error}",
                "start `amenable sandbox` there, or name another",
            ) from None
        missing = [name for name in self._preload if name not in about.get("preload", ())]
        if missing:
            raise SandboxError(
                f"the sandbox at {self._url} has not preloaded {', '.join(missing)}",
                f"start it with preload={','.join(self._preload)}",
            )
        self.about = about | {"isolation": f"remote+{about.get('isolation', '')}"}

    def run(self, program: str, trial: dict[str, Any] | None, limits: Limits) -> Evidence:
        """One check. Raises ProviderFailed if the server does not hold it."""
        self.start()
        order = {"program": program, "trial": trial, "limits": asdict(limits)}
        deadline = time.monotonic() + limits.seconds + _WAIT_SECONDS
        try:
            answer = self._ask("POST", "/run", json.dumps(order).encode(), deadline)
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            self.stop()
            raise ProviderFailed(f"{self._url}: {type(error).__name__}: {error}") from None
        events, report = answer.get("events"), answer.get("report")
        if not isinstance(events, list) or not isinstance(report, dict):
            raise ProviderFailed(f"{self._url}: {str(answer.get('failed', 'no evidence in its answer'))[:400]}")
        return Evidence(events, report)

    def stop(self) -> None:
        """Hangs up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, method: str, path: str, body: bytes, deadline: float) -> dict[str, Any]:
        """One exchange; redirects are not followed. Raises OSError, HTTPException or ValueError."""
        if self._connection is None:
            self._connection = self._connect(deadline)
        headers = {"Authorization": f"Bearer {os.environ.get(TOKEN, '')}", "Content-Type": "application/json"}
        try:
            self._connection.request(method, self._path + path, body or None, headers)
        except (BrokenPipeError, ConnectionResetError, http.client.CannotSendRequest):  # it has hung up since
            self.stop()
            self._connection = self._connect(deadline)
            self._connection.request(method, self._path + path, body or None, headers)
        sock = self._connection.sock
        sock.settimeout(max(0.1, deadline - time.monotonic()))
        response = self._connection.getresponse()
        text = bytearray()
        while part := response.read1(1 << 16):
            text += part
            if len(text) > _ANSWER_CAP or time.monotonic() > deadline:
                raise OSError("its answer is too long, or too slow")
        response.close()  # read1 does not, at the end
        answer = json.loads(text) if text[:1] == b"{" else {}
        if response.status != 200:
            raise OSError(f"status {response.status}: {str(answer.get('failed', ''))[:200]}")
        if not answer:
            raise ValueError("its answer is not JSON")
        return dict(answer)

    def _connect(self, deadline: float) -> http.client.HTTPConnection:
        seconds = max(0.1, min(10.0, deadline - time.monotonic()))
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=seconds, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=seconds)
