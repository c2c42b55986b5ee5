"""What is written down of a game: accuracies, held-out combinations, and languages a person can read."""

from __future__ import annotations

import pytest
import torch

from amenable.errors import ConfigError
from amenable.game import Attributes, Delete, Flip, Listener, Shapes, Signalling, Speaker, train


def test_accuracy_through_noise_is_the_expected_one() -> None:
    """What enumeration gives is what 4,000 noisy messages an object give."""
    game = Signalling(Attributes((3, 3)), Flip(0.2), alphabet=3)
    runs = train(game, seeds=2, steps=400)
    codes, n = runs.codes.unsqueeze(2).expand(2, 9, 4000, 2), 4000
    arrived = game.channel.sample(codes, torch.Generator().manual_seed(0), alphabet=3)
    with torch.no_grad():
        named = game.guess(runs.listener.logits(game.one_hot(arrived.flatten(1, 2)))).view(2, 9, n, 2)
    simulated = (named == game.world.features.unsqueeze(1)).all(-1).float().mean((1, 2))
    torch.testing.assert_close(runs.noisy, simulated, atol=0.015, rtol=0.0)
    assert bool((runs.noisy < runs.clean).all())


def test_accuracy_is_sampled_where_messages_cannot_be_listed() -> None:
    game = Signalling(Attributes((3, 3)), Delete(0.1), length=9, alphabet=4)
    runs = train(game, Speaker("mlp", 16), Listener("gru", 16), seeds=2, steps=3, gradient="reinforce")
    again = train(game, Speaker("mlp", 16), Listener("gru", 16), seeds=2, steps=3, gradient="reinforce")
    assert torch.equal(runs.noisy, again.noisy)
    assert runs.codes.shape == (2, 9, 9)


def test_held_out_objects_are_not_trained_on() -> None:
    world = Attributes((4, 4)).split(0.25)
    runs = train(Signalling(world, Flip(0.0), alphabet=4), seeds=4, steps=500)
    assert runs.held_out is not None
    assert runs.held_out.shape == (4,)
    assert float(runs.clean.mean()) > float(runs.held_out.mean())
    assert train(Signalling(), steps=1).held_out is None


def test_a_cnn_plays_with_pictures() -> None:
    game = Signalling(Shapes((3, 3)), Flip(0.0), alphabet=3)
    runs = train(game, Speaker("cnn"), Listener("mlp"), seeds=2, steps=300)
    assert float(runs.clean.mean()) > 0.6
    lines = runs.dictionary(1).splitlines()
    assert lines[0].split() == ["red", "green", "blue"]
    assert lines[1].split()[0] == "square"


def test_dictionaries() -> None:
    runs = train(Signalling(Attributes((2, 3)), Flip(0.0), alphabet=4), seeds=2, steps=2)
    lines = runs.dictionary(1).splitlines()
    assert lines[0].split() == ["b0", "b1", "b2"]
    words = [word for line in lines[1:] for word in line.split()[1:]]
    assert words == ["".join("ABCD"[symbol] for symbol in message) for message in runs.codes[1].tolist()]
    three = train(Signalling(Attributes((2, 2, 2)), eos=True), steps=2)
    assert three.dictionary().splitlines()[0].startswith("a0 b0 c0  ")
    assert three.word([0, 0]) == ".."
    assert three.word([1, 0]) == "A."


def test_scores_are_those_of_the_evaluation() -> None:
    runs = train(Signalling(Attributes((3, 3)), Flip(0.0), alphabet=3), seeds=3, steps=100)
    score = runs.score("topsim", permutations=20)["topsim"]
    assert score.scores.values.shape == (3,)
    assert "topsim" in str(score)
    with pytest.raises(ConfigError, match="did you mean 'topsim'"):
        runs.score("topsin")
    assert runs.distinct.shape == (3,)
    assert runs.entropy.shape == (3,)
