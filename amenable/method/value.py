"""The learned value (`objective.value`) as a method uses it: read for a batch, then taught that batch, and remembered.

    values, (N, L)  <-  V of every prefix of the batch's texts, as it was known before
    V               <-  least squares over past batches and this one

One forward without gradient a batch, besides the one that learns. A text must not come again after V has learned its reward:
its value would know it, and the estimate be biased; so proposals that repeat texts are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from amenable.errors import ConfigError
from amenable.objective.value import LearnedValue
from amenable.records import Samples
from amenable.sampling.batches import subset
from amenable.sampling.proposal import Corpus, Proposal, Replay, State

NAME = "learned value: "  # before the names of its tensors, which stand beside those of a proposal


class ValueBaseline:
    """V of a policy's prefixes, from the rewards of the texts it has seen so far. Errors: ConfigError if they come again."""

    def __init__(self, proposal: Proposal) -> None:
        if isinstance(proposal, Replay | Corpus):
            raise ConfigError(
                f"a learned value with the proposal {proposal.name}: texts come again after V has learned their rewards",
                "use the policy, a fixed or an adaptive proposal, or baseline=leave-one-out",
            )
        self.known = LearnedValue()

    def read(
        self, policy: Any, samples: Samples, rewards: torch.Tensor, log_ratio: torch.Tensor, groups: Sequence[list[int]]
    ) -> torch.Tensor | None:
        """V (N, L) float64, 0 at padding, made without these samples, which count from then on; None if nothing was known.

        rewards    (N,) NaN where missing: no part in V
        log_ratio  (N,) log pi - log q
        groups     places of the samples that are read at once
        """
        values, anything = torch.zeros(samples.mask.shape, dtype=torch.float64), self.known.heads is not None
        ratio = log_ratio.exp()
        for group in groups:
            part = subset(samples, group)
            features, lengths = policy.prefix_features(part), part.lengths
            found = torch.zeros(part.mask.shape, dtype=torch.float64)
            found[part.mask] = self.known.predict(features).cpu()
            values[group, : found.shape[1]] = found
            every = (of[group].repeat_interleave(lengths) for of in (rewards, ratio))
            self.known.note(features, *every)
        self.known.learn()
        return values if anything else None

    def state(self) -> State:
        """What it knows."""
        tensors, facts = self.known.state()
        return State({NAME + name: tensor for name, tensor in tensors.items()}, facts)

    def restore(self, policy: Any, state: State) -> None:
        """Put back what `state` said; other tensors may stand beside its own."""
        own = {name.removeprefix(NAME): tensor for name, tensor in state.tensors.items() if name.startswith(NAME)}
        device = next(parameter.device for _, parameter in policy.trainable_parameters())
        self.known.restore(own, state.facts, device)
