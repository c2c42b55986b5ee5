"""Unit tests as feedback: did the program pass? A `Check` (see `kinds`) whose programs run in a `Sandbox`.

The tests of a task are assert statements; a verdict says which held and what the first that did not hold got
and expected. What the sandbox could not judge is asked again, then stays missing: never a silent 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from amenable.errors import DataError
from amenable.records import Task, Verdict
from amenable.sandbox import Job, Sandbox

Progress = Callable[[int, int], None]
CPU_FACTOR, CPU_LEAST = 10.0, 1.0  # a program may compute so many times as long as the reference solution; seconds


class UnitTests:
    """Checks programs by their tasks' tests in `sandbox`; `retries` more tries for a missing verdict.

    `timeout`: seconds of wall clock for all tests of one program, a backstop; None for the sandbox's own. After `validate`
    a program may compute ten times as long as its task's reference solution, and at least a second.
    """

    def __init__(self, sandbox: Sandbox, *, retries: int = 1, timeout: float | None = None) -> None:
        self._sandbox, self._retries, self._timeout = sandbox, retries, timeout
        self._cpu_seconds: dict[str, float] = {}

    def __call__(
        self, tasks: Sequence[Task], programs: Sequence[str], *, progress: Progress | None = None
    ) -> list[Verdict]:
        """The verdict on `programs[i]` by the tests of `tasks[i]`.

        Raises DataError for a task without tests.
        """
        for task in tasks:
            _require_tests(task)
        jobs = [self._job(task, program) for task, program in zip(tasks, programs, strict=True)]
        verdicts = self._sandbox.check_many(jobs, progress=progress)
        for _ in range(self._retries):
            missing = [i for i, verdict in enumerate(verdicts) if verdict.missing]
            if not missing:
                break
            for i, verdict in zip(missing, self._sandbox.check_many([jobs[i] for i in missing]), strict=True):
                verdicts[i] = verdict
        return verdicts

    def validate(self, tasks: Sequence[Task], *, progress: Progress | None = None) -> None:
        """Holds every reference solution to its own tests, and takes the limits of CPU time from what it needed.

        Raises DataError for a task without tests, or whose reference solution fails them.
        """
        for task in tasks:
            _require_tests(task)
        solved = [(task, task.solution) for task in tasks if task.solution is not None]
        verdicts = self([task for task, _ in solved], [program for _, program in solved], progress=progress)
        for (task, _), verdict in zip(solved, verdicts, strict=True):
            if not verdict.ok:
                raise DataError(*_contradiction(task, verdict))
            self._cpu_seconds[task.task_id] = max(CPU_LEAST, CPU_FACTOR * verdict.cpu_seconds)

    def _job(self, task: Task, program: str) -> Job:
        cpu_seconds = self._cpu_seconds.get(task.task_id)
        return Job(program, task.tests, task.setup, task.entry_point, self._timeout, cpu_seconds)


def _require_tests(task: Task) -> None:
    if not task.tests:
        raise DataError(
            f"task {task.task_id!r} has no tests: every program would pass",
            "give the task at least one assert statement in `tests`, or leave it out",
        )


def _contradiction(task: Task, verdict: Verdict) -> tuple[str, str]:
    failure = verdict.failure
    if verdict.missing:
        reason = failure.error if failure else verdict.output[:200]
        return (
            f"task {task.task_id!r}: its tests could not be judged: {reason}",
            "hand the program plain data in the tests (numbers, strings, lists, dicts, functions)",
        )
    assert failure is not None
    found = failure.error or f"got {failure.got}, expected {failure.expected}"
    where = f" (line {failure.line}: {failure.source})" if failure.line else ""
    return (
        f"task {task.task_id!r}: its reference solution fails its own test `{failure.test}`: {found}{where}",
        f"correct the test or the solution of {task.task_id!r}, or leave the task out",
    )
