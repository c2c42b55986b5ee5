"""Quasi-rejection sampling: accept proposals so that their law is close to the target, and say how close.

    accept x ~ q(.|c) with probability min(1, P(x|c) / (beta q(x|c)))        law: p_beta, see `acceptance`

    letter   name    unit
    beta     beta    that of P/q; a large one is exact, a small one fast
    P/q      exp of `Draws.log_weights`

It is rejection sampling, and exact, where beta is at least max P/q: 1 for a constraint with the prior as proposal,
exp(max r / b) for the tilt exp(r / b). With a constraint alone the positive weights of the prior are all 1, and every
smaller beta is exact too.

Source: Eikema et al. 2022, "An approximate sampler for energy-based models with divergence diagnostics" (TMLR); its
first version is arXiv 2112.05702. Changed from the paper: one beta for all contexts, or one for each; the estimates
have standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import torch

from amenable.errors import ConfigError, SamplingError
from amenable.policy.protocol import Policy
from amenable.records import Decoding, Samples
from amenable.sampling.acceptance import Beta, beta_of
from amenable.sampling.draws import Draws, Progress, joined, propose
from amenable.seeding import derive, torch_generator
from amenable.target.partition import groups
from amenable.target.posterior import Target

FEW = 16  # proposals a context at least, in a round
ROUNDING = 1e-9  # nats, of log P - log q


@dataclass(frozen=True)
class Tally:
    """One context's count: of `proposed`, `missing` had no score, `accepted` passed, of which the first `kept` are given.

    `exceeded` had a weight above beta: 0 means that nothing seen contradicts an exact sample. `log_largest`: the
    largest weight.
    """

    context: str
    beta: float
    proposed: int = 0
    missing: int = 0
    accepted: int = 0
    kept: int = 0
    exceeded: int = 0
    log_largest: float = -math.inf


@dataclass(frozen=True)
class Proposed:
    """All M proposals that were made: the context of each, its log weight (M,) float64, and whether it was accepted (M,)."""

    prompts: list[str]
    log_weights: torch.Tensor
    accepted: torch.Tensor


@dataclass(frozen=True)
class Accepted:
    """Samples of p_beta, context-major in the order of their proposal, with log P and log q (N,); and what they cost.

    `tallies`: one a context, in the order asked. `all_proposed`: what `quality` needs, and cost nothing more.
    """

    prompts: list[str]
    samples: Samples
    log_score: torch.Tensor
    log_proposal: torch.Tensor
    tallies: list[Tally]
    all_proposed: Proposed
    n: int

    @property
    def without(self) -> list[str]:
        """The contexts of which nothing was accepted."""
        return [tally.context for tally in self.tallies if not tally.kept]

    @property
    def short(self) -> list[str]:
        """The contexts of which fewer than `n` were accepted."""
        return [tally.context for tally in self.tallies if tally.kept < self.n]

    @property
    def proposed(self) -> int:
        return sum(tally.proposed for tally in self.tallies)

    def acceptance(self, *, level: float = 0.95) -> tuple[float, float, float]:
        """The share of scored proposals that were accepted, over all contexts, and Wilson's interval (1927); NaN of none."""
        tried = sum(tally.proposed - tally.missing for tally in self.tallies)
        if not tried:
            return math.nan, math.nan, math.nan
        share = sum(tally.accepted for tally in self.tallies) / tried
        z = NormalDist().inv_cdf((1 + level) / 2) / math.sqrt(tried)  # of one trial
        middle, half = share + z * z / 2, z * math.sqrt(share * (1 - share) + z * z / 4)
        low, high = max(0.0, middle - half) / (1 + z * z), min(1 + z * z, middle + half) / (1 + z * z)
        return share, low, high

    def complete(self) -> Accepted:
        """Itself. Errors: SamplingError if a context has fewer than `n` samples; it names them."""
        if self.short:
            counts = {tally.context: tally.kept for tally in self.tallies}
            shown = ", ".join(f"{counts[context]} of {self.n} for {context[:40]!r}" for context in self.short[:5])
            raise SamplingError(
                f"the budget ended before {len(self.short)} of {len(self.tallies)} contexts had their samples: {shown}",
                "raise most, lower beta, or use a proposal that is closer to the target",
            )
        return self


