"""What the recipes on programming tasks share: load tasks, draw programs and judge them, stage by stage.

An *attempt* is a drawn completion of a task's prompt and the verdict on it. Attempts are made in chunks of `CHUNK` samples;
each chunk is a stage of the run, so a run that dies loses at most one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from amenable.errors import ConfigError, DataError
from amenable.evaluation.programs import Passed, graded
from amenable.feedback.unit_tests import UnitTests
from amenable.progress import bar
from amenable.records import Decoding, Outcome, Samples, Task, Verdict
from amenable.report.page import Table
from amenable.runs import Run
from amenable.seeding import derive, python_random
from amenable.task.embedded import load_embedded
from amenable.task.mbpp import load_mbpp
from amenable.task.programming import STOP_BODY, cut_completion, load_tasks

CHUNK = 512  # samples a stage
EMBEDDED = {"embedded": "easy", "embedded-medium": "medium", "embedded-all": ""}
TASKS = "embedded (easy), embedded-medium, embedded-all, mbpp, or the path of a JSONL file of tasks"


@dataclass(frozen=True)
class Attempt:
    """One judged completion; `draft` and `feedback` are what a refiner was shown ("" for a plain sample)."""

    task: Task
    completion: str
    verdict: Verdict
    tokens: int
    draft: str = ""
    feedback: str = ""

    @property
    def program(self) -> str:
        return self.task.prompt + self.completion


@dataclass(frozen=True)
class Workbench:
    """The open run, the judge, and the law that programs are drawn from."""

    run: Run
    check: UnitTests
    decoding: Decoding
    seed: int

    def attempts(
        self,
        name: str,
        tasks: Sequence[Task],
        draw: Callable[..., Samples],
        *,
        n: int,
        drafts: Sequence[str] | None = None,
        critiques: Sequence[str] | None = None,
    ) -> list[Attempt]:
        """`n` judged completions of every task, task-major; one stage a chunk.

        `draw(chosen, n=, seed=, progress=)` makes Samples for the tasks at the indices `chosen`.
        """
        found: list[Attempt] = []
        size = max(1, CHUNK // n)
        chunks = [list(range(start, min(start + size, len(tasks)))) for start in range(0, len(tasks), size)]
        with bar(name) as progress:
            for number, chosen in enumerate(chunks):
                before = len(found)

                def compute(chosen: list[int] = chosen, number: int = number, before: int = before) -> list[Any]:
                    def tick(done: int, _: int) -> None:
                        progress(before + done, len(tasks) * n)

                    samples = draw(chosen, n=n, seed=derive(self.seed, name, number), progress=tick)
                    return self._judge(samples, [tasks[i] for i in chosen for _ in range(n)])

                rows = self.run.stage(f"{name}/{number}", compute)
                for place, row in enumerate(rows):
                    index = chosen[place // n]
                    found.append(
                        Attempt(
                            task=tasks[index],
                            completion=row["completion"],
                            verdict=Verdict.from_row(row["verdict"]),
                            tokens=row["tokens"],
                            draft=drafts[index] if drafts else "",
                            feedback=critiques[index] if critiques else "",
                        )
                    )
                progress(len(found), len(tasks) * n)
        return found

    def samples_of(self, name: str, policy: Any, tasks: Sequence[Task], *, n: int) -> list[Attempt]:
        """`n` judged samples a task from `policy`; a callable is called for the policy only if one is needed."""
        return self.attempts(name, tasks, plain_draws(policy, tasks, self.decoding), n=n)

    def _judge(self, samples: Samples, owners: Sequence[Task]) -> list[dict[str, Any]]:
        completions = [cut_completion(text) for text in samples.texts]
        verdicts = self.check(owners, [task.prompt + text for task, text in zip(owners, completions, strict=True)])
        return [
            {"task_id": task.task_id, "completion": text, "tokens": int(length), "verdict": verdict.as_row()}
            for task, text, length, verdict in zip(owners, completions, samples.lengths, verdicts, strict=True)
        ]


def plain_draws(policy: Any, tasks: Sequence[Task], decoding: Decoding) -> Callable[..., Samples]:
    """Draws of the tasks' own prompts, for `Workbench.attempts`; `policy` is a policy or a function that loads one."""

    def draw(chosen: Sequence[int], **how: Any) -> Samples:
        ready = policy() if callable(policy) else policy
        samples: Samples = ready.sample([tasks[i].prompt for i in chosen], decoding=decoding, **how)
        return samples

    return draw


