"""log Z(c), one a context, from samples of any proposals: running, with its standard error and effective sample size.

    Z(c) = mean_i w_i,   w_i = P(x_i|c) / q_i(x_i|c),   x_i ~ q_i(.|c)       every term is unbiased, whatever q_i was
    ESS = (sum w)^2 / sum w^2        s.e.(log Z) = sqrt(1/ESS - 1/n)          (delta method)

    w  weight   log w (N,) float64 nats; -inf is a weight of 0; NaN is missing and left out        n  samples

Terms of different proposals are averaged as they are; `window` keeps the last batches alone, since early weights vary most.

`pareto_k`: the shape of a generalised Pareto law fitted to the largest weights; above 0.7 their mean cannot be trusted, however
large the ESS looks (Vehtari et al. 2024, arXiv 1507.02646; the fit is that of Zhang and Stephens 2009).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

PARETO_LIMIT = 0.7


@dataclass(frozen=True)
class LogZ:
    """An estimate of one context's log Z: nats, its standard error, effective sample size, samples."""

    value: float
    standard_error: float
    ess: float
    n: int


class Partition:
    """Running log Z of every context. `window`: batches that count (0: all)."""

    def __init__(self, window: int = 0) -> None:
        self.window = window
        self._batches: dict[str, deque[tuple[int, float, float]]] = {}

    def add(self, contexts: Sequence[str], log_weights: torch.Tensor) -> None:
        """One batch: `log_weights` (N,) of samples that continue `contexts` (N)."""
        for context, chosen in groups(contexts).items():
            values = log_weights[chosen].double()
            values = values[~values.isnan()]
            if len(values):
                sums = len(values), float(values.logsumexp(0)), float((2 * values).logsumexp(0))
                kept = self._batches.setdefault(context, deque(maxlen=self.window or None))
                if not self.window and kept:  # all count alike: one sum is enough
                    n, first, second = kept.pop()
                    sums = sums[0] + n, _log_add(sums[1], first), _log_add(sums[2], second)
                kept.append(sums)

    def of(self, context: str) -> LogZ:
        """The estimate for a context; n = 0 and NaN if it was never seen, -inf if no sample had a positive weight."""
        batches = self._batches.get(context, ())
        n = sum(count for count, _, _ in batches)
        if not n:
            return LogZ(math.nan, math.nan, 0.0, 0)
        first = _log_sum(part for _, part, _ in batches)
        second = _log_sum(part for _, _, part in batches)
        if first == -math.inf:
            return LogZ(-math.inf, math.nan, 0.0, n)
        ess = math.exp(2 * first - second)
        return LogZ(first - math.log(n), math.sqrt(max(0.0, 1 / ess - 1 / n)), ess, n)

    def log_z(self, contexts: Sequence[str]) -> torch.Tensor:
        """log Z of each context: (N,) float64."""
        found = {context: self.of(context).value for context in set(contexts)}
        return torch.tensor([found[context] for context in contexts], dtype=torch.float64)

    def state(self) -> dict[str, Any]:
        """Plain data from which `restore` makes the same estimates."""
        return {context: [list(batch) for batch in batches] for context, batches in self._batches.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what `state` said."""
        self._batches = {
            context: deque([(int(n), float(a), float(b)) for n, a, b in batches], maxlen=self.window or None)
            for context, batches in state.items()
        }


def groups(contexts: Sequence[str]) -> dict[str, torch.Tensor]:
    """The places of each context, in order of first appearance."""
    places: dict[str, list[int]] = {}
    for place, context in enumerate(contexts):
        places.setdefault(context, []).append(place)
    return {context: torch.tensor(found) for context, found in places.items()}


def effective_sample_size(log_weights: torch.Tensor) -> float:
    """(sum w)^2 / sum w^2; 0 if no weight is positive. Missing weights (NaN) are left out."""
    values = log_weights[~log_weights.isnan()].double()
    if not len(values) or not bool((values > -torch.inf).any()):
        return 0.0
    return math.exp(float(2 * values.logsumexp(0) - (2 * values).logsumexp(0)))


def pareto_k(log_weights: torch.Tensor) -> float:
    """Shape of the largest min(n/5, 3 sqrt(n)) weights; NaN with fewer than 5 that differ from the next smaller one."""
    values = log_weights[~log_weights.isnan()].double().sort().values
    count = int(min(len(values) / 5, 3 * math.sqrt(len(values))))
    if count < 5 or values[-count - 1] == -torch.inf:
        return math.nan
    excess = (values[-count:] - values[-1]).exp() - (values[-count - 1] - values[-1]).exp()
    tail = excess[excess > 0]  # ties with the threshold are no part of the tail
    return _pareto_shape(tail) if len(tail) >= 5 else math.nan


def _pareto_shape(excess: torch.Tensor) -> float:
    """Zhang and Stephens (2009): a posterior mean over a grid of theta, with Vehtari's weak prior towards 0.5."""
    n = len(excess)
    grid = 30 + int(math.sqrt(n))
    quartile = excess[int(n / 4 + 0.5) - 1]
    steps = torch.arange(1, grid + 1, dtype=torch.float64)
    theta = 1 / excess[-1] + (1 - (grid / (steps - 0.5)).sqrt()) / (3 * quartile)
    shape = torch.log1p(-theta[:, None] * excess).mean(1)
    log_likelihood = n * ((-theta / shape).log() - shape - 1)
    mean = float((log_likelihood.softmax(0) * theta).sum())
    k = float(torch.log1p(-mean * excess).mean())
    return (n * k + 10 * 0.5) / (n + 10)


def _log_add(first: float, second: float) -> float:
    return _log_sum((first, second))


def _log_sum(values: Any) -> float:
    return float(torch.tensor([*values], dtype=torch.float64).logsumexp(0))
