"""What was copied, against hand-worked cases and a plain dynamic programme."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amenable.errors import DataError
from amenable.evaluation.copying import copying, levenshtein, ngram_overlap, normalised, summarise
from amenable.evaluation.interval import wilson


def plain_levenshtein(a: str, b: str) -> int:
    """The textbook table, cell by cell."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        previous, row = row, [i]
        for j, y in enumerate(b, start=1):
            row.append(min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (x != y)))
    return row[-1]


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ("kitten", "sitting", 3),
        ("", "abc", 3),
        ("abc", "", 3),
        ("", "", 0),
        ("flaw", "lawn", 2),
        ("aé😀", "aè😁", 2),
    ],
)
def test_levenshtein_by_hand(a: str, b: str, distance: int) -> None:
    assert levenshtein(a, b) == distance


@given(st.text("abc", max_size=12), st.text("abc", max_size=12))
def test_levenshtein_is_exact(a: str, b: str) -> None:
    assert levenshtein(a, b) == plain_levenshtein(a, b) == levenshtein(b, a)


@given(st.text("ab", max_size=8), st.text("ab", max_size=8), st.text("ab", max_size=8))
def test_levenshtein_is_a_metric(a: str, b: str, c: str) -> None:
    assert levenshtein(a, c) <= levenshtein(a, b) + levenshtein(b, c)
    assert (levenshtein(a, b) == 0) == (a == b)


def test_levenshtein_is_fast_enough() -> None:
    rng = random.Random(0)
    a, b = ("".join(rng.choices("abcdefgh \n", k=2000)) for _ in range(2))
    start = time.perf_counter()
    levenshtein(a, b)
    assert time.perf_counter() - start < 2.0


def test_overlap_by_hand() -> None:
    # tokens of x1: return max ( xs ) -> two 4-grams, of which "return max ( xs" stands in the feedback
    feedback = "use `return max(xs[0])` instead"
    assert ngram_overlap("return max(xs)", feedback) == 0.5
    assert ngram_overlap("x", feedback) is None
    assert ngram_overlap("return max(xs)", "") == 0.0
    assert ngram_overlap("return max(xs)", feedback, without="return max(xs)") is None
    assert ngram_overlap("return max(xs)", feedback, without="max(xs)") == 1.0


def test_programs_are_compared_as_programs() -> None:
    assert normalised("x = 'a'  # note\n") == normalised('x="a"')
    assert normalised("x = 1") != normalised("y = 1")
    assert normalised("def f(:\n  pass") == "def f(: pass"
    assert normalised("x = 1\0") == "x = 1\0"
    assert normalised("(" * 5000) == "(" * 5000
    assert normalised(r"x = '\d'") == r"x = '\\d'"


def test_one_refinement() -> None:
    draft = "def f(xs):\n    return min(xs)"
    refinement = "def f(xs):\n    return max(xs)"
    one = copying(draft, refinement, feedback="use max", solution="def f(xs): return max(xs)")
    assert one.edits == 2
    assert one.edit_distance == pytest.approx(2 / len(draft))
    assert one.feedback_overlap == 0.0
    assert one.new_overlap == 0.0
    assert (one.same_as_draft, one.same_as_solution) == (False, True)


def test_unchanged_and_empty_refinements() -> None:
    same = copying("x = 1", "x  =  1 # the same", feedback="f")
    assert same.same_as_draft
    assert same.same_as_solution is None
    assert same.edit_distance > 0
    assert copying("", "", feedback="").edit_distance == 0.0


def test_summary_counts_only_what_was_measured() -> None:
    ones = [
        copying("x = 1", "x = 1", feedback="leave x = 1 as it is", solution="x = 2"),
        copying("x = 1", "x = 2", feedback="set x to two", solution="x = 2"),
        copying("x = 1", "y", feedback="set x to two"),
    ]
    result = summarise(ones)
    assert result.refinements == 3
    assert result.same_as_draft == wilson(1, 3)
    assert result.same_as_solution == wilson(1, 2)
    assert result.edit_distance.value == pytest.approx((0 + 1 / 5 + 5 / 5) / 3)
    assert result.feedback_overlap.n == 0


def test_summary_by_task() -> None:
    ones = [copying("x = 1", text, feedback="") for text in ("x = 1", "x = 1", "x = 3", "x = 4")]
    result = summarise(ones, clusters=["a", "a", "b", "b"])
    assert (result.same_as_draft.value, result.same_as_draft.n) == (0.5, 2)
    with pytest.raises(DataError, match="task names"):
        summarise(ones, clusters=["a"])
    assert summarise([]).edit_distance.n == 0
