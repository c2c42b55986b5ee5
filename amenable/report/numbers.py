"""How numbers are written, and where an axis has its ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable

from amenable.evaluation.interval import Estimate
from amenable.report.page import Cell, Column


def number_text(number: float, *, percent: bool = False, signed: bool = False) -> str:
    """A number without an interval: "1,234", "0.0523", "36.2%", "+9.8 points"; "no data" for nan."""
    if isinstance(number, bool):
        return "yes" if number else "no"
    if math.isnan(number):
        return "no data"
    if math.isinf(number):
        return "∞" if number > 0 else "−∞"
    sign = "+" if signed else ""
    if percent:
        return f"{number * 100:{sign}.1f}{' points' if signed else '%'}"
    if number == int(number) and abs(number) < 1e15:
        return f"{int(number):{sign},d}"
    if 1e-4 <= abs(number) < 1e6:
        text = f"{number:{sign},.{max(0, 3 - math.floor(math.log10(abs(number))))}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{number:{sign}.4g}"


def cell_text(cell: Cell, column: Column) -> str:
    """One cell of a table as plain text."""
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Estimate):
        return cell.text(percent=column.percent, signed=column.signed)
    return number_text(cell, percent=column.percent, signed=column.signed)


def ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Round numbers that cover low..high, some `most` of them, in steps of 1, 2, 2.5 or 5 x 10^k."""
    if not high - low > 1e-9 * max(abs(low), abs(high), 1e-6):  # alike but for rounding
        margin = 0.1 * abs(low) or 0.5
        low, high = low - margin, high + margin
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10, 20) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * index, 12) for index in range(first, last + 1)]


def estimate_html(estimate: Estimate, *, percent: bool, signed: bool) -> tuple[str, str]:
    """The value, and its interval with n, as HTML with a true minus sign."""
    value, interval, n = (part.replace("-", "−") for part in estimate.parts(percent=percent, signed=signed))
    return value, f'<span class="ci">{interval}</span> <span class="n">{n}</span>'


def tick_text(value: float, step: float, *, percent: bool = False, signed: bool = False) -> str:
    """A tick's label, with the decimals that its step needs; percentage points (`signed`) go without "%"."""
    if percent:
        value, step = value * 100, step * 100
    fraction = f"{step:.10f}".rstrip("0").partition(".")[2]
    if abs(value) >= 1e6 or (step < 1e-6):
        return f"{value:.3g}"
    return f"{value + 0.0:,.{len(fraction)}f}".replace("-", "−") + ("%" if percent and not signed else "")


def finite(numbers: Iterable[float]) -> list[float]:
    """Those of `numbers` that can be drawn."""
    return [number for number in numbers if math.isfinite(number)]
