"""The pieces: hidden characters, ticks, differences, and tables for the terminal."""

from __future__ import annotations

import html
import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amenable.evaluation.interval import Estimate, wilson
from amenable.report.difference import difference
from amenable.report.escape import attribute, escaped, visible
from amenable.report.numbers import number_text, tick_text, ticks
from amenable.report.page import Bar, Bars, Column, Headline, Headlines, Report, Section, Table
from amenable.report.text import bars_text, report_text, table_text


def test_hidden_characters_are_shown() -> None:
    assert visible("a\x1b[31m\u202eb\r\n\tc\r") == "a<U+001B>[31m<U+202E>b\n\tc<U+000D>"
    assert escaped("<\x00>") == '&lt;<span class="hidden-char">U+0000</span>&gt;'
    assert attribute('"\u200b') == "&quot;&lt;U+200B&gt;"
    assert visible("naïve 中文 😀 é") == "naïve 中文 😀 é"


@given(st.text())
def test_escaping_keeps_every_plain_character(text: str) -> None:
    back = html.unescape(re.sub(r'<span class="hidden-char">U\+[0-9A-F]+</span>', "", escaped(text)))
    plain = "".join(one for one in text.replace("\r\n", "\n") if visible(one) == one)
    assert back == plain


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_cover_the_range_evenly(low: float, width: float) -> None:
    marks = ticks(low, low + width)
    slack = 1e-6 * (abs(low) + width)
    assert marks[0] <= low + slack
    assert marks[-1] >= low + width - slack
    assert 2 <= len(marks) <= 9
    steps = [b - a for a, b in pairwise(marks)]
    assert max(steps) - min(steps) <= slack


def test_ticks_by_hand() -> None:
    assert ticks(0.0, 1.0, most=5) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-0.03, 0.11, most=5) == [-0.05, 0.0, 0.05, 0.1, 0.15]
    assert ticks(3.0, 3.0)[0] < 3.0 < ticks(3.0, 3.0)[-1]
    assert len(ticks(1.0, 1.0 + 1e-16)) > 1
    assert tick_text(0.25, 0.25, percent=True) == "25%"
    assert tick_text(-0.025, 0.025, percent=True, signed=True) == "−2.5"
    assert tick_text(1500.0, 500.0) == "1,500"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.05230, "0.0523"),
        (1234, "1,234"),
        (100.0, "100"),
        (12.5, "12.5"),
        (1e-7, "1e-07"),
        (math.nan, "no data"),
        (True, "yes"),
    ],
)
def test_numbers(number: float, text: str) -> None:
    assert number_text(number) == text


def words(cell: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", cell))


@given(
    st.lists(st.sampled_from(["a", "b = 1", "  c(d)", ""]), max_size=8),
    st.lists(st.sampled_from(["a", "b = 2", "x"]), max_size=8),
)
def test_a_difference_holds_both_texts(old: list[str], new: list[str]) -> None:
    before, after = "\n".join(old), "\n".join(new)
    block = difference(before, after)
    cells = re.findall(r'<div class="cell ([a-z ]+)">.*?<code>(.*?)</code></div>', block)
    left = [words(content) for kind, content in cells if kind in ("same", "gone")]
    right = [words(content) for kind, content in cells if kind in ("same again", "come")]
    assert "\n".join(left) == before
    assert "\n".join(right) == after


def test_a_changed_word_is_marked() -> None:
    block = difference("x\nreturn min(a, b)", "x\nelse:\nreturn max(a, b)")
    assert "return <del>min</del>(a, b)" in block
    assert "return <ins>max</ins>(a, b)" in block


def test_long_texts_still_differ_quickly() -> None:
    block = difference("\n".join(f"a{i}" for i in range(900)), "\n".join(f"b{i}" for i in range(901)))
    assert block.count('class="cell come"') == 901


def test_terminal_table_by_hand() -> None:
    table = Table(
        "All",
        ["arm", Column("pass@1", percent=True), "n"],
        [["before", wilson(26, 100), 100], ["中文", Estimate(0.362, 0.31, 0.415, 100, "m"), None]],
        "A note.",
    )
    assert table_text(table).split("\n") == [
        "All",
        "arm                        pass@1    n",
        "──────  ─────────────────────────  ───",
        "before  26.0% [18.4, 35.4], n=100  100",
        "中文    36.2% [31.0, 41.5], n=100    –",
        "A note.",
    ]


def test_the_terminal_gets_no_escapes() -> None:
    assert "\x1b" not in table_text(Table("\x1b[2J", ["a\x1b"], [["x\x1b[31m\ny"]], "\x1b"))


def test_bars_and_report_in_words() -> None:
    bars = Bars("b", [Bar("ILF", wilson(3, 10), "pass@1", published=0.36), Bar("base", wilson(1, 10), "pass@1")])
    text = bars_text(bars)
    assert "30.0% [10.8, 60.3], n=10      36.0%" in text
    whole = report_text(
        Report("T", ["S."], "amenable run", [Section("P", [bars, Headlines([Headline("gain", wilson(1, 2))])])])
    )
    assert whole.startswith("T\nS.\n\nb\n")
    assert "gain: 50.0%" in whole
    assert whole.endswith("again: amenable run")
