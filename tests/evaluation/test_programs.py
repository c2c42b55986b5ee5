"""pass@k against brute force over all subsets, and the bookkeeping of what is missing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amenable.errors import ConfigError, DataError
from amenable.evaluation.interval import paired_difference, wilson
from amenable.evaluation.programs import (
    compare_passes,
    compare_passes_over_seeds,
    evaluate_passes,
    graded,
    pass_at_k,
)
from amenable.records import Task, Verdict


def brute_force(n: int, c: int, k: int) -> float:
    """Share of all k-subsets of n samples, the first c of which passed, that hold a passing one."""
    subsets = list(itertools.combinations(range(n), k))
    return sum(min(subset) < c for subset in subsets) / len(subsets)


def test_every_case_up_to_eight_samples() -> None:
    for n in range(1, 9):
        for c in range(n + 1):
            for k in range(1, n + 1):
                assert float(pass_at_k(n, c, k)) == pytest.approx(brute_force(n, c, k), abs=1e-12)


def test_by_hand() -> None:
    assert float(pass_at_k(30, 3, 1)) == pytest.approx(0.1)
    # 1 - C(27,10)/C(30,10) = 1 - (20*19*18)/(30*29*28)
    assert float(pass_at_k(30, 3, 10)) == pytest.approx(1 - 20 * 19 * 18 / (30 * 29 * 28))
    assert float(pass_at_k(30, 21, 10)) == 1.0


def test_arrays_broadcast() -> None:
    np.testing.assert_allclose(pass_at_k(4, [0, 1, 2, 4], 2), [0, 1 / 2, 5 / 6, 1], atol=1e-12)
    np.testing.assert_allclose(pass_at_k([2, 4], [1, 1], 1), [0.5, 0.25])
    assert pass_at_k([], [], 3).shape == (0,)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_equals_the_binomial_form_and_grows(case: tuple[int, int, int]) -> None:
    n, c, k = case
    value = float(pass_at_k(n, c, k))
    assert value == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k), abs=1e-12)
    if c < n:
        assert value <= float(pass_at_k(n, c + 1, k)) + 1e-12
    if k < n:
        assert value <= float(pass_at_k(n, c, k + 1)) + 1e-12


def test_unbiased_where_the_plug_in_is_not() -> None:
    p, n, k = 0.3, 6, 3
    weights = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    unbiased = sum(w * float(pass_at_k(n, c, k)) for c, w in enumerate(weights))
    plug_in = sum(w * (1 - (1 - c / n) ** k) for c, w in enumerate(weights))
    assert unbiased == pytest.approx(1 - (1 - p) ** k, abs=1e-12)
    assert abs(plug_in - unbiased) > 0.04


def test_refuses_the_impossible() -> None:
    with pytest.raises(ConfigError, match="pass@5 needs at least 5"):
        pass_at_k([5, 4], [0, 0], 5)
    with pytest.raises(ConfigError, match="more passing"):
        pass_at_k(4, 5, 1)
    with pytest.raises(ConfigError, match="more passing"):
        pass_at_k(4, -1, 1)
    with pytest.raises(ConfigError, match="pass@0"):
        pass_at_k(4, 1, 0)
    with pytest.raises(ConfigError, match="asked of 2"):
        evaluate_passes([[True, False]], [10])


def test_missing_is_excluded_and_counted() -> None:
    table = evaluate_passes([[True, None, False], [None, None, None], [False, False, True], [None, True, None]], [1, 2])
    assert (table.tasks, table.samples, table.missing) == (4, 12, 6)
    assert table.excluded == {1: 1, 2: 2}
    assert table.pass_at[1].value == pytest.approx((1 / 2 + 1 / 3 + 1) / 3)
    assert table.pass_at[1].n == 3
    assert table.pass_at[2].value == pytest.approx((1 + 2 / 3) / 2)
    assert [round(value, 6) for value in table.per_task[2] if not math.isnan(value)] == [1.0, 0.666667]
    assert (table.solved.value, table.solved.n) == (1.0, 3)


def test_solved_is_a_share_of_tasks() -> None:
    table = evaluate_passes([[True, False], [False, False], [True, True], [False, False]], [1])
    assert table.solved == wilson(2, 4)


def test_all_failed_does_not_claim_certainty() -> None:
    table = evaluate_passes([[False] * 5] * 40, [1, 5])
    assert table.pass_at[5].value == 0
    assert table.pass_at[5].high == pytest.approx(wilson(0, 40).high)


def test_nothing_at_all() -> None:
    table = evaluate_passes([], [1])
    assert table.pass_at[1].text(percent=True) == "no data, n=0"
    assert table.solved.n == 0


TASK = Task("t", "def f():", ("assert 1", "assert 2", "assert 3"), "f", shown=1)


@pytest.mark.parametrize(
    ("verdict", "everything", "hidden"),
    [
        (Verdict("pass", (True, True, True)), True, True),
        (Verdict("fail", (False, True, True)), False, True),
        (Verdict("fail", (True, True, False)), False, False),
        (Verdict("fail", (True, False, None)), False, False),
        (Verdict("fail", (False, True, None)), False, False),
        (Verdict("timeout", (True, True, None)), False, False),
        (Verdict("timeout", (None, True, True)), False, True),
        (Verdict("crash", ()), False, False),
        (Verdict("protocol", (None, None, None)), False, False),
        (Verdict("infra", (None, None, None)), None, None),
    ],
)
def test_two_gradings(verdict: Verdict, everything: bool | None, hidden: bool | None) -> None:
    assert graded(verdict, TASK) is everything
    assert graded(verdict, TASK, hidden_only=True) is hidden


def test_a_task_that_hides_nothing_has_no_hidden_grade() -> None:
    open_task = Task("t", "", ("assert 1",), "f", shown=1)
    assert graded(Verdict("pass", (True,)), open_task) is True
    assert graded(Verdict("pass", (True,)), open_task, hidden_only=True) is None


def test_a_verdict_of_another_task_is_refused() -> None:
    with pytest.raises(DataError, match="has 3 tests and its verdict 2"):
        graded(Verdict("pass", (True, True)), TASK)


def test_comparison_is_paired_by_task() -> None:
    rng = np.random.default_rng(0)
    before = [[bool(x) for x in rng.uniform(size=10) < p] for p in np.linspace(0, 1, 50)]
    after = [[bool(x) for x in rng.uniform(size=10) < min(1, p + 0.2)] for p in np.linspace(0, 1, 50)]
    result = compare_passes(before, after, 1)
    gains = [np.mean(new) - np.mean(old) for old, new in zip(before, after, strict=True)]
    assert result.difference.value == pytest.approx(np.mean(gains))
    assert result.difference.value == pytest.approx(result.after.value - result.before.value)
    assert result.difference.high - result.difference.low < result.before.high - result.before.low
    assert result.difference.low > 0


def test_comparison_excludes_tasks_missing_on_either_side() -> None:
    before = [[True, False], [None, None], [False, False]]
    after = [[True, True], [True, True], [None, True]]
    result = compare_passes(before, after, 2)
    assert (result.tasks, result.excluded, result.difference.n) == (3, 2, 1)
    assert compare_passes(before, after, 1).excluded == 1
    assert not compare_passes([[None]], [[True]], 1).difference.n


def test_comparison_over_seeds() -> None:
    base = [[True, False], [False, False], [False, True]]
    runs = [[[True, True], [False, True], [True, True]], [[True, False], [True, True], [False, True]]]
    result = compare_passes_over_seeds([base], runs, 1)
    expected = paired_difference([0.5, 0.0, 0.5], [[1.0, 0.5], [0.5, 1.0], [1.0, 0.5]], share=True)
    assert result.difference == expected
    assert result.before.value == pytest.approx(1 / 3)
    assert result.after.value == pytest.approx(0.75)


def test_comparison_refuses_other_tasks() -> None:
    with pytest.raises(DataError, match="same tasks"):
        compare_passes([[True]], [[True], [False]], 1)
