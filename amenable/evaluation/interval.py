"""Intervals: every number has one.

A mean over tasks is uncertain because other tasks could have been drawn. The percentile bootstrap draws n
tasks with replacement many times and reads the interval off the resampled means:

    m_b = mean(x[i_1 .. i_n]),  i ~ uniform{1..n},  b = 1..B
    interval = the quantiles (1-level)/2 and (1+level)/2 of m_b

    x  values, one a task (or one an observation, with its cluster); no unit, or a share in [0, 1]
    n  independent units: tasks, or clusters    B  resamples    level  nominal coverage, a probability

For a count of successes there is Wilson's score interval, with p = c/n and z the normal quantile of
(1+level)/2:

    (p + z^2/2n  ±  z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)

Where the bootstrap has nothing to resample it would claim certainty, so three cases are defined by hand:
- n = 0: value, low and high are nan, and `text()` says "no data".
- n = 1: the value stands, low and high are nan: one unit says nothing about how units differ.
- all n values equal: a zero-width interval for a mean of unbounded numbers; for shares (`share=True`), up
  to a part u = z^2/(n + z^2) of all tasks, Wilson's upper limit for 0 seen in n, may yet behave in any
  other way. At a value of 0 or 1 that is exactly Wilson's interval.

The percentile bootstrap is narrow by about sqrt((n-1)/n) and does not correct skewness: with fewer than
some 20 units, or with shares near 0 or 1, read a 95% interval as about 90%.

Source: Efron and Tibshirani 1993, ch. 13; Wilson 1927; Owen 2007 (two-way resampling, "The pigeonhole
bootstrap").
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from amenable.errors import ConfigError, DataError
from amenable.seeding import derive

Floats = NDArray[np.float64]
_CELLS = 4_000_000  # resampled values held in memory at once


@dataclass(frozen=True)
class Estimate:
    """A number, its interval, the independent units it rests on, and how it was made; nan: undefined."""

    value: float
    low: float
    high: float
    n: int
    method: str
    level: float = 0.95

    @property
    def has_interval(self) -> bool:
        """True if both ends of the interval are known."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def parts(self, *, percent: bool = False, signed: bool = False) -> tuple[str, str, str]:
        """The three things to show: the value with its unit, its interval ("" if there is none), and n."""
        if math.isnan(self.value):
            return "no data", "", f"n={self.n}"
        scale, unit = (100.0, " points" if signed else "%") if percent else (1.0, "")
        decimals = 1 if percent else _decimals(self.value, self.high - self.low)
        sign = "+" if signed else ""
        value, low, high = (_fixed(scale * number, sign, decimals) for number in (self.value, self.low, self.high))
        return f"{value}{unit}", f"[{low}, {high}]" if self.has_interval else "", f"n={self.n}"

    def text(self, *, percent: bool = False, signed: bool = False) -> str:
        """Such as "36.2% [31.0, 41.5], n=100" with `percent`, "0.362 [0.310, 0.415], n=100" without.

        `signed` is for differences: "+9.8 points [+2.1, +17.5], n=100".
        """
        value, interval, n = self.parts(percent=percent, signed=signed)
        if math.isnan(self.value):
            return f"{value}, {n}"
        return f"{value} {interval or '(no interval)'}, {n}"


def no_data(method: str, *, level: float = 0.95) -> Estimate:
    """The estimate of nothing: nan with n = 0."""
    return Estimate(math.nan, math.nan, math.nan, 0, method, level)


def wilson(successes: int, n: int, *, level: float = 0.95) -> Estimate:
    """Share of `successes` in `n` independent trials with Wilson's score interval (never of zero width)."""
    if not 0 <= successes <= n:
        raise ConfigError(f"{successes} successes in {n} trials is impossible.", "count 0 <= successes <= n.")
    z = _normal_quantile(level)
    if n == 0:
        return no_data("Wilson", level=level)
    share = successes / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else (middle - half) / (1 + z * z / n)
    high = 1.0 if successes == n else (middle + half) / (1 + z * z / n)
    return Estimate(share, low, high, n, "Wilson", level)


