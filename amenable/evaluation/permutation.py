"""Is the mean of one arm larger than that of another? By dealing the values to the two arms anew.

    d = mean(treated) - mean(control);   p = (1 + #{b : d_b >= d}) / (1 + B)

    d_b  the same after the n + m values were dealt at random to arms of n and m     B  dealings
    p    probability of a d as large if the arms were the same law, which is at most a with probability a at any sample size

Every dealing is equally likely under the hypothesis, so nothing is supposed of the law. Where there are no more dealings than B
all of them are counted, and p is exact. Several tests at once: `holm` keeps the probability of any false finding at the level.
`smallest_difference` says what could have been missed (normal approximation):

    (z(1 - level) + z(power)) sqrt(s_t^2 / n + s_c^2 / m)

Sources: Fisher 1935; Phipson and Smyth 2010 (the 1 +); Holm 1979.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from amenable.errors import ConfigError, DataError
from amenable.seeding import derive

_CELLS = 2_000_000  # numbers dealt at once


def permutation_test(treated: ArrayLike, control: ArrayLike, *, resamples: int = 10_000, seed: int = 0) -> float:
    """One-sided p that mean(treated) > mean(control): (n,) and (m,) independent values. For the other side exchange them.

    Errors: DataError for nan or an empty arm; ConfigError for fewer than one resample.
    """
    a, b = _checked(treated), _checked(control)
    if resamples < 1:
        raise ConfigError(f"resamples={resamples}: nothing is dealt", "use 1 or more, such as 10_000")
    values = np.concatenate([a, b])
    observed, total = a.sum(), math.comb(len(values), len(a))
    near = 1e-9 * max(1.0, float(np.abs(values).sum()))  # equal sums differ by rounding
    if total <= resamples:
        sums = np.array([values[list(chosen)].sum() for chosen in combinations(range(len(values)), len(a))])
        return float((sums >= observed - near).mean())
    draw = np.random.default_rng(derive(seed, "permutation"))
    larger, step = 0, max(1, _CELLS // len(values))
    for start in range(0, resamples, step):
        keys = draw.random((min(step, resamples - start), len(values)))
        chosen = np.argpartition(keys, len(a) - 1, axis=1)[:, : len(a)]
        larger += int((values[chosen].sum(axis=1) >= observed - near).sum())
    return (1 + larger) / (1 + resamples)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p of several tests, in their order: those at most a are found with at most a chance of one that is false."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def smallest_difference(treated: ArrayLike, control: ArrayLike, *, level: float = 0.05, power: float = 0.8) -> float:
    """The true difference of means that a one-sided test at `level` finds with probability `power`; nan for single values."""
    if not (0 < level < 1 and 0 < power < 1):
        raise ConfigError(f"level={level}, power={power} are not probabilities", "use 0.05 and 0.8 or so")
    arms = [_checked(treated), _checked(control)]
    if min(len(arm) for arm in arms) < 2:
        return math.nan
    z = NormalDist().inv_cdf(1 - level) + NormalDist().inv_cdf(power)
    return z * math.sqrt(sum(float(arm.var(ddof=1)) / len(arm) for arm in arms))


def _checked(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0 or not np.isfinite(array).all():
        raise DataError(
            f"an arm of shape {array.shape} is not a list of finite numbers", "leave out and count the missing"
        )
    return array
