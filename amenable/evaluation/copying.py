"""What a refinement copied: from its draft, from the feedback, from the reference solution.

A refinement can pass its tests without using the feedback, or because the feedback already held the
program. Three measurements tell these apart:

    edit distance    lev(x0, x1) / max(|x0|, |x1|)                 0 = unchanged, 1 = nothing kept
    overlap          |{i : g_i(x1) in G(f)}| / |{i}|               share of x1's 4-grams that stand in f
    new overlap      the same over those g_i(x1) not in G(x0)      share of what is new that stands in f

    x0  draft    f  feedback    x1  refinement (texts)    lev  Levenshtein distance, characters
    g_i(x)  the i-th run of four tokens of x (a word, a number, or one sign)    G(x)  the set of them

The overlap alone is high for feedback that quotes the draft; the new overlap is not. A share is None
(missing) where there is no 4-gram to count. Two programs are the same if they agree after `ast.unparse`
(comments, spacing and quotes do not count; names do), or, where one cannot be parsed, after joining runs of
white space.

Source: Chen et al. 2023, arXiv 2303.16749 (ILF), which keeps only annotations with a distance under one
half; Levenshtein 1966. Changed from the paper: measured on every refinement, and reported with intervals.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from amenable.errors import DataError
from amenable.evaluation.interval import Estimate, bootstrap_mean, wilson

_TOKEN = re.compile(r"\w+|[^\w\s]")
_PARSED = 100_000  # characters; longer texts are compared by white space alone


@dataclass(frozen=True)
class Copying:
    """One refinement: distances and shares in [0, 1], `edits` in characters, None where missing."""

    edits: int
    edit_distance: float
    feedback_overlap: float | None
    new_overlap: float | None
    same_as_draft: bool
    same_as_solution: bool | None


@dataclass(frozen=True)
class CopyingSummary:
    """Means and shares over refinements; each Estimate's n is the number that could be measured."""

    edit_distance: Estimate
    feedback_overlap: Estimate
    new_overlap: Estimate
    same_as_draft: Estimate
    same_as_solution: Estimate
    refinements: int


def copying(draft: str, refinement: str, *, feedback: str, solution: str | None = None, ngram: int = 4) -> Copying:
    """Measure one refinement against its draft, the feedback, and the reference solution if there is one."""
    edits = levenshtein(draft, refinement)
    program = normalised(refinement)
    return Copying(
        edits=edits,
        edit_distance=edits / max(len(draft), len(refinement), 1),
        feedback_overlap=ngram_overlap(refinement, feedback, ngram=ngram),
        new_overlap=ngram_overlap(refinement, feedback, ngram=ngram, without=draft),
        same_as_draft=program == normalised(draft),
        same_as_solution=None if solution is None else program == normalised(solution),
    )


def summarise(
    refinements: Sequence[Copying],
    *,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    level: float = 0.95,
) -> CopyingSummary:
    """Means with intervals. `clusters` names each refinement's task, for several refinements a task."""
    if clusters is not None and len(clusters) != len(refinements):
        raise DataError(f"{len(refinements)} refinements but {len(clusters)} task names.", "give one a refinement.")
    tasks = list(clusters) if clusters is not None else None

    def mean(values: Sequence[float | bool | None]) -> Estimate:
        kept = [index for index, value in enumerate(values) if value is not None]
        present = [float(value) for value in values if value is not None]
        if tasks is None and all(isinstance(values[index], bool) for index in kept):
            return wilson(int(sum(present)), len(present), level=level)
        labels = None if tasks is None else [tasks[index] for index in kept]
        return bootstrap_mean(present, clusters=labels, share=True, seed=seed, level=level)

    return CopyingSummary(
        edit_distance=mean([one.edit_distance for one in refinements]),
        feedback_overlap=mean([one.feedback_overlap for one in refinements]),
        new_overlap=mean([one.new_overlap for one in refinements]),
        same_as_draft=mean([one.same_as_draft for one in refinements]),
        same_as_solution=mean([one.same_as_solution for one in refinements]),
        refinements=len(refinements),
    )


def levenshtein(first: str, second: str) -> int:
    """Fewest insertions, deletions and substitutions of characters that turn `first` into `second`; exact.

    One numpy operation a row of the dynamic programme. Insertions depend on the cell to the left, and are
    solved for the whole row at once: row[j] = min_{i <= j} (cell[i] + j - i) = j + cumulative minimum of
    (cell[i] - i).
    """
    start = 0
    while start < min(len(first), len(second)) and first[start] == second[start]:
        start += 1
    first, second = first[start:], second[start:]
    while first and second and first[-1] == second[-1]:
        first, second = first[:-1], second[:-1]
    if not first or not second:
        return len(first) + len(second)
    columns = np.array([ord(character) for character in second], dtype=np.int32)
    steps = np.arange(len(second) + 1, dtype=np.int32)
    row = steps.copy()
    for character in first:
        cell = row + 1
        np.minimum(cell[1:], row[:-1] + (columns != ord(character)), out=cell[1:])
        row = np.minimum.accumulate(cell - steps) + steps
    return int(row[-1])


def ngram_overlap(text: str, source: str, *, ngram: int = 4, without: str = "") -> float | None:
    """Share of the `ngram`-token runs of `text` that stand in `source`, leaving out those of `without`."""
    known = set(_ngrams(without, ngram))
    runs = [run for run in _ngrams(text, ngram) if run not in known]
    if not runs:
        return None
    found = set(_ngrams(source, ngram))
    return sum(run in found for run in runs) / len(runs)


def normalised(program: str) -> str:
    """The program as `ast.unparse` writes it, or its text with white space joined where it does not parse."""
    if len(program) <= _PARSED:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in somebody else's strings
                return ast.unparse(ast.parse(program))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass
    return " ".join(program.split())


def _ngrams(text: str, ngram: int) -> list[tuple[str, ...]]:
    tokens = _TOKEN.findall(text)
    return [tuple(tokens[index : index + ngram]) for index in range(len(tokens) - ngram + 1)]
