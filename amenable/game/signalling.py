"""The signalling game: a speaker sees an object and sends a message, a listener receives it through noise and says the object.

    J = E over f, m ~ l(.|f), m' ~ W(.|m)  of  cost(f, m')

    loss            cost(f, m')                     what it credits
    factored        - sum_k log r_k(f_k | m')       each feature by itself: the bias of the training framework
    holistic        - log r(f | m'), N classes      the whole object (control)
    all-or-nothing  - prod_k r_k(f_k | m')          1 if every feature is right, so J = -P(all right) (control)

    letter  name      shape            what it is
    m       messages  (M, L) int64     all messages that can be sent, M = A^L without an end symbol
    m'      received  (R, L') int64    all strings that can arrive; W (M, R) their probabilities
    S       seeds                      independent runs in one program
            costs     (S, R, N) nats   cost(f, m')

With `eos`, symbol 0 ends a message: what follows it is 0 too, and is not counted.
Source: Kucinski, Korbak, Kolodziej, Milos 2021, arXiv 2111.06464 (game, noise, factored loss).
Changed from the paper: the listener's cost of every string is one table, so where A^L is small the expected loss is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch

from amenable.errors import ConfigError
from amenable.game.channels import Channel, Flip, every_message
from amenable.game.network import one_hot
from amenable.game.worlds import Attributes, one_hot_features

ENUMERABLE = 4096
"""The most messages whose expected loss is computed by enumeration."""


@dataclass(frozen=True)
class Signalling:
    """One game: objects of `world`, messages of `length` symbols out of `alphabet`, a noisy `channel`, and a `loss`."""

    world: Attributes = field(default_factory=Attributes)
    channel: Channel = field(default_factory=lambda: Flip(0.1))
    length: int = 2
    alphabet: int = 5
    loss: Literal["factored", "holistic", "all-or-nothing"] = "factored"
    eos: bool = False

    def __post_init__(self) -> None:
        if self.loss not in ("factored", "holistic", "all-or-nothing"):
            raise ConfigError(f"loss={self.loss!r} is not known", "use factored, holistic or all-or-nothing")
        if self.length < 1 or self.alphabet < 2:
            raise ConfigError(
                f"length={self.length}, alphabet={self.alphabet}: nothing can be said", "use 1 or more, and 2 or more"
            )

    @property
    def enumerable(self) -> bool:
        """Whether every message can be listed."""
        return int(self.alphabet**self.length) <= ENUMERABLE

    @cached_property
    def messages(self) -> torch.Tensor:
        """(M, L) int64. Errors: ConfigError if there are too many."""
        if not self.enumerable:
            raise ConfigError(
                f"{self.alphabet}^{self.length} messages are too many to enumerate",
                "use gradient='reinforce' or 'gumbel', or a smaller alphabet or length",
            )
        every = every_message(self.alphabet, self.length)
        return every[(every == self.ended(every)).all(1)]

    @cached_property
    def transition(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(R, L') int64 strings that can arrive, and W (M, R) float32."""
        received, matrix = self.channel.transition(self.messages, self.alphabet)
        return received, matrix.float()

    @property
    def received_length(self) -> int:
        """L', the most symbols that can arrive."""
        return self.channel.received_length(self.length)

    @property
    def received_symbols(self) -> int:
        """A', the symbols that can arrive, marks included."""
        return self.alphabet + self.channel.marks

    @property
    def outputs(self) -> int:
        """How many numbers a listener gives."""
        return self.world.objects if self.loss == "holistic" else sum(self.world.values)

    def ended(self, messages: torch.Tensor) -> torch.Tensor:
        """`messages` (..., L) with everything after the end symbol set to 0; themselves without `eos`."""
        return messages * self.counted(messages) if self.eos else messages

    def counted(self, messages: torch.Tensor) -> torch.Tensor:
        """Which symbols of (..., L) were really sent, up to and including the end symbol: bool."""
        if not self.eos:
            return torch.ones_like(messages, dtype=torch.bool)
        over = (messages == 0).cumsum(-1)
        return (over == 0) | ((over == 1) & (messages == 0))

    def one_hot(self, received: torch.Tensor) -> torch.Tensor:
        """What a listener reads: (..., L') int64 -> (..., L', A') float32."""
        return one_hot(received, self.received_symbols)

    def costs(self, logits: torch.Tensor, objects: torch.Tensor) -> torch.Tensor:
        """cost(f, m') of every object of `objects`, (B,) or (S, B), after every string: logits (S, R, outputs) -> (S, R, B)."""
        if self.loss == "holistic":
            own = one_hot(objects, self.world.objects)
            return -logits.log_softmax(-1) @ own.mT
        features = one_hot_features(self.world.features.to(objects.device)[objects], self.world.values)
        scores = self.by_feature(logits) @ features.mT
        return -scores if self.loss == "factored" else -scores.exp()

    def cost(self, logits: torch.Tensor, objects: torch.Tensor) -> torch.Tensor:
        """cost(f, m') of each string's own object: logits (S, B, outputs), objects (S, B) -> (S, B)."""
        if self.loss == "holistic":
            return -logits.log_softmax(-1).gather(-1, objects.unsqueeze(-1)).squeeze(-1)
        features = one_hot_features(self.world.features.to(objects.device)[objects], self.world.values)
        scores = (self.by_feature(logits) * features).sum(-1)
        return -scores if self.loss == "factored" else -scores.exp()

    def by_feature(self, logits: torch.Tensor) -> torch.Tensor:
        """log r_k(.|m') of each feature, one after the other: (..., V_1 + .. + V_K)."""
        values = self.world.values
        if len(set(values)) == 1:
            return torch.unflatten(logits, -1, (len(values), values[0])).log_softmax(-1).flatten(-2)
        return torch.cat([part.log_softmax(-1) for part in logits.split_with_sizes(values, -1)], -1)

    def guess(self, logits: torch.Tensor) -> torch.Tensor:
        """The object that a listener names, feature by feature: (..., outputs) -> (..., K) int64."""
        if self.loss == "holistic":
            return self.world.features.to(logits.device)[logits.argmax(-1)]
        return torch.stack([part.argmax(-1) for part in logits.split_with_sizes(self.world.values, -1)], -1)
