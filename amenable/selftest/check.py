"""One line of a self-test: what was looked at, the number found, whether it is right, and if not, why in plain words."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from amenable.errors import AmenableError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Check:
    """`ok` is None where nothing could be said; `why` is the reason, which counts where `ok` is not True."""

    name: str
    found: str
    ok: bool | None = True
    why: str = ""

    def lines(self, *, known: bool = False) -> str:
        """As it is printed; without the reason if that is `known`."""
        status = {True: "ok", False: "FAILED", None: "-"}[self.ok]
        first = f"{status:<6}  {self.name:<44}  {self.found}".rstrip()
        return first if self.ok or not self.why or known else f"{first}\n        ! {self.why}"


def attempt(name: str, work: Callable[[], Check]) -> Check:
    """The check that `work` makes, FAILED if it raises: a function of the user's may do anything."""
    try:
        return work()
    except Exception as error:
        return Check(name, "", False, told(error))


def told(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, AmenableError):
        return f"{error.what}: {error.fix}" if error.fix else error.what
    return f"raised {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def shown(value: Any) -> str:
    """A value, shortened."""
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"


def within(seconds: float, work: Callable[[], Result]) -> Result:
    """What `work` returns or raises. Errors: TimeoutError; its thread is then left behind and ends with the process."""
    box: list[tuple[Result | None, BaseException | None]] = []

    def run() -> None:
        try:
            box.append((work(), None))
        except BaseException as error:
            box.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not box:
        raise TimeoutError(f"no answer within {seconds:g} s")
    value, error = box[0]
    if error is not None:
        raise error
    return value  # type: ignore[return-value]