def over_seeds(values: Sequence[float], *, level: float = 0.95) -> Estimate:
    """Mean of one number a seed, with Student's t interval: what other seeds would give. nan (no number) is left out.

    It supposes that seeds vary normally, which a few of them cannot show; with three seeds it is 4.3 standard errors wide.
    """
    array = np.asarray([value for value in values if math.isfinite(value)], dtype=np.float64)
    n = len(array)
    if n < 2:
        value = float(array[0]) if n else math.nan
        return Estimate(value, math.nan, math.nan, n, "one seed", level)
    half = student_quantile((1 + level) / 2, n - 1) * float(array.std(ddof=1)) / math.sqrt(n)
    mean = float(array.mean())
    return Estimate(mean, mean - half, mean + half, n, "Student's t over seeds", level)


def student_quantile(probability: float, freedom: int) -> float:
    """The t that Student's law with `freedom` degrees of freedom (1 or more) exceeds with 1 - `probability`, in (0, 1).

    With t = sqrt(f) tan(angle) the density is proportional to cos(angle)^(f - 1), which is integrated on a grid: five
    digits at the levels that intervals use. Errors: DataError for a probability or a freedom that cannot be.
    """
    if not 0 < probability < 1 or freedom < 1:
        raise DataError(f"Student's law has no quantile {probability:g} with {freedom} degrees.", "use n of 2 or more.")
    if probability < 0.5:
        return -student_quantile(1 - probability, freedom)
    angles = np.linspace(0.0, math.pi / 2, 200_001)
    density = np.cos(angles) ** (freedom - 1)
    areas = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    angle = float(np.interp(2 * probability - 1, areas / areas[-1], angles))
    return math.sqrt(freedom) * math.tan(angle)


def bootstrap_mean(
    values: ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    share: bool = False,
    seed: int = 0,
    resamples: int = 10_000,
    level: float = 0.95,
) -> Estimate:
    """Mean of `values` (n,), percentile bootstrap over tasks, or over `clusters` (n labels) as whole units.

    With clusters the estimate is still the mean over all values and `n` counts the clusters. `share` says
    that values lie in [0, 1], which is what makes an interval possible when all of them are equal. Raises
    DataError on nan: exclude what is missing, and count it, before.
    """
    array = _checked(values, "values", share=share, low=0.0)
    _check_settings(resamples, level)
    if array.ndim != 1:
        raise DataError(f"values have shape {array.shape}, expected one number a task.", "average samples first.")
    sums, sizes = array, np.ones_like(array)
    method = "bootstrap over tasks"
    if clusters is not None:
        sums, sizes = _by_cluster(array, clusters)
        method = "bootstrap over clusters"
    n = len(sums)
    if n == 0:
        return no_data(method, level=level)
    value = float(array.mean())
    if n == 1:
        return Estimate(value, math.nan, math.nan, 1, method, level)
    if bool(np.all(array == array[0])):
        return _unanimous(float(array[0]), n, level=level, bounds=(0.0, 1.0) if share else None)
    rng = np.random.default_rng(derive(seed, "bootstrap"))
    means = np.empty(resamples)
    for part in _chunks(resamples, n):
        drawn = rng.integers(0, n, size=(part.stop - part.start, n))
        means[part] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = _quantiles(means, level)
    return Estimate(value, low, high, n, method, level)


def paired_difference(
    before: ArrayLike,
    after: ArrayLike,
    *,
    share: bool = False,
    seed: int = 0,
    resamples: int = 10_000,
    level: float = 0.95,
) -> Estimate:
    """Mean of `after - before` over the same tasks in the same order: (tasks,) or (tasks, seeds) each.

    A side with one seed is compared with every seed of the other. With several seeds both the tasks and the
    seeds are drawn with replacement, each resample being the grid (drawn tasks) x (drawn seeds): the
    interval then covers other tasks and other training runs. That is conservative in the noise of single
    cells (Owen 2007), but with S seeds it understates the spread between seeds by a factor S/(S-1) in
    variance, so three seeds are few. Simulated (100 tasks of sd .15, seeds of sd .03, cells of sd .1), a 95%
    interval covered the mean over all seeds in 90% of runs with 3 seeds and 94% with 10; with one seed, where
    it speaks of tasks alone, in 70%. `n` counts tasks. `share` says that both sides lie in [0, 1].
    """
    _check_settings(resamples, level)
    old, new = (_two_dimensional(_checked(side, "a side", share=share, low=0.0)) for side in (before, after))
    if len(old) != len(new) or (old.shape[1] != new.shape[1] and 1 not in (old.shape[1], new.shape[1])):
        raise DataError(
            f"the two sides have shapes {old.shape} and {new.shape} (tasks, seeds) and cannot be paired.",
            "give the same tasks in the same order, and equally many seeds (or one) on each side.",
        )
    change = new - old
    tasks, seeds = change.shape
    method = "paired bootstrap over tasks" + (" and seeds" if seeds > 1 else "")
    if change.size == 0:
        return no_data(method, level=level)
    value = float(change.mean())
    if tasks == 1:
        return Estimate(value, math.nan, math.nan, 1, method, level)
    if bool(np.all(change == change[0, 0])):
        return _unanimous(float(change[0, 0]), tasks, level=level, bounds=(-1.0, 1.0) if share else None)
    rng = np.random.default_rng(derive(seed, "paired"))
    means = np.empty(resamples)
    for part in _chunks(resamples, tasks * seeds):
        count = part.stop - part.start
        drawn = change[rng.integers(0, tasks, size=(count, tasks))].mean(axis=1)  # (count, seeds)
        chosen = rng.integers(0, seeds, size=(count, seeds))
        means[part] = np.take_along_axis(drawn, chosen, axis=1).mean(axis=1)
    low, high = _quantiles(means, level)
    return Estimate(value, low, high, tasks, method, level)


