"""What a sweep over noise came to: the curve, its tests, every metric beside chance, and the languages themselves.

Intervals: bootstrap over runs; of differences Student's t; of shares Wilson's. A run whose metric is undefined is left out of
that metric's mean, and the summary says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from amenable.evaluation.compositionality import LOWER_IS_BETTER
from amenable.evaluation.disentanglement import perfect
from amenable.evaluation.interval import Estimate, bootstrap_mean, wilson
from amenable.game.sweep import Arm, Difference, compare
from amenable.recipes.environment import command_of, versions
from amenable.report.page import Block, Column, Curves, Report, Section, Series, Table

LEVEL = 0.05
FURTHER = (
    "context_independence", "posdis", "bosdis", "matched_disentanglement", "tre", "distinct_messages", "message_entropy",
)  # fmt: skip
AGAINST_CHANCE = ("topsim", "conflicts_normalised", "context_independence", "posdis", "matched_disentanglement", "tre")
SHORT = {
    "conflicts_normalised": "conflicts, share", "context_independence": "context independence",
    "matched_disentanglement": "matched", "distinct_messages": "distinct messages", "message_entropy": "entropy, bits",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A loss with a kind of speaker, and its arms in order of noise."""

    loss: str
    speaker: str
    arms: tuple[Arm, ...]

    @property
    def name(self) -> str:
        return f"{self.loss}, {self.speaker}"

    def best(self, metric: str) -> Arm:
        """The arm with the best mean of `metric`; the first if there is none."""
        sign = -1 if metric in LOWER_IS_BETTER else 1
        means = [sign * arm.score(metric).estimate().value for arm in self.arms]
        return self.arms[max(range(len(means)), key=lambda i: (not math.isnan(means[i]), means[i]))]


def build_report(settings: Any, cells: Sequence[Cell], minutes: dict[str, float], where: dict[str, Any]) -> Report:
    """One page, and its tables for the terminal."""
    tests = compare(
        [(arm, cell.arms[0]) for cell in cells for arm in cell.arms[1:]], settings.metric, seed=settings.seed
    )
    own = {id(one.arm): one for one in tests}
    blocks: list[Block] = [*_curves(cells), _arms_table(cells)]
    if len(cells) > 1 and len(cells[0].arms) > 1:
        blocks.insert(0, _biases(cells, own, settings.metric))
    sections = [Section("Noise", blocks)]
    if tests:
        sections.append(Section("Tests", [_tests_table(cells, own, settings.metric)]))
    further: list[Block] = [_metrics_table(cells)]
    if settings.permutations:
        further.append(_chance_table(cells, settings.permutations))
    sections.append(Section("Other metrics, and chance", further))
    sections.append(Section("Languages", [table for cell in cells for table in _languages(cell, settings.metric)]))
    return Report(
        title="What noise does to languages",
        summary=[line for cell in cells for line in _told(cell, own, settings.metric)],
        command=command_of("signalling", settings),
        sections=sections,
        config=asdict(settings), minutes=minutes, versions=versions(), machine=where,
    )  # fmt: skip


def _told(cell: Cell, own: Mapping[int, Difference], metric: str) -> list[str]:
    """The answer for a cell, and a warning for every metric of the page that some of its runs do not have."""
    reference, best = cell.arms[0], cell.best(metric)
    lines = [f"{cell.name}: {metric} {reference.score(metric).estimate().text()} at noise {reference.noise:g}."]
    found = [own[id(arm)] for arm in cell.arms[1:]]
    sure = [one for one in found if one.adjusted is not None and one.adjusted <= LEVEL]
    if sure:
        at = ", ".join(f"{one.arm.noise:g}" for one in sure)
        lines[0] += f" Better at noise {at} (Holm, level {LEVEL:g})"
        one = own.get(id(best))
        told = f"; best at {best.noise:g}: {one.difference.text(signed=True)}, Holm p {_p(one.adjusted)}" if one else ""
        lines[0] += f"{told}."
    elif found:
        missed = min((one.smallest for one in found if not math.isnan(one.smallest)), default=math.nan)
        lines[0] += (
            f" No noise is found to better it; a difference of {missed:.2g} would have been found with probability 0.8."
        )
    for name in dict.fromkeys((metric, *AGAINST_CHANCE, *FURTHER)):
        lost = {arm.noise: int((~arm.score(name).defined).sum()) for arm in cell.arms}
        if any(lost.values()):
            which = ", ".join(
                f"{count} of {len(cell.arms[0].codes)} at noise {noise:g}" for noise, count in lost.items() if count
            )
            lines.append(
                f"WARNING: {cell.name}: {name} is undefined for {which}: left out of its mean (a constant code?)."
            )
    return lines


