"""Speakers and listeners: an architecture by name, built for a game and for many seeds at once.

    kind       a speaker ..                                        a listener ..
    table      has a logit for each pair of object and message:    has logits of its own for each string that can arrive
               no bias of architecture
    mlp        a hidden layer over the features, L independent     a hidden layer over the one-hot string
               symbols
    gru        says symbol after symbol, each given those before   reads symbol after symbol
    attention  the same, one block of causal self-attention        one block of self-attention, mean over places
    cnn        two convolutions over the image, then as mlp        (none: messages are no images)

A speaker is l(m|f): (S, B, L, A) log-probabilities in nats. A listener gives (S, B, outputs) logits.
`Speaker` and `Listener` say what to build; `build` returns networks whose weights have a leading seeds axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch

from amenable.errors import ConfigError, nearest
from amenable.game.network import Network, dense, draw_symbols, linear, one_hot
from amenable.game.signalling import Signalling

STRIDE = 10.0
"""A table's logits are so many times its weights: a step moves them about as far as one moves the logits of an mlp."""


@dataclass(frozen=True)
class Spoken:
    """Messages (S, B, L) int64, or straight-through one-hots (S, B, L, A); their `log_prob` and the `entropy`, nats, (S, B)."""

    messages: torch.Tensor
    log_prob: torch.Tensor
    entropy: torch.Tensor


class SpeakerNetwork(Network):
    """S speakers. Objects are numbers: (B,) the same for all seeds, or (S, B)."""

    inputs: torch.Tensor

    def __init__(
        self, game: Signalling, layers: Sequence[tuple[tuple[int, ...], float]], seeds: Sequence[int], device: Any
    ) -> None:
        super().__init__(layers, seeds, "speaker", device)
        self.game = game
        inputs = torch.eye(0) if isinstance(self, TableSpeaker) else game.world.inputs()
        self.register_buffer("inputs", inputs.to(device), persistent=False)

    def shown(self, objects: torch.Tensor) -> torch.Tensor:
        """What these speakers see: (S, B, inputs); images are flattened."""
        seen = self.inputs[objects].flatten(objects.dim())
        return seen if objects.dim() == 2 else seen.expand(self.seeds, *seen.shape)

    def speak(self, objects: torch.Tensor, uniforms: torch.Tensor | None = None) -> Spoken:
        """A message an object, drawn with `uniforms` (S, B, L); the most likely, symbol by symbol, if None."""
        raise NotImplementedError

    def log_joint(self, objects: torch.Tensor) -> torch.Tensor:
        """log l(m|f) of every message of the game, nats: (S, B, M)."""
        raise NotImplementedError

    def relaxed(self, objects: torch.Tensor, noise: torch.Tensor, temperature: float) -> Spoken:
        """Straight-through one-hot messages, drawn with Gumbel `noise` (S, B, gumbels)."""
        raise NotImplementedError

    @property
    def gumbels(self) -> int:
        """Gumbel numbers that one message takes."""
        return self.game.length * self.game.alphabet


class TableSpeaker(SpeakerNetwork):
    """One logit for each object and message: nothing is shared between objects, nor between messages."""

    messages: torch.Tensor

    def __init__(self, game: Signalling, hidden: int, seeds: Sequence[int], device: Any) -> None:
        super().__init__(game, [table(game.world.objects, len(game.messages))], seeds, device)
        self.register_buffer("messages", game.messages.to(device), persistent=False)

    def log_joint(self, objects: torch.Tensor) -> torch.Tensor:
        logits = STRIDE * self.weights()[0]
        if objects.dim() == 1:
            return logits[:, objects].log_softmax(-1)
        return logits.gather(1, objects.unsqueeze(-1).expand(*objects.shape, logits.shape[-1])).log_softmax(-1)

    def speak(self, objects: torch.Tensor, uniforms: torch.Tensor | None = None) -> Spoken:
        joint = self.log_joint(objects)
        drawn = draw_symbols(joint.detach().exp(), None if uniforms is None else uniforms[..., 0])
        return Spoken(self.messages[drawn], at(joint, drawn), entropy(joint))

    def relaxed(self, objects: torch.Tensor, noise: torch.Tensor, temperature: float) -> Spoken:
        joint = self.log_joint(objects)
        words = one_hot(self.messages, self.game.alphabet)
        chosen = straight_through(joint, noise, temperature)
        symbols = torch.unflatten(chosen @ words.flatten(1), -1, words.shape[1:])
        return Spoken(symbols, at(joint, chosen.argmax(-1)), entropy(joint))

    @property
    def gumbels(self) -> int:
        return len(self.messages)