def _unanimous(value: float, n: int, *, level: float, bounds: tuple[float, float] | None) -> Estimate:
    """All n units gave `value`: a part u of all units may still lie anywhere within `bounds`."""
    if bounds is None:
        return Estimate(value, value, value, n, "all values equal", level)
    z = _normal_quantile(level)
    unseen = z * z / (n + z * z)
    low, high = value - unseen * (value - bounds[0]), value + unseen * (bounds[1] - value)
    return Estimate(value, low, high, n, "all values equal, Wilson", level)


def _by_cluster(values: Floats, clusters: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """Sum and size of every cluster, in order of first appearance."""
    if len(clusters) != len(values):
        raise DataError(f"{len(values)} values but {len(clusters)} cluster labels.", "give one label a value.")
    number = {label: index for index, label in enumerate(dict.fromkeys(clusters))}
    member = np.array([number[label] for label in clusters], dtype=np.int64)
    sums = np.bincount(member, weights=values, minlength=len(number)).astype(np.float64)
    return sums, np.bincount(member, minlength=len(number)).astype(np.float64)


def _checked(values: ArrayLike, name: str, *, share: bool, low: float) -> Floats:
    """`values` as floats; refuses what is not finite, and shares outside [low, 1]."""
    array = np.asarray(values, dtype=np.float64)
    bad = int(np.size(array) - np.isfinite(array).sum())
    if bad:
        raise DataError(f"{bad} of {array.size} numbers in {name} are not finite.", "exclude and count the missing.")
    if share and array.size and (array.min() < low or array.max() > 1):
        raise DataError(f"{name}: shares between {array.min():g} and {array.max():g}.", "give numbers in [0, 1].")
    return array


def _two_dimensional(array: Floats) -> Floats:
    if array.ndim not in (1, 2):
        raise DataError(f"an array of shape {array.shape} is not (tasks,) or (tasks, seeds).", "reshape it.")
    return array if array.ndim == 2 else array[:, None]


def _check_settings(resamples: int, level: float) -> None:
    if resamples < 1:
        raise ConfigError(f"resamples={resamples} draws nothing.", "use at least 1000.")
    _normal_quantile(level)


def _normal_quantile(level: float) -> float:
    if not 0 < level < 1:
        raise ConfigError(f"level={level} is not a probability.", "use 0 < level < 1, such as 0.95.")
    return NormalDist().inv_cdf((1 + level) / 2)


def _chunks(resamples: int, width: int) -> list[slice]:
    """Consecutive parts of the resamples, each small enough to hold."""
    size = max(1, _CELLS // max(1, width))
    return [slice(start, min(start + size, resamples)) for start in range(0, resamples, size)]


def _quantiles(means: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _decimals(value: float, width: float) -> int:
    """Decimals that show the interval's width to two figures, or the value to three without a width."""
    if not math.isfinite(value):
        return 0
    if math.isfinite(width) and width > 0:
        return min(6, max(0, 1 - math.floor(math.log10(width))))
    return 3 if value == 0 else min(6, max(0, 2 - math.floor(math.log10(abs(value)))))


def _fixed(number: float, sign: str, decimals: int) -> str:
    """`number` with fixed decimals, and never "-0.0"."""
    return format(round(number, decimals) + 0.0, f"{sign},.{decimals}f")
