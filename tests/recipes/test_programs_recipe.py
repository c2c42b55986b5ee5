"""What recipes on programs share: splits, limits, the order of attempts, and passes by task."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from amenable.errors import ConfigError, DataError
from amenable.recipes.environment import command_of
from amenable.recipes.evaluate import EvaluateSettings
from amenable.recipes.ilf import ILFSettings, material, plan
from amenable.recipes.programs import Attempt, judges, load_task_set, passes, sample_tasks, split_of
from amenable.records import Outcome, Task, Verdict

TASKS = [Task(str(i), "def f():\n", ("assert 1", "assert 2"), "f") for i in range(60)]


def test_tasks_without_a_split_are_dealt_out_the_same_way_always() -> None:
    train, test = split_of(TASKS, ["train"]), split_of(TASKS, ["test"])
    assert sorted(task.task_id for task in train + test) == sorted(task.task_id for task in TASKS)
    assert 10 <= len(test) <= 30
    assert split_of(TASKS[:30], ["test"]) == [task for task in test if int(task.task_id) < 30]


def test_a_split_that_does_not_exist_is_named() -> None:
    with pytest.raises(DataError, match="no task is in split dev; there are test, train"):
        split_of(TASKS, ["dev"])


def test_a_limit_draws_at_random_and_keeps_the_order() -> None:
    chosen = sample_tasks(TASKS, 7, seed=1)
    assert len(chosen) == 7
    assert chosen == [task for task in TASKS if task in chosen]
    assert chosen == sample_tasks(TASKS, 7, seed=1)
    assert chosen != sample_tasks(TASKS, 7, seed=2)
    assert sample_tasks(TASKS, 0, seed=1) == TASKS


def test_passes_are_by_task_and_by_grading() -> None:
    shown_only = Verdict("fail", (True, False))
    hidden_only = Verdict("fail", (False, True))
    missing = Verdict("infra", (None, None))
    good = Verdict("pass", (True, True))
    found = [Attempt(TASKS[i], "", verdict, 1) for i in (4, 2) for verdict in (good, shown_only, hidden_only, missing)]
    assert passes(found) == [[True, False, False, None]] * 2
    assert passes(found, hidden_only=True) == [[True, False, True, None]] * 2


def test_the_task_sets_by_name(tmp_path: Path) -> None:
    easy, everything = load_task_set("embedded", "")[0], load_task_set("embedded-all", "")[0]
    assert len(easy) < len(everything)
    assert len(everything) >= 120
    with pytest.raises(ConfigError, match="no known task set"):
        load_task_set(str(tmp_path / "none.jsonl"), "")


def test_the_command_that_repeats_a_run() -> None:
    settings = ILFSettings(rounds=2, k=(1, 3), task="my tasks.jsonl")
    assert command_of("ilf", settings) == "amenable run ilf task='my tasks.jsonl' rounds=2 k=1,3"
    assert command_of("evaluate", EvaluateSettings()) == "amenable run evaluate"


def test_the_plan_counts_what_the_run_will_do() -> None:
    settings = ILFSettings(feedback="tests", train_limit=10, test_limit=4, samples=5, refinements=3)
    text = "\n".join(plan(settings))
    assert "10 training tasks" in text
    assert "at most 140 samples" in text  # 2 * 4 * 5 + 10 * (1 + 3) + 2 * 10 * 3


def test_the_embedded_tasks_bring_written_feedback_on_given_drafts() -> None:
    found = material(ILFSettings())
    assert found.given_drafts
    assert len(found.train) >= 60
    assert all(found.critiques[task.task_id].draft.startswith(task.prompt) for task in found.train)
    assert not {task.task_id for task in found.test} & set(found.critiques)
    assert not material(ILFSettings(feedback="tests")).given_drafts


def test_the_report_says_who_judged_and_counts_what_nobody_could() -> None:
    def attempt(
        outcome: Outcome, isolation: str, integrity: Literal["enforced", "cooperative"] = "enforced"
    ) -> Attempt:
        verdict = Verdict(outcome, (True,), isolation=isolation, integrity=integrity)
        return Attempt(TASKS[0], "", verdict, 1)

    table = judges(
        [
            *[attempt("pass", "full")] * 3,
            attempt("fail", "full"),
            attempt("pass", "full", "cooperative"),
            *[attempt("fail", "light")] * 2,
            attempt("infra", ""),
        ]
    )
    assert [column if isinstance(column, str) else column.name for column in table.columns] == [
        "isolation", "integrity", "verdicts", "pass", "fail", "infra",
    ]  # fmt: skip
    assert table.rows == [
        ["full", "cooperative", 1, 1, 0, 0],
        ["full", "enforced", 4, 3, 1, 0],
        ["light", "enforced", 2, 0, 2, 0],
        ["none: left out", "enforced", 1, 0, 0, 1],
    ]
