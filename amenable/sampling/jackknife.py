"""Functions of importance weights, without their bias of order 1/n and with a standard error: the jackknife.

    T_(k)  the statistic without block k of the n samples,  h_k = n / n_k,   k = 1..g
    T_J  = g T - sum_k (1 - 1/h_k) T_(k)
    var  = 1/g sum_k (h_k T - (h_k - 1) T_(k) - T_J)^2 / (h_k - 1)

Per context, then averaged over contexts with equal weights. Whatever holds log Z or Z in a denominator is biased by
about 1/(2 ESS), and an average over contexts with few samples each keeps the bias while its standard error shrinks.
Measured by exact enumeration (20 contexts of 16 samples of the policy, 200 repetitions, nominal 95%): KL(p, pi) was
covered in 51% of cases by the delta method, 68% by the jackknife's error alone, 86% with its bias taken off; JS 66%,
74%, 91%; with 200 samples of one context all three cover 94 to 96%.

A context counts if the statistic is finite whichever block is left out (at least two samples of positive weight, for
what concerns the target); the others are counted as `without`. Missing samples (NaN in any column) are left out
beforehand.

Source: Quenouille 1956, Tukey 1958; blocks of unequal size: Busing, Meijer and van der Leeden 1999.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from amenable.target.partition import groups

BLOCKS = 100
Statistic = Callable[..., torch.Tensor]
"""statistic(kept, *columns) -> (B,): `kept` (B, n) bool says which of the n samples count; each column is (n,)."""


@dataclass(frozen=True)
class Averaged:
    """A mean over `contexts` of a statistic of `n` samples; `uncorrected` still has its bias. NaN where nothing is known.

    `without`: contexts that say nothing, left out.
    """

    value: float
    standard_error: float
    n: int
    contexts: int
    without: int
    uncorrected: float


def jackknife(statistic: Statistic, columns: Sequence[torch.Tensor]) -> tuple[float, float, float]:
    """(value without bias, standard error, value with bias) of a statistic of n samples, whose `columns` are (n,) each.

    NaN if the statistic is not finite with some block left out; (inf, NaN, inf) if it is infinite with all of them.
    """
    n = len(columns[0])
    whole = float(statistic(torch.ones(1, n, dtype=torch.bool), *columns)[0])
    if n < 2 or math.isnan(whole) or whole == math.inf:
        return whole, math.nan, whole
    count = min(n, BLOCKS)
    block = torch.arange(n) * count // n
    parts = statistic(block.unsqueeze(0) != torch.arange(count).unsqueeze(1), *columns).double()
    if not bool(parts.isfinite().all()):
        return math.nan, math.nan, whole
    h = n / torch.bincount(block, minlength=count).double()
    value = count * whole - float(((1 - 1 / h) * parts).sum())
    variance = float(((h * whole - (h - 1) * parts - value) ** 2 / (h - 1)).mean())
    return value, math.sqrt(variance), whole


def over_contexts(
    statistic: Statistic, columns: Sequence[torch.Tensor], contexts: Sequence[str], *, population: bool = False
) -> Averaged:
    """The statistic of each context's samples, averaged; `columns` (N,) each, `contexts` (N).

    `population`: the standard error is that of contexts drawn at random from many, by how much they differ; else it is that of
    these very contexts, whose samples could have been others.
    """
    known = ~torch.stack([column.isnan() for column in columns]).any(0)
    values: list[float] = []
    errors: list[float] = []
    plain: list[float] = []
    n = without = 0
    for chosen in groups(contexts).values():
        own = chosen[known[chosen]]
        found = jackknife(statistic, [column[own] for column in columns]) if len(own) else (math.nan,) * 3
        if math.isnan(found[0]) or found[0] == -math.inf:
            without += 1
            continue
        n += len(own)
        for total, part in zip((values, errors, plain), found, strict=True):
            total.append(part)
    if not values:
        return Averaged(math.nan, math.nan, 0, 0, without, math.nan)
    count = len(values)
    value = sum(values) / count
    error = math.sqrt(sum(part * part for part in errors)) / count
    if population:
        spread = math.sqrt(sum((part - value) ** 2 for part in values) / (count - 1)) if count > 1 else math.nan
        error = spread / math.sqrt(count)
    return Averaged(value, error, n, count, without, sum(plain) / count)


def mean(values: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Mean of `values` (B, n) or (n,) where `kept` (B, n): (B,)."""
    return torch.where(kept, values, 0.0).sum(-1) / kept.sum(-1)


def log_mean(log_values: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """log of the mean of exp(`log_values`) (n,) where `kept` (B, n): (B,); -inf if all of them are."""
    return torch.where(kept, log_values, -torch.inf).logsumexp(-1) - kept.sum(-1).double().log()


def expectation(kept: torch.Tensor, log_weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Self-normalised mean of `values` (n,) under `log_weights` (n,) where `kept` (B, n): (B,). A statistic."""
    share = torch.where(kept, log_weights, -torch.inf).softmax(-1)
    return torch.where(share > 0, share * values, 0.0).sum(-1)
