"""Networks for many seeds: each seed's weights come from its own stream, in rows that do not meet."""

from __future__ import annotations

import torch

from amenable.game.network import LANE, Network, dense, draw_symbols, linear, one_hot


def test_a_seed_has_its_own_stream() -> None:
    many, one = Network(dense(3, 5), range(8), "test", "cpu"), Network(dense(3, 5), [6], "test", "cpu")
    assert torch.equal(many.flat[6], one.flat[0])
    assert not torch.equal(many.flat[6], many.flat[5])
    assert many.flat.shape[1] % LANE == 0
    assert float(many.flat.detach().abs().max()) <= 3**-0.5


def test_weights_are_views_and_a_copy_is_its_own() -> None:
    network = Network(dense(3, 5), range(2), "test", "cpu")
    weight, bias = network.weights()
    assert weight.shape == (2, 3, 5)
    assert bias.shape == (2, 1, 5)
    x = torch.rand(4, 3)
    expected = torch.stack([x @ weight[s] + bias[s] for s in range(2)])
    torch.testing.assert_close(linear(x, weight, bias), expected)
    copied = network.copied()
    with torch.no_grad():
        copied.flat.zero_()
    assert float(network.flat.detach().abs().sum()) > 0


def test_drawing() -> None:
    law = torch.tensor([0.2, 0.5, 0.3])
    uniforms = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.71, 0.999])
    assert draw_symbols(law.expand(6, 3), uniforms).tolist() == [0, 0, 1, 1, 2, 2]
    assert draw_symbols(law, None).tolist() == 1
    assert torch.equal(one_hot(torch.tensor([[2, 0]]), 3), torch.tensor([[[0.0, 0, 1], [1, 0, 0]]]))
