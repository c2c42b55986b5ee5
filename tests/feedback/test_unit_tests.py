"""Unit tests as feedback: batches in order, missing asked again, self-contradicting tasks refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from amenable.errors import DataError
from amenable.feedback.kinds import Check
from amenable.feedback.unit_tests import UnitTests
from amenable.records import Task, Verdict
from amenable.sandbox import Job, Sandbox


def task(name: str = "double", tests: tuple[str, ...] = ("assert f(2) == 4",), solution: str | None = None) -> Task:
    return Task(name, prompt="", tests=tests, entry_point="f", solution=solution)


@pytest.fixture(scope="module")
def check() -> Iterator[UnitTests]:
    with Sandbox(timeout=2.0, workers=1) as box:
        yield UnitTests(box)


def test_it_is_a_check_over_batches(check: UnitTests) -> None:
    as_check: Check = check
    programs = ["def f(x): return x * 2", "def f(x): return x + 1", "def f(x): return x ** 2"]
    assert [verdict.ok for verdict in as_check([task()] * 3, programs)] == [True, False, True]


def test_as_many_programs_as_tasks(check: UnitTests) -> None:
    with pytest.raises(ValueError, match="argument 2"):
        check([task()], [])


def test_missing_is_asked_again_and_only_that() -> None:
    class Flaky(Sandbox):
        asked: list[int]

        def check_many(self, jobs: Sequence[Job], progress: object = None) -> list[Verdict]:
            self.asked.append(len(jobs))
            lost = len(self.asked) < 3
            return [Verdict("infra" if lost and "lost" in job.program else "pass", (True,)) for job in jobs]

    box = Flaky(workers=1)
    box.asked = []
    verdicts = UnitTests(box, retries=3)([task()] * 3, ["a", "lost", "c"])
    assert [verdict.outcome for verdict in verdicts] == ["pass"] * 3
    assert box.asked == [3, 1, 1]
    box.asked = []
    assert UnitTests(box, retries=1)([task()], ["lost"])[0].missing
    box.close()


def test_references_are_validated(check: UnitTests) -> None:
    check.validate([task(solution="def f(x): return x * 2"), task("no solution")])
    wrong = task("triple", ("assert f(1) == 1", "assert f(2) == 6"), solution="def f(x): return x * x")
    with pytest.raises(DataError, match=r"'triple'.*`assert f\(2\) == 6`: got 4, expected 6") as caught:
        check.validate([task(solution="def f(x): return x * 2"), wrong])
    assert "triple" in caught.value.fix
    with pytest.raises(DataError, match=r"ZeroDivisionError.*line 1: def f\(x\): return 1 / 0"):
        check.validate([task(solution="def f(x): return 1 / 0")])
    with pytest.raises(DataError, match="could not be judged"):
        check.validate([task(tests=("assert f(object()) == 1",), solution="def f(x): return 1")])


def test_a_task_without_tests_is_refused(check: UnitTests) -> None:
    with pytest.raises(DataError, match="'empty' has no tests"):
        check.validate([task("empty", ())])
    with pytest.raises(DataError, match="'empty' has no tests"):
        check([task("empty", ())], ["x = 1"])


def test_the_reference_solution_sets_how_long_a_program_may_compute() -> None:
    slow = "import time\ndef f(x):\n    while time.process_time() < 0.15: pass\n    return x * 2"
    spin = "def f(x):\n    while True: pass"
    with Sandbox(timeout=90.0, workers=1) as box:
        check = UnitTests(box)
        tasks = [task("quick", solution="def f(x): return x * 2"), task("slow", solution=slow), task("unknown")]
        check.validate(tasks)
        found = [verdict.failure.error for verdict in check(tasks[:2], [spin] * 2) if verdict.failure is not None]
        assert found[0] == "timeout: more than 1 s of computing"  # the least
        seconds = float(found[1].removeprefix("timeout: more than ").removesuffix(" s of computing"))
        assert 1.5 <= seconds <= 3.0  # ten times what it took
        assert check(tasks[1:2], [slow])[0].ok
        assert check._job(tasks[2], spin).cpu_seconds is None  # no reference solution: the wall clock's limit
