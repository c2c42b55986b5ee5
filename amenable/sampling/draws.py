"""Proposals with their weights: samples of q, log q and log P, from which every way of drawing from a target starts.

    w_i = P(x_i|c) / q(x_i|c),   x_i ~ q(.|c)       P = a phi, the target up to Z(c)

    letter  name          shape   unit
    q       log_proposal  (N,)    nats a sequence, as the draw recorded it
    P       log_score     (N,)    nats a sequence; -inf: the target forbids it; NaN: the feedback gave no answer
    w       log_weights   (N,)    nats

Any policy can propose: the prior, or one that was tuned towards the target and therefore has more even weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from amenable.errors import ConfigError
from amenable.policy.protocol import Policy
from amenable.records import Decoding, Samples
from amenable.sampling.batches import concatenated, subset
from amenable.target.posterior import Target, recorded_log_prob, sequence_log_prob

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Draws:
    """N samples that continue `prompts`, with log q and log P, (N,) float64 nats each."""

    prompts: list[str]
    samples: Samples
    log_proposal: torch.Tensor
    log_score: torch.Tensor

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def log_weights(self) -> torch.Tensor:
        """log P - log q, (N,) float64 nats."""
        return self.log_score - self.log_proposal

    @property
    def missing(self) -> torch.Tensor:
        """True where the feedback gave no answer: (N,) bool."""
        return self.log_score.isnan()

    def at(self, places: Sequence[int]) -> Draws:
        """Those at `places`, in that order; a place may come twice."""
        chosen = torch.tensor(list(places), dtype=torch.int64)
        return Draws(
            prompts=[self.prompts[place] for place in places],
            samples=subset(self.samples, places),
            log_proposal=self.log_proposal[chosen],
            log_score=self.log_score[chosen],
        )


def propose(
    proposal: Policy,
    target: Target,
    contexts: Sequence[str],
    *,
    n: int,
    decoding: Decoding | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Draws:
    """`n` samples of `proposal` for each context, context-major, scored by `target`.

    The prior is asked only about samples that the potential allows, and not at all where it is the proposal itself
    (`proposal is target.prior`): its log-probabilities are those of the draw.
    Errors: ConfigError for a `decoding` that is not the proposal's own law (temperature, top-k, top-p).
    """
    if n < 1:
        raise ConfigError(f"{n} samples a context cannot be drawn", "ask for at least 1")
    settings: dict[str, Any] = {} if decoding is None else {"decoding": decoding}
    samples = proposal.sample(contexts, n=n, seed=seed, progress=progress, **settings)
    prompts = [context for context in contexts for _ in range(n)]
    log_proposal = recorded_log_prob(samples)
    log_potential = target.potential.log_values(prompts, samples)
    allowed = (log_potential > -torch.inf).nonzero().flatten().tolist()  # neither forbidden nor missing
    log_score = log_potential.double().clone()
    if proposal is target.prior:
        log_score[allowed] += log_proposal[allowed]
    elif allowed:
        log_score[allowed] += sequence_log_prob(target.prior, subset(samples, allowed))
    return Draws(prompts, samples, log_proposal, log_score)


def joined(parts: Sequence[Draws]) -> Draws:
    """Draws one after the other."""
    return Draws(
        prompts=[prompt for part in parts for prompt in part.prompts],
        samples=concatenated([part.samples for part in parts]),
        log_proposal=torch.cat([part.log_proposal for part in parts]),
        log_score=torch.cat([part.log_score for part in parts]),
    )
