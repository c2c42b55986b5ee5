"""Recall and precision against cases counted by hand, for scorers that point and for scorers that rate."""

from __future__ import annotations

import math

import pytest

from amenable.evaluation.detection import Detections, detected, detections
from amenable.evaluation.interval import wilson
from amenable.feedback.personal_data import Found
from amenable.feedback.planting import Planted
from amenable.feedback.scorers import Rated, detector, pii_scorer

TEXT = "Mail jo@example.com now. Ask Jo Do about it. Real ones: a@b.org, c@d.org. Nothing here."
DOCUMENT = ("a", TEXT, [Planted(5, 19, "email", "plain"), Planted(29, 34, "name", "first and last")])


def test_a_scorer_that_points_is_judged_by_where_it_points() -> None:
    found = detected(pii_scorer(), [DOCUMENT, ("b", "Mail e@f.org.", [])], threshold=0.5)
    assert found.recall("email").value == 1
    assert found.recall("name").value == 0
    assert found.recall() == wilson(1, 2)
    assert found.recall("email", "tagged").n == 0
    precision = found.precision("email")
    assert (precision.value, precision.n) == (pytest.approx(1 / 4), 2)  # four addresses, one planted; two documents
    assert found.not_planted("email") == 3
    assert found.examples["email"] == [
        "com now. Ask Jo Do about it. Real ones: [a@b.org], c@d.org. Nothing here.",
        "Mail [e@f.org].",
    ]  # one a document
    assert math.isnan(found.precision("card").value)


def test_a_scorer_that_rates_is_judged_by_segments_and_no_answer_is_no_miss() -> None:
    rated = Rated("p", "sentences", lambda texts: [None if "Ask" in t else 0.9 * ("Mail" in t) for t in texts])
    found = detected(rated, [DOCUMENT], threshold=0.5)
    assert found.found == {("email", "plain"): 1}
    assert found.missing == {("name", "first and last"): 1}
    assert not found.missed
    assert found.recall().n == 1
    assert found.precision("p").value == 1
    [one], [unknown] = detections(rated, TEXT, threshold=0.5)
    assert TEXT[one.start : one.end] == "Mail jo@example.com now. "
    assert TEXT[unknown.start : unknown.end] == "Ask Jo Do about it. "
    assert detections(rated, TEXT, threshold=0.95)[0] == []


def test_touching_is_not_overlapping() -> None:
    def after(text: str) -> list[Found]:
        return [Found("x", 19, 24)]

    found = detected(detector("after", "sentences", after), [DOCUMENT], threshold=0.0)
    assert found.recall("email").value == 0
    assert found.not_planted("x") == 1


def test_nothing_is_no_data() -> None:
    assert Detections().recall().n == 0
    assert math.isnan(Detections().precision().value)
