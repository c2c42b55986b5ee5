"""What long work tells its reader: a bar with a time left on a terminal, a plain line now and then elsewhere.

    with bar("drafts") as tell:
        policy.sample(contexts, progress=tell)          # tell(done, total), from any thread

Everything goes to the error output, so that the standard output stays a result. Showing progress never stops
the work: a closed or broken error output is ignored. The time left comes from the pace since the first call,
so that work resumed half-way is not taken for fast work.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

Tell = Callable[[int, int], None]
"""tell(done, total): `done` of `total` pieces are finished."""

EVERY = 30.0
"""Seconds between two lines where there is no terminal."""

_REDRAW = 0.1  # seconds between two updates of a bar: callers may tell as often as they like


def say(text: str) -> None:
    """One line to the error output."""
    _Safe(sys.stderr).line(text)


@contextlib.contextmanager
def bar(description: str) -> Iterator[Tell]:
    """Show how far the body of a `with` is; yields `tell(done, total)`, cheap to call at every step."""
    stream = _Safe(sys.stderr)
    shown: _Lines | _Drawn = (_Drawn if stream.isatty() else _Lines)(description, stream)
    try:
        yield shown.tell
    except BaseException:
        shown.end(finished=False)
        raise
    shown.end(finished=True)


def duration(seconds: float) -> str:
    """`seconds` for a reader: "8 s", "2.5 min", "3.2 h"."""
    if seconds < 90:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


class Pace:
    """How long what is left will take. A count that falls or a total that changes begins a new pace."""

    def __init__(self) -> None:
        self.done, self.total = 0, 0
        self._first: tuple[int, float] | None = None

    def see(self, done: int, total: int, now: float) -> None:
        """Note that `done` of `total` pieces are finished at the time `now` (seconds)."""
        if self._first is None or done < self.done or total != self.total:
            self._first = (done, now)
        self.done, self.total = done, total

    def left(self, now: float) -> float | None:
        """Seconds that are left, None while nobody can know."""
        if self._first is None or self.done <= self._first[0] or self.done >= self.total:
            return None
        return (now - self._first[1]) / (self.done - self._first[0]) * (self.total - self.done)


class _Safe:
    """A text stream less its errors: a reader that has gone must not stop a run."""

    encoding = "utf-8"

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.write(text)  # type: ignore[union-attr]
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.flush()  # type: ignore[union-attr]

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return bool(self._stream.isatty()) and os.environ.get("TERM") != "dumb"  # type: ignore[union-attr]
        return False

    def line(self, text: str) -> None:
        self.write(text + "\n")
        self.flush()


class _Lines:
    """Plain lines: one at the start, one every `EVERY` seconds while told, one at the end."""

    def __init__(self, description: str, stream: _Safe) -> None:
        self._description, self._stream, self._pace = description, stream, Pace()
        self._lock = threading.Lock()
        self._begun = self._said = time.monotonic()
        stream.line(f"{description} ...")

    def tell(self, done: int, total: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._pace.see(done, total, now)
            if now - self._said < EVERY:
                return
            self._said = now
            left = self._pace.left(now)
            ahead = "" if left is None else f", about {duration(left)} left"
            spent = duration(now - self._begun)
            self._stream.line(f"{self._description}: {done:,} of {total:,} after {spent}{ahead}")

    def end(self, *, finished: bool) -> None:
        self._stream.line(_last_line(self._description, self._pace, time.monotonic() - self._begun, finished))


class _Drawn:
    """A bar on a terminal, replaced by one plain line at the end."""

    def __init__(self, description: str, stream: _Safe) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._description, self._stream, self._pace = description, stream, Pace()
        self._lock = threading.Lock()
        self._begun, self._drawn = time.monotonic(), -_REDRAW
        file: Any = stream
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=Console(file=file, force_terminal=True),
            refresh_per_second=4,
            transient=True,
        )
        self._task = self._bar.add_task(description, total=None, left="")
        self._bar.start()

    def tell(self, done: int, total: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._pace.see(done, total, now)
            if now - self._drawn < _REDRAW and done != total:
                return
            self._drawn = now
            left = self._pace.left(now)
            ahead = "" if left is None else f"{duration(left)} left"
            self._bar.update(self._task, completed=done, total=total, left=ahead)

    def end(self, *, finished: bool) -> None:
        self._bar.stop()
        self._stream.line(_last_line(self._description, self._pace, time.monotonic() - self._begun, finished))


def _last_line(description: str, pace: Pace, seconds: float, finished: bool) -> str:
    counted = f" {pace.done:,} of {pace.total:,}" if pace.total else ""
    if finished:
        return f"{description}:{counted} in {duration(seconds)}"
    return f"{description}: stopped{' at' + counted if counted else ''} after {duration(seconds)}"
