"""Being asked to stop: Ctrl-C (exit code 130) and SIGTERM (143).

Work that is done again to the same bits (samples, checks) ends at once, with `Stopped`. A training step is worth more: inside
`after_this_step` the first request only sets a mark, the loop writes a checkpoint when the step is done, and leaving the block
raises `Stopped`. A second request ends at once there too.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from amenable.progress import say

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Somebody asked this process to stop. No `except Exception` takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def listening() -> Iterator[None]:
    """Inside, both signals raise `Stopped`: everything on the way out is closed, and the exit code says which it was."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    with _handled_by(stop):
        yield


@contextmanager
def after_this_step() -> Iterator[Callable[[], bool]]:
    """A block that is left between two steps: yields a function that says whether somebody asked to stop."""
    asked: list[int] = []

    def mark(number: int, frame: FrameType | None) -> None:
        if asked:
            raise Stopped(number)
        asked.append(number)
        say("stopping after this step, with a checkpoint; ask again to stop now")

    with _handled_by(mark):
        yield lambda: bool(asked)
    if asked:
        raise Stopped(asked[0])


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Both signals go to `handler`; signals are the main thread's, any other thread leaves them alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
