"""The same game at several levels of noise, every level with its own languages, and what noise did to them.

    found = sweep(game, noise=[0, 0.1, 0.2], seeds=64)
    for one in found.compare("topsim", to=0):        # .plot("catalysis.svg") draws it
        print(one.arm.noise, one.difference.text(signed=True), one.p, one.adjusted, one.smallest)

    difference  mean over an arm's runs less mean over the reference's, Student's t     p         permutation test, one-sided
    adjusted    p after Holm over all comparisons                  smallest  true difference found with probability 0.8

One-sided: that noise makes languages *more* compositional, which for conflicts and TRE is a lower number. A run whose metric is
undefined (a constant code has no topographic similarity) is left out of it and counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from amenable.errors import ConfigError
from amenable.evaluation.compositionality import LOWER_IS_BETTER, METRICS, Null, null_distribution
from amenable.evaluation.interval import Estimate
from amenable.evaluation.messages import Scores
from amenable.evaluation.paired import clustered_difference
from amenable.evaluation.permutation import holm, permutation_test, smallest_difference
from amenable.game.agents import Listener, Speaker
from amenable.game.signalling import Signalling
from amenable.game.training import train
from amenable.report.svg import curve_svg

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Arm:
    """The languages of S runs at one noise. `codes` (S, N, L), `clean`, `noisy`, `held_out` (S,): as in `Runs`."""

    name: str
    noise: float
    game: Signalling
    codes: NDArray[np.int64]
    clean: Floats
    noisy: Floats
    held_out: Floats | None
    words: tuple[str, ...]

    def score(self, metric: str) -> Scores:
        """A metric of `METRICS` for every run. Errors: ConfigError for other names."""
        found: Scores = _metric(metric)(self.codes, self.game.world.features, eos=self._eos)
        return found

    def null(self, metric: str, *, permutations: int = 100, seed: int = 0) -> Null:
        """The metric beside that of the same messages dealt to the objects at random."""
        features, eos = self.game.world.features, self._eos
        return null_distribution(_metric(metric), self.codes, features, permutations=permutations, seed=seed, eos=eos)

    @property
    def _eos(self) -> int | None:
        return 0 if self.game.eos else None

    def rows(self) -> list[dict[str, Any]]:
        """Plain data, a row a run; `of_rows` makes the arm again."""
        return [
            {
                "code": code.tolist(),
                "clean": float(clean),
                "noisy": float(self.noisy[place]),
                "held_out": None if self.held_out is None else float(self.held_out[place]),
                "words": self.words[place],
            }
            for place, (code, clean) in enumerate(zip(self.codes, self.clean, strict=True))
        ]

    @classmethod
    def of_rows(cls, name: str, noise: float, game: Signalling, rows: Sequence[Mapping[str, Any]]) -> Self:
        """The arm that `rows` wrote down."""
        held_out = [row["held_out"] for row in rows]
        return cls(
            name,
            noise,
            game,
            np.array([row["code"] for row in rows]),
            np.array([row["clean"] for row in rows]),
            np.array([row["noisy"] for row in rows]),
            None if None in held_out else np.array(held_out),
            tuple(row["words"] for row in rows),
        )


@dataclass(frozen=True)
class Difference:
    """An arm beside its reference; `p` and `adjusted` are None, and `smallest` nan, where too few runs are defined."""

    arm: Arm
    difference: Estimate
    p: float | None
    adjusted: float | None
    smallest: float


@dataclass(frozen=True)
class Comparison:
    """What noise did to `metric`: its differences, in the arms' order; `plot` draws every arm, the reference too."""

    metric: str
    arms: tuple[Arm, ...]
    differences: tuple[Difference, ...]

    def __iter__(self) -> Iterator[Difference]:
        return iter(self.differences)

    def __len__(self) -> int:
        return len(self.differences)

    def __getitem__(self, place: int) -> Difference:
        return self.differences[place]

    def plot(self, path: str | Path) -> Path:
        """The metric's mean and interval over runs against noise, as an SVG file. Errors: OSError if it cannot be written."""
        arms = sorted(self.arms, key=lambda arm: arm.noise)
        found = [arm.score(self.metric).estimate() for arm in arms]
        picture = curve_svg([arm.noise for arm in arms], found, across_label="noise", up_label=self.metric)
        Path(path).write_text(picture, encoding="utf-8")
        return Path(path)


