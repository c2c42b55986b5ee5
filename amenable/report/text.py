"""A report for the terminal: the summary, and every table and bar chart as aligned columns with their
intervals.

Wide characters count as two columns. Hidden characters, terminal escapes among them, are shown as code
points.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from amenable.evaluation.interval import Estimate
from amenable.report.escape import visible
from amenable.report.numbers import cell_text
from amenable.report.page import Bars, Column, Headlines, Report, Table, column


def table_text(table: Table) -> str:
    """The table with its title above and its note below; numbers to the right, text to the left."""
    columns = [column(item) for item in table.columns]
    cells = [[_line(item.name) for item in columns]]
    cells += [[_line(cell_text(cell, item)) for cell, item in zip(row, columns, strict=True)] for row in table.rows]
    right = [any(isinstance(row[index], int | float | Estimate) for row in table.rows) for index in range(len(columns))]
    widths = [max(cell_len(row[index]) for row in cells) for index in range(len(columns))]
    lines = [_row(row, widths, right) for row in cells]
    lines.insert(1, "  ".join("─" * width for width in widths))
    above = [_line(table.title)] if table.title else []
    below = [_line(table.note)] if table.note else []
    return "\n".join([*above, *lines, *below])


def bars_text(bars: Bars) -> str:
    """A bar chart as the table of its numbers."""
    grouped = any(bar.group for bar in bars.bars)
    told = any(bar.published is not None for bar in bars.bars)
    number = Column(bars.unit or "value", percent=bars.percent, signed=bars.signed)
    published = Column("published", percent=bars.percent, signed=bars.signed)
    columns: list[str | Column] = [*([""] if grouped else []), "", number, *([published] if told else [])]
    rows = [
        [
            *([bar.group] if grouped else []),
            bar.label,
            bar.estimate,
            *([bar.published] if told else []),
        ]
        for bar in bars.bars
    ]
    return table_text(Table(bars.title, columns, rows, bars.caption))


def report_text(report: Report) -> str:
    """Title, summary, headline numbers, tables, bars and the command; the page adds curves and samples."""
    parts = ["\n".join([_line(report.title), *(_line(line) for line in report.summary)])]
    for section in report.sections:
        for block in section.blocks:
            if isinstance(block, Table):
                parts.append(table_text(block))
            elif isinstance(block, Bars):
                parts.append(bars_text(block))
            elif isinstance(block, Headlines):
                parts.append(
                    "\n".join(
                        f"{_line(one.label)}: {one.estimate.text(percent=one.percent, signed=one.signed)}"
                        for one in block.items
                    )
                )
    if report.command:
        parts.append(f"again: {_line(report.command)}")
    return "\n\n".join(parts)


def _row(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [
        " " * (width - cell_len(cell)) + cell if flush else cell + " " * (width - cell_len(cell))
        for cell, width, flush in zip(row, widths, right, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _line(text: str) -> str:
    return visible(text).replace("\n", " ").replace("\t", " ")
