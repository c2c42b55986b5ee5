"""Rows of pairs that a judge labelled, some of which people labelled, too, as columns of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amenable.errors import ConfigError, DataError, nearest
from amenable.evaluation.influence import Floats
from amenable.evaluation.judge_bias import log_length_ratio, own_side
from amenable.runs import Row
from amenable.task.dialogue import opening
from amenable.task.preferences import Comparison, comparison_of
from amenable.task.reading import rows_of
from amenable.task.rows import excerpt

WORDS = {"first": 1.0, "second": 0.0, "tie": 0.5}
ANSWERS = ("label", "averaged", "tied", "forward")


@dataclass(frozen=True)
class Judged:
    """Rows of pairs as columns (n,), nan where missing. `answer`: the one that is calibrated; `human`: people's.

    `averaged`: of both orders; `tied`: the same, but 1/2 where they contradict each other. `pairs`: the rows' texts.
    """

    rows: list[Row]
    pairs: list[Comparison]
    prompts: list[str]
    label: Floats
    averaged: Floats
    tied: Floats
    forward: Floats
    backward: Floats
    answer: Floats
    human: Floats
    outside: Floats
    length: Floats
    own: Floats | None
    system: Floats

    def __len__(self) -> int:
        return len(self.rows)


def read(settings: Any) -> tuple[Judged, Judged]:
    """The pairs that people labelled, too, and those that the judge labelled alone; `settings`: of `judge_calibrate`.

    Errors: ConfigError without a file, DataError for rows and columns that are not as they should be.
    """
    if not settings.labelled:
        raise ConfigError("no labels are named", "amenable judge calibrate LABELLED.jsonl [human=COLUMN]")
    rows = _rows(settings.labelled)
    column = _human_column(settings, rows)
    labelled = [(where, row) for where, row in rows if row.get(column) is not None]
    if not labelled:
        raise DataError(
            f"{settings.labelled} has no label of people in its column {column!r}.", "name the column: human=..."
        )
    alone = [item for item in rows if item[1].get(column) is None]
    if settings.alone:
        alone += _rows(settings.alone)
    return _judged(labelled, settings, column), _judged(alone, settings, "")


def _rows(source: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Rows of a file, or of the labels.jsonl of a run's folder."""
    path = Path(source).expanduser()
    if path.is_dir() and (path / "labels.jsonl").is_file():
        path = path / "labels.jsonl"
    rows = list(rows_of(path))
    if not rows:
        raise DataError(f"{source} holds no rows.", "give what `amenable judge` wrote.")
    return rows


def _human_column(settings: Any, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    columns = dict.fromkeys(key for _, row in rows for key in row)
    named = str(settings.human)
    if named:
        if named not in columns:
            raise DataError(f"{settings.labelled} has no column {named!r}.", nearest(named, columns))
        return named
    return "human" if "human" in columns else "given"


def _judged(rows: Sequence[tuple[str, Mapping[str, Any]]], settings: Any, human: str) -> Judged:
    pairs = [_texts(row, where) for where, row in rows]
    label, forward, backward, outside = (
        np.array([_probability(row.get(name), name, where) for where, row in rows], dtype=np.float64)
        for name in ("label", "forward", "backward", "outside")
    )
    averaged = 0.5 + (forward - backward) / 2  # nan where an order is
    tied = np.where((forward - 0.5) * (backward - 0.5) > 0, 0.5, averaged)
    answer = {"label": label, "averaged": averaged, "tied": tied, "forward": forward}[settings.answers]
    if rows and np.isnan(answer).all():
        raise DataError(
            f"{settings.labelled}: no row has an answer of the judge ({settings.answers}).",
            "give what `amenable judge` wrote: label, forward, backward.",
        )
    return Judged(
        rows=[dict(row) for _, row in rows],
        pairs=pairs,
        prompts=[opening(pair.prompt) for pair in pairs],
        label=label,
        averaged=averaged,
        tied=tied,
        forward=forward,
        backward=backward,
        answer=answer,
        human=np.array([_probability(row.get(human), human, where) for where, row in rows], dtype=np.float64),
        outside=outside,
        length=log_length_ratio([pair.first for pair in pairs], [pair.second for pair in pairs]),
        own=own_side([row.get(settings.own) for _, row in rows]) if settings.own else None,
        system=_system([row.get(settings.system) for _, row in rows], settings.system),
    )


def _texts(row: Mapping[str, Any], where: str) -> Comparison:
    """The texts of a row, of conversations, too. Errors: DataError."""
    return comparison_of({name: row[name] for name in ("prompt", "first", "second") if name in row}, where)


def _system(values: Sequence[object], column: str) -> Floats:
    sides = own_side(values) if column else np.ones(len(values))
    if np.any(sides == 0):
        raise DataError(
            f"{int((sides == 0).sum())} rows do not say in {column!r} which answer is system A's.", "fill it in."
        )
    return sides


def _probability(value: object, name: str, where: str) -> float:
    """A number in [0, 1], nan for null. Errors: DataError."""
    if value is None:
        return math.nan
    if isinstance(value, str) and value in WORDS:
        return WORDS[value]
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        what = f"{where}: {name} is {excerpt(value)}, not P(first is better)."
        raise DataError(what, "write a number in [0, 1], or first, second or tie; null where nobody said.")
    return float(value)