def passes(attempts: Sequence[Attempt], *, hidden_only: bool = False) -> Passed:
    """Per task, in the order of first appearance: whether each of its attempts passed (None: missing)."""
    grouped: dict[str, list[bool | None]] = {}
    for attempt in attempts:
        grouped.setdefault(attempt.task.task_id, []).append(graded(attempt.verdict, attempt.task, hidden_only))
    return list(grouped.values())


def judges(attempts: Sequence[Attempt]) -> Table:
    """Which isolation judged how many attempts, with what outcomes; what the sandbox failed at has no isolation."""
    counted: dict[tuple[str, str], Counter[str]] = {}
    for attempt in attempts:
        verdict = attempt.verdict
        found = counted.setdefault((verdict.isolation or "none: left out", verdict.integrity), Counter())
        found[verdict.outcome] += 1
    outcomes = [name for name in get_args(Outcome) if any(found[name] for found in counted.values())]
    rows: list[list[Any]] = [
        [isolation, integrity, found.total(), *(found[name] for name in outcomes)]
        for (isolation, integrity), found in sorted(counted.items())
    ]
    note = "Each program's record names the layers that confined it; infra: the sandbox failed, left out and counted."
    return Table("Verdicts by who judged", ["isolation", "integrity", "verdicts", *outcomes], rows, note)


def decoding_of(settings: Any) -> Decoding:
    """The law of a recipe's samples: its temperature and length, ending where the function body ends."""
    return Decoding(max_tokens=settings.max_tokens, temperature=settings.temperature, stop=STOP_BODY)


def load_task_set(task: str, data: str) -> tuple[list[Task], str]:
    """All tasks of `task` (see `TASKS`), and a line that says what they are."""
    if task in EMBEDDED:
        return load_embedded(level=EMBEDDED[task]), f"the {task} tasks (our own)"
    if task == "mbpp":
        if not data:
            raise ConfigError(
                "task=mbpp needs data=DIR", "give the folder that holds mbpp.jsonl, or data=hub to fetch it"
            )
        return load_mbpp(data), f"MBPP from {data} (Austin et al. 2021), splits of the ILF paper"
    if Path(task).is_file():
        return load_tasks(task), f"the tasks of {task}"
    raise ConfigError(f"task={task!r} is no known task set and no file", f"use {TASKS}")


def split_of(tasks: Sequence[Task], wanted: Sequence[str]) -> list[Task]:
    """The tasks whose split is one of `wanted`, in the order of the file.

    Tasks without any split are dealt out: one in three is "test", the others "train", by their ids.
    """
    if all(not task.split for task in tasks):
        dealt = {task.task_id: "test" if derive(0, task.task_id) % 3 == 0 else "train" for task in tasks}
    else:
        dealt = {task.task_id: task.split for task in tasks}
    found = [task for task in tasks if dealt[task.task_id] in wanted]
    if not found:
        raise DataError(
            f"no task is in split {' or '.join(wanted)}; there are {', '.join(sorted(set(dealt.values())))}",
            'give tasks "split": "train" or "test"',
        )
    return found


def sample_tasks(tasks: Sequence[Task], limit: int, seed: int) -> list[Task]:
    """`limit` of the tasks at random (0: all), in their order."""
    if not 0 < limit < len(tasks):
        return list(tasks)
    kept = set(python_random(seed, "limit").sample(range(len(tasks)), limit))
    return [task for index, task in enumerate(tasks) if index in kept]
