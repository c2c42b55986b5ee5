"""PPO with a clipped ratio, for RL with a KL penalty: what RLHF was published with, beside `FDPG` with an `ExpectedReward`.

    A(x) = r(x) - beta log(pi_old(x) / a(x)) - mean of the others' in the context     held constant for `epochs` steps
    loss = - mean over tokens of min(rho A, clip(rho, 1 - eps, 1 + eps) A),  rho = pi / pi_old of the token

    letter  name    unit
    eps     clip    share by which a token's probability may change before its gradient stops: 0.2

Source: Schulman et al. 2017, arXiv 1707.06347; for language models Ziegler et al. 2019, arXiv 1909.08593.
Changed from the papers: the reward of the whole sequence with a leave-one-out baseline takes the place of a learned value and
advantages a token (Ahmadian et al. 2024, arXiv 2402.14740, found no loss by it). With baseline="value" there is one a token,
A_t = R - V(c, x_<t), which is the papers' with lambda = 1; V is that of `objective.value`, not a second head with a loss of its
own. Advantages are not whitened, which would change what is optimised.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from amenable.errors import ConfigError
from amenable.method.fdpg import FDPG
from amenable.method.protocol import Loss
from amenable.objective.reward import ExpectedReward
from amenable.objective.score_gradient import clipped_surrogate, leave_one_out
from amenable.policy.scoring import length_groups
from amenable.sampling.batches import as_plain, from_plain, subset
from amenable.sampling.proposal import State
from amenable.seeding import derive
from amenable.target.partition import groups
from amenable.target.posterior import Target


class PPO(FDPG):
    """`FDPG`'s settings, and `epochs` steps on each batch of samples of the policy. `steps` counts optimiser steps.

    baseline: leave-one-out or value.
    """

    def __init__(
        self,
        policy: Any,
        target: Target,
        objective: ExpectedReward,
        *,
        epochs: int = 4,
        clip: float = 0.2,
        **settings: Any,
    ) -> None:
        super().__init__(policy, target, objective, **settings)
        if epochs < 1 or not 0 < clip < 1 or not self.proposal.on_policy:
            raise ConfigError(
                f"PPO with epochs={epochs}, clip={clip:g}, proposal={self.proposal.name}",
                "use epochs >= 1, 0 < clip < 1 and the policy itself as the proposal",
            )
        if self.baseline not in ("leave-one-out", "value"):
            raise ConfigError(f"PPO with baseline={self.baseline!r}", "use leave-one-out or value")
        self.epochs, self.clip = epochs, clip
        self.identity += f" ppo {epochs} {clip}"
        self._batch: tuple[Any, torch.Tensor] | None = None  # samples, and their advantages

    def losses(self, policy: Any, step: int) -> Iterator[Loss]:
        turn, epoch = divmod(step, self.epochs)
        sums: dict[str, float] = {}
        if epoch == 0 or self._batch is None:
            seed = derive(self.seed, "turn", turn)
            batch = self.draw(policy, step, self._contexts(turn), self.samples_per_context, seed)
            self._count(batch)
            rewards = self._rewards(batch)
            values = self._values(policy, batch, rewards)
            sums = self._numbers(batch, rewards, values)
            known = rewards.nan_to_num(nan=0.0)
            if values is None:
                gains = known - leave_one_out(known, ~rewards.isnan(), list(groups(batch.prompts).values()))
            else:
                gains = known.unsqueeze(1) - values
            gains[rewards.isnan()] = 0.0
            self._batch = batch.samples, gains
        samples, advantages = self._batch
        tokens = int(samples.lengths.sum())
        sizes = [
            len(context) + int(length) for context, length in zip(samples.context_ids, samples.lengths, strict=True)
        ]
        for group in length_groups(sizes, self.positions):
            part = subset(samples, group)
            log_probs = policy.log_prob(part)
            gain = advantages[group][..., : log_probs.shape[1]] if advantages.dim() == 2 else advantages[group]
            old, gain = part.log_probs.to(log_probs), gain.to(log_probs)
            mask = part.mask.to(log_probs.device)
            self._compare(
                log_probs.detach().sum(-1).cpu().double(), part.log_probs.double().sum(-1), part.lengths, step
            )
            yield Loss(clipped_surrogate(log_probs, old, gain, mask, clip=self.clip) / tokens, sums)
            sums = {}

    def state(self) -> State:
        """As `FDPG`, and the batch that is being learned from."""
        state = super().state()
        pending = None if self._batch is None else [as_plain(self._batch[0]), self._batch[1].tolist()]
        return State(state.tensors, {**state.facts, "pending": pending})

    def restore(self, policy: Any, state: State) -> None:
        """Put back what `state` said."""
        super().restore(policy, state)
        if state.facts["pending"] is not None:
            plain, advantages = state.facts["pending"]
            self._batch = from_plain(plain), torch.tensor(advantages, dtype=torch.float64)
