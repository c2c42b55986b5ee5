"""Learning from comparisons: a reward model, or the policy itself.

    RewardModelling   max sum_i log P(label_i | r)                a reward model r, by Bradley-Terry
    DPO               max sum_i log P(label_i | beta f'(pi/a))    the policy pi is its own reward model

    target    RLHF's: the prior tilted by the people's reward   proposal   the pairs themselves (offline)
    divergence (DPO)  any that `objective.preference.usable_for_dpo` allows; the reverse KL is DPO as published

A step takes a batch of pairs; each epoch visits every pair once, in an order of its own. The losses and their sources are in
`objective.preference`. The reference's log-probabilities are computed once, before the first step, and kept in every
checkpoint; without a reference of its own DPO takes the policy as it is then, so no second model is held in memory.
Where only a reward model's head is learned, `reward_head` finds it at once.
Changed from the papers: soft labels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

import torch

from amenable.errors import ConfigError, TrainingError
from amenable.method.protocol import Loss
from amenable.objective.divergence import Divergence, ReverseKL
from amenable.objective.preference import (
    bradley_terry,
    direct_preference,
    identity_preference,
    implicit_rewards,
    smoothed,
    usable_for_dpo,
)
from amenable.policy.scoring import length_groups
from amenable.records import Samples, as_samples
from amenable.sampling.proposal import State
from amenable.seeding import python_random


class Pair(Protocol):
    """Two answers to a prompt and P(the first is better); `task.preferences.Comparison` is one."""

    @property
    def prompt(self) -> str: ...
    @property
    def first(self) -> str: ...
    @property
    def second(self) -> str: ...
    @property
    def label(self) -> float | None: ...


class _Pairs:
    """Epochs over labelled pairs in batches of nearly equal size. `labels`: P(first is better), (pairs,) float64, smoothed."""

    def __init__(
        self, pairs: Sequence[Pair], *, epochs: int, batch_size: int, smoothing: float, seed: int, positions: int,
        settings: list[Any],
    ) -> None:  # fmt: skip
        unlabelled = sum(pair.label is None for pair in pairs)
        if not pairs or unlabelled:
            raise TrainingError(
                f"{len(pairs)} pairs to learn from, {unlabelled} of them without a label",
                "leave out pairs that nobody judged, or have them judged: amenable judge",
            )
        self.pairs, self.batch_size, self.seed, self.positions = pairs, batch_size, seed, positions
        self.batches_per_epoch = -(-len(pairs) // batch_size)
        self.steps = epochs * self.batches_per_epoch
        self.labels = smoothed(torch.tensor([pair.label for pair in pairs], dtype=torch.float64), smoothing)
        rows = [[pair.prompt, pair.first, pair.second, pair.label] for pair in pairs]
        what = [type(self).__name__, rows, epochs, batch_size, smoothing, seed, settings]
        self.identity = hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def batch(self, step: int) -> list[int]:
        """Places of the pairs of optimiser step `step`."""
        epoch, place = divmod(step, self.batches_per_epoch)
        order = list(range(len(self.pairs)))
        python_random(self.seed, "epoch", epoch).shuffle(order)
        first, last = (len(order) * part // self.batches_per_epoch for part in (place, place + 1))
        return order[first:last]


class RewardModelling(_Pairs):
    """Bradley-Terry on a reward model with `encode(prompt, completion)` and `rewards(ids) -> (N,)`, such as `RewardModel`.

    margin: the better answer shall win by it; centring: weight of (r1 + r2)^2; smoothing: share of labels taken for wrong.
    positions: padded tokens of one micro-batch (memory); does not change the result beyond rounding.
    Errors: TrainingError for no pairs, or pairs without a label.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        epochs: int = 1,
        batch_size: int = 32,
        margin: float = 0.0,
        centring: float = 0.0,
        smoothing: float = 0.0,
        seed: int = 0,
        positions: int = 4096,
    ) -> None:
        super().__init__(
            pairs, epochs=epochs, batch_size=batch_size, smoothing=smoothing, seed=seed, positions=positions,
            settings=[margin, centring],
        )  # fmt: skip
        self.margin, self.centring = margin, centring

    def losses(self, policy: Any, step: int) -> Iterator[Loss]:
        places = self.batch(step)
        batch = [self.pairs[place] for place in places]
        texts = [(policy.encode(pair.prompt, pair.first), policy.encode(pair.prompt, pair.second)) for pair in batch]
        sizes = [2 * max(len(first), len(second)) for first, second in texts]
        for group in length_groups(sizes, self.positions):
            rewards = policy.rewards([text for i in group for text in texts[i]]).view(-1, 2)
            labels = self.labels[[places[i] for i in group]].to(rewards)
            loss = bradley_terry(
                rewards[:, 0], rewards[:, 1], labels, margin=self.margin, centring=self.centring
            ).sum() / len(places)
            yield Loss(loss, _numbers(loss, rewards, labels, len(places)))

    def state(self) -> State:
        """Nothing: a step depends on its number alone."""
        return State()

    def restore(self, policy: Any, state: State) -> None:
        """Nothing to put back."""


