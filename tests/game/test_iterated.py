"""Populations: every pair by hand; generation 0 is `train`; a population alone has its bits; who goes, and what it does."""

from __future__ import annotations

import pytest
import torch

from amenable.errors import ConfigError
from amenable.game.agents import Listener, ListenerNetwork, Speaker, SpeakerNetwork
from amenable.game.channels import Flip
from amenable.game.estimators import Exact
from amenable.game.iterated import EveryPair, iterate
from amenable.game.signalling import Signalling
from amenable.game.training import train
from amenable.game.worlds import Attributes
from amenable.recipes.iterated import similarities

GAME = Signalling(Attributes((3, 3)), Flip(0.1), length=2, alphabet=3)


def rows(network: SpeakerNetwork | ListenerNetwork, chosen: list[int]) -> SpeakerNetwork | ListenerNetwork:
    part = network.copied()
    part.flat = torch.nn.Parameter(network.flat.detach()[chosen])
    return part


@pytest.mark.parametrize("loss", ["factored", "holistic", "all-or-nothing"])
def test_the_loss_is_the_mean_over_every_pair(loss: str) -> None:
    game = Signalling(Attributes((3, 3)), Flip(0.1), length=2, alphabet=3, loss=loss)  # type: ignore[arg-type]
    speaker, listener = Speaker("mlp").build(game, range(6)), Listener("mlp").build(game, range(4))  # S=2, P=3, Q=2
    every, nothing = torch.arange(9), torch.zeros(0)
    with torch.no_grad():
        found = EveryPair(game, 2)(speaker, listener, every, nothing)
        for s in range(2):
            pairs = [
                Exact(game)(rows(speaker, [3 * s + p]), rows(listener, [2 * s + q]), every, nothing)  # type: ignore[arg-type]
                for p in range(3)
                for q in range(2)
            ]
            assert float(found.loss[s]) == pytest.approx(sum(float(pair.loss) for pair in pairs) / 6, abs=1e-5)
            assert float(found.entropy[s]) == pytest.approx(sum(float(pair.entropy) for pair in pairs) / 6, abs=1e-5)


def test_the_first_generation_of_one_and_one_is_train() -> None:
    runs = train(GAME, seeds=3, steps=40)
    lineage = iterate(GAME, seeds=3, generations=0, first_steps=40)
    assert torch.equal(lineage.codes[0, :, 0], runs.codes)
    torch.testing.assert_close(lineage.clean[0], runs.clean)


@pytest.mark.parametrize("kind", ["mlp", "table"])
def test_a_population_alone_has_the_languages_it_has_in_a_batch(kind: str) -> None:
    how = {"generations": 3, "speakers": 2, "listeners": 2, "first_steps": 12, "steps": 6}
    agents = Speaker(kind), Listener(kind)  # type: ignore[arg-type]
    batch = iterate(GAME, *agents, seeds=4, **how)  # type: ignore[arg-type]
    alone = iterate(GAME, *agents, seed=2, **how)  # type: ignore[arg-type]
    assert batch.codes.shape == (4, 4, 2, 9, 2)
    assert torch.equal(batch.codes[:, 2], alone.codes[:, 0])
    assert torch.equal(batch.clean[:, 2], alone.clean[:, 0])


def test_the_oldest_goes_and_the_others_stay() -> None:
    """With steps that change nothing, only who is new speaks otherwise."""
    still = {"seeds": 2, "speakers": 3, "listeners": 1, "first_steps": 1, "steps": 1, "learning_rate": 0.0}
    codes = iterate(GAME, generations=4, turnover="speakers", **still).codes  # type: ignore[arg-type]
    for generation in range(1, 5):
        same = [torch.equal(codes[generation, :, p], codes[generation - 1, :, p]) for p in range(3)]
        assert same == [p != (generation - 1) % 3 for p in range(3)]
    codes = iterate(GAME, generations=4, turnover="both", **still).codes  # type: ignore[arg-type]
    changed = [not torch.equal(codes[g], codes[g - 1]) for g in range(1, 5)]
    assert changed == [True, False, True, False]  # speakers, listeners, speakers, listeners
    clean = iterate(GAME, generations=2, turnover="listeners", **still).clean  # type: ignore[arg-type]
    assert not torch.equal(clean[1], clean[0])


def test_without_turnover_nobody_is_replaced() -> None:
    still = {"seeds": 2, "first_steps": 1, "steps": 1, "learning_rate": 0.0}
    lineage = iterate(GAME, generations=3, turnover="none", **still)  # type: ignore[arg-type]
    assert torch.equal(lineage.codes[0], lineage.codes[3])
    assert torch.equal(lineage.clean[0], lineage.clean[3])


def test_turnover_makes_no_order_where_there_is_no_bias() -> None:
    """A free table and a loss for whole objects: every relabelling of objects is as likely as any other."""
    game = Signalling(Attributes((3, 3)), Flip(0.0), length=2, alphabet=3, loss="holistic")
    lineage = iterate(
        game, Speaker("table"), Listener("table"), seeds=48, generations=2, first_steps=150, steps=100, learning_rate=0.03
    )  # fmt: skip
    last = torch.tensor(similarities(lineage))[:, -1]
    assert abs(float(last.mean())) < 4 * float(last.std()) / 48**0.5
    assert float(lineage.clean[0].mean()) > 0.8  # they do understand each other


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="speakers=0"):
        iterate(GAME, speakers=0)
    with pytest.raises(ConfigError, match="turnover"):
        iterate(GAME, turnover="sometimes")  # type: ignore[arg-type]
