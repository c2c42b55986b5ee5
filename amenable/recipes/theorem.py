"""Theorem 2 of arXiv 2111.06464 by enumeration: which one-to-one languages are best at which noise.

Every one-to-one language of a small world is scored at every noise, and at the threshold (A-1)/A itself: below it the
compositional languages, and they alone, have the least expected number of wrong features; above it they have the most; scored
all or nothing, all tie. Equations: `game/theorem.py`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amenable.errors import ConfigError
from amenable.game.theorem import Languages, enumerate_languages
from amenable.recipes.environment import command_of, machine, prepare, versions
from amenable.recipes.settings import Recipe, setting
from amenable.report.html import write
from amenable.report.page import Column, Curves, Report, Section, Series, Table
from amenable.runs import Run

NEAR = 1e-9  # what counts as equal


@dataclass(frozen=True)
class TheoremSettings:
    """Which world is enumerated, at which noise."""

    features: int = setting(2, "features of an object, and symbols of a message")
    values: int = setting(3, "values of a feature, and symbols of the alphabet")
    noise: tuple[float, ...] = setting(
        (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.66, 0.7, 0.8, 0.9),
        "probabilities that a symbol becomes another one",
    )
    threads: int = setting(1, "CPU threads, 0 for all cores")


@dataclass(frozen=True)
class Level:
    """What the languages come to at one noise; `others` is None where every language is compositional."""

    noise: float
    compositional: tuple[float, float]
    others: tuple[float, float] | None
    optimal: int
    optimal_are_compositional: bool
    spread: float

    def verdict(self) -> str:
        """What this noise favours."""
        if self.others is None or max(abs(a - b) for a, b in zip(self.compositional, self.others, strict=True)) <= NEAR:
            return "all languages tie"
        if self.optimal_are_compositional:
            return "compositional ones best, and they alone"
        return "compositional ones worst" if self.compositional[0] >= self.others[1] - NEAR else "neither"


def level(languages: Languages, all_or_nothing: Languages, noise: float) -> Level:
    """The languages at `noise`."""
    found, own = languages.objective(noise), languages.compositional
    best = found <= found.min() + NEAR
    return Level(
        noise,
        (float(found[own].min()), float(found[own].max())),
        (float(found[~own].min()), float(found[~own].max())) if not own.all() else None,
        int(best.sum()),
        bool((best == own).all()),
        float(np.ptp(all_or_nothing.objective(noise))),
    )


def threshold(settings: TheoremSettings) -> float:
    """The noise up to which compositional languages are best, (A-1)/A."""
    return (settings.values - 1) / settings.values


def _check(settings: TheoremSettings) -> None:
    if not settings.noise or not all(0 <= noise <= 1 for noise in settings.noise):
        raise ConfigError(f"noise={settings.noise} are not probabilities", "use noise=0,0.1,0.2 or so")


def plan(settings: TheoremSettings) -> list[str]:
    """What is listed."""
    _check(settings)
    count = settings.values**settings.features
    told = f"{math.factorial(count):,}" if count < 20 else f"{count}!"
    return [
        f"{told} one-to-one languages of {settings.features} features with {settings.values} values, "
        f"at {len(settings.noise)} levels of noise and at {threshold(settings):.4g}"
    ]


def run(settings: TheoremSettings, folder: Path) -> Report:
    """Enumerate, and write the report into `folder`."""
    clock = prepare(settings.threads)
    _check(settings)
    record = Run.of(folder, settings)
    languages = enumerate_languages(settings.features, settings.values)
    every = enumerate_languages(settings.features, settings.values, all_or_nothing=True)
    levels = [level(languages, every, noise) for noise in sorted({*settings.noise, threshold(settings)})]
    record.stage("levels", lambda: [asdict(one) for one in levels])
    clock.lap("enumeration")
    report = build_report(settings, languages, levels, clock.minutes())
    write(report, folder / "report.html")
    record.close()
    return report


def build_report(
    settings: TheoremSettings, languages: Languages, levels: list[Level], minutes: dict[str, float]
) -> Report:
    """The table, and the curves of how far other languages lie above the compositional ones."""
    count, own = len(languages.codes), int(languages.compositional.sum())
    below = [one for one in levels if 0 < one.noise < threshold(settings) - NEAR]
    above = [one for one in levels if one.noise > threshold(settings) + NEAR]
    holds = sum(one.optimal_are_compositional for one in below)
    reversed_ = sum(one.verdict() == "compositional ones worst" for one in above)
    formula = max(abs(j - settings.features * one.noise) for one in levels for j in one.compositional)
    lines = [
        f"{own:,} of {count:,} one-to-one languages are compositional.",
        f"They, and they alone, are best at {holds} of {len(below)} levels of noise between 0 and "
        f"{threshold(settings):.4g}, and worst at {reversed_} of {len(above)} above.",
        f"Their objective is {settings.features} x noise to {formula:.1g}. Scored all or nothing, all languages "
        f"tie: the largest spread is {max(one.spread for one in levels):.1g}.",
    ]
    return Report(
        title="Compositional languages are best under noise: by enumeration",
        summary=lines,
        command=command_of("theorem", settings),
        sections=[Section("Noise", [_table(levels), _curves(levels)])],
        config=asdict(settings), minutes=minutes, versions=versions(), machine=machine({}),
    )  # fmt: skip


def _table(levels: list[Level]) -> Table:
    rows: list[list[Any]] = [
        [
            f"{one.noise:.4g}",
            f"{one.compositional[0]:.4f}",
            f"{one.others[0]:.4f}" if one.others else None,
            f"{one.others[1]:.4f}" if one.others else None,
            one.optimal,
            one.verdict(),
            f"{one.spread:.1g}",
        ]
        for one in levels
    ]
    columns: list[str | Column] = [
        "noise", "compositional", "best other", "worst other", "languages that are best", "which", "spread, all or nothing",
    ]  # fmt: skip
    note = "Expected number of features that arrive wrong, exact. Spread: largest less smallest probability of a wrong object."
    return Table("Objective by noise", columns, rows, note)


def _curves(levels: list[Level]) -> Curves:
    known = [(one.noise, one.compositional[0], one.others) for one in levels if one.others is not None]
    xs = [noise for noise, _, _ in known]
    series = [
        Series(name, xs, [others[side] - own for _, own, others in known if others is not None])
        for side, name in enumerate(("best other language", "worst other language"))
    ]
    title = "How many more features other languages get wrong"
    return Curves(title, "noise", "wrong features above the compositional languages'", series, zero=True)


RECIPE = Recipe(
    "theorem",
    "enumerate all one-to-one languages: at which noise compositional ones are best",
    TheoremSettings,
    plan,
    run,
)