def _p(p: float | None) -> str:
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _curves(cells: Sequence[Cell]) -> list[Curves]:
    accuracy = [
        _series(f"{cell.name}, {kind}" if len(cells) > 1 else kind, cell, [bootstrap_mean(getattr(arm, kind), share=True)
                for arm in cell.arms])
        for cell in cells for kind in ("clean", "noisy")
    ]  # fmt: skip
    curves = [Curves("Accuracy", "noise", "objects named right", accuracy, percent=True, zero=True,
                     caption="Clean: nothing lost on the way. Noisy: through the channel of the training.")]  # fmt: skip
    for name, label in (("topsim", "topographic similarity"), ("conflicts_normalised", "conflicts, share of the most")):
        series = [_series(cell.name, cell, [arm.score(name).estimate() for arm in cell.arms]) for cell in cells]
        curves.append(Curves(label.capitalize(), "noise", label, series, zero=True))
    return curves


def _series(name: str, cell: Cell, values: Sequence[Estimate]) -> Series:
    return Series(
        name, [arm.noise for arm in cell.arms], [one.value for one in values], [one.low for one in values],
        [one.high for one in values],
    )  # fmt: skip


def _each(cells: Sequence[Cell]) -> list[tuple[list[Any], Arm]]:
    """Every arm, with the cells of a table that say which it is."""
    return [([cell.name, f"{arm.noise:g}"] if len(cells) > 1 else [f"{arm.noise:g}"], arm)
            for cell in cells for arm in cell.arms]  # fmt: skip


def _columns(cells: Sequence[Cell], *names: str | Column) -> list[str | Column]:
    return [*(["loss, speaker"] if len(cells) > 1 else []), "noise", *names]


def _arms_table(cells: Sequence[Cell]) -> Table:
    rows = []
    for which, arm in _each(cells):
        game = arm.game
        flawless = perfect(arm.codes, game.world.features, eos=0 if game.eos else None)
        shown = [bootstrap_mean(arm.clean, share=True), bootstrap_mean(arm.noisy, share=True)]
        held_out = [] if arm.held_out is None else [bootstrap_mean(arm.held_out, share=True)]
        rows.append(
            [
                *which, f"{game.channel.capacity(game.alphabet, game.length):.3f}", *shown, *held_out,
                arm.score("topsim").estimate(), arm.score("conflicts").estimate(),
                wilson(int(flawless.sum()), len(flawless)),
            ]
        )  # fmt: skip
    unseen = [] if cells[0].arms[0].held_out is None else [Column("held out, clean", percent=True)]
    columns = _columns(
        cells, "capacity, bits a symbol", Column("clean", percent=True), Column("noisy", percent=True), *unseen, "topsim",
        "conflicts", Column("perfect codes", percent=True),
    )  # fmt: skip
    note = "95%: bootstrap over runs, perfect codes Wilson. Perfect: every feature has a position that says it alone."
    return Table("What noise did", columns, rows, note)


def _biases(cells: Sequence[Cell], own: Mapping[int, Difference], metric: str) -> Table:
    """One row a cell, one column a noise; None where a cell was not trained at that noise."""
    levels = sorted({arm.noise for cell in cells for arm in cell.arms})
    rows: list[list[Any]] = []
    for cell in cells:
        shown = {arm.noise: _with_p(arm, own, metric) for arm in cell.arms}
        rows.append([cell.loss, cell.speaker, *[shown.get(noise) for noise in levels]])
    columns = ["loss", "speaker", *[f"{metric} at noise {noise:g}" for noise in levels]]
    return Table(
        "Biases", columns, rows, "In brackets 95%, bootstrap over runs; p: permutation test, Holm over the table."
    )


