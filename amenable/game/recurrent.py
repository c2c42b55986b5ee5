"""Gated recurrent units for S seeds at once, with the backward pass written out.

    r_t, z_t = sigmoid(x_t + h_{t-1} U)      n_t = tanh(x_t + r_t (h_{t-1} U + b))      h_t = n_t + z_t (h_{t-1} - n_t)

    letter  name     shape             what it is
    x       inputs   (S, T, B, 3H)     what each place puts into the three gates; of a symbol, its row of a table
    h       state    (S, B, H)         U (S, H, 3H), b (S, 1, H)
    T       places

A symbol goes straight to the gates: the embedding, the input matrix and the gates' biases of the usual layer are one table
(A, 3H), which can say the same. A speaker's sampling pass is its forward pass: the symbols are drawn in it, and backward walks
the activations that it kept. Autograd would keep some fifteen small results a place and launch twice as many operations.
Source: Cho et al. 2014, arXiv 1406.1078; gates as in torch.nn.GRU (a test compares the two).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from amenable.game.agents import ListenerNetwork, SpeakerNetwork, Spoken, at, entropy, straight_through
from amenable.game.network import dense, draw_symbols, linear, one_hot
from amenable.game.signalling import Signalling

Choose = Callable[[torch.Tensor, int], torch.Tensor]


class Recurrence(torch.autograd.Function):
    """(S, T, B, H) states from given inputs (S, T, B, 3H)."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, state: torch.Tensor, u: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        kept = _forward(inputs.shape[1], lambda t, states: inputs[:, t], state, u, b)
        ctx.save_for_backward(state, u, *kept)
        return kept[0]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return _backward(gradients[0], *ctx.saved_tensors)


class SymbolRecurrence(torch.autograd.Function):
    """States (S, T, B, H) from symbols, each of which puts its row of the table into the gates; and the symbols (S, T, B).

    `choose(states, t)` gives the symbols read at place t from the states before it, without gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        table: torch.Tensor,
        state: torch.Tensor,
        u: torch.Tensor,
        b: torch.Tensor,
        length: int,
        choose: Choose,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        symbols = torch.empty(len(state), length, state.shape[1], dtype=torch.int64, device=state.device)
        rows, offset = table.flatten(0, 1), torch.arange(len(table), device=state.device).unsqueeze(1) * table.shape[1]

        def read(t: int, states: torch.Tensor) -> torch.Tensor:
            symbols[:, t] = chosen = choose(states, t)
            return rows.index_select(0, (chosen + offset).view(-1)).view(*chosen.shape, -1)

        kept = _forward(length, read, state, u, b)
        ctx.rows = table.shape[1]
        ctx.save_for_backward(symbols, state, u, *kept)
        ctx.mark_non_differentiable(symbols)
        return kept[0], symbols

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        symbols, *kept = ctx.saved_tensors
        inputs, *others = _backward(gradients[0], *kept)
        read = one_hot(symbols.flatten(1), ctx.rows, inputs.dtype)
        return read.mT @ inputs.flatten(1, 2), *others, None, None


def _forward(
    length: int,
    read: Callable[[int, torch.Tensor], torch.Tensor],
    state: torch.Tensor,
    u: torch.Tensor,
    b: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """States h (S, T, B, H), gates r and z (S, T, B, 2H), candidates n, and what the state gave to n before r."""
    seeds, batch, size = state.shape
    h, n, inner = (state.new_empty(seeds, length, batch, size) for _ in range(3))
    gates = state.new_empty(seeds, length, batch, 2 * size)
    halves, places = (2 * size, size), zip(
        h.unbind(1), gates.unbind(1), gates[..., :size].unbind(1), gates[..., size:].unbind(1), n.unbind(1),
        inner.unbind(1), strict=True,
    )  # fmt: skip
    for t, (now, gate, r, z, new, into) in enumerate(places):
        given, candidate = read(t, h).split_with_sizes(halves, -1)
        own, inside = torch.bmm(state, u).split_with_sizes(halves, -1)
        torch.add(given, own, out=gate).sigmoid_()
        torch.add(inside, b, out=into)
        torch.addcmul(candidate, r, into, out=new).tanh_()
        state = torch.lerp(new, state, z, out=now)
    return h, gates, n, inner


def _backward(
    gradient: torch.Tensor,
    state: torch.Tensor,
    u: torch.Tensor,
    h: torch.Tensor,
    gates: torch.Tensor,
    n: torch.Tensor,
    inner: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients with respect to the inputs (S, T, B, 3H), the first state, U and b."""
    seeds, length, batch, size = h.shape
    inputs = h.new_empty(seeds, length, batch, 3 * size)
    own = torch.empty_like(inputs)  # of h U: as the inputs', with r in front of the candidate's
    onward, ut = torch.zeros_like(state), u.mT.contiguous()
    places = zip(
        gradient.unbind(1), (state, *h.unbind(1)[:-1]), gates.unbind(1), gates[..., :size].unbind(1),
        gates[..., size:].unbind(1), n.unbind(1), inner.unbind(1), inputs[..., : 2 * size].unbind(1),
        inputs[..., 2 * size :].unbind(1), own.unbind(1), own[..., : 2 * size].unbind(1), own[..., 2 * size :].unbind(1),
        strict=True,
    )  # fmt: skip
    for total, before, gate, r, z, new, inside, d_gate, d_new, d_own, own_gate, own_new in reversed(list(places)):
        onward += total
        kept = onward * z
        torch.ops.aten.tanh_backward.grad_input(onward - kept, new, grad_input=d_new)
        torch.mul(d_new, r, out=own_new)
        both = torch.cat([d_new * inside, onward * (before - new)], -1)
        own_gate.copy_(torch.ops.aten.sigmoid_backward.grad_input(both, gate, grad_input=d_gate))
        onward = torch.baddbmm(kept, d_own, ut)
    flat = own.flatten(1, 2)
    du = state.mT @ own[:, 0]
    if length > 1:
        du = torch.baddbmm(du, h[:, :-1].flatten(1, 2).mT, flat[:, batch:])
    return inputs, onward, du, flat[..., 2 * size :].sum(1, keepdim=True)


