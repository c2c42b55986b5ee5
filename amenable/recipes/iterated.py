"""Iterated learning: does a language become more compositional when those who speak it are replaced, one after the other?

A *cell* is a loss and a kind of speaker. In each cell two arms train the same populations from the same first generation: one
with turnover, one without it (the control: the same steps, nobody is replaced). Tested is topographic similarity in the last
generation: one-sided permutation test over populations, turnover against control, Holm over cells; the interval is that of the
paired difference. Arms are stages: a run that was killed goes on with the next one, and a folder may be given more cells.

    factored/mlp     a bias of training and one of architecture: what is easy to learn survives
    holistic/table   neither: all codes are alike to a table that is told about whole objects, before and after any turnover

Source: Kirby 2001; Li and Bowling 2019, arXiv 1906.02403; the channel is that of Kucinski et al. 2021, arXiv 2111.06464.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amenable.errors import ConfigError
from amenable.evaluation.compositionality import topsim
from amenable.evaluation.interval import Estimate, bootstrap_mean, paired_difference
from amenable.evaluation.permutation import holm, permutation_test
from amenable.game.agents import Listener, Speaker
from amenable.game.channels import Flip
from amenable.game.iterated import TURNOVERS, Lineage, iterate
from amenable.game.signalling import Signalling
from amenable.game.worlds import Attributes
from amenable.progress import bar, say
from amenable.recipes.environment import command_of, machine, prepare, versions
from amenable.recipes.settings import Recipe, setting
from amenable.report.html import write
from amenable.report.page import Cell, Curves, Headline, Headlines, Report, Section, Series, Table
from amenable.runs import Row, Run

CELLS = ("factored/mlp", "factored/table", "holistic/mlp", "holistic/table")


@dataclass(frozen=True)
class IteratedSettings:
    """Which cells, how many populations, and how agents are replaced."""

    cells: tuple[str, ...] = setting(("factored/mlp", "holistic/table"), "loss/speaker", CELLS)
    turnover: str = setting(
        "both",
        "who is replaced: each side in turn, or always the same one",
        tuple(name for name in TURNOVERS if name != "none"),
    )
    seeds: int = setting(64, "populations in each arm, all at once")
    speakers: int = setting(1, "speakers of a population; everybody plays with everybody")
    listeners: int = setting(1, "listeners of a population")
    generations: int = setting(6, "replacements, one a generation")
    first_steps: int = setting(1500, "training steps of the first generation, before any replacement")
    steps: int = setting(500, "training steps of each later generation")
    noise: float = setting(0.0, "probability that a symbol is flipped on its way")
    values: int = setting(5, "values of each of two features; as many symbols in the alphabet, two a message")
    learning_rate: float = setting(3e-3, "Adam's step size")
    entropy: float = setting(1.0, "weight of the entropy bonus at the beginning of each generation, nats")
    threads: int = setting(1, "CPU threads, 0 for all cores")
    seed: int = setting(0, "the first seed; the others follow it")


@dataclass(frozen=True)
class Arm:
    """Numbers of each population and generation, (S, T) as lists."""

    topsim: list[list[float]]
    clean: list[list[float]]

    def last(self) -> list[float]:
        """Topsim in the last generation, one a population."""
        return [values[-1] for values in self.topsim]


def plan(settings: IteratedSettings) -> list[str]:
    """What is trained."""
    if not settings.cells or settings.generations < 1:
        raise ConfigError("no cell, or no generation after the first", "name a cell, and use generations=1 or more")
    people = f"{settings.speakers} speaker{'s' * (settings.speakers > 1)} and {settings.listeners} listener"
    return [
        f"{len(settings.cells)} cells of two arms, {settings.turnover} replaced and nobody replaced: {settings.seeds} "
        f"populations of {people}{'s' * (settings.listeners > 1)} in each",
        f"{settings.generations} generations of {settings.steps} steps after a first one of {settings.first_steps}; "
        f"{settings.values} x {settings.values} objects, noise {settings.noise:g}",
    ]


def run(settings: IteratedSettings, folder: Path) -> Report:
    """Train every arm that is not there yet; compare, and write the report into `folder`."""
    clock = prepare(settings.threads)
    plan(settings)
    record = Run.of(folder, settings, free=("cells",))
    found: dict[str, dict[str, Arm]] = {}
    for cell in settings.cells:
        found[cell] = {}
        for turnover in (settings.turnover, "none"):
            rows = record.stage(f"{cell}, {turnover}", lambda c=cell, t=turnover: _rows(settings, c, t))  # type: ignore[misc]
            arm = Arm([row["topsim"] for row in rows], [row["clean"] for row in rows])
            found[cell][turnover] = arm
            say(f"{cell}, turnover {turnover}: topsim {_mean(arm.topsim, 0)} -> {_mean(arm.topsim, -1)}")
        clock.lap(cell)
    report = build_report(settings, found, clock.minutes(), machine({}))
    write(report, folder / "report.html")
    record.close()
    return report


def _mean(values: list[list[float]], generation: int) -> str:
    return bootstrap_mean([row[generation] for row in values]).text()


def _rows(settings: IteratedSettings, cell: str, turnover: str) -> list[Row]:
    """A row a population."""
    loss, kind = cell.split("/")
    game = Signalling(
        Attributes((settings.values, settings.values)), Flip(settings.noise), length=2, alphabet=settings.values, loss=loss,  # type: ignore[arg-type]
    )  # fmt: skip
    with bar(f"{cell}, turnover {turnover}") as progress:
        lineage = iterate(
            game, Speaker(kind), Listener(kind), seeds=settings.seeds, generations=settings.generations, turnover=turnover,  # type: ignore[arg-type]
            speakers=settings.speakers, listeners=settings.listeners, first_steps=settings.first_steps, steps=settings.steps,
            seed=settings.seed, learning_rate=settings.learning_rate, entropy=settings.entropy, progress=progress,
        )  # fmt: skip
    likeness = similarities(lineage)
    return [
        {"seed": settings.seed + place, "topsim": likeness[place], "clean": lineage.clean[:, place].tolist()}
        for place in range(settings.seeds)
    ]


def similarities(lineage: Lineage) -> list[list[float]]:
    """Topsim of each population and generation, mean over its speakers; a speaker who says one thing of all has 0."""
    generations, seeds, speakers, objects, length = lineage.codes.shape
    values = topsim(lineage.codes.reshape(-1, objects, length), lineage.game.world.features).values
    return [[float(x) for x in row] for row in values.reshape(generations, seeds, speakers).mean(2).T]


def build_report(
    settings: IteratedSettings, found: dict[str, dict[str, Arm]], minutes: dict[str, float], where: dict[str, Any]
) -> Report:
    """The page: what turnover changes, cell by cell."""
    changes = {cell: _change(arms, settings.turnover) for cell, arms in found.items()}
    ps = [permutation_test(arms[settings.turnover].last(), arms["none"].last()) for arms in found.values()]
    adjusted = dict(zip(found, holm(ps), strict=True))
    summary = [
        f"{cell}: turnover changes topsim by {change.text(signed=True)} (p = {adjusted[cell]:.4f})."
        for cell, change in changes.items()
    ]
    heads = [
        Headline(f"{cell}: topsim, turnover less control", changes[cell], percent=False, signed=True) for cell in found
    ]
    return Report(
        title="Iterated learning: what turnover does to a language",
        summary=summary,
        command=command_of("iterated", settings),
        sections=[
            Section("Turnover against none", [Headlines(heads), _table(settings, found, changes, adjusted)]),
            Section("Generations", [_curves(cell, arms) for cell, arms in found.items()]),
        ],
        config=asdict(settings), minutes=minutes, versions=versions(), machine=where,
    )  # fmt: skip


def _change(arms: dict[str, Arm], turnover: str) -> Estimate:
    return paired_difference(arms["none"].last(), arms[turnover].last())


def _table(
    settings: IteratedSettings,
    found: dict[str, dict[str, Arm]],
    changes: dict[str, Estimate],
    adjusted: dict[str, float],
) -> Table:
    rows: list[Sequence[Cell]] = []
    for cell, arms in found.items():
        arm, control = arms[settings.turnover], arms["none"]
        accuracy = [bootstrap_mean([row[-1] for row in one.clean], share=True) for one in (arm, control)]
        first = bootstrap_mean([row[0] for row in arm.topsim])
        last, without = bootstrap_mean(arm.last()), bootstrap_mean(control.last())
        rows.append([cell, first, last, without, changes[cell], round(adjusted[cell], 5), *accuracy])
    columns = [
        "loss/speaker", "topsim, first generation", "last", "last without turnover", "change", "p (Holm)", "accuracy",
        "accuracy without",
    ]  # fmt: skip
    note = (
        "95% bootstrap over populations; the change is paired (both arms have the same first generation). p: one-sided "
        "permutation test, turnover above control. Accuracy without noise, in the last generation."
    )
    return Table("Topographic similarity", columns, rows, note)


def _curves(cell: str, arms: dict[str, Arm]) -> Curves:
    series = []
    for name, arm in arms.items():
        every = [bootstrap_mean(values) for values in zip(*arm.topsim, strict=True)]
        label = "nobody replaced" if name == "none" else f"{name} replaced"
        ys, lows, highs = ([getattr(one, part) for one in every] for part in ("value", "low", "high"))
        series.append(Series(label, list(range(len(every))), ys, lows, highs))
    return Curves(cell, "generation", "topsim", series, zero=True)


RECIPE = Recipe(
    "iterated",
    "speakers and listeners are replaced one after the other: does their language become more compositional?",
    IteratedSettings,
    plan,
    run,
)
