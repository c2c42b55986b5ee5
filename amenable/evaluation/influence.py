"""Intervals from influences, where rows of one cluster (a prompt) go together: no resampling, the same at every call.

Many estimates are, up to smaller terms, a constant plus the mean of one number a row, its *influence*: what the row adds.

    estimate = theta + mean_i psi_i,    V = C/(C-1) sum_c (sum_{i in c} psi_i)^2 / n^2

    psi  (n,) influences, with mean 0    C  clusters    V  variance of the estimate    t  Student's quantile, C - 1 degrees

For a share s the interval is Wilson's, with as many trials as would give this variance, n' = s(1-s)/V, and with t for the
normal quantile. Rows of one cluster may depend on each other in any way: repeating every row changes nothing.
If V is 0 (all clusters agree) a part u = t^2/(C + t^2) of what was not seen may yet behave in any way, as in `interval`.

Source: Liang and Zeger 1986 (clusters); Korn and Graubard 1998 (an effective number of trials for a share).
Changed from the papers: Wilson's interval in place of Clopper and Pearson's.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from amenable.errors import ConfigError, DataError
from amenable.evaluation.interval import Estimate, student_quantile

Floats = NDArray[np.float64]
Clusters = Sequence[Hashable]

SHARE = (0.0, 1.0)


@lru_cache(maxsize=4096)
def t_quantile(level: float, clusters: int) -> float:
    """How many standard errors the interval reaches to each side; nan for one cluster, which says nothing."""
    if not 0 < level < 1:
        raise ConfigError(f"level={level} is not a probability.", "use 0 < level < 1, such as 0.95.")
    return student_quantile((1 + level) / 2, clusters - 1) if clusters > 1 else math.nan


def cluster_numbers(clusters: Clusters | None, n: int) -> tuple[NDArray[np.int64], int]:
    """The cluster of every row as a number from 0, and how many there are. None: every row is its own."""
    if clusters is None:
        return np.arange(n, dtype=np.int64), n
    if len(clusters) != n:
        raise DataError(f"{n} rows but {len(clusters)} cluster labels.", "give one label a row.")
    number = {label: index for index, label in enumerate(dict.fromkeys(clusters))}
    return np.array([number[label] for label in clusters], dtype=np.int64), len(number)


def cluster_sums(influences: Floats, clusters: Clusters | None) -> Floats:
    """Sums (clusters, d) of influences (n, d)."""
    member, count = cluster_numbers(clusters, len(influences))
    columns = [np.bincount(member, weights=column, minlength=count) for column in influences.T]
    return np.stack(columns, axis=1).astype(np.float64)


def covariance(influences: Floats, clusters: Clusters | None) -> tuple[Floats, int]:
    """Covariance (d, d) of d estimates with influences (n, d), and the number of clusters; nan for a single one."""
    sums = cluster_sums(influences, clusters)
    count = len(sums)
    if count < 2:
        return np.full((influences.shape[1],) * 2, np.nan), count
    return count / (count - 1) * sums.T @ sums / len(influences) ** 2, count


def standard_error(influences: Floats, clusters: Clusters | None) -> tuple[float, int]:
    """sqrt(V) of one estimate with influences (n,), and the number of clusters."""
    matrix, count = covariance(influences[:, None], clusters)
    return math.sqrt(matrix[0, 0]), count


def clustered_share(values: Floats, clusters: Clusters | None = None, *, level: float = 0.95) -> Estimate:
    """Mean of values (n,) in [0, 1], n >= 1, with the interval of a share. `n` counts clusters."""
    value = float(values.mean())
    error, count = standard_error(values - value, clusters)
    return share_interval(value, error, count, level=level)


def clustered_mean(
    values: Floats, clusters: Clusters | None = None, *, bounds: tuple[float, float] | None = None, level: float = 0.95
) -> Estimate:
    """Mean of values (n,), n >= 1, plus and minus t standard errors, cut at `bounds`."""
    value = float(values.mean())
    error, count = standard_error(values - value, clusters)
    return mean_interval(value, error, count, bounds=bounds, level=level)


def share_interval(value: float, error: float, clusters: int, *, level: float = 0.95) -> Estimate:
    """Wilson's interval for a share with this standard error, as if n' = s(1-s)/V trials had been made."""
    method = "Wilson, effective n, over clusters"
    t = t_quantile(level, clusters)
    if clusters < 2:
        return Estimate(value, math.nan, math.nan, clusters, method, level)
    if error <= 1e-12:
        return unseen(value, clusters, bounds=SHARE, level=level)
    if not 0 < value < 1:
        return mean_interval(value, error, clusters, bounds=SHARE, level=level)
    trials = value * (1 - value) / error**2
    middle = value + t * t / (2 * trials)
    half = t * math.sqrt(value * (1 - value) / trials + t * t / (4 * trials * trials))
    scale = 1 + t * t / trials
    return Estimate(value, (middle - half) / scale, (middle + half) / scale, clusters, method, level)


def mean_interval(
    value: float, error: float, clusters: int, *, bounds: tuple[float, float] | None = None, level: float = 0.95
) -> Estimate:
    """value ± t error, cut at `bounds`; where no variation was seen, what may not have been seen within `bounds`."""
    if clusters < 2:
        return Estimate(value, math.nan, math.nan, clusters, "over clusters", level)
    if error <= 1e-12 and bounds is not None:
        return unseen(value, clusters, bounds=bounds, level=level)
    low, high = value - t_quantile(level, clusters) * error, value + t_quantile(level, clusters) * error
    if bounds is not None:
        low, high = (min(max(end, bounds[0]), bounds[1]) for end in (low, high))
    return Estimate(value, low, high, clusters, "Student's t over clusters", level)


def unseen(value: float, clusters: int, *, bounds: tuple[float, float], level: float) -> Estimate:
    """All clusters gave the same: a part t^2/(C + t^2) of all others may yet lie anywhere within `bounds`."""
    t = t_quantile(level, clusters)
    part = t * t / (clusters + t * t)
    low, high = value - part * (value - bounds[0]), value + part * (bounds[1] - value)
    return Estimate(value, low, high, clusters, "all clusters equal, Wilson", level)
