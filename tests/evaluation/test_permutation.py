"""The permutation test holds its level and has the power that is forecast; Holm by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from amenable.errors import ConfigError, DataError
from amenable.evaluation.permutation import holm, permutation_test, smallest_difference


def test_small_arms_are_counted_exactly() -> None:
    # 20 ways to choose 3 of 6; only the observed one has the three largest
    assert permutation_test([4, 5, 6], [1, 2, 3]) == pytest.approx(1 / 20)
    assert permutation_test([1, 2, 3], [4, 5, 6]) == 1.0
    assert permutation_test([1.0], [1.0]) == 1.0
    # values 0.1 + 0.2 and 0.3 are one value, though their sums differ in the last bit
    assert permutation_test([0.1 + 0.2, 0.3], [0.3, 0.1 + 0.2]) == 1.0


def test_drawn_and_exact_agree() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.normal(0.6, 1, 8), draw.normal(0, 1, 8)  # 12,870 dealings
    exact = permutation_test(a, b, resamples=20_000)
    drawn = permutation_test(a, b, resamples=12_000)
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact / 12_000))
    assert permutation_test(a, b, resamples=99, seed=1) >= 0.01  # never 0
    assert permutation_test(a, b, resamples=500, seed=3) == permutation_test(a, b, resamples=500, seed=3)


def test_p_is_uniform_without_a_difference() -> None:
    draw = np.random.default_rng(1)
    p = np.array([permutation_test(draw.exponential(size=12), draw.exponential(size=9), resamples=199, seed=i)
                  for i in range(1000)])  # fmt: skip
    for level in (0.05, 0.1, 0.25, 0.5, 0.75, 0.9):
        assert (p <= level).mean() == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 1000))


def test_ties_do_not_raise_the_level() -> None:
    """Two-valued numbers, as seeds that either find a perfect code or do not."""
    draw = np.random.default_rng(2)
    p = [permutation_test(draw.random(10) < 0.3, draw.random(10) < 0.3, resamples=199, seed=i) for i in range(500)]
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 500)


def test_the_smallest_difference_is_found_as_often_as_promised() -> None:
    draw = np.random.default_rng(3)
    effect = (1.6449 + 0.8416) * math.sqrt(1 / 40 + 4 / 25)  # z(.95) + z(.8)
    found, forecast = 0, []
    for i in range(400):
        a, b = draw.normal(effect, 1, 40), draw.normal(0, 2, 25)
        found += permutation_test(a, b, resamples=199, seed=i) <= 0.05
        forecast.append(smallest_difference(a, b))
    assert found / 400 == pytest.approx(0.8, abs=0.07)
    assert np.mean(forecast) == pytest.approx(effect, rel=0.03)
    assert math.isnan(smallest_difference([1.0], [1.0, 2.0]))


def test_holm_by_hand() -> None:
    # sorted .01, .02, .03, .5: times 4, 3, 2, 1 is .04, .06, .06, .5, never falling
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert holm([0.7, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_chance_of_any_false_finding() -> None:
    draw = np.random.default_rng(4)
    false = np.mean([min(holm(draw.random(5).tolist())) <= 0.05 for _ in range(1000)])
    assert false <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


def test_what_cannot_be_tested_is_refused() -> None:
    with pytest.raises(DataError, match="finite"):
        permutation_test([math.nan, 1.0], [1.0])
    with pytest.raises(DataError, match="shape"):
        permutation_test([], [1.0])
    with pytest.raises(ConfigError, match="resamples=0"):
        permutation_test([1.0], [1.0], resamples=0)
    with pytest.raises(ConfigError, match="probabilities"):
        smallest_difference([1.0, 2.0], [1.0, 2.0], power=1)
