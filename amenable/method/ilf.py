"""Imitation learning from language feedback (ILF) on programs: one round, as its parts.

    1  drafts        x0 ~ pi(. | t), those that fail their tests
    2  critiques     f: words about x0
    3  refinements   x1 ~ pi_refine(. | t, x0, f), those that pass their tests; one at random a task
    4  imitation     maximise log pi(x1 | t): the feedback is not in the input

    target      pi*(x1 | t)  proportional to exp(beta R(x1, t)), R = tests pass: the accepted refinements
    proposal    draft -> critique -> refiner          divergence    forward KL = likelihood of the accepted

Source: Chen et al. 2023, "Improving code generation by training with natural language feedback", arXiv 2303.16749, box 1 and
eqs. 2 to 7; as there, all importance weights are taken as equal.
Changed from the paper: a refinement that only repeats its draft cannot be accepted (its draft failed), and drafts come from
the model itself except where people wrote feedback on given ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from amenable.errors import TrainingError
from amenable.method.imitation import Example
from amenable.records import Task, Verdict
from amenable.seeding import python_random


@dataclass(frozen=True)
class Draft:
    """A failing program of a task, and what its tests showed."""

    task: Task
    program: str
    verdict: Verdict


class Refinement(Protocol):
    """A judged candidate: the completion of the task's prompt that the refiner wrote, and what its tests showed."""

    @property
    def task(self) -> Task: ...
    @property
    def completion(self) -> str: ...
    @property
    def verdict(self) -> Verdict: ...


R = TypeVar("R", bound=Refinement)


def failing(tasks: Sequence[Task], programs: Sequence[str], verdicts: Sequence[Verdict], *, seed: int) -> list[Draft]:
    """One failing program a task, at random among its failing ones; tasks in order. A missing verdict is not a failure."""
    by_task: dict[str, list[Draft]] = {}
    for task, program, verdict in zip(tasks, programs, verdicts, strict=True):
        if not verdict.ok and not verdict.missing:
            by_task.setdefault(task.task_id, []).append(Draft(task, program, verdict))
    return [python_random(seed, "draft", task_id).choice(found) for task_id, found in by_task.items()]


def accepted(refinements: Sequence[R], *, seed: int) -> list[R]:
    """One passing refinement a task, at random; every task counts once, however many of its candidates pass."""
    by_task: dict[str, list[R]] = {}
    for refinement in refinements:
        if refinement.verdict.ok:
            by_task.setdefault(refinement.task.task_id, []).append(refinement)
    return [python_random(seed, "accept", task_id).choice(found) for task_id, found in by_task.items()]


def imitation_examples(refinements: Sequence[Refinement]) -> list[Example]:
    """What step 4 imitates.

    Errors: TrainingError if nothing was accepted.
    """
    if not refinements:
        raise TrainingError(
            "no refinement was accepted: not one candidate passed its tests, so there is nothing to imitate",
            "draw more refinements a task, use easier tasks or more informative feedback, or a stronger refiner",
        )
    return [program_example(refinement.task.prompt, refinement.completion) for refinement in refinements]


END_OF_BODY = "\n\n#"
"""What models of code write most often after a function's body, and what ends a sample of one (the first unindented line)."""


def program_example(prompt: str, completion: str) -> Example:
    """A function body to imitate, with the end that the sampler stops at, and not with EOS.

    Bodies are sampled without EOS. Taught after fifty of them, it was a third of the loss, and models learned to end in the
    middle of a body; taught no end at all, they went on to the last token (docs/ilf.md has the numbers).
    """
    return Example(prompt, completion.rstrip() + END_OF_BODY, eos=False)
