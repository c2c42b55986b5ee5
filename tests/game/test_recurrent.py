"""The recurrence: its gradient, and PyTorch's own layer as the reference."""

from __future__ import annotations

import torch

from amenable.game.recurrent import Recurrence, SymbolRecurrence


def parts(seeds: int, length: int, batch: int, size: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(seeds, length, batch, 3 * size), (seeds, batch, size), (seeds, size, 3 * size), (seeds, 1, size)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def test_the_written_gradient_is_the_numerical_one() -> None:
    assert torch.autograd.gradcheck(Recurrence.apply, parts(2, 3, 2, 3))


def test_it_is_the_usual_layer() -> None:
    inputs, state, u, b = (part.detach() for part in parts(1, 4, 3, 5))
    layer = torch.nn.GRU(15, 5, batch_first=True).double()
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.eye(15))
        layer.bias_ih_l0.zero_()
        layer.weight_hh_l0.copy_(u[0].T)
        layer.bias_hh_l0.copy_(torch.cat([torch.zeros(10), b[0, 0]]))
        expected, _ = layer(inputs[0].transpose(0, 1), state)
    torch.testing.assert_close(Recurrence.apply(inputs, state, u, b)[0].transpose(0, 1), expected)


def test_symbols_read_rows_of_the_table() -> None:
    _, state, u, b = parts(2, 3, 4, 5)
    table = torch.randn(2, 6, 15, dtype=torch.float64, requires_grad=True)
    symbols = torch.randint(6, (2, 3, 4))
    states, read = SymbolRecurrence.apply(table, state, u, b, 3, lambda _, t: symbols[:, t])
    assert torch.equal(read, symbols)
    rows = torch.nn.functional.one_hot(symbols, 6).double() @ table.unsqueeze(1)
    torch.testing.assert_close(states, Recurrence.apply(rows, state, u, b))
    wanted = (table, state, u, b)
    ours = torch.autograd.grad(states.square().sum(), wanted)
    theirs = torch.autograd.grad(Recurrence.apply(rows, state, u, b).square().sum(), wanted)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
