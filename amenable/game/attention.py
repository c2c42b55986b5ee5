"""One block of self-attention for S seeds at once: queries meet keys, the values' mean goes on, then a hidden layer.

    y = x + softmax(x Q (x K)' / sqrt(H)) x V        out = y + relu(y W1 + b1) W2 + b2

    x   (S, B, T, H)  a vector for each place: symbol + place (+ the object, for a speaker)

A speaker's places see only those before them (causal mask), the first one sees the object alone. One head and no layer
normalisation: messages are a few symbols long.
Source: Vaswani et al. 2017, arXiv 1706.03762.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from amenable.game.agents import ListenerNetwork, SpeakerNetwork, Spoken, at, entropy, straight_through
from amenable.game.network import dense, draw_symbols, linear, one_hot
from amenable.game.signalling import Signalling

Layers = list[tuple[tuple[int, ...], float]]


def block(hidden: int) -> Layers:
    """The weights of one block, for `Network`."""
    return [((hidden, 3 * hidden), hidden), *dense(hidden, hidden), *dense(hidden, hidden)]


def attend(x: torch.Tensor, weights: Sequence[torch.Tensor], *, causal: bool) -> torch.Tensor:
    """(S, B, T, H) -> (S, B, T, H)."""
    mixed, w1, b1, w2, b2 = weights
    shape = x.shape
    q, k, v = (x.flatten(1, 2) @ mixed).view(*shape[:-1], 3, shape[-1]).unbind(-2)
    scores = q @ k.mT * shape[-1] ** -0.5
    if causal:
        later = torch.ones(shape[2], shape[2], dtype=torch.bool, device=x.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    y: torch.Tensor = (x + scores.softmax(-1) @ v).flatten(1, 2)
    return (y + linear(linear(y, w1, b1).relu(), w2, b2)).view(shape)


class AttentionSpeaker(SpeakerNetwork):
    """Each symbol is drawn given the object and the symbols before."""

    def __init__(self, game: Signalling, hidden: int, seeds: Sequence[int], device: Any) -> None:
        seen = game.world.inputs()[0].numel()
        words: Layers = [((game.alphabet, hidden), hidden), ((game.length, hidden), hidden)]
        super().__init__(
            game, [*dense(seen, hidden), *words, *block(hidden), *dense(hidden, game.alphabet)], seeds, device
        )

    def _log_probs(self, objects: torch.Tensor, symbols: torch.Tensor) -> torch.Tensor:
        """Of place 0 .. T, after one-hot `symbols` (S, B, T, A): (S, B, T + 1, A) nats."""
        w, bias, words, places, *middle, out, last = self.weights()
        x = linear(self.shown(objects), w, bias).unsqueeze(2)
        if symbols.shape[2]:
            said = torch.unflatten(symbols.flatten(1, 2) @ words, 1, symbols.shape[1:3])
            x = torch.cat([x, x + said], 2)
        y = attend(x + places[:, : x.shape[2]].unsqueeze(1), middle, causal=True)
        return torch.unflatten(linear(y.flatten(1, 2), out, last).log_softmax(-1), 1, y.shape[1:3])

    def _one_hot(self, messages: torch.Tensor) -> torch.Tensor:
        return one_hot(messages, self.game.alphabet)

    def speak(self, objects: torch.Tensor, uniforms: torch.Tensor | None = None) -> Spoken:
        game = self.game
        messages = torch.zeros(self.seeds, objects.shape[-1], 0, dtype=torch.int64, device=objects.device)
        with torch.no_grad():
            for place in range(game.length):
                law = self._log_probs(objects, self._one_hot(messages))[:, :, -1]
                symbol = draw_symbols(law.exp(), None if uniforms is None else uniforms[..., place])
                messages = torch.cat([messages, symbol.unsqueeze(-1)], -1)
        messages = game.ended(messages)
        log_probs = self._log_probs(objects, self._one_hot(messages[..., :-1]))
        sent = game.counted(messages)
        return Spoken(messages, (at(log_probs, messages) * sent).sum(-1), (entropy(log_probs) * sent).sum(-1))

    def log_joint(self, objects: torch.Tensor) -> torch.Tensor:
        messages = self.game.messages.to(objects.device)
        count, objects = objects.shape[-1], objects.repeat_interleave(len(messages), -1)
        every = messages.repeat(count, 1).expand(self.seeds, -1, -1)
        log_probs = self._log_probs(objects, self._one_hot(every[..., :-1]))
        said = (at(log_probs, every) * self.game.counted(every)).sum(-1)
        return torch.unflatten(said, 1, (count, -1))

    def relaxed(self, objects: torch.Tensor, noise: torch.Tensor, temperature: float) -> Spoken:
        noise = torch.unflatten(noise, -1, (self.game.length, self.game.alphabet))
        symbols = torch.zeros(self.seeds, objects.shape[-1], 0, self.game.alphabet, device=objects.device)
        for place in range(self.game.length):
            log_probs = self._log_probs(objects, symbols)
            symbol = straight_through(log_probs[:, :, -1], noise[:, :, place], temperature)
            symbols = torch.cat([symbols, symbol.unsqueeze(2)], 2)
        drawn = symbols.detach().argmax(-1)
        return Spoken(symbols, at(log_probs, drawn).sum(-1), entropy(log_probs).sum(-1))


class AttentionListener(ListenerNetwork):
    """The mean over places of one block."""

    def __init__(self, game: Signalling, hidden: int, seeds: Sequence[int], device: Any) -> None:
        words: Layers = [((game.received_symbols, hidden), hidden), ((game.received_length, hidden), hidden)]
        super().__init__(game, [*words, *block(hidden), *dense(hidden, game.outputs)], seeds, device)

    def logits(self, received: torch.Tensor) -> torch.Tensor:
        words, places, *middle, out, last = self.weights()
        read = received.expand(self.seeds, *received.shape[-3:])
        x = torch.unflatten(read.flatten(1, 2) @ words, 1, read.shape[1:3]) + places.unsqueeze(1)
        return linear(attend(x, middle, causal=False).mean(2), out, last)