@dataclass(frozen=True)
class Sweep:
    """One arm a level of noise."""

    arms: tuple[Arm, ...]

    def compare(self, metric: str = "topsim", *, to: float = 0.0, seed: int = 0) -> Comparison:
        """Every other arm beside that of noise `to`. Errors: ConfigError if there is none."""
        reference = next((arm for arm in self.arms if arm.noise == to), None)
        if reference is None:
            raise ConfigError(f"no arm has noise {to:g}", "compare to a noise that was trained")
        found = compare([(arm, reference) for arm in self.arms if arm is not reference], metric, seed=seed)
        return Comparison(metric, self.arms, tuple(found))


def with_noise(game: Signalling, noise: float) -> Signalling:
    """The game with another probability in its channel. Errors: ConfigError for a chain of channels."""
    if len(game.channel.stages()) != 1:
        raise ConfigError(f"{game.channel} has several probabilities", "sweep over a single channel, such as Flip(0.1)")
    return replace(game, channel=replace(game.channel, p=noise))


def arm_of(
    game: Signalling,
    speaker: Speaker | None = None,
    listener: Listener | None = None,
    *,
    name: str = "",
    **training: Any,
) -> Arm:
    """Train the game (`training`: keywords of `train`), keep the languages and how well they work."""
    runs = train(game, speaker, listener, **training)
    held_out = None if runs.held_out is None else runs.held_out.double().numpy()
    words = tuple(runs.dictionary(place) for place in range(runs.seeds))
    clean, noisy = (part.double().numpy() for part in (runs.clean, runs.noisy))
    return Arm(name, game.channel.p, game, runs.codes.numpy(), clean, noisy, held_out, words)


def sweep(
    game: Signalling,
    speaker: Speaker | None = None,
    listener: Listener | None = None,
    *,
    noise: Sequence[float],
    **training: Any,
) -> Sweep:
    """Train the game at every level of noise; `training` are keywords of `train`, such as seeds=64, steps=1500."""
    return Sweep(
        tuple(arm_of(with_noise(game, p), speaker, listener, name=f"{p:g}", **training) for p in dict.fromkeys(noise))
    )


def compare(pairs: Sequence[tuple[Arm, Arm]], metric: str = "topsim", *, seed: int = 0) -> list[Difference]:
    """Each (arm, reference), Holm over all of them."""
    found = [_difference(arm, reference, metric, seed) for arm, reference in pairs]
    known = [place for place, one in enumerate(found) if one.p is not None]
    for place, adjusted in zip(known, holm([one.p for one in found if one.p is not None]), strict=True):
        found[place] = replace(found[place], adjusted=adjusted)
    return found


def _difference(arm: Arm, reference: Arm, metric: str, seed: int) -> Difference:
    after, before = (_defined(one.score(metric)) for one in (arm, reference))
    difference = clustered_difference(before.tolist(), after.tolist())
    if not len(after) or not len(before):
        return Difference(arm, difference, None, None, math.nan)
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    p = permutation_test(sign * after, sign * before, seed=seed)
    return Difference(arm, difference, p, None, smallest_difference(after, before))


def _defined(scores: Scores) -> Floats:
    return scores.values[scores.defined]


def _metric(name: str) -> Any:
    if name not in METRICS:
        raise ConfigError(f"there is no metric {name!r}", f"use one of {', '.join(METRICS)}")
    return METRICS[name]
