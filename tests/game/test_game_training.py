"""Training: a seed is itself in any batch, a killed run goes on to the same bits, and the two results of the theory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from products import tolerance

from amenable.errors import ConfigError
from amenable.evaluation.compositionality import METRICS
from amenable.game import Attributes, Flip, Listener, Runs, Signalling, Speaker, train


@pytest.mark.parametrize("kind", ["mlp", "table"])
def test_a_seed_of_a_batch_is_the_seed_alone(kind: str) -> None:
    """games.md, experiment 10: equal to the bit, after 60 steps, where products are."""
    game = Signalling(Attributes((5, 5)), Flip(0.1))
    many = train(game, Speaker(kind), Listener("mlp"), seeds=64, steps=60)
    alone = train(game, Speaker(kind), Listener("mlp"), seed=41, steps=60)
    for one, other in (
        (many.speaker.flat[41], alone.speaker.flat[0]),
        (many.listener.flat[41], alone.listener.flat[0]),
        (many.codes[41], alone.codes[0]),
        (many.metrics["loss"][:, 41], alone.metrics["loss"][:, 0]),
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance())


@pytest.mark.parametrize("gradient", ["gumbel", "reinforce"])
@pytest.mark.parametrize("kind", ["gru", "attention"])
def test_so_it_is_with_sampled_games(kind: str, gradient: str) -> None:
    game = Signalling(Attributes((3, 3)), Flip(0.1), alphabet=3)
    settings = {"gradient": gradient, "batch": 6, "steps": 20}
    many = train(game, Speaker(kind, 8), Listener(kind, 8), seeds=3, seed=5, **settings)  # type: ignore[arg-type]
    alone = train(game, Speaker(kind, 8), Listener(kind, 8), seed=7, **settings)  # type: ignore[arg-type]
    assert torch.equal(many.speaker.flat[2], alone.speaker.flat[0])
    assert torch.equal(many.listener.flat[2], alone.listener.flat[0])


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    game = Signalling(Attributes((3, 3)), Flip(0.1), alphabet=3)
    settings = {"seeds": 2, "gradient": "reinforce", "steps": 30, "checkpoint_every": 10}
    whole = train(game, folder=tmp_path / "whole", **settings)  # type: ignore[arg-type]

    class Killed(Exception):
        pass

    def kill(step: int, steps: int) -> None:
        if step == 14:
            raise Killed

    with pytest.raises(Killed):
        train(game, folder=tmp_path / "killed", progress=kill, **settings)  # type: ignore[arg-type]
    resumed = train(game, folder=tmp_path / "killed", **settings)  # type: ignore[arg-type]
    assert torch.equal(whole.speaker.flat, resumed.speaker.flat)
    assert torch.equal(whole.metrics["loss"], resumed.metrics["loss"])


def topsim(runs: Runs) -> np.ndarray:
    return METRICS["topsim"](runs.codes.numpy(), runs.features.numpy()).values


def test_noise_alone_creates_structure_and_a_holistic_loss_none() -> None:
    """games.md, experiments 2 and 3, 8 seeds: free tables on both sides, so that no architecture prefers a code."""
    found = {}
    for loss, noise in (("factored", 0.0), ("factored", 0.1), ("holistic", 0.1)):
        game = Signalling(Attributes((5, 5)), Flip(noise), loss=loss)  # type: ignore[arg-type]
        runs = train(game, Speaker("table"), Listener("table"), seeds=8)
        assert float(runs.clean.mean()) > 0.94
        found[loss, noise] = topsim(runs)
    assert abs(found["factored", 0.0].mean()) < 0.1
    assert abs(found["holistic", 0.1].mean()) < 0.06
    assert found["factored", 0.1].mean() > 0.4
    assert found["factored", 0.1].min() > found["factored", 0.0].mean()


def test_networks_are_trained_further() -> None:
    game = Signalling(Attributes((3, 3)), Flip(0.0), alphabet=3)
    first = train(game, seeds=2, steps=5)
    before = first.speaker.flat.detach().clone()
    second = train(game, first.speaker, Listener("mlp"), seeds=2, steps=5)
    assert torch.equal(first.speaker.flat, before)
    assert not torch.equal(second.speaker.flat, before)
    with pytest.raises(ConfigError, match="holds 2"):
        train(game, first.speaker, seeds=3, steps=5)


def test_errors() -> None:
    with pytest.raises(ConfigError, match="nothing to train"):
        train(Signalling(), seeds=0)