def quasi_rejection(
    proposal: Policy,
    target: Target,
    contexts: Sequence[str],
    *,
    n: int,
    beta: Beta,
    most: int = 4096,
    batch: int = 512,
    decoding: Decoding | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Accepted:
    """`n` samples of p_beta for each context, from at most `most` proposals a context, about `batch` of them at a time.

    `beta`: one number, or {context: number}. What the budget did not suffice for is in `short`; `progress(kept, wanted)`.
    Errors: SamplingError if nothing at all was accepted; ConfigError for a beta that is not positive, or contexts given twice.
    """
    tallies = {context: Tally(context, beta_of(beta, context)) for context in contexts}
    if n < 1 or most < n or batch < 1 or len(tallies) != len(contexts) or not contexts:
        raise ConfigError(
            f"n={n} samples from most={most} proposals for {len(contexts)} contexts, {len(tallies)} of them different",
            "ask for at least one sample, no fewer proposals than samples, and each context once",
        )
    found: list[Draws] = []
    rounds: list[Proposed] = []
    while active := [tally for tally in tallies.values() if tally.kept < n and tally.proposed < most]:
        draws = propose(
            proposal,
            target,
            [tally.context for tally in active],
            n=_round(active, n, most, batch),
            decoding=decoding,
            seed=derive(seed, "proposals", len(rounds)),
        )
        log_beta = torch.tensor([math.log(tallies[prompt].beta) for prompt in draws.prompts], dtype=torch.float64)
        uniforms = torch.rand(len(draws), generator=torch_generator(seed, "accept", len(rounds)), dtype=torch.float64)
        passed = uniforms.log() < draws.log_weights - log_beta  # False where the weight is missing
        for context, chosen in groups(draws.prompts).items():
            own = chosen[passed[chosen]]
            kept = own[: n - tallies[context].kept]
            tallies[context] = _counted(tallies[context], draws.log_weights[chosen], len(own), len(kept))
            found += [draws.at(kept.tolist())] if len(kept) else []
        rounds.append(Proposed(draws.prompts, draws.log_weights, passed))
        if progress is not None:
            progress(sum(tally.kept for tally in tallies.values()), n * len(contexts))
    if not found:
        raise SamplingError(_nothing(list(tallies.values())), "raise most, lower beta, or use a closer proposal")
    order = {context: place for place, context in enumerate(contexts)}
    whole = joined(sorted(found, key=lambda part: order[part.prompts[0]]))  # stable: rounds stay in their order
    everything = Proposed(
        prompts=[prompt for part in rounds for prompt in part.prompts],
        log_weights=torch.cat([part.log_weights for part in rounds]),
        accepted=torch.cat([part.accepted for part in rounds]),
    )
    return Accepted(
        prompts=whole.prompts,
        samples=whole.samples,
        log_score=whole.log_score,
        log_proposal=whole.log_proposal,
        tallies=list(tallies.values()),
        all_proposed=everything,
        n=n,
    )


def _round(active: Sequence[Tally], n: int, most: int, batch: int) -> int:
    """How many proposals each of the active contexts gets next: about what the easiest of them needs."""
    left = most - max(tally.proposed for tally in active)
    room = max(1, batch // len(active))
    rates = [(n - tally.kept, tally.accepted / tally.proposed) for tally in active if tally.accepted]
    unknown = max(n, *(tally.proposed for tally in active))  # nothing accepted yet: as many as before once more
    need = min((math.ceil(1.2 * wanted / rate) for wanted, rate in rates), default=unknown)
    return max(1, min(left, room, max(FEW, need)))


def _counted(tally: Tally, log_weights: torch.Tensor, accepted: int, kept: int) -> Tally:
    known = log_weights[~log_weights.isnan()]
    return replace(
        tally,
        proposed=tally.proposed + len(log_weights),
        missing=tally.missing + len(log_weights) - len(known),
        accepted=tally.accepted + accepted,
        kept=tally.kept + kept,
        exceeded=tally.exceeded + int((known > math.log(tally.beta) + ROUNDING).sum()),
        log_largest=max([tally.log_largest, *known.tolist()]),
    )


def _nothing(tallies: Sequence[Tally]) -> str:
    proposed, missing = sum(tally.proposed for tally in tallies), sum(tally.missing for tally in tallies)
    largest = max(tally.log_largest for tally in tallies)
    if missing == proposed:
        why = "the feedback gave no answer for any of them"
    elif largest == -math.inf:
        why = "the target gives probability 0 to every one that has a score"
    else:
        why = f"the largest P/q is {math.exp(largest):.3g}, and beta is {max(tally.beta for tally in tallies):.3g}"
    named = ", ".join(repr(tally.context[:40]) for tally in tallies[:5])
    return f"none of {proposed:,} proposals was accepted, for any of {len(tallies)} contexts ({named}): {why}"
