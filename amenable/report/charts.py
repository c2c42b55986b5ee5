"""Charts as inline SVG, written by hand: bars with intervals, and curves with bands.

Positions are percentages of an SVG without a view box, so that text keeps its size on a phone; lines are
drawn in a nested 1000 x 1000 box that is stretched to fit, with strokes that do not scale. Colours are CSS
classes (style.css), so that one drawing serves light and dark. Nothing carries a style attribute: the
page's policy forbids them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from amenable.report.escape import attribute, escaped
from amenable.report.numbers import estimate_html, finite, number_text, tick_text, ticks
from amenable.report.page import Bar, Bars, Curves, Series

PALETTE = 8
"""Number of series colours (and dash patterns) in style.css; a ninth series starts again."""


_LIFT = 'transform="translate(0 -10)"'  # centres a bar of height 20 on its row, whatever the row's height
_MARK = 'transform="translate(-1.25 -14)"'
_CAP = 'transform="translate(-0.7 -5)"'


def bars_figure(block: Bars) -> str:
    """A figure of one row a bar: label, bar with interval, the number in words; the axis beneath."""
    reach = finite(
        number
        for bar in block.bars
        for number in (bar.estimate.value, bar.estimate.low, bar.estimate.high, bar.published or 0.0)
    )
    marks = ticks(min(0.0, *reach), max(0.0, *reach), most=5) if any(reach) else ticks(0.0, 1.0, most=5)
    rows: list[str] = []
    group = ""
    for bar in block.bars:
        if bar.group and bar.group != group:
            rows.append(f'<p class="bar-group">{escaped(bar.group)}</p>')
        group = bar.group
        rows.append(_bar_row(bar, block, marks))
    scale = "".join(
        f'<text x="{_percent(mark, marks)}" y="11" class="tick{_edge(mark, marks)}">'
        f"{tick_text(mark, marks[1] - marks[0], percent=block.percent, signed=block.signed)}</text>"
        for mark in marks
    )
    unit = f'<p class="axis-name">{escaped(block.unit)}</p>' if block.unit else ""
    if not block.bars:
        return '<p class="empty">No data.</p>'
    return (
        f'<div class="bars">{"".join(rows)}<div class="bar-row bar-axis" aria-hidden="true"><span></span>'
        f'<div><svg class="bar-scale">{scale}</svg>{unit}</div><span></span></div></div>'
    )


def _bar_row(bar: Bar, block: Bars, marks: Sequence[float]) -> str:
    value, beside = estimate_html(bar.estimate, percent=block.percent, signed=block.signed)
    words = bar.estimate.text(percent=block.percent, signed=block.signed)
    published = ""
    if bar.published is not None:
        told = number_text(bar.published, percent=block.percent, signed=block.signed)
        published = f'<span class="published-note">published {told}</span>'
        words += f", published {told}"
    drawing = [
        f'<line x1="{_percent(mark, marks)}" x2="{_percent(mark, marks)}" y1="0" y2="100%" class="grid"/>'
        for mark in marks
    ]
    drawing.append(_bar_shape(bar, marks))
    emphasis = (" emphasis" if bar.emphasis else "") + (" told" if published else "")
    label = f"{bar.label}: {words}"
    return (
        f'<div class="bar-row{emphasis}"><span class="bar-label">{escaped(bar.label)}</span>'
        f'<svg class="bar" role="img" aria-label="{attribute(label)}"><title>{escaped(label)}</title>'
        f'{"".join(drawing)}</svg><span class="bar-value"><b>{value}</b> '
        f"{beside}{published}</span></div>"
    )


def _bar_shape(bar: Bar, marks: Sequence[float]) -> str:
    """The bar from 0 to the value, the interval as a line with ends, and the published number as a mark."""
    estimate, parts = bar.estimate, []
    if math.isfinite(estimate.value):
        start, end = sorted((_share(0.0, marks), _share(estimate.value, marks)))
        parts.append(f'<rect x="{start:.2f}%" width="{end - start:.2f}%" y="50%" height="20" {_LIFT} class="fill"/>')
    if bar.published is not None and math.isfinite(bar.published):
        x = _percent(bar.published, marks)
        parts.append(f'<rect x="{x}" width="2.5" y="50%" height="28" {_MARK} class="published"/>')
    if math.isfinite(estimate.low) and math.isfinite(estimate.high):
        low, high = _percent(estimate.low, marks), _percent(estimate.high, marks)
        parts.append(f'<line x1="{low}" x2="{high}" y1="50%" y2="50%" class="whisker"/>')
        parts += [f'<rect x="{x}" width="1.4" y="50%" height="10" {_CAP} class="end"/>' for x in (low, high)]
    x = _percent(0.0, marks)
    return "".join(parts) + f'<line x1="{x}" x2="{x}" y1="0" y2="100%" class="zero"/>'


def curves_figure(block: Curves) -> str:
    """A figure of lines with bands, ticks on both axes, a legend that wraps."""
    xs = finite(x for series in block.series for x in series.xs)
    ys = finite(y for series in block.series for part in (series.ys, series.lows, series.highs) for y in part or ())
    if not xs or not ys:
        return '<p class="empty">No data.</p>'
    across = ticks(min(xs), max(xs), most=6)
    up = ticks(min([*ys, 0.0] if block.zero else ys), max([*ys, 0.0] if block.zero else ys), most=5)
    drawing = [_axes(across, up, percent=block.percent)]
    drawing.append('<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%">')
    drawing += [_band(series, number, across, up) for number, series in enumerate(block.series)]
    drawing += [_line(series, number, across, up, block) for number, series in enumerate(block.series)]
    drawing.append("</svg>")
    label = f"{block.title}: {block.y_label} against {block.x_label}; " + "; ".join(
        _last(series, percent=block.percent) for series in block.series
    )
    legend = "".join(
        f'<li><svg class="swatch" aria-hidden="true">{_swatch(series, number)}</svg>{escaped(series.name)}</li>'
        for number, series in enumerate(block.series)
    )
    return (
        f'<ul class="legend">{legend}</ul><p class="axis-name y-name">{escaped(block.y_label)}</p>'
        f'<div class="plot"><svg class="curves" role="img" aria-label="{attribute(label)}">'
        f"<title>{escaped(block.title)}</title>{''.join(drawing)}</svg></div>"
        f'<p class="axis-name x-name">{escaped(block.x_label)}</p>'
    )


def _swatch(series: Series, number: int) -> str:
    """What the series looks like, for the legend: its line, or a point where points are not joined."""
    start, end, kind = ("0", "100%", "curve") if series.joined else ("50%", "50.1%", "dot")
    return f'<line x1="{start}" x2="{end}" y1="50%" y2="50%" class="{kind} s{number % PALETTE}"/>'


def _axes(across: Sequence[float], up: Sequence[float], *, percent: bool) -> str:
    parts = []
    for mark in up:
        y = f"{100 - _share(mark, up):.2f}%"
        parts.append(f'<line x1="0" x2="100%" y1="{y}" y2="{y}" class="{"zero" if mark == 0 else "grid"}"/>')
        text = tick_text(mark, up[1] - up[0], percent=percent)
        parts.append(f'<text x="-8" y="{y}" dy="0.32em" class="tick end">{text}</text>')
    for index, mark in enumerate(across):
        x = _percent(mark, across)
        sparse = " sparse" if index % 2 else ""
        parts.append(f'<line x1="{x}" x2="{x}" y1="100%" y2="100%" class="grid"/>')
        text = tick_text(mark, across[1] - across[0])
        parts.append(f'<text x="{x}" y="100%" dy="1.5em" class="tick{sparse}">{text}</text>')
    return "".join(parts)


def _band(series: Series, number: int, across: Sequence[float], up: Sequence[float]) -> str:
    if series.lows is None or series.highs is None:
        return ""
    shapes = []
    runs = _runs(list(zip(series.xs, series.lows, series.highs, strict=True)))
    if not series.joined:  # what lies between two points is nobody's interval
        runs = [[point] for run in runs for point in run]
    for run in runs:
        if len(run) > 1:
            edge = [_point(x, high, across, up) for x, _, high in run]
            edge += [_point(x, low, across, up) for x, low, _ in reversed(run)]
            shapes.append(f'<polygon points="{" ".join(edge)}" class="band s{number % PALETTE}"/>')
        else:
            x, low, high = run[0]
            path = f"M{_point(x, low, across, up)}L{_point(x, high, across, up)}"
            shapes.append(f'<path d="{path}" class="bar-band s{number % PALETTE}"/>')
    return "".join(shapes)


def _line(series: Series, number: int, across: Sequence[float], up: Sequence[float], block: Curves) -> str:
    colour = f"s{number % PALETTE}"
    runs = _runs(list(zip(series.xs, series.ys, strict=True)))
    parts = []
    if series.joined:
        path = "".join("M" + "L".join(_point(x, y, across, up) for x, y in run) for run in runs)
        parts.append(f'<path d="{path}" class="curve {colour}"/>' if path else "")
    points = [point for run in runs for point in run]
    if len(points) <= 25 or not series.joined:
        for x, y in points:
            words = f"{series.name}: {number_text(y, percent=block.percent)} at {number_text(x)}"
            parts.append(
                f'<path d="M{_point(x, y, across, up)}h0" class="dot {colour}"><title>{escaped(words)}</title></path>'
            )
    return "".join(parts)


def _runs(points: Sequence[tuple[float, ...]]) -> list[list[tuple[float, ...]]]:
    """Consecutive points without a gap, as lists of at least one."""
    runs: list[list[tuple[float, ...]]] = [[]]
    for point in points:
        if all(math.isfinite(number) for number in point):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _last(series: Series, *, percent: bool) -> str:
    known = [(x, y) for x, y in zip(series.xs, series.ys, strict=True) if math.isfinite(y)]
    if not known:
        return f"{series.name} has no data"
    return f"{series.name} ends at {number_text(known[-1][1], percent=percent)}"


def _share(value: float, marks: Sequence[float]) -> float:
    """Where `value` lies between the first and last tick, in percent."""
    return 100 * (value - marks[0]) / (marks[-1] - marks[0])


def _percent(value: float, marks: Sequence[float]) -> str:
    return f"{_share(value, marks):.2f}%"


def _point(x: float, y: float, across: Sequence[float], up: Sequence[float]) -> str:
    return f"{10 * _share(x, across):.1f},{1000 - 10 * _share(y, up):.1f}"


def _edge(mark: float, marks: Sequence[float]) -> str:
    """The first label starts at its tick and the last ends there, so that neither leaves the drawing."""
    return " start" if mark == marks[0] else " end" if mark == marks[-1] else ""
