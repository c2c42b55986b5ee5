"""Best of n: draw n texts, keep the one with the highest score. No target, but a law that is known.

    pi_n(x) = pi(x) (F(v)^n - F(v-)^n) / (F(v) - F(v-)),   v = r(x),   F(v) = Pr_pi[r <= v]      ties broken at random
    KL(pi_n, pi) <= log n - (n - 1)/n                            close to it where ties and likely texts are rare

    letter  name    shape     unit
    r       scores  (N,)      that of the score; NaN: missing, never chosen

A text without a score cannot be the best; where a share m of texts has none, the law is that of the others, and the bound
becomes log n + (n-1) (m^n/n - m^n log m - 1/n)/(1 - m^n) - log(1 - m^n), which is -log(1 - m) for n = 1.
Source: Beirami et al. 2024, arXiv 2401.01879 (the bound, long taken for an equality).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from amenable.errors import ConfigError, SamplingError
from amenable.policy.protocol import Policy
from amenable.records import Decoding, Samples
from amenable.sampling.batches import subset
from amenable.sampling.draws import Progress
from amenable.seeding import derive, torch_generator
from amenable.target.potential import Potential, Score, scores_of


@dataclass(frozen=True)
class Best:
    """The best of each group of `n`, context-major: N samples, with their `scores` (N,).

    `proposed` texts were drawn, `missing` of them had no score. `without`: contexts that have fewer samples than were
    asked for, because no text of a group had a score.
    """

    prompts: list[str]
    samples: Samples
    scores: torch.Tensor
    n: int
    proposed: int
    missing: int
    without: list[str]

    @property
    def kl_bound(self) -> float:
        """The most by which the law can differ from the policy's: KL in nats."""
        return kl_bound(self.n, missing=self.missing / self.proposed)


def best_of_n(
    policy: Policy,
    score: Score | Potential,
    contexts: Sequence[str],
    *,
    n: int,
    draws: int = 1,
    decoding: Decoding | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Best:
    """`draws` samples of the best-of-`n` law for each context: n * draws texts are drawn a context.

    A potential scores by log phi, so that of a target with a constraint the best is one that satisfies it, if there is one.
    `decoding` may be any law: the bound is then on the KL from that one.
    Errors: SamplingError if no text at all has a score.
    """
    if n < 1 or draws < 1 or not contexts:
        raise ConfigError(f"best of {n}, {draws} times, for {len(contexts)} contexts", "use at least 1 of each")
    settings: dict[str, Any] = {} if decoding is None else {"decoding": decoding}
    samples = policy.sample(contexts, n=n * draws, seed=derive(seed, "best-of-n"), progress=progress, **settings)
    prompts = [context for context in contexts for _ in range(n * draws)]
    values = score.log_values(prompts, samples) if isinstance(score, Potential) else scores_of(score, prompts, samples)
    places = best_places(values, n, seed=seed)
    chosen = places[places >= 0].tolist()
    missing = int(values.isnan().sum())
    if not chosen:
        raise SamplingError(
            f"none of {len(values)} texts has a score", "look at why the score gives no answer (None) for any of them"
        )
    lost = (places < 0).view(len(contexts), draws).any(1).tolist()
    return Best(
        prompts=[prompts[place] for place in chosen],
        samples=subset(samples, chosen),
        scores=values[chosen],
        n=n,
        proposed=len(values),
        missing=missing,
        without=[context for context, short in zip(contexts, lost, strict=True) if short],
    )


def best_places(scores: torch.Tensor, n: int, *, seed: int = 0) -> torch.Tensor:
    """The place of the highest score in each consecutive group of `n`: (N / n,) int64, -1 where all of them are missing.

    Ties are broken at random; -inf is a score like any other, the lowest.
    """
    values = scores.double().view(-1, n)
    missing = values.isnan()
    usable = values.masked_fill(missing, -torch.inf)
    tied = (usable == usable.amax(1, keepdim=True)) & ~missing
    lots = torch.rand(values.shape, generator=torch_generator(seed, "ties"), dtype=torch.float64)
    best = lots.masked_fill(~tied, -1.0).argmax(1)
    places = torch.arange(len(values)) * n + best
    return torch.where(missing.all(1), -1, places)


def kl_bound(n: int, *, missing: float = 0.0) -> float:
    """An upper bound of KL(best-of-n, policy) in nats; `missing` is the share of texts without a score.

    Errors: ConfigError for n < 1, or a share outside [0, 1).
    """
    if n < 1 or not 0 <= missing < 1:
        raise ConfigError(f"best of {n} with a share {missing:g} missing", "use n >= 1 and 0 <= missing < 1")
    if missing == 0:
        return math.log(n) - (n - 1) / n
    none = missing**n
    inside = (n - 1) * (none / n - none * math.log(missing) - 1 / n) / (1 - none)
    return math.log(n) + inside - math.log1p(-none)


def exact_law(log_policy: torch.Tensor, scores: torch.Tensor, n: int) -> torch.Tensor:
    """log pi_n of every text (X,) in nats, from log pi of every text (X,) and its score (X,), NaN where it has none.

    Given that not all n of a group were missing.
    """
    known = ~scores.isnan()
    log_policy = log_policy.double()
    law = torch.full_like(log_policy, -torch.inf)
    below = log_policy[~known].logsumexp(0)  # log F(v-); a missing score is lower than any other
    for value in sorted(set(scores[known].tolist())):
        tied = known & (scores == value)
        mass = log_policy[tied].logsumexp(0)
        up_to = torch.logaddexp(below, mass)
        log_best = n * up_to + torch.log(-torch.expm1(n * (below - up_to)))  # log(F(v)^n - F(v-)^n)
        law[tied] = log_policy[tied] - mass + log_best
        below = up_to
    return law - law.logsumexp(0)
