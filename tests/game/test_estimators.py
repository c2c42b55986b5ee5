"""The exact gradient against brute force, and the sampled estimators against the exact one (games.md, experiment 7)."""

from __future__ import annotations

import itertools

import pytest
import torch

from amenable.errors import ConfigError
from amenable.game import Attributes, Delete, Flip, Listener, Signalling, Speaker
from amenable.game.estimators import Estimator, Exact, Gumbel, Reinforce, estimator

GAME = Signalling(Attributes((5, 5)), Flip(0.1))


def gradients(how: Estimator, kind: str, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    speaker, listener = Speaker(kind).build(GAME, [seed]), Listener("mlp").build(GAME, [seed])
    uniforms = torch.rand(1, 25 * how.samples, how.draws, generator=torch.Generator().manual_seed(seed))
    play = how(speaker, listener, torch.arange(25), uniforms)
    found = torch.autograd.grad(play.surrogate.sum(), [speaker.flat, listener.flat])
    return found[0].flatten(), found[1].flatten()


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, 0))


def test_the_exact_loss_is_the_sum_over_everything() -> None:
    game = Signalling(Attributes((2, 2)), Delete(0.3), length=2, alphabet=2)
    speaker, listener = Speaker("gru", 4).build(game, [0]), Listener("mlp", 4).build(game, [0])
    objects = torch.tensor([3, 0])
    play = Exact(game)(speaker, listener, objects, torch.zeros(0))
    received, matrix = game.channel.transition(game.messages, 2)
    joint = speaker.log_joint(objects)[0].detach().exp()
    logits = listener.logits(game.one_hot(received))[0].detach().unflatten(-1, (2, 2)).log_softmax(-1)
    total = 0.0
    for place, m, r in itertools.product(range(2), range(len(game.messages)), range(len(received))):
        features = game.world.features[objects[place]].tolist()
        cost = -sum(float(logits[r, k, value]) for k, value in enumerate(features))
        total += float(joint[place, m]) * float(matrix[m, r]) * cost / 2
    assert float(play.loss) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("kind", ["mlp", "table", "gru"])
def test_both_estimators_agree_with_the_exact_gradient(kind: str) -> None:
    """games.md, experiment 7: 4 * 10^4 games, all weights of both agents."""
    exact = torch.cat(gradients(Exact(GAME), kind))
    for how in (Reinforce(GAME, 1600), Gumbel(GAME, 1600)):
        assert cosine(torch.cat(gradients(how, kind)), exact) > 0.99


@pytest.mark.parametrize("kind", ["mlp", "table"])
def test_the_speakers_own_part_is_unbiased_with_reinforce(kind: str) -> None:
    """The listener's gradient is ten times longer, so the speaker's is looked at alone, with 10^5 games."""
    exact, sampled = gradients(Exact(GAME), kind)[0], gradients(Reinforce(GAME, 4000), kind)[0]
    assert cosine(sampled, exact) > 0.99
    assert float(sampled.norm() / exact.norm()) == pytest.approx(1.0, abs=0.1)


def test_the_baseline_of_one_sample_an_object_is_the_batchs() -> None:
    costs = torch.tensor([[1.0, 2.0, 6.0]])
    assert Reinforce(GAME, 1)._advantage(costs).tolist() == [[-3.0, -1.5, 4.5]]
    assert Reinforce(GAME, 3)._advantage(costs.repeat(1, 2)).tolist() == [[-3.0, -1.5, 4.5] * 2]


def test_errors() -> None:
    with pytest.raises(ConfigError, match="gradient='guess'"):
        estimator(GAME, "guess")
    with pytest.raises(ConfigError, match="one by one"):
        estimator(Signalling(channel=Delete(0.1)), "gumbel")
    with pytest.raises(ConfigError, match="too many to enumerate"):
        estimator(Signalling(length=7), "exact")
