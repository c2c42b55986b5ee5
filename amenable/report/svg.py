"""A curve, or points, with intervals as one SVG file that stands alone, for a paper; reports draw their own (`charts`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import cycle

from amenable.evaluation.interval import Estimate
from amenable.report.numbers import tick_text, ticks

_COLOURS = ("#1d5f8f", "#b5541c", "#2b7a4b", "#7a4f9a", "#8a6a00", "#a8326b", "#0f7f86", "#5a6169")
"""Those of the page's series (style.css, --s0 to --s7)."""
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 400, 64, 24, 24, 56


def curve_svg(
    across: Sequence[float], up: Sequence[Estimate], *, across_label: str, up_label: str, names: Sequence[str] = ()
) -> str:
    """Estimates `up` at the places `across`: a line through the means, a bar for each interval. What is nan is left out.

    `names`: one a point; those of a name have a colour, said at the right, and no line joins them.
    """
    named = zip(across, up, names or [""] * len(up), strict=True)
    points = [(x, one, name) for x, one, name in named if not math.isnan(one.value)]
    xs = [x for x, _, _ in points]
    ys = [y for _, one, _ in points for y in (one.value, one.low, one.high) if not math.isnan(y)]
    x_marks, y_marks = (ticks(min(values, default=0), max(values, default=1)) for values in (xs, ys))

    def place(x: float, y: float) -> tuple[float, float]:
        wide = (x - x_marks[0]) / (x_marks[-1] - x_marks[0])
        high = (y - y_marks[0]) / (y_marks[-1] - y_marks[0])
        return (
            round(_LEFT + wide * (_WIDTH - _LEFT - _RIGHT), 2),
            round(_HEIGHT - _BOTTOM - high * (_HEIGHT - _TOP - _BOTTOM), 2),
        )

    parts = []
    for mark in y_marks:
        left, right = place(x_marks[0], mark), place(x_marks[-1], mark)
        parts.append(
            _line(left, right, "#ddd")
            + _text(left[0] - 8, left[1] + 4, tick_text(mark, y_marks[1] - y_marks[0]), "end")
        )
    for mark in x_marks:
        x, y = place(mark, y_marks[0])
        parts.append(_text(x, y + 18, tick_text(mark, x_marks[1] - x_marks[0]), "middle"))
    ends = [place(x, one.value) for x, one, _ in points]
    colours = dict(zip(dict.fromkeys(name for _, _, name in points), cycle(_COLOURS), strict=False))
    for (x, one, name), at in zip(points, ends, strict=True):
        colour = colours[name]
        if not math.isnan(one.low + one.high):
            parts.append(_line(place(x, one.low), place(x, one.high), colour))
        parts.append(f'<circle cx="{at[0]}" cy="{at[1]}" r="4" fill="{colour}"/>')
    for place_in_list, (name, colour) in enumerate(colours.items() if names else ()):
        y = _TOP + 18 * (place_in_list + 1)
        parts.append(f'<circle cx="{_WIDTH - _RIGHT - 8}" cy="{y - 4}" r="4" fill="{colour}"/>')
        parts.append(_text(_WIDTH - _RIGHT - 20, y, name, "end"))
    line = " ".join(f"{x},{y}" for x, y in ends)
    if not names:
        parts.append(f'<polyline points="{line}" fill="none" stroke="{_COLOURS[0]}" stroke-width="2"/>')
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, across_label, "middle"))
    parts.append(_text(_LEFT, _TOP - 8, up_label, "start"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="13">'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _line(start: tuple[float, float], end: tuple[float, float], colour: str) -> str:
    return f'<line x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
