"""Channels: sampling and the transition matrix are one law; capacities meet their closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from amenable.errors import ConfigError
from amenable.game.channels import (
    Burst,
    Channel,
    Delete,
    Erase,
    Flip,
    Insert,
    Permute,
    blahut_arimoto,
    every_message,
)

EVERY = (
    Flip(0.2),
    Erase(0.3),
    Delete(0.3),
    Insert(0.25),
    Permute(0.6),
    Burst(0.5, 2),
    Flip(0.1) @ Erase(0.1),
    Delete(0.2) @ Flip(0.1),
    Erase(0.2) @ Insert(0.2) @ Burst(0.3, 2),
)


@pytest.mark.parametrize("channel", EVERY, ids=str)
def test_the_matrix_is_what_sampling_gives(channel: Channel) -> None:
    strings, n = every_message(3, 3)[[5, 19]], 40_000
    received, matrix = channel.transition(strings, 3)
    assert received.shape == (matrix.shape[1], channel.received_length(3))
    assert int(received.max()) < 3 + channel.marks
    torch.testing.assert_close(matrix.sum(1), torch.ones(2, dtype=torch.float64))
    drawn = channel.sample(strings.unsqueeze(1).expand(2, n, 3), torch.Generator().manual_seed(0), alphabet=3)
    places = 5 ** torch.arange(received.shape[1])
    known, order = (received * places).sum(-1).sort()
    found = torch.searchsorted(known, (drawn * places).sum(-1)).clamp(max=len(known) - 1)
    assert torch.equal(received[order[found]], drawn)  # nothing else arrives
    shares = torch.zeros_like(matrix)
    shares[:, order] = torch.stack([torch.bincount(row, minlength=len(known)) / n for row in found]).double()
    assert float((shares - matrix).abs().max()) < 5 * math.sqrt(0.25 / n)


@pytest.mark.parametrize("channel", [type(part)(0.0) for part in EVERY[:6]], ids=str)
def test_without_noise_everything_arrives(channel: Channel) -> None:
    strings = every_message(3, 2)
    received, matrix = channel.transition(strings, 3)
    arrived = channel.sample(strings, torch.Generator().manual_seed(0), alphabet=3)
    assert torch.equal(arrived[:, :2], strings)
    assert torch.equal(received[matrix.argmax(1)][:, :2], strings)
    assert torch.equal(matrix.max(1).values, torch.ones(9, dtype=torch.float64))


def test_flip_puts_another_symbol() -> None:
    sent = torch.randint(5, (1000, 4), generator=torch.Generator().manual_seed(1))
    arrived = Flip(1.0).sample(sent, torch.Generator().manual_seed(2), alphabet=5)
    assert not bool((arrived == sent).any())


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("kind", [Flip, Erase])
def test_closed_forms_of_the_capacity(kind: type[Channel], p: float) -> None:
    channel = kind(p)
    symbol = blahut_arimoto(channel.transition(every_message(4, 1), 4)[1])
    assert channel.capacity(4) == pytest.approx(symbol, abs=1e-9)
    pairs = blahut_arimoto(channel.transition(every_message(4, 2), 4)[1]) / 2
    assert pairs == pytest.approx(symbol, abs=1e-9)


def test_capacities_by_iteration() -> None:
    z = torch.tensor([[1.0, 0.0], [0.5, 0.5]])  # the Z channel: log2(5/4)
    assert blahut_arimoto(z) == pytest.approx(math.log2(1.25), abs=1e-9)
    assert (Flip(0.1) @ Flip(0.1)).capacity(2) == pytest.approx(Flip(0.18).capacity(2), abs=1e-9)
    assert (Erase(0.1) @ Erase(0.1)).capacity(3) == pytest.approx(Erase(0.19).capacity(3), abs=1e-9)
    assert Delete(0.2).capacity(2, 1) == pytest.approx(0.8, abs=1e-6)  # one symbol deleted is one erased
    assert Permute(1.0).capacity(2, 2) == pytest.approx(math.log2(3) / 2, abs=1e-6)  # only the counts arrive
    assert Delete(0.2).capacity(2, 3) < Erase(0.2).capacity(2)


def test_errors() -> None:
    with pytest.raises(ConfigError, match="probability"):
        Flip(1.5)
    with pytest.raises(ConfigError, match="hits nothing"):
        Burst(0.1, 0)
    with pytest.raises(ConfigError, match="burst of 3"):
        Burst(0.1, 3).transition(every_message(2, 2), 2)
    with pytest.raises(ConfigError, match="too many outcomes"):
        Insert(0.1).transition(every_message(8, 4), 8)