class DPO(_Pairs):
    """Direct preference optimisation of a policy, in the f-divergence to the reference that is given.

    reference: the prior a, frozen; None: the policy before its first step. beta: weight of the divergence of whole sequences.
    loss: "sigmoid" (Bradley-Terry) or "ipo", which knows the reverse KL alone. smoothing: cDPO. `eos`: an answer is over where
    its text ends, and its end is learned too.
    Errors: TrainingError for no pairs, or pairs without a label; ConfigError for a divergence or beta that cannot be.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        beta: float = 0.1,
        divergence: Divergence = ReverseKL,
        loss: Literal["sigmoid", "ipo"] = "sigmoid",
        smoothing: float = 0.0,
        reference: Any = None,
        eos: bool = True,
        epochs: int = 1,
        batch_size: int = 32,
        seed: int = 0,
        positions: int = 4096,
    ) -> None:
        if loss not in ("sigmoid", "ipo") or not beta > 0 or (loss == "ipo" and divergence.name != ReverseKL.name):
            raise ConfigError(
                f"DPO with loss={loss}, beta={beta:g}, divergence={divergence.name}",
                "use beta > 0, and loss=sigmoid, or loss=ipo with the reverse KL",
            )
        super().__init__(
            pairs, epochs=epochs, batch_size=batch_size, smoothing=smoothing, seed=seed, positions=positions,
            settings=[beta, divergence.name, loss, eos, getattr(reference, "name", None)],
        )  # fmt: skip
        self.beta, self.divergence, self.loss = beta, usable_for_dpo(divergence), loss
        self.reference, self.eos = reference, eos
        self._known: torch.Tensor | None = None  # (pairs, 2) float64 nats a sequence, of the reference

    def losses(self, policy: Any, step: int) -> Iterator[Loss]:
        if self._known is None:
            self._known = self.scored(self.reference or policy)
        places = self.batch(step)
        for group, samples in self._micro_batches(policy, places):
            log_policy = policy.log_prob(samples).double().sum(-1).view(-1, 2)
            log_reference = self._known[group].to(log_policy.device)
            labels = self.labels[group].to(log_policy)
            if self.loss == "ipo":
                losses = identity_preference(log_policy, log_reference, labels, beta=self.beta)
            else:
                losses = direct_preference(
                    log_policy, log_reference, labels, beta=self.beta, divergence=self.divergence
                )
            loss = losses.sum() / len(places)
            with torch.no_grad():
                rewards = implicit_rewards(log_policy, log_reference, beta=self.beta, divergence=self.divergence)
                sums = _numbers(loss, rewards, labels, len(places))
                sums["log_ratio"] = float((log_policy - log_reference).mean(-1).sum()) / len(places)
            yield Loss(loss, sums)

    @torch.no_grad()
    def scored(self, policy: Any) -> torch.Tensor:
        """log pi of both answers of every pair: (pairs, 2) float64 nats a sequence, on the CPU."""
        found = torch.zeros(len(self.pairs), 2, dtype=torch.float64)
        for group, samples in self._micro_batches(policy, range(len(self.pairs))):
            found[group] = policy.log_prob(samples).double().sum(-1).view(-1, 2).cpu()
        return found

    def _micro_batches(self, policy: Any, places: Sequence[int]) -> Iterator[tuple[list[int], Samples]]:
        """Pairs by length: their places, and both answers of each, one after the other."""
        contexts = {place: policy.encode(self.pairs[place].prompt) for place in places}
        answers = {
            place: [
                policy.encode_completion(text, eos=self.eos)
                for text in (self.pairs[place].first, self.pairs[place].second)
            ]
            for place in places
        }
        sizes = [2 * (len(contexts[place]) + max(map(len, answers[place]))) for place in places]
        for group in length_groups(sizes, self.positions):
            chosen = [places[i] for i in group]
            twice = [contexts[place] for place in chosen for _ in range(2)]
            yield chosen, as_samples(twice, [ids for place in chosen for ids in answers[place]])

    def state(self) -> State:
        """The reference's log-probabilities."""
        return State({} if self._known is None else {"reference": self._known})

    def restore(self, policy: Any, state: State) -> None:
        """Put them back: the policy is no longer what it was at first."""
        self._known = state.tensors.get("reference")


def _numbers(loss: torch.Tensor, rewards: torch.Tensor, labels: torch.Tensor, count: int) -> dict[str, float]:
    """What is logged of a micro-batch: its share of the step's means. A tie in the labels or rewards is half right."""
    gap = (rewards[:, 0] - rewards[:, 1]).detach().double()
    sign = (labels - 0.5).sign().double()
    right = 0.5 + 0.5 * (gap.sign() * sign)
    return {
        "loss": float(loss.detach()),
        "accuracy": float(right.sum()) / count,
        "margin": float((gap * sign).sum()) / count,
        "reward": float(rewards.detach().double().mean(-1).sum()) / count,
    }
