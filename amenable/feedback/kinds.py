"""The kinds of feedback, as small protocols: what a person, a program or a model can say about a text.

    check       did it pass?                       -> Verdict, per program
    score       how good is it?                    -> float, or None where there is no answer
    preference  which of two is better?            -> P(first is better) in [0, 1], or None
    critique    what is wrong with it, in words?   -> text, or None
    refinement  what would be better?              -> candidate texts, drawn given draft and critique

All take and return whole batches, in order. Missing is None and never a silent 0: who asked decides (drop, retry, fail).
A plain function with the right signature is an instance: nothing has to be inherited.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from amenable.records import Samples, Task, Verdict


class Check(Protocol):
    """Runs programs against their tasks' tests. `programs[i]` is a whole program for `tasks[i]`."""

    def __call__(self, tasks: Sequence[Task], programs: Sequence[str]) -> list[Verdict]: ...


class Score(Protocol):
    """TRL's reward signature: one number a completion, higher is better; extra data columns arrive by keyword."""

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: object) -> list[float | None]: ...


class Preference(Protocol):
    """Probability that `first[i]` is better than `second[i]` as an answer to `prompts[i]`."""

    def __call__(self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]) -> list[float | None]: ...


class Critic(Protocol):
    """Says in words what is wrong with each draft, given what the tests showed."""

    def __call__(
        self, tasks: Sequence[Task], drafts: Sequence[str], verdicts: Sequence[Verdict]
    ) -> list[str | None]: ...


class Refiner(Protocol):
    """Draws `n` candidate programs for each draft and its critique ("" asks for a refinement without feedback).

    Returns the samples, sample-major within a task: candidates of `tasks[i]` are samples i*n .. i*n + n - 1.
    """

    def __call__(
        self, tasks: Sequence[Task], drafts: Sequence[str], critiques: Sequence[str], *, n: int, seed: int
    ) -> Samples: ...