def _with_p(arm: Arm, own: Mapping[int, Difference], metric: str) -> str:
    value, interval, _ = arm.score(metric).estimate().parts()
    one = own.get(id(arm))
    return f"{value} {interval}" + (f", p {_p(one.adjusted)}" if one else "")


def _tests_table(cells: Sequence[Cell], own: Mapping[int, Difference], metric: str) -> Table:
    rows = []
    for which, arm in _each(cells):
        if id(arm) in own:
            one = own[id(arm)]
            smallest = None if math.isnan(one.smallest) else f"{one.smallest:.2g}"
            rows.append([*which, one.difference, _p(one.p), _p(one.adjusted), smallest])
    reference = cells[0].arms[0].noise
    columns = _columns(cells, Column("difference", signed=True), "p", "p, Holm", "smallest found")
    side = "lower" if metric in LOWER_IS_BETTER else "higher"
    note = (
        f"One-sided: that noise makes {metric} {side}. Permutation test over runs, 10,000 dealings; Holm over all {len(rows)}. "
        "Difference: 95%, Student's t. Smallest found: the true difference that this many runs find with probability 0.8 at "
        "level 0.05, before Holm."
    )
    return Table(f"{metric} against noise {reference:g}", columns, rows, note)


def _metrics_table(cells: Sequence[Cell]) -> Table:
    rows = [[*which, *[arm.score(name).estimate() for name in FURTHER]] for which, arm in _each(cells)]
    note = "TRE is better the lower it is. 95%: bootstrap over runs; n is the number of runs in which the metric is defined."
    return Table("Other metrics", _columns(cells, *[SHORT.get(name, name) for name in FURTHER]), rows, note)


def _chance_table(cells: Sequence[Cell], permutations: int) -> Table:
    rows = []
    for which, arm in _each(cells):
        z = [arm.null(name, permutations=permutations).z.estimate() for name in AGAINST_CHANCE]
        rows.append([*which, *z])
    note = (
        f"z: standard deviations above the mean of {permutations} codes with the same messages dealt to the objects at random; "
        "mean over runs. 0 is chance; conflicts and TRE are better the lower they are."
    )
    return Table("Against chance", _columns(cells, *[SHORT.get(name, name) for name in AGAINST_CHANCE]), rows, note)


def _languages(cell: Cell, metric: str) -> list[Table]:
    """Of the reference and of the best arm the language of the run in the middle, to read."""
    chosen = {arm.noise: arm for arm in (cell.arms[0], cell.best(metric))}
    return [_language(cell, arm, metric) for arm in chosen.values()]


def _language(cell: Cell, arm: Arm, metric: str) -> Table:
    scores = arm.score(metric)
    place = _middle(scores.values, scores.defined)
    lines = [re.split(r" {2,}", line.strip()) for line in arm.words[place].splitlines()]
    grid = len(arm.game.world.values) == 2
    columns, rows = (["", *lines[0]], lines[1:]) if grid else (["object", "message"], lines)
    value = f"{scores.values[place]:.2f}" if scores.defined[place] else "undefined"
    conflicts = arm.score("conflicts")
    note = f"Run {place} of {len(arm.codes)}, in the middle by {metric}: {value}; accuracy {arm.clean[place]:.0%}"
    note += f", {int(conflicts.values[place])} conflicts." if conflicts.defined[place] else "."
    return Table(f"A language: {cell.name}, noise {arm.noise:g}", columns, rows, note)


def _middle(values: Any, defined: Any) -> int:
    """The run whose value is the median of those that are defined; 0 if none is."""
    known = np.flatnonzero(defined)
    return int(known[np.argsort(values[known], kind="stable")[(len(known) - 1) // 2]]) if len(known) else 0
