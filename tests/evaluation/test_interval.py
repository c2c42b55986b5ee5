"""Intervals against hand-worked numbers, exact enumeration, and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.errors import ConfigError, DataError
from amenable.evaluation.interval import Estimate, bootstrap_mean, no_data, paired_difference, student_quantile, wilson


def test_text_of_a_share() -> None:
    assert Estimate(0.362, 0.31, 0.415, 100, "m").text(percent=True) == "36.2% [31.0, 41.5], n=100"


def test_text_of_a_difference_in_points() -> None:
    estimate = Estimate(0.098, -0.021, 0.175, 100, "m")
    assert estimate.text(percent=True, signed=True) == "+9.8 points [-2.1, +17.5], n=100"


def test_text_shows_two_figures_of_the_width_and_no_negative_zero() -> None:
    assert Estimate(0.36213, 0.31, 0.4151, 9, "m").text() == "0.36 [0.31, 0.42], n=9"
    assert Estimate(1234.5, 1200.0, 1270.0, 9, "m").text() == "1,234 [1,200, 1,270], n=9"
    assert Estimate(-0.0001, -0.04, 0.04, 9, "m").text(percent=True) == "0.0% [-4.0, 4.0], n=9"


def test_text_without_data_or_interval() -> None:
    assert no_data("m").text(percent=True) == "no data, n=0"
    assert Estimate(0.5, math.nan, math.nan, 1, "m").text(percent=True) == "50.0% (no interval), n=1"


def test_wilson_by_hand() -> None:
    # p = .36, n = 100, z = 1.959964: centre .364 (=.36+z^2/200 over 1+z^2/100 = .36518), half .09264
    estimate = wilson(36, 100)
    assert estimate.value == 0.36
    assert estimate.low == pytest.approx(0.2727, abs=5e-5)
    assert estimate.high == pytest.approx(0.4576, abs=5e-5)
    z2 = 1.959963984540054**2
    assert (wilson(0, 10).low, wilson(0, 10).high) == (0.0, pytest.approx(z2 / (10 + z2)))
    assert (wilson(10, 10).low, wilson(10, 10).high) == (pytest.approx(10 / (10 + z2)), 1.0)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_is_symmetric(case: tuple[int, int]) -> None:
    c, n = case
    estimate, mirror = wilson(c, n), wilson(n - c, n)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.high - estimate.low > 0
    assert estimate.low == pytest.approx(1 - mirror.high, abs=1e-12)


def test_wilson_refuses_the_impossible_and_says_no_data() -> None:
    assert wilson(0, 0).n == 0
    assert math.isnan(wilson(0, 0).value)
    with pytest.raises(ConfigError, match="3 successes in 2"):
        wilson(3, 2)


def test_bootstrap_matches_the_enumeration_of_all_resamples() -> None:
    values = [0.0, 0.1, 0.4, 1.0]
    exact = sorted(np.mean(drawn) for drawn in itertools.product(values, repeat=4))
    estimate = bootstrap_mean(values, resamples=40_000)
    low, high = np.quantile(exact, [0.025, 0.975])
    assert estimate.value == pytest.approx(0.375)
    assert estimate.low == pytest.approx(low, abs=0.026)  # the resampled means are 0.025 apart here
    assert estimate.high == pytest.approx(high, abs=0.026)


def test_bootstrap_is_the_same_for_the_same_seed_only() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_bootstrap_coverage_is_near_nominal() -> None:
    rng = np.random.default_rng(1)
    trials, hits = 400, 0
    for trial in range(trials):
        estimate = bootstrap_mean(rng.beta(0.6, 1.2, size=60), share=True, seed=trial, resamples=600)
        hits += estimate.low <= 0.6 / 1.8 <= estimate.high
    assert 0.90 <= hits / trials <= 0.98


def test_clusters_widen_the_interval_and_count_as_units() -> None:
    rng = np.random.default_rng(2)
    values = np.repeat(rng.normal(size=20), 10) + 0.01 * rng.normal(size=200)
    labels = [f"task {index // 10}" for index in range(200)]
    flat, clustered = bootstrap_mean(values), bootstrap_mean(values, clusters=labels)
    assert clustered.value == pytest.approx(flat.value)
    assert (flat.n, clustered.n) == (200, 20)
    assert 2 < (clustered.high - clustered.low) / (flat.high - flat.low) < 4.5  # sqrt(10) = 3.16


def test_unequal_clusters_weigh_by_their_size() -> None:
    estimate = bootstrap_mean([1.0, 1.0, 1.0, 0.0], clusters=["a", "a", "a", "b"])
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == (0.75, 0.0, 1.0, 2)


def test_degenerate_means() -> None:
    assert bootstrap_mean([]).n == 0
    one = bootstrap_mean([0.5], share=True)
    assert one.value == 0.5
    assert not one.has_interval
    same = bootstrap_mean([2.0] * 7)
    assert (same.low, same.value, same.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("successes", [0, 12])
def test_unanimous_shares_get_wilsons_interval(successes: int) -> None:
    estimate = bootstrap_mean([successes / 12] * 12, share=True)
    expected = wilson(successes, 12)
    assert (estimate.low, estimate.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_bootstrap_refuses_what_it_cannot_use() -> None:
    with pytest.raises(DataError, match="1 of 3 numbers"):
        bootstrap_mean([1.0, math.nan, 2.0])
    with pytest.raises(DataError, match="shares between"):
        bootstrap_mean([0.5, 36.0], share=True)
    with pytest.raises(DataError, match="cluster labels"):
        bootstrap_mean([0.5, 0.2], clusters=["a"])
    with pytest.raises(DataError, match="shape"):
        bootstrap_mean([[0.5], [0.2]])
    with pytest.raises(ConfigError, match="level"):
        bootstrap_mean([0.5, 0.2], level=95)
    with pytest.raises(ConfigError, match="resamples"):
        bootstrap_mean([0.5, 0.2], resamples=0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.integers(0, 5))
def test_an_interval_of_shares_stays_among_the_shares(values: list[float], seed: int) -> None:
    estimate = bootstrap_mean(values, share=True, seed=seed, resamples=200)
    assert -1e-12 <= estimate.low <= estimate.high <= 1 + 1e-12
    assert estimate.value == pytest.approx(np.mean(values))


def test_pairing_is_narrower_where_tasks_correlate() -> None:
    rng = np.random.default_rng(3)
    hard = rng.uniform(size=100)
    before = hard * 0.8 + 0.02 * rng.uniform(size=100)
    after = hard * 0.8 + 0.02 * rng.uniform(size=100) + 0.1
    paired = paired_difference(before, after, share=True)
    a, b = bootstrap_mean(before, share=True), bootstrap_mean(after, share=True)
    unpaired = math.hypot(a.high - a.low, b.high - b.low)
    assert paired.value == pytest.approx(np.mean(after - before))
    assert paired.high - paired.low < unpaired / 10
    assert paired.low > 0


def test_seeds_are_resampled_too() -> None:
    rng = np.random.default_rng(4)
    before = rng.uniform(size=(100, 1)) * 0.5
    shift = np.array([-0.2, -0.1, 0.0, 0.1, 0.2])  # seeds differ a lot, tasks hardly
    after = before + 0.25 + shift + 0.001 * rng.uniform(size=(100, 5))
    over_tasks = paired_difference(before[:, 0], after.mean(axis=1))
    over_both = paired_difference(before, after)
    assert over_both.value == pytest.approx(over_tasks.value)
    assert over_both.high - over_both.low > 20 * (over_tasks.high - over_tasks.low)
    assert over_both.method == "paired bootstrap over tasks and seeds"
    # the mean of 5 seeds drawn with replacement has sd sqrt(0.02 / 5) = 0.063
    assert over_both.high - over_both.low == pytest.approx(2 * 1.96 * 0.0632, rel=0.1)


def test_two_way_resampling_against_enumeration() -> None:
    change = np.array([[0.0, 1.0], [0.5, 3.0]])
    exact = [
        change[np.ix_(tasks, seeds)].mean()
        for tasks in itertools.product(range(2), repeat=2)
        for seeds in itertools.product(range(2), repeat=2)
    ]
    estimate = paired_difference(np.zeros((2, 2)), change, resamples=20_000, level=0.5)
    assert estimate.value == pytest.approx(np.mean(exact))
    assert estimate.low == pytest.approx(np.quantile(exact, 0.25), abs=0.26)
    assert min(exact) <= estimate.low < estimate.high <= max(exact)


def test_no_change_is_not_certainty() -> None:
    estimate = paired_difference([0.0] * 20, [0.0] * 20, share=True)
    bound = wilson(0, 20).high
    assert (estimate.value, estimate.low, estimate.high) == (0.0, pytest.approx(-bound), pytest.approx(bound))
    assert paired_difference([0.0], [1.0], share=True).has_interval is False
    assert paired_difference([], []).n == 0


def test_swapping_the_sides_mirrors_the_difference() -> None:
    rng = np.random.default_rng(5)
    before, after = rng.uniform(size=40), rng.uniform(size=40)
    there, back = paired_difference(before, after), paired_difference(after, before)
    assert there.value == pytest.approx(-back.value)
    assert there.low == pytest.approx(-back.high, abs=0.02)


def test_pairing_refuses_unequal_sides() -> None:
    with pytest.raises(DataError, match="cannot be paired"):
        paired_difference([0.1, 0.2], [0.1])
    with pytest.raises(DataError, match="cannot be paired"):
        paired_difference(np.zeros((3, 2)), np.zeros((3, 4)))
    with pytest.raises(DataError, match="not \\(tasks,\\)"):
        paired_difference(np.zeros((3, 2, 1)), np.zeros((3, 2, 1)))


@pytest.mark.parametrize(
    ("probability", "freedom", "t"),
    [(0.975, 1, 12.7062), (0.975, 4, 2.77645), (0.95, 10, 1.81246), (0.025, 4, -2.77645), (0.5, 3, 0.0), (0.975, 200, 1.97190)],
)  # fmt: skip
def test_students_quantile_is_that_of_the_tables(probability: float, freedom: int, t: float) -> None:
    assert student_quantile(probability, freedom) == pytest.approx(t, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize(("probability", "freedom"), [(1.0, 4), (0.0, 4), (0.9, 0)])
def test_students_law_has_no_such_quantile(probability: float, freedom: int) -> None:
    with pytest.raises(DataError, match="no quantile"):
        student_quantile(probability, freedom)
