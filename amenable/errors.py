"""Every error a user can meet, under one root.

An error names the value, the reason in the field's words, and the fix. The command line prints the message and
exits with `exit_code`; a traceback is shown only with `--debug`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AmenableError(Exception):
    """Root of all errors raised on purpose. `AmenableError(what, fix)`: what is wrong (value, reason), what to do."""

    exit_code = 1

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(f"{what}\n  fix: {fix}" if fix else what)
        self.what = what
        self.fix = fix


class ConfigError(AmenableError):
    """An option, argument or configuration key that does not exist or cannot have this value."""

    exit_code = 2


class DataError(AmenableError):
    """A task, feedback or corpus file that cannot be used as it is; names the file, the line and the field."""

    exit_code = 3


class ModelError(AmenableError):
    """A model that cannot be found, fetched, verified, converted or loaded."""

    exit_code = 4


class SamplingError(AmenableError):
    """A request that cannot be sampled or scored: over-long prompts, a law that is not the policy's own."""

    exit_code = 5


class TrainingError(AmenableError):
    """Training cannot go on: nothing accepted to train on, a loss that is not finite, a checkpoint of another run."""

    exit_code = 6


class SandboxError(AmenableError):
    """The sandbox cannot confine programs here, or its own machinery failed."""

    exit_code = 7


class FeedbackError(AmenableError):
    """Feedback that does not come: a server that refuses or is down, a spent budget, a function of the user's that fails."""

    exit_code = 9


class StorageError(AmenableError):
    """A run folder that cannot be written: full disk, read-only folder; says what was kept."""

    exit_code = 8


def nearest(name: str, names: Iterable[str]) -> str:
    """A sentence that proposes the closest of `names`, or lists them all."""
    known = list(names)
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}."
