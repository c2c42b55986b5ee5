"""What `amenable run walk` found, as a page: success under intervention, bits of action and goal, what each symbol means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from amenable.evaluation.interval import Estimate, over_seeds
from amenable.game.walk import Walk
from amenable.recipes.environment import command_of, versions
from amenable.report.page import Block, Headline, Headlines, Report, Section, Table
from amenable.report.page import Cell as TableCell
from amenable.runs import Row

ARROWS = "↑→↓←"


@dataclass(frozen=True)
class Cell:
    """A cell's game, a row of numbers for each of its pairs, and the meanings of the first pair's strings."""

    name: str
    walk: Walk
    pairs: Sequence[Row]
    meant: Row

    def over(self, name: str) -> Estimate:
        """The mean over pairs, Student's t."""
        return over_seeds([float(pair[name]) for pair in self.pairs])

    def at(self, name: str, *places: int) -> Estimate:
        """The same for one number of a list in each row."""
        return over_seeds([_inside(pair[name], places) for pair in self.pairs])


def _inside(value: Any, places: Sequence[int]) -> float:
    for place in places:
        value = value[place]
    return float(value)


def told(cell: Cell) -> str:
    """One line for the terminal."""
    parts = {
        "success": "success", "silenced": "silenced", "action_bits": "bits of action", "goal_bits": "bits of the goal"
    }  # fmt: skip
    return f"{cell.name}: " + ", ".join(f"{said} {cell.over(name).value:.3f}" for name, said in parts.items())


def build_report(settings: Any, cells: Sequence[Cell], minutes: dict[str, float], where: dict[str, Any]) -> Report:
    """The page. The first section answers: commands, or names?"""
    known = {cell.name: cell for cell in cells}
    commands, names = known.get("goal+listener/nothing"), known.get("goal/self/2")
    shown = [cell for cell in (commands, names) if cell is not None] or cells
    return Report(
        title="Commands or names: what a walker's symbols mean",
        summary=[_verdict(cell) for cell in (commands, names) if cell is not None],
        command=command_of("walk", settings),
        sections=[
            Section("Who sees what", [*_headlines(commands, names), _interventions(cells), _informations(cells)]),
            *(Section(f"What symbols mean: {cell.name}", _meanings(cell), _text(cell)) for cell in shown),
        ],
        config=asdict(settings), minutes=minutes, versions=versions(), machine=where,
    )  # fmt: skip


def _verdict(cell: Cell) -> str:
    action, goal = cell.over("action_bits"), cell.over("goal_bits")
    what = "commands" if action.value > goal.value else "names of places"
    return (
        f"{cell.name}: {what}. {action.value:.2f} bits of action, {goal.value:.2f} bits of the goal; success "
        f"{cell.over('success').value:.3f} of the optimum, {cell.over('silenced').value:.3f} when silenced."
    )


def _headlines(commands: Cell | None, names: Cell | None) -> list[Block]:
    items = []
    if commands is not None:
        items.append(Headline("I(message; action), bits", commands.over("action_bits"), commands.name, percent=False))
    if names is not None:
        items.append(Headline("I(message; goal), bits", names.over("goal_bits"), names.name, percent=False))
    return [Headlines(items)] if items else []


def _interventions(cells: Sequence[Cell]) -> Table:
    names = ("success", "silenced", "shuffled", "swapped")
    note = (
        "Share of the optimum's discounted value. Silenced: messages drawn uniformly; shuffled: the pair's own, from other "
        "moments; swapped: the speaker is told another goal. 95% over seeds, Student's t."
    )
    return Table(
        "Success, and what interventions leave of it", ["speaker sees/listener sees", *names],
        [[cell.name, *(cell.over(name) for name in names)] for cell in cells], note,
    )  # fmt: skip


