"""Importance resampling: draw from a target by drawing again among proposals, in proportion to their weights.

    share_i = w_i / sum_j w_j   over the samples j of the same context        w = P/q
    multinomial   n independent draws from the shares
    systematic    one uniform for all n (Kitagawa 1996): sample i comes floor or ceil of n share_i times, as many times on
                  average as in the other; usually, though not always, with less variance (Douc and Cappe 2005)

The law of what comes out is the target's only in the limit of many proposals: with an effective sample size of 10, at
most about ten texts come out, over and over. `Diagnosis` says how far to trust it. Source: Rubin 1988 (SIR).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from amenable.errors import ConfigError, SamplingError
from amenable.policy.protocol import Policy
from amenable.records import Decoding, Samples
from amenable.sampling.draws import Draws, Progress, propose
from amenable.seeding import derive, torch_generator
from amenable.target.partition import LogZ, Partition, groups, pareto_k
from amenable.target.posterior import Target

Scheme = Literal["systematic", "multinomial"]


@dataclass(frozen=True)
class Diagnosis:
    """One context's weights: `n` proposals, of which `missing` have no score and `positive` a positive weight.

    `log_z`: log Z with its standard error and effective sample size. `pareto_k` above 0.7: neither can be trusted; NaN:
    too few weights to tell, or all of them equal.
    """

    context: str
    n: int
    missing: int
    positive: int
    log_z: LogZ
    pareto_k: float


@dataclass(frozen=True)
class Resampled:
    """n samples of every context that has one of positive weight, context-major, with log P (N,) and where each came from.

    `places` (N,) are the samples' places among the proposals: a place that comes k times is one text, k times.
    """

    prompts: list[str]
    samples: Samples
    log_score: torch.Tensor
    places: torch.Tensor
    diagnoses: list[Diagnosis]

    @property
    def distinct(self) -> int:
        """How many different proposals came out."""
        return len(set(self.places.tolist()))

    @property
    def without(self) -> list[str]:
        """The contexts none of whose proposals had a positive weight: nothing came out for them."""
        return [diagnosis.context for diagnosis in self.diagnoses if not diagnosis.positive]


def diagnose(contexts: Sequence[str], log_weights: torch.Tensor) -> list[Diagnosis]:
    """What the weights (N,) of samples that continue `contexts` (N) are worth, one line a context."""
    partition = Partition()
    partition.add(contexts, log_weights)
    lines = []
    for context, chosen in groups(contexts).items():
        own = log_weights[chosen]
        missing, positive = int(own.isnan().sum()), int((own > -torch.inf).sum())
        lines.append(Diagnosis(context, len(own), missing, positive, partition.of(context), pareto_k(own)))
    return lines


def shares(contexts: Sequence[str], log_weights: torch.Tensor) -> torch.Tensor:
    """Self-normalised weights (N,) float64: they sum to 1 over each context, or are all 0 where no weight is positive.

    A missing weight (NaN) counts as 0.
    """
    found = torch.zeros(len(log_weights), dtype=torch.float64)
    values = torch.where(log_weights.isnan(), -torch.inf, log_weights.double())
    for chosen in groups(contexts).values():
        if bool((values[chosen] > -torch.inf).any()):
            found[chosen] = values[chosen].softmax(0)
    return found


def resample(draws: Draws, *, n: int, scheme: Scheme = "systematic", seed: int = 0) -> Resampled:
    """`n` samples for every context among `draws`, in proportion to the weights.

    Errors: SamplingError if no proposal of any context has a positive weight.
    """
    if n < 1 or scheme not in get_args(Scheme):
        raise ConfigError(f"n={n}, scheme={scheme!r}", f"draw at least 1, by {' or '.join(get_args(Scheme))}")
    weights = shares(draws.prompts, draws.log_weights)
    found = []
    for number, chosen in enumerate(groups(draws.prompts).values()):
        if bool((weights[chosen] > 0).any()):
            generator = torch_generator(seed, "resample", number)
            found.append(chosen[_drawn(weights[chosen], n, scheme, generator)])
    if not found:
        raise SamplingError(
            f"none of {len(draws)} proposals has a positive weight: the target gives probability 0 to all, or no score came",
            "draw more proposals, or use a proposal that satisfies the constraint more often",
        )
    places = torch.cat(found)
    kept = draws.at(places.tolist())
    return Resampled(kept.prompts, kept.samples, kept.log_score, places, diagnose(draws.prompts, draws.log_weights))


def importance_sample(
    proposal: Policy,
    target: Target,
    contexts: Sequence[str],
    *,
    n: int,
    proposals: int,
    scheme: Scheme = "systematic",
    decoding: Decoding | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Resampled:
    """`n` samples a context out of `proposals` draws of `proposal` each. Errors: as `resample` and `draws.propose`."""
    draws = propose(
        proposal,
        target,
        contexts,
        n=proposals,
        decoding=decoding,
        seed=derive(seed, "importance"),
        progress=progress,
    )
    return resample(draws, n=n, scheme=scheme, seed=seed)


def _drawn(weights: torch.Tensor, n: int, scheme: str, generator: torch.Generator) -> torch.Tensor:
    """n places in `weights` (M,), by inverse CDF; a place of weight 0 never comes."""
    running = weights.cumsum(0)
    uniforms = torch.rand(1 if scheme == "systematic" else n, generator=generator, dtype=torch.float64)
    if scheme == "systematic":
        uniforms = (torch.arange(n, dtype=torch.float64) + uniforms) / n
    last = int(weights.nonzero()[-1])  # rounding may leave the running sum a little below 1
    return torch.searchsorted(running, uniforms * running[-1], right=True).clamp(max=last)