class IndependentSpeaker(SpeakerNetwork):
    """Symbols that are independent given the object."""

    def log_probs(self, objects: torch.Tensor) -> torch.Tensor:
        """(S, B, L, A) nats."""
        raise NotImplementedError

    def speak(self, objects: torch.Tensor, uniforms: torch.Tensor | None = None) -> Spoken:
        log_probs = self.log_probs(objects)
        messages = self.game.ended(draw_symbols(log_probs.detach().exp(), uniforms))
        return self.counted(messages, log_probs)

    def counted(self, messages: torch.Tensor, log_probs: torch.Tensor) -> Spoken:
        """`messages` (S, B, L) with what the symbols that were sent add up to."""
        sent = self.game.counted(messages)
        return Spoken(messages, (at(log_probs, messages) * sent).sum(-1), (entropy(log_probs) * sent).sum(-1))

    def log_joint(self, objects: torch.Tensor) -> torch.Tensor:
        game = self.game
        messages = game.messages.to(objects.device)
        which = one_hot(messages, game.alphabet) * game.counted(messages).unsqueeze(-1)
        return self.log_probs(objects).flatten(2) @ which.flatten(1).T

    def relaxed(self, objects: torch.Tensor, noise: torch.Tensor, temperature: float) -> Spoken:
        log_probs = self.log_probs(objects)
        symbols = straight_through(log_probs, noise.view_as(log_probs), temperature)
        return replace(self.counted(symbols.detach().argmax(-1), log_probs), messages=symbols)


class MLPSpeaker(IndependentSpeaker):
    """One hidden layer of rectified units over what is seen."""

    def __init__(self, game: Signalling, hidden: int, seeds: Sequence[int], device: Any) -> None:
        seen = game.world.inputs()[0].numel()
        super().__init__(game, [*dense(seen, hidden), *dense(hidden, game.length * game.alphabet)], seeds, device)

    def log_probs(self, objects: torch.Tensor) -> torch.Tensor:
        w1, b1, w2, b2 = self.weights()
        logits = linear(linear(self.shown(objects), w1, b1).relu(), w2, b2)
        return torch.unflatten(logits, -1, (self.game.length, self.game.alphabet)).log_softmax(-1)


