"""Frames on a file descriptor: 4 bytes of length (big endian), then one JSON value; 1 MiB at most, or as said.

What arrives is never trusted: a length over the cap, text that is not JSON, or nesting too deep is a
`ProtocolError`, and the reader's memory is bounded by the cap. No pickle anywhere.
"""

from __future__ import annotations

import json
import os
import select
import time
from typing import Any

FRAME_CAP = 1 << 20
QUESTION_CAP = 8 << 20  # from the judge to the defendant: what came in one frame goes back in one


class ProtocolError(Exception):
    """The other side sent something that is not a frame of this protocol."""


class FrameTooLarge(Exception):
    """One's own value does not fit in a frame."""


class Closed(Exception):
    """The other side is gone."""


def pack(value: object, cap: int = FRAME_CAP) -> bytes:
    """The frame for a JSON value. Raises FrameTooLarge."""
    data = json.dumps(value, separators=(",", ":")).encode()
    if len(data) > cap:
        raise FrameTooLarge(f"{len(data)} bytes; a frame holds {cap}")
    return len(data).to_bytes(4, "big") + data


def _wait(descriptor: int, event: int, deadline: float) -> None:
    poller = select.poll()
    poller.register(descriptor, event)
    if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError("no answer before the deadline")


def send(descriptor: int, value: object, deadline: float | None = None, cap: int = FRAME_CAP) -> None:
    """Writes one frame of at most `cap` bytes. With a deadline (monotonic seconds) the descriptor must be non-blocking."""
    view = memoryview(pack(value, cap))
    while view:
        if deadline is not None:
            _wait(descriptor, select.POLLOUT, deadline)
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            continue
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed(str(error)) from None


def _read(descriptor: int, size: int, deadline: float | None) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        if deadline is not None:
            _wait(descriptor, select.POLLIN, deadline)
        try:
            part = os.read(descriptor, size - len(parts))
        except BlockingIOError:
            continue
        except ConnectionResetError as error:
            raise Closed(str(error)) from None
        if not part:
            raise Closed("end of file")
        parts += part
    return bytes(parts)


def receive(descriptor: int, deadline: float | None = None, cap: int = FRAME_CAP) -> Any:
    """Reads one frame of at most `cap` bytes. Raises Closed, ProtocolError, or TimeoutError at `deadline` (monotonic)."""
    size = int.from_bytes(_read(descriptor, 4, deadline), "big")
    if size > cap:
        raise ProtocolError(f"a frame of {size} bytes; the cap is {cap}")
    data = _read(descriptor, size, deadline)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {str(error)[:80]}") from None
