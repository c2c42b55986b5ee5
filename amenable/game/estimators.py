"""The gradient of a game's expected loss: exact, or by one of two estimators.

    exact      J = 1/N sum_f sum_m l(m|f) sum_m' W(m'|m) cost(f, m'): every message, every string that can arrive
    reinforce  grad J = E[ grad cost + (cost - B) grad log l(m|f) ],  B = mean cost of the other samples (leave-one-out)
    gumbel     m a one-hot drawn with Gumbel noise; backward it counts as softmax((log l + noise) / T), and so does what the
               channel makes of it as m W: straight through. Biased for the speaker, less noisy

All three give one number a seed, whose gradient touches that seed's weights alone. REINFORCE is `objective/score_gradient` on
the policy's own samples (pi/q = 1, R = -cost), with the seeds axis in front, and is unbiased; without noise of its own the
listener's gradient is the plain one. The entropy of a speaker whose symbols depend on each other is, where it is sampled, the
sum of its symbols' entropies along the sampled message.
Source: Williams 1992; Kool et al. 2019 (leave-one-out); Jang et al. 2016, arXiv 1611.01144 (Gumbel-softmax).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from amenable.errors import ConfigError
from amenable.game.agents import ListenerNetwork, SpeakerNetwork
from amenable.game.signalling import Signalling


@dataclass(frozen=True)
class Play:
    """What one step of a game gives, each (S,): `surrogate` carries the gradient; `loss` and `entropy` (nats) are numbers."""

    surrogate: torch.Tensor
    loss: torch.Tensor
    entropy: torch.Tensor
    """Of the speaker's message, mean over objects; it carries gradient too, for the bonus."""


class Estimator(Protocol):
    """One way to the gradient. `draws`: how many uniform numbers a game takes; `samples`: games an object."""

    draws: int
    samples: int

    def __call__(
        self, speaker: SpeakerNetwork, listener: ListenerNetwork, objects: torch.Tensor, uniforms: torch.Tensor
    ) -> Play:
        """Play on `objects`, (B,) for all seeds or (S, B); `uniforms` (S, B * samples, draws)."""
        ...


class Exact:
    """The expected loss itself. Errors: ConfigError if the messages cannot be enumerated."""

    draws = 0
    samples = 1

    def __init__(self, game: Signalling, device: Any = "cpu") -> None:
        received, matrix = game.transition
        self.game, self.matrix, self.read = game, matrix.to(device), game.one_hot(received).to(device)

    def __call__(
        self, speaker: SpeakerNetwork, listener: ListenerNetwork, objects: torch.Tensor, uniforms: torch.Tensor
    ) -> Play:
        log_joint = speaker.log_joint(objects)
        joint = log_joint.exp()
        costs = self.game.costs(listener.logits(self.read), objects)
        loss = ((joint @ self.matrix) * costs.mT).sum((1, 2)) / objects.shape[-1]
        entropy = -(joint * log_joint).sum((1, 2)) / objects.shape[-1]
        return Play(loss, loss.detach(), entropy)


class Reinforce:
    """The score-function estimator; the baseline is the mean cost of the other samples of an object, or of the batch if one."""

    def __init__(self, game: Signalling, samples: int = 1) -> None:
        if samples < 1:
            raise ConfigError(f"samples={samples}: nothing is played", "use 1 or more")
        self.game, self.samples = game, samples
        self.draws = game.length + game.channel.draws(game.length)

    def __call__(
        self, speaker: SpeakerNetwork, listener: ListenerNetwork, objects: torch.Tensor, uniforms: torch.Tensor
    ) -> Play:
        game = self.game
        objects = objects.expand(speaker.seeds, objects.shape[-1]).repeat_interleave(self.samples, 1)
        spoken = speaker.speak(objects, uniforms[..., : game.length])
        received = game.channel.corrupt(spoken.messages, game.alphabet, uniforms[..., game.length :])
        cost = game.cost(listener.logits(game.one_hot(received)), objects)
        surrogate = cost.mean(1) + (self._advantage(cost.detach()) * spoken.log_prob).mean(1)
        return Play(surrogate, cost.detach().mean(1), spoken.entropy.mean(1))

    def _advantage(self, cost: torch.Tensor) -> torch.Tensor:
        """Each cost (S, B) less the mean of the others of its group: (c - mean) n / (n - 1)."""
        group = self.samples if self.samples > 1 else cost.shape[1]
        if group == 1:
            return cost
        costs = torch.unflatten(cost, 1, (-1, group))
        return ((costs - costs.mean(-1, keepdim=True)) * (group / (group - 1))).flatten(1)


class Gumbel:
    """The straight-through Gumbel-softmax estimator. Errors: ConfigError for noise with memory, and for an end symbol."""

    def __init__(self, game: Signalling, samples: int = 1, temperature: float = 1.0, device: Any = "cpu") -> None:
        if not game.channel.memoryless or game.eos:
            raise ConfigError(
                "gradient='gumbel' needs symbols that the channel treats one by one, and no end symbol",
                "use gradient='reinforce', or 'exact' where messages can be enumerated",
            )
        if temperature <= 0 or samples < 1:
            raise ConfigError(f"temperature={temperature:g}, samples={samples}", "use 1 and 1 or so")
        self.game, self.samples, self.temperature = game, samples, temperature
        self.arriving = game.channel.draws(game.length)
        self.draws = self.arriving + max(game.length * game.alphabet, len(game.messages) if game.enumerable else 0)
        arriving, law = game.channel.transition(torch.arange(game.alphabet).unsqueeze(1), game.alphabet)
        self.matrix = torch.zeros(game.alphabet, game.received_symbols)
        self.matrix[:, arriving[:, 0]] = law.float()
        self.matrix = self.matrix.to(device)

    def __call__(
        self, speaker: SpeakerNetwork, listener: ListenerNetwork, objects: torch.Tensor, uniforms: torch.Tensor
    ) -> Play:
        game = self.game
        objects = objects.expand(speaker.seeds, objects.shape[-1]).repeat_interleave(self.samples, 1)
        numbers = uniforms[..., self.arriving : self.arriving + speaker.gumbels]
        noise = -torch.log(-torch.log(numbers.clamp(1e-7, 1 - 1e-7)))
        spoken = speaker.relaxed(objects, noise, self.temperature)
        sent = spoken.messages.detach().argmax(-1)
        arrived = game.channel.corrupt(sent, game.alphabet, uniforms[..., : self.arriving])
        law = spoken.messages @ self.matrix
        cost = game.cost(listener.logits(game.one_hot(arrived) + law - law.detach()), objects)
        return Play(cost.mean(1), cost.detach().mean(1), spoken.entropy.mean(1))


def estimator(
    game: Signalling, gradient: str, *, samples: int = 1, temperature: float = 1.0, device: Any = "cpu"
) -> Estimator:
    """The estimator by name. Errors: ConfigError for an unknown one, or one that cannot play this game."""
    if gradient == "exact":
        return Exact(game, device)
    if gradient == "reinforce":
        return Reinforce(game, samples)
    if gradient == "gumbel":
        return Gumbel(game, samples, temperature, device)
    raise ConfigError(f"gradient={gradient!r} is not known", "use exact, gumbel or reinforce")
