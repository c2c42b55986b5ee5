"""The law of quasi-rejection sampling as a function of beta: what is accepted, and how far it is from the target.

    p_beta = min(P, beta q) / Z_beta,       Z_beta = E_q[min(P/q, beta)],       acceptance rate AR = Z_beta / beta
    TV(p, p_beta) = 1/2 E_q| (P/q)/Z - min(P/q, beta)/Z_beta |
    KL(p, p_beta) = 1/Z E_q[ (P/q) log((P/q) / min(P/q, beta)) ] + log Z_beta - log Z

    letter   name         shape, unit
    P/q      log_weights  (N,) float64 nats; -inf: a weight of 0; NaN: missing, left out
    beta     beta         that of P/q; one number, or {context: number}

All three fall as beta grows, the distances to 0 at beta = max P/q. They are estimated from proposals alone, those of
any run. A beta is chosen on one set of them (`choose_beta`), and its law reported on another (`quality`), since the
largest weights of the first are what it was chosen by. Source: that of `rejection`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from amenable.errors import ConfigError, SamplingError
from amenable.sampling.jackknife import Averaged, Statistic, log_mean, mean, over_contexts
from amenable.target.partition import groups

Beta = float | Mapping[str, float]


@dataclass(frozen=True)
class Quality:
    """What a beta gives, averaged over contexts: the acceptance rate, and the distance of p_beta from the target (KL in nats).

    `beta` is the one of all contexts, NaN if each has its own. Contexts without two positive weights say nothing of TV and KL.
    """

    beta: float
    acceptance: Averaged
    total_variation: Averaged
    kl: Averaged


def quality(contexts: Sequence[str], log_weights: torch.Tensor, betas: Sequence[Beta]) -> list[Quality]:
    """The law that each of `betas` would give, from proposals that continue `contexts` (N) and have `log_weights` (N,)."""
    lines = []
    for beta in betas:
        known = {context: math.log(beta_of(beta, context)) for context in set(contexts)}
        bounds = torch.tensor([known[context] for context in contexts], dtype=torch.float64)
        columns = [log_weights.double(), bounds]
        acceptance, distance, divergence = (
            over_contexts(statistic, columns, contexts)
            for statistic in (acceptance_rate, total_variation, kl_divergence)
        )
        lines.append(Quality(math.nan if isinstance(beta, Mapping) else beta, acceptance, distance, divergence))
    return lines


def choose_beta(
    contexts: Sequence[str],
    log_weights: torch.Tensor,
    *,
    total_variation_at_most: float | None = None,
    acceptance_at_least: float | None = None,
) -> float:
    """The smallest beta whose law is so close to the target, or the largest that accepts so much: averages over contexts.

    Call it with one context's weights for a beta of its own. Both fall with beta: it is found by bisection between the
    smallest and the largest positive weight, below and above which nothing changes but the acceptance rate. Errors:
    SamplingError if no weight is positive; ConfigError unless exactly one wish is given, in [0, 1].
    """
    wishes = [wish for wish in (total_variation_at_most, acceptance_at_least) if wish is not None]
    if len(wishes) != 1 or not 0 <= wishes[0] <= 1:
        raise ConfigError(
            f"total_variation_at_most={total_variation_at_most}, acceptance_at_least={acceptance_at_least}",
            "give one of them, between 0 and 1",
        )
    known = ~log_weights.isnan()
    weights = log_weights[known].double()
    own = [context for context, kept in zip(contexts, known.tolist(), strict=True) if kept]
    positive = weights[weights > -torch.inf]
    if not len(positive):
        raise SamplingError(
            f"none of {len(log_weights)} proposals has a positive weight, so no beta can be chosen",
            "draw more of them, or use a proposal that satisfies the constraint more often",
        )
    places = list(groups(own).values())

    def average(statistic: Statistic, log_beta: float) -> float:
        found = [_whole(statistic, weights[place], log_beta) for place in places]
        usable = [value for value in found if not math.isnan(value)]
        return sum(usable) / len(usable)

    low, high = float(positive.min()), float(positive.max())
    if total_variation_at_most is not None:
        if average(total_variation, low) <= total_variation_at_most:
            return math.exp(low)
        for _ in range(60):
            middle = (low + high) / 2
            close = average(total_variation, middle) <= total_variation_at_most
            low, high = (low, middle) if close else (middle, high)
        return math.exp(high)
    if average(acceptance_rate, high) >= wishes[0]:
        return math.exp(high)
    for _ in range(60):
        middle = (low + high) / 2
        enough = average(acceptance_rate, middle) >= wishes[0]
        low, high = (middle, high) if enough else (low, middle)
    return math.exp(low)


def beta_of(beta: Beta, context: str) -> float:
    """The beta of a context. Errors: ConfigError if there is none, or it is not positive."""
    if isinstance(beta, Mapping) and context not in beta:
        raise ConfigError(f"there is no beta for the context {context[:60]!r}", "give one for each context")
    found = float(beta[context] if isinstance(beta, Mapping) else beta)
    if not 0 < found < math.inf:
        raise ConfigError(f"beta={found} is not a positive number", "choose_beta finds one from weights")
    return found


# --- the three numbers of a law, as statistics: kept (B, n), log weights (n,), log beta (n,) -> (B,)
def acceptance_rate(kept: torch.Tensor, log_weights: torch.Tensor, log_beta: torch.Tensor) -> torch.Tensor:
    """AR = E_q[min(P/(beta q), 1)]."""
    return mean((log_weights - log_beta).clamp(max=0).exp(), kept)


def total_variation(kept: torch.Tensor, log_weights: torch.Tensor, log_beta: torch.Tensor) -> torch.Tensor:
    """TV(p, p_beta); NaN without a positive weight."""
    cut = torch.minimum(log_weights, log_beta)
    log_z, log_z_beta = log_mean(log_weights, kept), log_mean(cut, kept)
    terms = ((log_weights - log_z[:, None]).exp() - (cut - log_z_beta[:, None]).exp()).abs() / 2
    return mean(terms, kept)


def kl_divergence(kept: torch.Tensor, log_weights: torch.Tensor, log_beta: torch.Tensor) -> torch.Tensor:
    """KL(p, p_beta) in nats, finite for every beta > 0; NaN without a positive weight."""
    log_z, log_z_beta = log_mean(log_weights, kept), log_mean(torch.minimum(log_weights, log_beta), kept)
    excess = (log_weights - log_beta).clamp(min=0)
    return mean((log_weights - log_z[:, None]).exp() * excess, kept) + log_z_beta - log_z


def _whole(statistic: Statistic, log_weights: torch.Tensor, log_beta: float) -> float:
    everything = torch.ones(1, len(log_weights), dtype=torch.bool)
    return float(statistic(everything, log_weights, torch.full_like(log_weights, log_beta))[0])
