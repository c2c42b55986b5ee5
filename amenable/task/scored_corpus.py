"""A corpus whose segments have scores: what `amenable score` writes, and pretraining with feedback reads.

    {"id": "json/decoder.py", "text": "import re\\n...", "ends": [10, 27, ...], "scores": [0.0, 0.0625, null, ...]}

    text    the whole document; it is all of its segments, one after the other
    ends    where each segment ends, in characters (code points) from the start; the last is the text's length
    scores  one number a segment: how bad it is, 0 for nothing wrong (PEP8, PII: violations or detections a character;
            toxicity: a probability); null where there is no answer, which is not 0

The reward of a segment is minus its score. Other keys of a row (where it is from, its licence) are kept apart, in `facts`.
Source of the layout: Korbak et al. 2023, arXiv 2302.08582, whose data sets hold texts and scores of segments.
"""

from __future__ import annotations

import gzip
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amenable.errors import DataError
from amenable.task.reading import rows_of
from amenable.task.rows import excerpt

SCORED = "scored.jsonl"
"""The file of a run folder that holds the rows."""
SUMMARY = "summary.json"
"""Written when the scoring is finished: its presence says that no row is missing."""


@dataclass(frozen=True)
class ScoredDocument:
    """One document. `ends` rise strictly to len(text); `scores` has one entry a segment, None where missing."""

    id: str
    text: str
    ends: tuple[int, ...]
    scores: tuple[float | None, ...]
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def segments(self) -> list[str]:
        """The segments as texts; joined they are `text`."""
        return [self.text[start:end] for start, end in zip((0, *self.ends), self.ends, strict=False)]

    @property
    def mean(self) -> float | None:
        """The mean of the segments' scores, each segment counted once, without the missing ones; None if all are."""
        known = [score for score in self.scores if score is not None]
        return sum(known) / len(known) if known else None


def read_scored(path: str | Path) -> Iterator[ScoredDocument]:
    """The documents of a JSONL file, a gzipped one, or the run folder of a finished `amenable score`, one at a time.

    Errors: DataError for a file that cannot be read, a row that is no scored document, a run that is not finished.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / SUMMARY).is_file():
            missing = "is not finished" if (path / SCORED).is_file() else "is no folder of `amenable score`"
            raise DataError(f"{path} {missing}.", f"amenable score --out {path} goes on with it.")
        path = path / SCORED
    for where, row in rows_of(path):
        yield from_row(row, where)


def write_scored(path: str | Path, documents: Iterable[ScoredDocument]) -> int:
    """Write a JSONL file (gzipped if its name ends in .gz), whole or not at all; the number of documents."""
    path = Path(path)
    work = path.with_name(f".{path.name}.partial")
    count = 0
    with open(work, "wb") as file:
        out: Any = gzip.GzipFile("", "wb", fileobj=file, mtime=0) if path.suffix == ".gz" else file
        for document in documents:
            out.write(to_line(document))
            count += 1
        if out is not file:
            out.close()
        file.flush()
        os.fsync(file.fileno())
    os.replace(work, path)
    return count


def to_line(document: ScoredDocument) -> bytes:
    """The document's row as one line of UTF-8, with its newline."""
    row = {"id": document.id, "text": document.text, "ends": document.ends, "scores": document.scores}
    row |= document.facts
    try:
        return (json.dumps(row, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8, and an escape in JSON
        return (json.dumps(row) + "\n").encode()


def from_row(row: Mapping[str, Any], where: str) -> ScoredDocument:
    """The document of a row that stands at `where`. Errors: DataError that names the field."""
    text, ends, scores = row.get("text"), row.get("ends"), row.get("scores")
    if not isinstance(row.get("id"), str) or not isinstance(text, str):
        raise DataError(f"{where}: `id` is {excerpt(row.get('id'))}, `text` is {excerpt(text)}, not two texts.", _FIX)
    if not isinstance(ends, list) or not isinstance(scores, list) or len(ends) != len(scores):
        raise DataError(f"{where}: `ends` and `scores` are not two lists of one length.", _FIX)
    if any(type(end) is not int for end in ends) or not all(a < b for a, b in zip([0, *ends], ends, strict=False)):
        raise DataError(f"{where}: `ends` is {excerpt(ends)}, not whole numbers that rise from above 0.", _FIX)
    if (ends[-1] if ends else 0) != len(text):
        raise DataError(f"{where}: the segments end at {ends[-1:]}, the text at {len(text)}.", _FIX)
    bad = next((score for score in scores if not _is_score(score)), None)
    if bad is not None:
        raise DataError(f"{where}: a score is {excerpt(bad)}, neither a finite number nor null.", _FIX)
    facts = {key: value for key, value in row.items() if key not in ("id", "text", "ends", "scores")}
    return ScoredDocument(row["id"], text, tuple(ends), tuple(scores), facts)


def _is_score(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value))


_FIX = (
    "Score the corpus first, amenable score CORPUS task=TASK --out FOLDER, and give FOLDER; or write "
    '{"id": str, "text": str, "ends": [int, ...], "scores": [number or null, ...]} yourself.'
)