def _informations(cells: Sequence[Cell]) -> Table:
    names = ("action_bits", "goal_bits", "listening_bits", "signalling_bits")
    columns = [
        "speaker sees/listener sees",
        "I(m'; action)",
        "I(m; goal)",
        "I(m'; action | place)",
        "I(m; goal, place)",
    ]
    note = (
        "Bits, under the pair's own visits. m: sent, m': received. The third is positive listening, the fourth positive "
        "signalling."
    )
    rows: list[list[TableCell]] = [[cell.name, *(cell.over(name) for name in names)] for cell in cells]
    return Table("What messages carry", columns, rows, note)


def _text(cell: Cell) -> list[str]:
    return [
        f"The speaker sees {cell.walk.speaker_sees.replace('+', ' and ')}, the listener {cell.walk.listener_sees}; "
        f"{cell.walk.length} symbols a message, {cell.walk.channel}. The tables of strings show the first pair (seed "
        f"{cell.pairs[0]['seed']}), the table of positions all {len(cell.pairs)}."
    ]


def _meanings(cell: Cell) -> list[Block]:
    return [_strings(cell), _map(cell), *([_positions(cell)] if cell.walk.length > 1 else [])]


def word(symbols: Sequence[int]) -> str:
    """A string in letters, or numbers after Z; a channel's marks follow the alphabet's letters."""
    return "".join(chr(65 + symbol) if symbol < 26 else f"({symbol})" for symbol in symbols)


def place(number: int, side: int) -> str:
    """A place as row and column, from 1."""
    return f"r{number // side + 1} c{number % side + 1}"


def _most(law: Sequence[float]) -> int:
    return max(range(len(law)), key=law.__getitem__)


def _strings(cell: Cell) -> Table:
    """A row a string: the four actions, the goal it speaks of most, and where a walker ends who hears nothing else."""
    side, meant = cell.walk.grid.side, cell.meant
    rows: list[list[TableCell]] = []
    for number, symbols in enumerate(cell.walk.received.tolist()):
        actions, goals, ends = meant["actions"][number], meant["goals"][number], meant["ends"][number]
        rows.append(
            [
                word(symbols), f"{meant['used'][number]:.0%}", *(f"{share:.0%}" for share in actions),
                f"{place(_most(goals), side)} ({max(goals):.0%})" if meant["used"][number] > 0.005 else None,
                f"{place(_most(ends), side)} ({max(ends):.0%})",
            ]
        )  # fmt: skip
    note = (
        "Heard: share of steps. Actions: of a walker who hears it, where it is heard. Goal: the likeliest one. Ends: where a "
        "walker is most of the time who hears nothing else (half of it, if it goes there and back)."
    )
    return Table(f"Strings: {cell.name}", ["string", "heard", *ARROWS, "goal", "ends at"], rows, note)


def _map(cell: Cell) -> Table:
    """The grid, drawn: which string speaks of each place as goal most, by what is heard; and how clearly."""
    side, meant = cell.walk.grid.side, cell.meant
    strings = cell.walk.received.tolist()
    rows: list[list[TableCell]] = []
    for row in range(side):
        cells: list[TableCell] = [f"r{row + 1}"]
        for column in range(side):
            goal = row * side + column
            weight = [used * goals[goal] for used, goals in zip(meant["used"], meant["goals"], strict=True)]
            share = max(weight) / sum(weight) if sum(weight) else 0.0
            cells.append(f"{word(strings[_most(weight)])} {share:.0%}")
        rows.append(cells)
    note = "The string that is heard most on the way to each goal, and its share. A name has 100%; a command serves many goals."
    return Table(f"Map of goals: {cell.name}", ["", *(f"c{column + 1}" for column in range(side))], rows, note)


def _positions(cell: Cell) -> Table:
    """What each position is for: what is left without it, and what another symbol there moves."""
    rows: list[list[TableCell]] = []
    for k in range(cell.walk.length):
        moved = [cell.at("moved", k, feature) for feature in range(3)]
        rows.append([f"symbol {k + 1}", cell.at("silenced_at", k), *moved])
    note = (
        "Success with that symbol drawn uniformly; by how much another symbol at that position moves the next action, and row "
        "and column of where a walker ends who hears nothing else (total variation, 0 to 1)."
    )
    return Table(
        "Positions", ["position", "success without it", "moves action", "moves row", "moves column"], rows, note
    )
