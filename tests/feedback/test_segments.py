"""Segments cover the text to the character, whatever it is; sentences end where a reader would end them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.errors import ConfigError
from amenable.feedback.segments import pieces, segment_ends

TEXTS = st.text(max_size=80) | st.text(alphabet="aA.!?…。\n\r\t \"')]é1", max_size=60)


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.sampled_from(["lines", "sentences", "document"]))
def test_segments_joined_are_the_text(text: str, unit: str) -> None:
    ends = segment_ends(text, unit)  # type: ignore[arg-type]
    assert "".join(pieces(text, ends)) == text
    assert all(a < b for a, b in zip([0, *ends], ends, strict=False))
    assert (ends[-1] if ends else 0) == len(text)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_lines_are_pythons_own(text: str) -> None:
    lines = pieces(text, segment_ends(text, "lines"))
    assert all(sum(mark in line for mark in "\r\n") in (0, 1) or line.endswith("\r\n") for line in lines)
    assert all(line.endswith(("\n", "\r")) for line in lines[:-1])


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", ["One. ", "Two! ", "Three? ", "Four"]),
        ('He said "Stop." Then he left.', ['He said "Stop." ', "Then he left."]),
        ("Dr. Smith met J. K. Rowling. They talked.", ["Dr. Smith met J. K. Rowling. ", "They talked."]),
        ("See e.g. Paris, i.e. France. Good.", ["See e.g. Paris, i.e. France. ", "Good."]),
        ("It cost 3.50 at www.example.com today. Fine.", ["It cost 3.50 at www.example.com today. ", "Fine."]),
        ("well... maybe. No", ["well... maybe. ", "No"]),
        ("A title\n\nA paragraph\nof lines", ["A title\n\n", "A paragraph\nof lines"]),
        ("你好。再见！好", ["你好。", "再见！", "好"]),
        ("", []),
        ("...", ["..."]),
    ],
)
def test_sentences_by_hand(text: str, sentences: list[str]) -> None:
    assert pieces(text, segment_ends(text, "sentences")) == sentences


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'lines'"):
        segment_ends("x", "line")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["." * 200_000, "\n \n" * 70_000, " " * 200_000, ". " * 100_000, "Mr. " * 50_000, '."' * 100_000]
)
def test_time_is_linear(text: str) -> None:
    began = time.process_time()
    segment_ends(text, "sentences")
    assert time.process_time() - began < 3
