"""The parts of a round: which drafts are refined, which refinements are accepted, and that each task counts once."""

from __future__ import annotations

from collections import Counter

import pytest

from amenable.errors import TrainingError
from amenable.method import ilf
from amenable.method.imitation import Example
from amenable.recipes.programs import Attempt
from amenable.records import Task, Verdict

A, B, C = (Task(name, f"def {name}():\n", ("assert 1",), name) for name in "abc")
PASS, FAIL, MISSING = Verdict("pass", (True,)), Verdict("fail", (False,)), Verdict("infra", (None,))


def test_one_failing_draft_a_task_and_missing_is_not_failing() -> None:
    owners, verdicts = [A, A, A, B, C, C], [FAIL, PASS, FAIL, PASS, MISSING, FAIL]
    programs = [f"p{i}" for i in range(6)]
    seen = {ilf.failing(owners, programs, verdicts, seed=seed)[0].program for seed in range(40)}
    assert seen == {"p0", "p2"}  # at random among the failing ones, and never the one that passed
    drafts = ilf.failing(owners, programs, verdicts, seed=3)
    assert [(draft.task, draft.program) for draft in drafts[1:]] == [(C, "p5")]
    assert drafts == ilf.failing(owners, programs, verdicts, seed=3)


def test_one_passing_refinement_a_task_at_random() -> None:
    found = [Attempt(task, f"c{i}", verdict, 1) for i, (task, verdict) in enumerate(
        [(A, PASS), (A, PASS), (A, FAIL), (B, FAIL), (C, MISSING), (C, PASS)]
    )]  # fmt: skip
    counts: Counter[str] = Counter()
    for seed in range(200):
        kept = ilf.accepted(found, seed=seed)
        assert [one.task for one in kept] == [A, C]
        assert kept[1].completion == "c5"
        counts[kept[0].completion] += 1
    assert set(counts) == {"c0", "c1"}
    assert 60 < counts["c0"] < 140
    assert ilf.imitation_examples(ilf.accepted(found, seed=0))[1] == Example(
        C.prompt, "c5" + ilf.END_OF_BODY, eos=False
    )


def test_nothing_accepted_is_an_error() -> None:
    with pytest.raises(TrainingError, match="not one candidate passed"):
        ilf.imitation_examples(ilf.accepted([Attempt(A, "c", FAIL, 1)], seed=0))
