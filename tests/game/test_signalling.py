"""The game's losses, against hand-worked numbers, and its messages."""

from __future__ import annotations

import math

import pytest
import torch

from amenable.errors import ConfigError
from amenable.game import Attributes, Flip, Signalling


def game(loss: str, **settings: object) -> Signalling:
    return Signalling(Attributes((2, 2)), Flip(0.1), length=2, alphabet=3, loss=loss, **settings)  # type: ignore[arg-type]


def test_the_three_costs() -> None:
    logits = torch.tensor([0.8, 0.2, 0.4, 0.6]).log().view(1, 1, 4)
    objects = torch.arange(4)  # (0,0) (0,1) (1,0) (1,1)
    right = torch.tensor([0.8 * 0.4, 0.8 * 0.6, 0.2 * 0.4, 0.2 * 0.6])
    torch.testing.assert_close(game("factored").costs(logits, objects)[0, 0], -right.log())
    torch.testing.assert_close(game("all-or-nothing").costs(logits, objects)[0, 0], -right)
    whole = torch.tensor([0.1, 0.2, 0.3, 0.4])
    torch.testing.assert_close(game("holistic").costs(whole.log().view(1, 1, 4), objects)[0, 0], -whole.log())
    assert game("factored").guess(logits).tolist() == [[[0, 1]]]
    assert game("holistic").guess(whole.log().view(1, 1, 4)).tolist() == [[[1, 1]]]


@pytest.mark.parametrize("loss", ["factored", "holistic", "all-or-nothing"])
def test_the_table_of_costs_holds_each_strings_own(loss: str) -> None:
    played = game(loss)
    logits = torch.randn(2, 5, played.outputs, generator=torch.Generator().manual_seed(0))
    objects = torch.tensor([[0, 1, 3, 3, 2], [2, 2, 0, 1, 3]])
    own = played.costs(logits, objects).diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(played.cost(logits, objects), own)


def test_unequal_features() -> None:
    played = Signalling(Attributes((2, 3)), Flip(0.0), length=2, alphabet=3)
    law = played.by_feature(torch.zeros(1, 1, 5))[0, 0]
    torch.testing.assert_close(law, torch.tensor([1 / 2] * 2 + [1 / 3] * 3).log())


def test_messages_that_end() -> None:
    played = game("factored", eos=True)
    assert played.messages.tolist() == [[0, 0], [1, 0], [1, 1], [1, 2], [2, 0], [2, 1], [2, 2]]
    assert played.counted(torch.tensor([[0, 2, 0], [1, 0, 1], [2, 1, 1]])).tolist() == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]
    assert played.ended(torch.tensor([[0, 2, 1]])).tolist() == [[0, 0, 0]]


def test_errors() -> None:
    with pytest.raises(ConfigError, match="not known"):
        game("whole")
    with pytest.raises(ConfigError, match="nothing can be said"):
        Signalling(alphabet=1)
    with pytest.raises(ConfigError, match="too many"):
        _ = Signalling(length=9).messages
    assert math.isclose(float(game("factored").transition[1].sum()), 9.0, rel_tol=1e-6)