read_inputs: Callable[..., torch.Tensor] = Recurrence.apply
read_symbols: Callable[..., tuple[torch.Tensor, torch.Tensor]] = SymbolRecurrence.apply


def recurrence(hidden: int) -> list[tuple[tuple[int, ...], float]]:
    """U and b, for `Network`."""
    return [((hidden, 3 * hidden), hidden), ((1, hidden), hidden)]


class GRUSpeaker(SpeakerNetwork):
    """The object sets the first state; each symbol is drawn given those before."""

    def __init__(self, game: Signalling, hidden: int, seeds: Sequence[int], device: Any) -> None:
        seen, alphabet = game.world.inputs()[0].numel(), game.alphabet
        layers = [*dense(seen, hidden), ((alphabet + 1, 3 * hidden), hidden), *recurrence(hidden)]
        super().__init__(game, [*layers, *dense(hidden, alphabet)], seeds, device)

    def speak(self, objects: torch.Tensor, uniforms: torch.Tensor | None = None) -> Spoken:
        w, start, table, u, b, out, bias = self.weights()
        game = self.game

        def choose(states: torch.Tensor, place: int) -> torch.Tensor:
            if place == 0:
                return torch.full(states.shape[::2], game.alphabet, device=states.device)
            logits = torch.baddbmm(bias, states[:, place - 1], out)
            return draw_symbols(logits.softmax(-1), None if uniforms is None else uniforms[..., place - 1])

        first = linear(self.shown(objects), w, start)
        states, read = read_symbols(table, first, u, b, game.length, choose)
        symbols = torch.cat([read[:, 1:], choose(states.detach(), game.length).unsqueeze(1)], 1)
        messages = game.ended(symbols.mT)
        log_probs = torch.unflatten(linear(states.flatten(1, 2), out, bias).log_softmax(-1), 1, (game.length, -1))
        log_probs = log_probs.transpose(1, 2)  # (S, B, L, A)
        sent = game.counted(messages)
        return Spoken(messages, (at(log_probs, messages) * sent).sum(-1), (entropy(log_probs) * sent).sum(-1))

    def log_joint(self, objects: torch.Tensor) -> torch.Tensor:
        w, start, table, u, b, out, bias = self.weights()
        game = self.game
        state = linear(self.shown(objects), w, start)
        read = table[:, -1:].unsqueeze(1).expand(-1, -1, objects.shape[-1], -1)
        joint = torch.zeros(self.seeds, objects.shape[-1], 1, device=objects.device)
        for place in range(game.length):  # every prefix once: the rows are objects x prefixes
            states = read_inputs(read, state, u, b)[:, 0]
            log_probs = linear(states, out, bias).log_softmax(-1)
            if game.eos and place:
                log_probs = _after_the_end(log_probs, game.alphabet, place)
            joint = (joint.unsqueeze(-1) + torch.unflatten(log_probs, 1, joint.shape[1:])).flatten(2)
            state = states.repeat_interleave(game.alphabet, 1)
            read = table[:, :-1].repeat(1, states.shape[1], 1).unsqueeze(1)
        if not game.eos:
            return joint
        places = game.alphabet ** torch.arange(game.length - 1, -1, -1)
        return joint[..., (game.messages * places).sum(-1).to(joint.device)]

    def relaxed(self, objects: torch.Tensor, noise: torch.Tensor, temperature: float) -> Spoken:
        w, start, table, u, b, out, bias = self.weights()
        state = linear(self.shown(objects), w, start)
        noise = torch.unflatten(noise, -1, (self.game.length, self.game.alphabet))
        read = table[:, -1:].expand(-1, objects.shape[-1], -1)
        symbols, log_prob, uncertainty = [], torch.zeros(()), torch.zeros(())
        for place in range(self.game.length):
            state = read_inputs(read.unsqueeze(1), state, u, b)[:, 0]
            log_probs = linear(state, out, bias).log_softmax(-1)
            symbol = straight_through(log_probs, noise[:, :, place], temperature)
            log_prob = log_prob.to(state) + at(log_probs, symbol.argmax(-1))
            uncertainty = uncertainty.to(state) + entropy(log_probs)
            symbols.append(symbol)
            read = symbol @ table[:, :-1]
        return Spoken(torch.stack(symbols, 2), log_prob, uncertainty)


