"""Worlds: features, inputs, splits."""

from __future__ import annotations

import pytest
import torch

from amenable.errors import ConfigError
from amenable.game.worlds import SHAPES, Attributes, Shapes


def test_attributes() -> None:
    world = Attributes((2, 3, 4))
    assert world.features.shape == (24, 3)
    assert len(world.features.unique(dim=0)) == 24
    inputs = world.inputs()
    assert inputs.shape == (24, 9)
    assert torch.equal(inputs.sum(1), torch.full((24,), 3.0))
    assert torch.equal(inputs[:, 2:5].argmax(1), world.features[:, 1])
    assert world.describe(23) == "a1 b2 c3"


def test_every_shape_and_colour_looks_different() -> None:
    world = Shapes()
    images = world.inputs()
    assert images.shape == (25, 3, 16, 16)
    assert float(images.min()) == 0.0
    assert float(images.max()) <= 1.0
    silhouettes = (images.amax(1) > 0).flatten(1)
    assert len(silhouettes.unique(dim=0)) == len(SHAPES)  # the shape does not depend on the colour
    assert len(images.flatten(1).unique(dim=0)) == 25
    assert bool((silhouettes.float().mean(1) > 0.15).all())
    assert world.describe(0) == "red square"


@pytest.mark.parametrize("world", [Attributes((4, 4)), Shapes()])
def test_a_split_keeps_every_value(world: Attributes) -> None:
    part = world.split(0.25, seed=3)
    assert type(part) is type(world)
    assert len(part.held_out) == round(0.25 * world.objects)
    assert sorted([*part.held_out, *part.trained.tolist()]) == list(range(world.objects))
    for k, count in enumerate(world.values):
        assert len(part.features[part.trained][:, k].unique()) == count
    assert part == world.split(0.25, seed=3)
    assert part != world.split(0.25, seed=4)


def test_errors() -> None:
    with pytest.raises(ConfigError, match="two values"):
        Attributes((5, 1))
    with pytest.raises(ConfigError, match="hold out"):
        Attributes((3, 3)).split(0.9)
    with pytest.raises(ConfigError, match="at most"):
        Shapes((5, 5, 5))
