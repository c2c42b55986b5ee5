"""What a place where programs run has to offer: `Provider`. Its answer is `Evidence`, from which `outcome` makes a verdict.

`worker.Worker` is the one on this machine (two confined processes); `remote`, `container` and `wasi` hold the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from amenable.sandbox import wire


@dataclass(frozen=True)
class Limits:
    """What one check may use.

    `seconds` of wall clock for the whole check, only a backstop; `cpu_seconds` of computing, by all threads of the
    program together; `memory_mb`, MiB of address space.
    """

    seconds: float
    cpu_seconds: float
    memory_mb: int


@dataclass
class Evidence:
    """All that one check left behind: the judge's events and the report on both processes. Nobody vouches for its form."""

    events: list[Any] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)


class ProviderFailed(Exception):
    """The machinery failed, not the program."""


@contextmanager
def stopped_on_failure(stop: Callable[[], None]) -> Iterator[None]:
    """Whatever goes wrong within, the provider is stopped; what is the machinery's fault becomes ProviderFailed."""
    try:
        yield
    except (OSError, wire.Closed, wire.ProtocolError, wire.FrameTooLarge) as error:
        stop()
        raise ProviderFailed(f"{type(error).__name__}: {error}") from None
    except BaseException:
        stop()
        raise


class Provider(Protocol):
    """Holds one check at a time; not for use by two threads at once."""

    about: dict[str, Any]  # once started: "isolation", the layers that hold, "python", "preload"

    def start(self) -> None:
        """Makes ready; does nothing if it is. Raises SandboxError if this place cannot confine programs as asked."""

    def run(self, program: str, trial: dict[str, Any] | None, limits: Limits) -> Evidence:
        """One check: `trial` has "setup", "tests", "entry_point"; None runs the program alone. Raises ProviderFailed."""

    def stop(self) -> None:
        """Ends everything it started and removes its files. May be called again, and `start` after it."""


def fits(value: object) -> bool:
    """True if the value can be given to a zygote in one frame."""
    try:
        wire.pack(value)
    except wire.FrameTooLarge:
        return False
    return True


def default_workers() -> int:
    """One a core that this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
