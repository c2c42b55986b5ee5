"""Theorem 2 of arXiv 2111.06464, verified on every one-to-one language: both directions, the threshold, the tie."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from amenable.errors import ConfigError
from amenable.game.theorem import Languages, enumerate_languages

THRESHOLD = 2 / 3


@pytest.fixture(scope="module")
def languages() -> Languages:
    return enumerate_languages()


def test_72_of_362_880_languages_are_compositional(languages: Languages) -> None:
    assert len(languages.codes) == math.factorial(9) == 362_880
    assert languages.compositional.sum() == math.factorial(3) ** 2 * 2 == 72


@pytest.mark.parametrize(
    ("noise", "best_other"), [(0.05, 0.1206), (0.2, 0.4622), (0.5, 1.0556), (0.66, 1.3229), (0.6666, None)]
)
def test_below_the_threshold_the_compositional_ones_and_they_alone_are_best(
    languages: Languages, noise: float, best_other: float | None
) -> None:
    found = languages.objective(noise)
    best = found <= found.min() + 1e-12
    assert (best == languages.compositional).all()
    assert found[best] == pytest.approx(np.full(72, 2 * noise), abs=1e-9)
    if best_other is not None:
        assert found[~best].min() == pytest.approx(best_other, abs=5e-5)


def test_at_the_threshold_and_without_noise_all_tie(languages: Languages) -> None:
    for noise in (0.0, THRESHOLD):
        assert np.ptp(languages.objective(noise)) < 1e-12


@pytest.mark.parametrize("noise", [0.667, 0.8, 1.0])
def test_above_the_threshold_they_are_the_worst(languages: Languages, noise: float) -> None:
    found, own = languages.objective(noise), languages.compositional
    assert found[own] == pytest.approx(np.full(72, 2 * noise), abs=1e-9)
    assert found[own].min() > found[~own].max()
    if noise == 0.8:
        assert (found[~own].min(), found[~own].max()) == pytest.approx((1.280, 1.529), abs=5e-4)


def test_all_or_nothing_every_language_ties() -> None:
    every = enumerate_languages(all_or_nothing=True)
    for noise in (0.0, 0.05, 0.3, 0.66, 0.8, 1.0):
        found = every.objective(noise)
        assert np.ptp(found) < 1e-12
        assert found[0] == pytest.approx(1 - (1 - noise) ** 2, abs=1e-12)


@pytest.mark.parametrize(("features", "values"), [(2, 2), (3, 2), (2, 3)])
def test_the_objective_is_its_definition(features: int, values: int) -> None:
    """The sum over objects and corrupted messages, written out, for languages drawn from the list."""
    found = enumerate_languages(features, values)
    objects = list(itertools.product(range(values), repeat=features))
    noise = 0.3
    for index in np.random.default_rng(0).integers(0, len(found.codes), size=3):
        spoken = {f: objects[m] for f, m in zip(objects, found.codes[index], strict=True)}
        heard = {m: f for f, m in spoken.items()}
        total = 0.0
        for f, received in itertools.product(objects, objects):
            law = [1 - noise if a == b else noise / (values - 1) for a, b in zip(spoken[f], received, strict=True)]
            wrong = sum(a != b for a, b in zip(f, heard[received], strict=True))
            total += math.prod(law) * wrong / len(objects)
        assert found.objective(noise)[index] == pytest.approx(total, abs=1e-12)


def test_other_worlds() -> None:
    for features, values in ((2, 2), (3, 2)):
        found = enumerate_languages(features, values)
        assert found.compositional.sum() == math.factorial(values) ** features * math.factorial(features)
        noise = (values - 1) / values - 0.01
        best = found.objective(noise) <= features * noise + 1e-12
        assert (best == found.compositional).all()
    assert enumerate_languages(1, 4).compositional.all()  # with one feature there is nothing to compose


def test_what_cannot_be_listed_is_refused() -> None:
    with pytest.raises(ConfigError, match="16! languages"):
        enumerate_languages(2, 4)
    with pytest.raises(ConfigError, match="languages"):
        enumerate_languages(2, 1)
    with pytest.raises(ConfigError, match="probability"):
        enumerate_languages(2, 2).objective(1.5)
