"""Worlds: the objects that agents talk about. Every object is a combination of feature values, all equally likely.

    f = (f_1 .. f_K),  f_k in {0 .. V_k - 1},  N = V_1 x .. x V_K objects

    letter  name      shape              what it is
    f       features  (N, K) int64       the values of each object, in the order of itertools.product
    x       inputs    (N, ..) float32    what a speaker sees: one-hot values, or an image

Independent uniform features are the bias in the data that the theorem of Kucinski et al. 2021 (arXiv 2111.06464) needs.
Changed from the paper: its images come from data sets (obverter, shapes3d); ours are drawn by numpy, 16 x 16 pixels, nothing
to download, one image an object.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
import torch

from amenable.errors import ConfigError
from amenable.game.network import one_hot
from amenable.seeding import python_random

SHAPES = ("square", "disc", "triangle", "cross", "ring")
COLOURS = {
    "red": (0.9, 0.1, 0.1),
    "green": (0.1, 0.8, 0.2),
    "blue": (0.15, 0.25, 0.95),
    "yellow": (0.95, 0.9, 0.1),
    "violet": (0.7, 0.1, 0.8),
}


@dataclass(frozen=True)
class Attributes:
    """Objects that are lists of `values` (V_1 .. V_K); `held_out` numbers those that training never shows."""

    values: tuple[int, ...] = (5, 5)
    held_out: tuple[int, ...] = ()
    across: ClassVar[int] = 1
    """Which word of `describe` names the second feature, where there are two."""

    def __post_init__(self) -> None:
        if not self.values or min(self.values) < 2:
            raise ConfigError(f"values={self.values}: a feature needs two values or more", "use values=(5, 5) or so")
        if any(not 0 <= number < self.objects for number in self.held_out) or self.objects <= len(self.held_out):
            raise ConfigError(f"held_out={self.held_out} of {self.objects} objects", "use world.split(share, seed)")

    @property
    def objects(self) -> int:
        """N."""
        return math.prod(self.values)

    @cached_property
    def features(self) -> torch.Tensor:
        """(N, K) int64."""
        return torch.tensor(list(itertools.product(*(range(count) for count in self.values))))

    @cached_property
    def trained(self) -> torch.Tensor:
        """The numbers of the objects that training shows, ascending, int64."""
        return torch.tensor(sorted(set(range(self.objects)) - set(self.held_out)))

    def inputs(self) -> torch.Tensor:
        """(N, V_1 + .. + V_K) float32: the one-hot values, one feature after the other."""
        return one_hot_features(self.features, self.values)

    def describe(self, number: int) -> str:
        """Object `number` in words a person can read, such as "a1 b4"."""
        return " ".join(f"{chr(97 + k % 26)}{int(value)}" for k, value in enumerate(self.features[number]))

    def split(self, share: float, seed: int = 0) -> Self:
        """This world with `share` of its combinations held out; every value of every feature stays in training.

        Errors: ConfigError where so many cannot be held out.
        """
        wanted = round(share * self.objects)
        left = [torch.bincount(self.features[:, k], minlength=count) for k, count in enumerate(self.values)]
        order = list(range(self.objects))
        python_random(seed, "held out").shuffle(order)
        taken: list[int] = []
        for number in order:
            own = self.features[number].tolist()
            if len(taken) < wanted and all(left[k][value] > 1 for k, value in enumerate(own)):
                taken.append(number)
                for k, value in enumerate(own):
                    left[k][value] -= 1
        if not 0 <= share < 1 or len(taken) < wanted:
            raise ConfigError(
                f"share={share:g} would hold out {wanted} of {self.objects} objects, and a value with them",
                f"use a share of {len(taken) / self.objects:.2f} or less" if share >= 0 else "use 0 or more",
            )
        return replace(self, held_out=tuple(sorted(taken)))


@dataclass(frozen=True)
class Shapes(Attributes):
    """Images of one coloured shape each, `values` = (shapes, colours) of at most 5 each, `size` x `size` pixels."""

    values: tuple[int, ...] = (5, 5)
    size: int = 16
    across: ClassVar[int] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.values) != 2 or max(self.values) > 5 or self.size < 8:
            raise ConfigError(
                f"values={self.values}, size={self.size}", "use at most (5, 5): shapes, colours; and 8 pixels or more"
            )

    def inputs(self) -> torch.Tensor:
        """(N, 3, size, size) float32 in [0, 1]: red, green, blue; the ground is black."""
        colours = list(COLOURS.values())
        images = [
            np.array(colours[int(colour)])[:, None, None] * silhouette(SHAPES[int(shape)], self.size)
            for shape, colour in self.features
        ]
        return torch.tensor(np.stack(images), dtype=torch.float32)

    def describe(self, number: int) -> str:
        shape, colour = self.features[number].tolist()
        return f"{list(COLOURS)[colour]} {SHAPES[shape]}"


def silhouette(shape: str, size: int) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Which pixels of a `size` x `size` image `shape` covers, bool."""
    down, right = (axis / (size - 1) * 2 - 1 for axis in np.mgrid[0:size, 0:size])
    far = np.hypot(down, right)
    covered = {
        "square": np.maximum(abs(down), abs(right)) < 0.65,
        "disc": far < 0.75,
        "triangle": (down < 0.7) & (abs(right) < (down + 0.8) / 1.8),
        "cross": np.minimum(abs(down), abs(right)) < 0.25,
        "ring": (far < 0.85) & (far > 0.5),
    }
    return np.asarray(covered[shape])


def one_hot_features(features: torch.Tensor, values: tuple[int, ...]) -> torch.Tensor:
    """(..., K) int64 -> (..., V_1 + .. + V_K) float32."""
    return torch.cat([one_hot(features[..., k], count) for k, count in enumerate(values)], -1)