def _after_the_end(log_probs: torch.Tensor, alphabet: int, place: int) -> torch.Tensor:
    """After a prefix that has ended, the end symbol is certain: (S, B * A^place, A), prefixes ascending."""
    prefixes = torch.arange(alphabet**place, device=log_probs.device).unsqueeze(1)
    over = (prefixes // alphabet ** torch.arange(place, device=log_probs.device) % alphabet == 0).any(1)
    certain = torch.full_like(log_probs[0, 0], -30.0)
    certain[0] = 0.0
    over = over.repeat(log_probs.shape[1] // len(over))
    return torch.where(over.unsqueeze(-1), certain, log_probs)


class GRUListener(ListenerNetwork):
    """Reads symbol after symbol; the state after the end symbol (or the last one) gives the answer."""

    def __init__(self, game: Signalling, hidden: int, seeds: Sequence[int], device: Any) -> None:
        layers = [((game.received_symbols, 3 * hidden), hidden), *recurrence(hidden), *dense(hidden, game.outputs)]
        super().__init__(game, layers, seeds, device)

    def logits(self, received: torch.Tensor) -> torch.Tensor:
        table, u, b, out, bias = self.weights()
        read = received.expand(self.seeds, *received.shape[-3:])
        length = read.shape[2]
        first = torch.zeros(self.seeds, read.shape[1], u.shape[1], device=table.device)
        if read.requires_grad:
            inputs = torch.unflatten(read.transpose(1, 2).flatten(1, 2) @ table, 1, (length, -1))
            states = read_inputs(inputs, first, u, b)
        else:
            symbols = read.argmax(-1)
            states, _ = read_symbols(table, first, u, b, length, lambda _, place: symbols[..., place])
        if not self.game.eos:
            return linear(states[:, -1], out, bias)
        over = read[..., 0].detach() > 0.5
        last = torch.where(over.any(-1), over.to(torch.uint8).argmax(-1), length - 1)  # (S, B)
        where = last[:, None, :, None].expand(-1, 1, -1, states.shape[-1])
        return linear(states.gather(1, where).squeeze(1), out, bias)
