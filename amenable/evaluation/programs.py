"""pass@k: how often one of k sampled programs passes its tests.

    pass@k = mean over tasks of  1 - C(n-c, k) / C(n, k)  =  1 - prod_{j=0..k-1} (n-c-j) / (n-j)

    n  samples of a task with a verdict    c  those that passed    k  samples a user would try (1 <= k <= n)

The product form is unbiased for 1 - (1 - p)^k when each sample passes with probability p, which 1 - (1 -
c/n)^k is not; it is a share, no unit. Beside it stands "solved": the share of tasks with at least one
passing sample, which grows with n and is comparable only at equal n.

A sample without a verdict (the sandbox failed, not the program) is excluded and counted, never a failure. A
task with fewer than k verdicts left is excluded from pass@k and counted. Two gradings: all tests, and the
hidden ones alone; the tests shown in the prompt can be passed by copying them.

Source: Chen et al. 2021, arXiv 2107.03374, eq. 1; Chen et al. 2023, arXiv 2303.16749, eq. 8 (ILF; n = 30).
Changed from the paper: intervals (the paper gives none), and the grading by hidden tests (the released
evaluation also grades on the test that stands in the prompt).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from amenable.errors import ConfigError, DataError
from amenable.evaluation.interval import Estimate, bootstrap_mean, paired_difference, wilson
from amenable.records import Task, Verdict

Passed = Sequence[Sequence[bool | None]]
"""One list a task, one entry a sample: passed, failed, or None where there is no verdict."""


@dataclass(frozen=True)
class PassTable:
    """pass@k of one model on a list of tasks.

    pass_at     k -> pass@k, bootstrap over tasks
    solved      share of tasks with at least one passing sample, Wilson
    per_task    k -> pass@k of every task in order, nan where the task has fewer than k verdicts
    excluded    k -> number of tasks left out of pass@k for that reason
    missing     samples without a verdict, of `samples` in all
    """

    pass_at: Mapping[int, Estimate]
    solved: Estimate
    tasks: int
    samples: int
    missing: int
    excluded: Mapping[int, int] = field(default_factory=dict)
    per_task: Mapping[int, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class PassComparison:
    """pass@k of two models on the same `tasks`, less those `excluded`; `difference` is after - before."""

    k: int
    before: Estimate
    after: Estimate
    difference: Estimate
    tasks: int
    excluded: int


def pass_at_k(n: ArrayLike, c: ArrayLike, k: int) -> NDArray[np.float64]:
    """Unbiased pass@k, a share, of tasks with `n` samples of which `c` passed (scalars or arrays)."""
    total, right = np.broadcast_arrays(np.asarray(n, dtype=np.int64), np.asarray(c, dtype=np.int64))
    if k < 1:
        raise ConfigError(f"pass@{k} is not defined.", "use k >= 1.")
    if total.size and int(total.min()) < k:
        raise ConfigError(
            f"pass@{k} needs at least {k} samples a task, and one task has {int(total.min())}.",
            f"draw at least {k} samples, or ask for a smaller k.",
        )
    if bool(np.any((right < 0) | (right > total))):
        raise ConfigError("a task has more passing samples than samples, or fewer than 0.", "count 0 <= c <= n.")
    all_fail = np.ones(total.shape)
    for j in range(k):
        all_fail = all_fail * np.maximum(total - right - j, 0) / (total - j)
    return np.asarray(1.0 - all_fail, dtype=np.float64)


def graded(verdict: Verdict, task: Task, hidden_only: bool = False) -> bool | None:
    """Whether the program passed all tests, or with `hidden_only` those that are not shown in the prompt.

    None (missing) if the sandbox failed, or if the task hides no test. A test without a result (never
    reached, or cut off by the time limit) counts as not passed: the sandbox runs every test, so the program
    is the likely cause.
    """
    if verdict.missing:
        return None
    if verdict.ok and len(verdict.passed) != len(task.tests):
        raise DataError(
            f"task {task.task_id} has {len(task.tests)} tests and its verdict {len(verdict.passed)}.",
            "grade a verdict with the task that it was made for.",
        )
    if not hidden_only:
        return verdict.ok
    if task.shown >= len(task.tests):
        return None
    hidden = verdict.passed[task.shown :]
    return len(verdict.passed) == len(task.tests) and all(result is True for result in hidden)


def evaluate_passes(
    passed: Passed, ks: Sequence[int], *, seed: int = 0, resamples: int = 10_000, level: float = 0.95
) -> PassTable:
    """pass@k for every k of `ks`, and the share of tasks solved at least once, with intervals over tasks."""
    most = max((len(samples) for samples in passed), default=0)
    for k in ks:
        if passed and k > most:
            raise ConfigError(f"pass@{k} was asked of {most} samples a task.", f"use k <= {most}, or draw more.")
    per_task = {k: _per_task(passed, k) for k in ks}
    pass_at = {
        k: bootstrap_mean(values[~np.isnan(values)], share=True, seed=seed, resamples=resamples, level=level)
        for k, values in per_task.items()
    }
    seen = [samples for samples in passed if any(result is not None for result in samples)]
    return PassTable(
        pass_at=pass_at,
        solved=wilson(sum(True in samples for samples in seen), len(seen), level=level),
        tasks=len(passed),
        samples=sum(len(samples) for samples in passed),
        missing=sum(result is None for samples in passed for result in samples),
        excluded={k: int(np.isnan(values).sum()) for k, values in per_task.items()},
        per_task={k: tuple(float(value) for value in values) for k, values in per_task.items()},
    )


def compare_passes(
    before: Passed, after: Passed, k: int, *, seed: int = 0, resamples: int = 10_000, level: float = 0.95
) -> PassComparison:
    """pass@k of `after` minus that of `before` on the same tasks in the same order."""
    return compare_passes_over_seeds([before], [after], k, seed=seed, resamples=resamples, level=level)


def compare_passes_over_seeds(
    before: Sequence[Passed],
    after: Sequence[Passed],
    k: int,
    *,
    seed: int = 0,
    resamples: int = 10_000,
    level: float = 0.95,
) -> PassComparison:
    """The same with one entry a training seed on each side; a single entry is compared with every other.

    A task counts only if every entry on both sides has k verdicts for it. Tasks and seeds are both resampled
    (`paired_difference`); the two sides' own intervals are over tasks, of the mean over seeds.
    """
    sides = [[_per_task(passed, k) for passed in side] for side in (before, after)]
    lengths = {len(values) for side in sides for values in side}
    if len(lengths) != 1:
        raise DataError(f"the models were evaluated on {sorted(lengths)} tasks.", "evaluate all on the same tasks.")
    old, new = (np.stack(side, axis=1) for side in sides)  # (tasks, seeds)
    kept: NDArray[np.bool_] = ~np.isnan(np.concatenate([old, new], axis=1)).any(axis=1, keepdims=True)[:, 0]
    old, new = old[kept], new[kept]
    means = [
        bootstrap_mean(side.mean(axis=1), share=True, seed=seed, resamples=resamples, level=level)
        for side in (old, new)
    ]
    difference = paired_difference(old, new, share=True, seed=seed, resamples=resamples, level=level)
    return PassComparison(k, means[0], means[1], difference, len(kept), int(len(kept) - kept.sum()))


def _per_task(passed: Passed, k: int) -> NDArray[np.float64]:
    """pass@k of every task from the samples with a verdict; nan where there are fewer than k."""
    if k < 1:
        raise ConfigError(f"pass@{k} is not defined.", "use k >= 1.")
    values = np.full(len(passed), math.nan)
    n = np.array([sum(result is not None for result in samples) for samples in passed], dtype=np.int64)
    c = np.array([sum(result is True for result in samples) for samples in passed], dtype=np.int64)
    enough = n >= k
    values[enough] = pass_at_k(n[enough], c[enough], k)
    return values
