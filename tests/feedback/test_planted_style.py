"""Bad style that is planted in Python: pycodestyle sees it, Python does not."""

from __future__ import annotations

import ast
from random import Random

import pycodestyle
import pytest

from amenable.feedback.planted_style import SLIPS, plant_style
from amenable.feedback.scorers import pep8_scorer
from amenable.task.functions import standard_library

CODES = {
    "crowded-operator": {"E225"}, "crowded-comma": {"E231"}, "padded-bracket": {"E201", "E202"},
    "space-before-bracket": {"E211"}, "wide-operator": {"E222"}, "semicolon": {"E703"}, "trailing-space": {"W291"},
}  # fmt: skip
TEXT = "def f(a, b=(1, 2)):\n    x = a == b\n    if x:\n        return g(a, b)\n"


class Codes(pycodestyle.BaseReport):
    found: set[str]

    def error(self, line_number: int, offset: int, text: str, check: object) -> str:
        self.found = {*getattr(self, "found", set()), text[:4]}
        return text[:4]


def codes(text: str) -> set[str]:
    options = pycodestyle.StyleGuide(ignore=["W503"]).options
    report = Codes(options)
    pycodestyle.Checker("f.py", lines=text.splitlines(keepends=True), options=options, report=report).check_all()
    return getattr(report, "found", set())


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_what_pycodestyle_calls_it(slip: str) -> None:
    assert not codes(TEXT)
    text, truth = plant_style(TEXT, [slip], share=1.0, random=Random(0))
    assert CODES[slip] <= codes(text) <= CODES[slip] | {"E228", "E226"}
    lines = text.splitlines()
    assert [text[one.start : one.end] for one in truth] == [
        line for line, old in zip(lines, TEXT.splitlines(), strict=True) if line != old
    ]
    assert {(one.kind, one.form) for one in truth} == {("style", slip)}


def test_the_library_s_functions_mean_the_same_and_score_worse_where_something_was_planted() -> None:
    functions = standard_library(longest=400)[::29]
    scorer = pep8_scorer()
    made = [plant_style(one.text, list(SLIPS), share=0.5, random=Random(at)) for at, one in enumerate(functions)]
    assert sum(bool(truth) for _, truth in made) > len(functions) / 2
    before, after = scorer([one.text for one in functions]), scorer([text for text, _ in made])
    for one, (text, truth), old, new in zip(functions, made, before, after, strict=True):
        assert ast.dump(ast.parse(text)) == ast.dump(ast.parse(one.text))
        assert old is not None
        assert new is not None
        assert (text == one.text) == (not truth)
        assert new * len(text) > old * len(one.text) + bool(truth) - 1e-6


def test_longer_lines_comments_and_what_is_no_python_are_left_alone() -> None:
    text = 'x = [a,\n     b, c]\ny = """\na = b\n"""\nz = 1  # one, two\n'
    for source in (text, "def f(:\n  x = (\n", ""):
        assert plant_style(source, list(SLIPS), share=1.0, random=Random(1)) == (source, [])


def test_no_share_plants_nothing_and_the_same_random_numbers_plant_the_same() -> None:
    assert plant_style(TEXT, list(SLIPS), share=0.0, random=Random(2)) == (TEXT, [])
    assert plant_style(TEXT, list(SLIPS), share=0.5, random=Random(2)) == plant_style(
        TEXT, list(SLIPS), share=0.5, random=Random(2)
    )
