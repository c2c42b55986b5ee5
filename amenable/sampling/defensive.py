"""A proposal that cannot lose sight of the policy: a mixture of another proposal and the policy itself.

    q(x) = s pi(x) + (1 - s) q_0(x)         pi/q <= 1/s         s  share, in (0, 1)

Off-policy, a divergence whose rewards are mostly negative (Jensen-Shannon, total variation with a rare constraint) can be
"reduced" by moving the policy to where the proposal never looks: pi/q goes to 0 on every sample, and the gradient with it. With
half of the samples from the policy the weights stay below 2. Each sample's weight uses the law of the mixture, whichever part
it came from (the balance heuristic: Veach and Guibas 1995; defensive mixtures: Hesterberg 1995).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from amenable.errors import ConfigError
from amenable.records import Decoding, Samples
from amenable.sampling.batches import concatenated, subset
from amenable.sampling.proposal import Adaptive, Fixed, State, drawn
from amenable.seeding import derive, python_random
from amenable.target.posterior import Target, recorded_log_prob, sequence_log_prob


class Defensive:
    """`share` of the samples from the policy, the others from `inner`. How many of which is drawn by lot, as in any mixture."""

    on_policy = False

    def __init__(self, inner: Adaptive | Fixed, share: float = 0.5) -> None:
        if not 0 < share < 1:
            raise ConfigError(f"a mixture with a share of {share:g} of the policy", "use 0 < share < 1, such as 0.5")
        self.inner, self.share = inner, share
        self.name = f"{inner.name} with {share:g} of the policy"

    def prepare(
        self, step: int, policy: Any, target: Target, contexts: Sequence[str], decoding: Decoding, seed: int
    ) -> None:
        """The inner proposal's moment to change."""
        self.inner.prepare(step, policy, target, contexts, decoding, seed)

    def draw(
        self, step: int, policy: Any, contexts: Sequence[str], *, n: int, decoding: Decoding, seed: int
    ) -> Samples:
        """As `Proposal.draw`; the mixture's log-probability is that of a whole sequence, spread evenly over its tokens."""
        random = python_random(seed, "defensive")
        of_policy = sum(random.random() < self.share for _ in range(n))
        parts: list[tuple[Samples, torch.Tensor, torch.Tensor, int]] = []
        if of_policy:
            own = drawn(policy, contexts, n=of_policy, decoding=decoding, seed=derive(seed, "policy"))
            parts.append((own, recorded_log_prob(own), sequence_log_prob(self.inner.law, own), of_policy))
        if of_policy < n:
            other = self.inner.draw(
                step, policy, contexts, n=n - of_policy, decoding=decoding, seed=derive(seed, "other")
            )
            parts.append((other, sequence_log_prob(policy, other), recorded_log_prob(other), n - of_policy))
        batches = [self._mixed(samples, log_policy, log_other) for samples, log_policy, log_other, _ in parts]
        return concatenated(
            [
                subset(batch, range(place * count, (place + 1) * count))
                for place in range(len(contexts))
                for batch, (_, _, _, count) in zip(batches, parts, strict=True)
            ]
        )

    def _mixed(self, samples: Samples, log_policy: torch.Tensor, log_other: torch.Tensor) -> Samples:
        """The same samples, with the log-probabilities of the mixture."""
        log_law = torch.logaddexp(math.log(self.share) + log_policy, math.log1p(-self.share) + log_other)
        spread = (log_law / samples.lengths.clamp(min=1)).unsqueeze(1) * samples.mask
        return replace(samples, log_probs=spread)

    def state(self) -> State:
        """That of the inner proposal."""
        return self.inner.state()

    def restore(self, policy: Any, state: State) -> None:
        """Put it back."""
        self.inner.restore(policy, state)
