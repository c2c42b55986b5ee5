"""The blocks of a section as HTML: headlines, tables, samples to read. Charts are in charts.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from amenable.evaluation.interval import Estimate
from amenable.records import Failure, Verdict
from amenable.report.charts import bars_figure, curves_figure
from amenable.report.difference import difference
from amenable.report.escape import attribute, escaped
from amenable.report.numbers import cell_text, estimate_html, number_text
from amenable.report.page import (
    Bars,
    Block,
    Cards,
    Cell,
    Column,
    Curves,
    Headline,
    Headlines,
    SampleCard,
    Table,
    column,
)


def block_html(block: Block) -> str:
    """One block."""
    match block:
        case Headlines():
            return f'<div class="headlines">{"".join(_headline(item) for item in block.items)}</div>'
        case Bars():
            return _figure(block.title, bars_figure(block), block.caption)
        case Curves():
            numbers = f"<details><summary>The numbers</summary>{_scroll(_curve_table(block))}</details>"
            return _figure(block.title, curves_figure(block) + (numbers if block.series else ""), block.caption)
        case Table():
            return _figure(block.title, _scroll(table_html(block)), block.note)
        case Cards():
            return _cards(block)


def table_html(block: Table) -> str:
    """The table alone, with its name for those who hear the page."""
    columns = [column(item) for item in block.columns]
    numeric = [
        any(isinstance(row[index], int | float | Estimate) for row in block.rows if index < len(row))
        for index in range(len(columns))
    ]
    head = "".join(
        f'<th scope="col"{_class("num" if right else "")}>{escaped(item.name)}</th>'
        for item, right in zip(columns, numeric, strict=True)
    )
    body = ""
    for row in block.rows:
        cells = [_cell(cell, item, first=not i) for i, (cell, item) in enumerate(zip(row, columns, strict=True))]
        body += f"<tr>{''.join(cells)}</tr>"
    if not block.rows:
        body = f'<tr><td class="empty" colspan="{max(1, len(columns))}">No rows.</td></tr>'
    label = attribute(block.title)
    return f'<table aria-label="{label}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cell(cell: Cell, item: Column, *, first: bool) -> str:
    if isinstance(cell, Estimate):
        value, beside = estimate_html(cell, percent=item.percent, signed=item.signed)
        return f'<td class="num"><b>{value}</b> {beside}</td>'
    content = escaped(cell_text(cell, item))
    if first:
        return f'<th scope="row">{content}</th>'
    return f"<td{_class('' if isinstance(cell, str) else 'num')}>{content}</td>"


def _headline(item: Headline) -> str:
    value, beneath = estimate_html(item.estimate, percent=item.percent, signed=item.signed)
    note = f'<span class="headline-note">{escaped(item.note)}</span>' if item.note else ""
    return (
        f'<div class="headline"><span class="headline-label">{escaped(item.label)}</span>'
        f'<span class="headline-value">{value}</span>'
        f'<span class="headline-interval">{beneath}</span>{note}</div>'
    )


def _figure(title: str, body: str, caption: str) -> str:
    below = f"<figcaption>{escaped(caption)}</figcaption>" if caption else ""
    heading = f"<h3>{escaped(title)}</h3>" if title else ""
    return f"<figure>{heading}{body}{below}</figure>"


def _curve_table(block: Curves) -> str:
    """Every number of the curves: one row a point."""
    rows: list[Sequence[Cell]] = []
    for series in block.series:
        for index, (x, y) in enumerate(zip(series.xs, series.ys, strict=True)):
            band = ""
            if series.lows is not None and series.highs is not None:
                low, high = (number_text(side[index], percent=block.percent) for side in (series.lows, series.highs))
                band = f"[{low}, {high}]"
            rows.append((series.name, float(x), float(y), band))
    columns: list[str | Column] = [
        "series",
        block.x_label,
        Column(block.y_label, percent=block.percent),
        "interval",
    ]
    return table_html(Table(block.title, columns, rows))


def _cards(block: Cards) -> str:
    arms = Counter(card.arm for card in block.cards if card.arm)
    outcomes = Counter(_outcome(card) for card in block.cards)
    controls = (
        '<div class="controls" hidden>'
        + _choice("arm", "arm", arms)
        + _choice("outcome", "outcome", outcomes)
        + '<label class="search">search <input type="search" data-role="search" autocomplete="off"></label>'
        + '<span class="found" data-role="found" aria-live="polite"></span></div>'
    )
    pager = (
        '<div class="pager" hidden><button type="button" data-role="back">Previous</button>'
        '<span data-role="page"></span><button type="button" data-role="next">Next</button></div>'
    )
    cards = "".join(_card(card, block) for card in block.cards) or '<p class="empty">No samples.</p>'
    note = f'<p class="note">{escaped(block.note)}</p>' if block.note else ""
    inside = f"{controls}{cards}{pager}" if block.cards else cards
    return f'<div class="browser"><h3>{escaped(block.title)}</h3>{note}{inside}</div>'


def _choice(role: str, name: str, counts: Counter[str]) -> str:
    if not counts:
        return ""
    options = "".join(
        f'<option value="{attribute(value)}">{escaped(f"{value} ({count:,})")}</option>'
        for value, count in sorted(counts.items())
    )
    return f'<label>{name} <select data-role="{role}"><option value="">all</option>{options}</select></label>'


def _outcome(card: SampleCard) -> str:
    return card.verdict.outcome if card.verdict else "no verdict"


def _card(card: SampleCard, block: Cards) -> str:
    outcome = _outcome(card)
    chips = [f'<span class="chip outcome-{outcome.replace(" ", "-")}">{outcome}</span>']
    chips += [f'<span class="chip arm">{escaped(card.arm)}</span>'] if card.arm else []
    chips += [f'<span class="chip">{escaped(tag)}</span>' for tag in card.tags]
    gist = (card.feedback or card.prompt).strip().split("\n")[0][:200]
    summary = (
        f'<summary><span class="task">{escaped(card.task_id)}</span>{"".join(chips)}'
        f'<span class="gist">{escaped(gist)}</span></summary>'
    )
    fields = [_field("Task", f"<pre>{escaped(card.prompt)}</pre>")] if card.prompt else []
    if card.feedback is not None:
        fields.append(_field("Feedback", f"<blockquote>{escaped(card.feedback)}</blockquote>"))
    if card.draft is not None and card.draft_verdict is not None:
        fields.append(_verdict(card.draft_verdict, f" on the {block.draft_label.lower()}"))
    if card.draft is not None and card.refinement is not None:
        labels = (block.draft_label, block.refinement_label)
        fields.append(_field("Change", difference(card.draft, card.refinement, labels=labels)))
    elif card.draft is not None or card.refinement is not None:
        label = block.refinement_label if card.draft is None else block.draft_label
        fields.append(_field(label, f"<pre>{escaped(card.refinement or card.draft or '')}</pre>"))
    if card.verdict is not None:
        fields.append(
            _verdict(card.verdict, f" on the {block.refinement_label.lower()}" if card.draft is not None else "")
        )
    return (
        f'<details class="card" data-arm="{attribute(card.arm)}" data-outcome="{outcome}">'
        f'{summary}<div class="card-body">{"".join(fields)}</div></details>'
    )


def _field(name: str, body: str) -> str:
    return f'<section class="field"><h4>{escaped(name)}</h4>{body}</section>'


def _verdict(verdict: Verdict, whose: str) -> str:
    passed = sum(result is True for result in verdict.passed)
    missing = sum(result is None for result in verdict.passed)
    told = f"{passed} of {len(verdict.passed)} tests passed"
    told += f", {missing} without a result" if missing else ""
    if verdict.integrity == "cooperative":
        told += "; the program could have deceived its tests"
    body = f'<p><span class="chip outcome-{verdict.outcome}">{verdict.outcome}</span> {told}</p>'
    if verdict.failure is not None:
        body += _failure(verdict.failure)
    if verdict.output.strip():
        body += f"<details><summary>Output</summary><pre>{escaped(verdict.output)}</pre></details>"
    return _field(f"Verdict{whose}", body)


def _failure(failure: Failure) -> str:
    where = f" at line {failure.line}" if failure.line is not None else ""
    parts = [
        ("test", failure.test),
        ("call", failure.call),
        ("expected", failure.expected),
        ("got", failure.got),
        (f"error{where}", failure.error),
        ("source", failure.source),
    ]
    rows = "".join(f"<dt>{name}</dt><dd><code>{escaped(value)}</code></dd>" for name, value in parts if value)
    return f'<dl class="failure">{rows}</dl>'


def _scroll(table: str) -> str:
    return f'<div class="scroll" tabindex="0" role="region" aria-label="table">{table}</div>'


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
