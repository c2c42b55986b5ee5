"""What a report says, as plain data; how it looks is decided in html.py (a page) and text.py (a terminal).

A report is a title, a few sentences that give the answer, and sections of blocks: headline numbers, bars
with intervals, curves with bands, tables, and samples to read. Everything needed to judge and repeat it
comes last: the configuration, the versions, the machine, the minutes each stage took, and the command.

Shares are numbers in [0, 1] everywhere and are shown as percentages where `percent` says so. Differences
are `signed`. All text is untrusted: it is escaped where it is drawn, never here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from amenable.errors import DataError
from amenable.evaluation.interval import Estimate
from amenable.records import Verdict

Cell = str | int | float | Estimate | None
"""One cell of a table; None is shown as a dash."""


@dataclass(frozen=True)
class Headline:
    """One large number with what it is; `note` is a short line beneath it."""

    label: str
    estimate: Estimate
    note: str = ""
    percent: bool = True
    signed: bool = False


@dataclass(frozen=True)
class Headlines:
    """The two to five numbers that a reader should take home."""

    items: Sequence[Headline]


@dataclass(frozen=True)
class Bar:
    """One bar. Bars of the same `group` stand under one heading; `published` is to compare with."""

    label: str
    estimate: Estimate
    group: str = ""
    emphasis: bool = False
    published: float | None = None


@dataclass(frozen=True)
class Bars:
    """Horizontal bars with intervals, on one axis that holds 0. `unit` names the axis, such as "pass@1"."""

    title: str
    bars: Sequence[Bar]
    caption: str = ""
    unit: str = ""
    percent: bool = True
    signed: bool = False


@dataclass(frozen=True)
class Series:
    """One line of (x, y), with a band from `lows` to `highs` if both are given; nan leaves a gap.

    `joined` False draws points alone (a frontier's runs).
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    lows: Sequence[float] | None = None
    highs: Sequence[float] | None = None
    joined: bool = True

    def __post_init__(self) -> None:
        lengths = [len(part) for part in (self.xs, self.ys, self.lows, self.highs) if part is not None]
        if len(set(lengths)) > 1:
            raise DataError(f"series {self.name!r} has parts of {lengths} points.", "give one y for each x.")


@dataclass(frozen=True)
class Curves:
    """Lines over one x axis. `zero` makes the y axis hold 0."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    caption: str = ""
    percent: bool = False
    zero: bool = False


@dataclass(frozen=True)
class Column:
    """A column's name and how its numbers are shown."""

    name: str
    percent: bool = False
    signed: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first column names the row."""

    title: str
    columns: Sequence[str | Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows, start=1):
            if len(row) != len(self.columns):
                raise DataError(
                    f"row {number} of {self.title!r} has {len(row)} cells for {len(self.columns)} columns.",
                    "give one cell a column, None where there is nothing to say.",
                )


@dataclass(frozen=True)
class SampleCard:
    """One sample to read: the task, what was drafted, what was said of it, what came of it, and the verdict.

    `draft_verdict` is the draft's. With a draft and a refinement the change between them is shown.
    """

    task_id: str
    prompt: str = ""
    draft: str | None = None
    feedback: str | None = None
    refinement: str | None = None
    verdict: Verdict | None = None
    draft_verdict: Verdict | None = None
    arm: str = ""
    tags: Sequence[str] = ()


@dataclass(frozen=True)
class Cards:
    """Samples to read, with a filter by arm and outcome and a search; `note` says how they were chosen."""

    title: str
    cards: Sequence[SampleCard]
    note: str = ""
    draft_label: str = "Draft"
    refinement_label: str = "Refinement"


Block = Headlines | Bars | Curves | Table | Cards


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs of plain text, and blocks."""

    title: str
    blocks: Sequence[Block] = ()
    text: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """The whole page. `minutes` is stage -> wall-clock minutes; `subtitle` may hold the date."""

    title: str
    summary: Sequence[str]
    command: str
    sections: Sequence[Section]
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)
    minutes: Mapping[str, float] = field(default_factory=dict)
    subtitle: str = ""


def column(item: str | Column) -> Column:
    """A column by its name alone, or as it is."""
    return item if isinstance(item, Column) else Column(item)