class CNNSpeaker(IndependentSpeaker):
    """Two 3 x 3 convolutions with stride 2, then a hidden layer. A convolution is a matrix product over patches."""

    CHANNELS: ClassVar[tuple[int, int]] = (8, 16)
    patches: torch.Tensor

    def __init__(self, game: Signalling, hidden: int, seeds: Sequence[int], device: Any) -> None:
        image = game.world.inputs()
        if image.dim() != 4:
            raise ConfigError(
                "a cnn speaker needs images, and this world has none", "use world=Shapes(), or Speaker('mlp')"
            )
        self.side = (image.shape[-1] + 1) // 2
        first, second = self.CHANNELS
        flat = second * ((self.side + 1) // 2) ** 2
        layers = [*dense(9 * image.shape[1], first), *dense(9 * first, second), *dense(flat, hidden)]
        super().__init__(game, [*layers, *dense(hidden, game.length * game.alphabet)], seeds, device)
        patches = torch.nn.functional.unfold(image, 3, padding=1, stride=2).transpose(1, 2)  # (N, places, 27)
        self.register_buffer("patches", patches.to(device), persistent=False)

    def log_probs(self, objects: torch.Tensor) -> torch.Tensor:
        w1, b1, w2, b2, w3, b3, w4, b4 = self.weights()
        patches = self.patches[objects].flatten(-3, -2)
        first = linear(patches, w1, b1).relu()  # (S, B * places, channels)
        images = torch.unflatten(first, 1, (-1, self.side, self.side)).movedim(-1, 2).flatten(0, 1)
        patches = torch.nn.functional.unfold(images, 3, padding=1, stride=2).transpose(1, 2)
        second = linear(patches.reshape(self.seeds, -1, patches.shape[-1]), w2, b2).relu()
        hidden = linear(second.reshape(self.seeds, objects.shape[-1], -1), w3, b3).relu()
        logits = linear(hidden, w4, b4)
        return torch.unflatten(logits, -1, (self.game.length, self.game.alphabet)).log_softmax(-1)


class ListenerNetwork(Network):
    """S listeners. They read one-hot strings (R, L', A') that are the same for all, or (S, B, L', A')."""

    def __init__(
        self, game: Signalling, layers: Sequence[tuple[tuple[int, ...], float]], seeds: Sequence[int], device: Any
    ) -> None:
        super().__init__(layers, seeds, "listener", device)
        self.game = game

    def logits(self, received: torch.Tensor) -> torch.Tensor:
        """(S, B, outputs)."""
        raise NotImplementedError


class TableListener(ListenerNetwork):
    """Logits of its own for each string that can arrive."""

    codes: torch.Tensor

    def __init__(self, game: Signalling, hidden: int, seeds: Sequence[int], device: Any) -> None:
        received = game.transition[0]
        super().__init__(game, [table(len(received), game.outputs)], seeds, device)
        self.places = (game.received_symbols ** torch.arange(game.received_length - 1, -1, -1)).to(device)
        self.register_buffer("codes", (received.to(device) * self.places).sum(-1), persistent=False)

    def logits(self, received: torch.Tensor) -> torch.Tensor:
        logits = STRIDE * self.weights()[0]
        rows = torch.searchsorted(self.codes, (received.argmax(-1) * self.places).sum(-1))
        rows = rows.expand(self.seeds, rows.shape[-1])
        return logits.gather(1, rows.unsqueeze(-1).expand(*rows.shape, logits.shape[-1]))


class MLPListener(ListenerNetwork):
    """One hidden layer of rectified units over the one-hot string."""

    def __init__(self, game: Signalling, hidden: int, seeds: Sequence[int], device: Any) -> None:
        read = game.received_length * game.received_symbols
        super().__init__(game, [*dense(read, hidden), *dense(hidden, game.outputs)], seeds, device)

    def logits(self, received: torch.Tensor) -> torch.Tensor:
        w1, b1, w2, b2 = self.weights()
        return linear(linear(received.flatten(-2), w1, b1).relu(), w2, b2)


def table(rows: int, columns: int) -> tuple[tuple[int, int], float]:
    """The weights of a table, for `Network`: its logits begin as those of a linear layer over the one-hot row would."""
    return (rows, columns), STRIDE**2 * rows


def at(log_probs: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """log-probability of `chosen` (...) under (..., A)."""
    return log_probs.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)


def entropy(log_probs: torch.Tensor) -> torch.Tensor:
    """Entropy in nats of the laws (..., A): (...)."""
    return -(log_probs.exp() * log_probs).sum(-1)


def straight_through(log_probs: torch.Tensor, noise: torch.Tensor, temperature: float) -> torch.Tensor:
    """The symbol of a Gumbel-max draw as a one-hot, whose gradient is that of softmax((log p + noise) / temperature)."""
    soft = ((log_probs + noise) / temperature).softmax(-1)
    hard = one_hot(soft.argmax(-1), soft.shape[-1], soft.dtype)
    return hard + soft - soft.detach()


@dataclass(frozen=True)
class Speaker:
    """A speaker's architecture; `hidden` units a layer."""

    kind: Literal["table", "mlp", "gru", "attention", "cnn"] = "mlp"
    hidden: int = 64

    def __post_init__(self) -> None:
        _check(self.kind, self.hidden, ("table", "mlp", "gru", "attention", "cnn"))

    def build(self, game: Signalling, seeds: Sequence[int], device: Any = "cpu") -> SpeakerNetwork:
        """One network a seed, each drawn from its own stream. Errors: ConfigError if the game has no images for a cnn."""
        from amenable.game import attention, recurrent

        kinds = {
            "table": TableSpeaker,
            "mlp": MLPSpeaker,
            "cnn": CNNSpeaker,
            "gru": recurrent.GRUSpeaker,
            "attention": attention.AttentionSpeaker,
        }
        return kinds[self.kind](game, self.hidden, seeds, device)


@dataclass(frozen=True)
class Listener:
    """A listener's architecture; `hidden` units a layer."""

    kind: Literal["table", "mlp", "gru", "attention"] = "mlp"
    hidden: int = 64

    def __post_init__(self) -> None:
        _check(self.kind, self.hidden, ("table", "mlp", "gru", "attention"))

    def build(self, game: Signalling, seeds: Sequence[int], device: Any = "cpu") -> ListenerNetwork:
        """One network a seed. Errors: ConfigError if a table would need strings that cannot be enumerated."""
        from amenable.game import attention, recurrent

        kinds = {
            "table": TableListener,
            "mlp": MLPListener,
            "gru": recurrent.GRUListener,
            "attention": attention.AttentionListener,
        }
        return kinds[self.kind](game, self.hidden, seeds, device)


def _check(kind: str, hidden: int, known: tuple[str, ...]) -> None:
    if kind not in known:
        raise ConfigError(f"kind={kind!r} is no such agent", nearest(kind, known))
    if hidden < 1:
        raise ConfigError(f"hidden={hidden}: a layer without units", "use 64 or so")
