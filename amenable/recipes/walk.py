"""Commands or names: the same two agents, the same channel, and a language that depends on who sees what.

A *cell* is who sees what (speaker/listener), the length of a message and the noise. In each cell `seeds` pairs are trained by
the exact gradient of success; then messages are silenced, shuffled and swapped, and the bits they carry of action and goal are
computed. Where the speaker sees the walker, symbols become commands; where the walker sees itself, names of places. Cells are
stages: a run that was killed goes on with the next one, and a folder may be given more cells later.

    success   a share of the optimum's discounted value, see `game.walk`     interventions, informations   see `game.influence`

Source: the road of arXiv 2303.04544, measured after Lowe et al. 2019, arXiv 1903.05168. The game and its numbers are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from amenable.errors import ConfigError, nearest
from amenable.game.agents import Listener, Speaker
from amenable.game.channels import Flip
from amenable.game.influence import Influence, Meaning, influence, meaning
from amenable.game.walk import Grid, Walk, train_walk
from amenable.progress import bar, say
from amenable.recipes.environment import machine, prepare
from amenable.recipes.settings import Recipe, setting
from amenable.recipes.walk_report import Cell, build_report, told
from amenable.report.html import write
from amenable.report.page import Report
from amenable.runs import Row, Run

CELLS: dict[str, tuple[str, str, int, float]] = {
    "goal+listener/nothing": ("goal+listener", "nothing", 1, 0.0),
    "goal+listener/self": ("goal+listener", "self", 1, 0.0),
    "goal/self": ("goal", "self", 1, 0.0),
    "goal/self/2": ("goal", "self", 2, 0.0),
    "goal/nothing": ("goal", "nothing", 1, 0.0),
    "goal+listener/nothing/noisy": ("goal+listener", "nothing", 1, 0.1),
}
"""Name -> what the speaker sees, what the listener sees, symbols a message, noise of the channel."""


@dataclass(frozen=True)
class WalkSettings:
    """Which cells, how many pairs, and how they are trained."""

    cells: tuple[str, ...] = setting(
        tuple(CELLS), "what speaker/listener see, /2: two symbols a message, /noisy: 10% noise", tuple(CELLS)
    )
    seeds: int = setting(16, "pairs trained in each cell, all at once")
    side: int = setting(4, "the grid is side x side")
    alphabet: int = setting(4, "different symbols")
    discount: float = setting(0.9, "what a step costs: the value of arriving is discount^steps")
    kind: str = setting("mlp", "speaker and listener; table: no bias of architecture", ("mlp", "table"))
    steps: int = setting(600, "training steps")
    learning_rate: float = setting(5e-3, "Adam's step size; 0.03 for kind=table")
    entropy: float = setting(0.2, "weight of both agents' entropy at the beginning; 0 after half of the steps")
    threads: int = setting(1, "CPU threads, 0 for all cores")
    seed: int = setting(0, "the first seed; the others follow it")


def walk_of(settings: WalkSettings, cell: str) -> Walk:
    """The game of a cell. Errors: ConfigError for an unknown one, or a grid or discount that cannot be."""
    if cell not in CELLS:
        raise ConfigError(f"there is no cell {cell!r}", nearest(cell, CELLS))
    speaker, listener, length, noise = CELLS[cell]
    return Walk(
        Grid(settings.side), speaker, listener, Flip(noise), length, settings.alphabet, settings.discount  # type: ignore[arg-type]
    )  # fmt: skip


def plan(settings: WalkSettings) -> list[str]:
    """What is trained."""
    games = [walk_of(settings, cell) for cell in settings.cells]
    if not games or settings.seeds < 1 or settings.steps < 1:
        raise ConfigError(
            "no cell, no seed or no step: nothing is trained", "name a cell, and give seeds and steps of 1 or more"
        )
    grid = games[0].grid
    return [
        f"{len(games)} cells of {settings.seeds} pairs: a walk on {grid.places} places, {settings.alphabet} symbols, "
        "one message a step",
        f"{settings.steps} steps each by the exact gradient of success; then silence, shuffle and swap",
    ]


def run(settings: WalkSettings, folder: Path) -> Report:
    """Train every cell that is not there yet, and write the report into `folder`."""
    clock = prepare(settings.threads)
    plan(settings)
    record = Run.of(folder, settings, free=("cells",))
    found = []
    for name in settings.cells:
        rows = record.stage(name, lambda name=name: _cell(settings, name))  # type: ignore[misc]
        found.append(cell := Cell(name, walk_of(settings, name), rows[:-1], rows[-1]))
        say(told(cell))
        clock.lap(name)
    report = build_report(settings, found, clock.minutes(), machine({}))
    write(report, folder / "report.html")
    record.close()
    return report


def _cell(settings: WalkSettings, name: str) -> list[Row]:
    """A row a pair, and one more with what the strings of the first pair mean."""
    with bar(name) as progress:
        walks = train_walk(
            walk_of(settings, name), Speaker(settings.kind), Listener(settings.kind),  # type: ignore[arg-type]
            seeds=settings.seeds, steps=settings.steps, seed=settings.seed, learning_rate=settings.learning_rate,
            entropy=settings.entropy, progress=progress,
        )  # fmt: skip
    effects, meant = influence(walks), meaning(walks)
    return [
        *_pairs(settings, effects, meant),
        {part.name: getattr(meant, part.name)[0].tolist() for part in fields(meant)},
    ]


def _pairs(settings: WalkSettings, effects: Influence, meant: Meaning) -> list[Row]:
    numbers = {part.name: getattr(effects, part.name).tolist() for part in fields(effects)} | {
        "moved": meant.moved.tolist()
    }
    return [
        {"seed": settings.seed + place, **{name: values[place] for name, values in numbers.items()}}
        for place in range(settings.seeds)
    ]


RECIPE = Recipe(
    "walk",
    "a walker is told where to go: whether symbols become commands or names, by intervention",
    WalkSettings,
    plan,
    run,
)
