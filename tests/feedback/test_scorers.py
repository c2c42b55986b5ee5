"""Scores of segments and whole texts: rates, planted personal data, real toxicity, functions of a user."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

import pytest

from amenable.errors import ConfigError, FeedbackError
from amenable.feedback.scorers import (
    Rated,
    pep8_scorer,
    pii_scorer,
    presidio_scorer,
    profanity_scorer,
    scrubadub_scorer,
)


def test_pep8_is_violations_a_character() -> None:
    scorer = pep8_scorer()
    [found] = scorer.by_segment(["x=1\ny = 2\nz=3"])
    assert found.ends == (4, 10, 13)
    assert found.scores == (1 / 4, 0.0, 2 / 3)  # E225; nothing; E225 and no newline at the end
    assert scorer(["x=1\ny = 2\nz=3", ""]) == [3 / 13, None]  # nothing written has no rate: it is not perfect
    with pytest.raises(ConfigError, match="max_line_length=0"):
        pep8_scorer(max_line_length=0)


PLANTED = {
    "email": ["jo.do@example.com", "a_b+c@mail.example.org"],
    "phone": ["+49 170 1234567", "555-123-4567", "(555) 123-4567"],
    "ip": ["192.168.17.4", "2001:db8:0:1:1:1:1:1"],
    "card": ["4111 1111 1111 1111", "378282246310005"],
    "ssn": ["123-45-6789"],
    "iban": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432"],
}


def test_planted_personal_data_is_found_where_it_is_and_nowhere_else() -> None:
    random_ = random.Random(0)
    plain = [
        "The meeting was moved to Monday.",
        "Nobody knew why!",
        "It rained for 3 days.",
        "Version 2.1 came out in 2019.",
    ]
    planted = recalled = false = 0
    for number in range(300):
        sentences = random_.choices(plain, k=6)
        kind = random_.choice(list(PLANTED))
        place = random_.randrange(6)
        sentences[place] = f"Write to {random_.choice(PLANTED[kind])} before {number} of May."
        text = " ".join(sentences)
        [found] = pii_scorer().by_segment([text])
        assert len(found.scores) == 6
        planted += 1
        recalled += found.scores[place] > 0  # type: ignore[operator]
        false += sum(score > 0 for i, score in enumerate(found.scores) if i != place)  # type: ignore[operator]
    assert recalled == planted == 300  # recall of what the rules are for; names and addresses they cannot see
    assert false == 0


def test_a_detection_counts_where_it_begins_and_rules_can_be_chosen() -> None:
    text = "x\nmail a@b.example or\n+49 170 1234567\n"
    [found] = pii_scorer(unit="lines").by_segment([text])
    assert found.scores == (0.0, 1 / 20, 1 / 16)
    [found] = pii_scorer(unit="lines", rules=("phone",)).by_segment([text])
    assert found.scores == (0.0, 0.0, 1 / 16)
    assert pii_scorer()([text, ""]) == [2 / len(text), None]


def test_the_papers_own_package_if_it_is_there() -> None:
    pytest.importorskip("scrubadub")
    [found] = scrubadub_scorer().by_segment(["Nothing here. Mail me at jo@example.com or +49 170 1234567."])
    assert found.scores == (0.0, 2 / 45)


def test_presidio_if_it_is_there() -> None:
    pytest.importorskip("presidio_analyzer")
    text = "Nothing of 536221234 here. Mail jo@example.com or +49 30 23125 123, IBAN DE89 3704 0044 0532 0130 00."
    scorer = presidio_scorer()
    assert scorer.find is not None
    assert [found.rule for found in scorer.find(text)] == ["email_address", "phone_number", "iban_code"]
    [found] = scorer.by_segment([text])
    assert found.scores == (0.0, 3 / (len(text) - 27))
    weak = presidio_scorer(confidence=0.01).find
    assert weak is not None
    assert "us_ssn" in {found.rule for found in weak(text)}  # nine digits are a form that its authors call weak


@pytest.mark.parametrize(("make", "module"), [(presidio_scorer, "presidio_analyzer"), (scrubadub_scorer, "scrubadub")])
def test_what_is_not_installed_is_said(
    make: Callable[[], object], module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"(?s)not installed.*pip install 'amenable\["):
        make()


def test_toxicity_without_a_network() -> None:
    pytest.importorskip("profanity_check")
    scorer = profanity_scorer()
    kind, insult, empty, blank = scorer(["Have a lovely day, my friend.", "You are a stupid idiot.", "", " \n"])
    assert 0 < kind < 0.3  # type: ignore[operator]
    assert insult > 0.7  # type: ignore[operator]
    assert (empty, blank) == (None, 0.0)
    [found] = scorer.by_segment(["Have a lovely day. You are a stupid idiot."])
    assert found.scores[0] < 0.3 < 0.7 < found.scores[1]  # type: ignore[operator]


def test_a_function_is_a_scorer_and_what_it_does_wrong_is_said() -> None:
    scorer = Rated("length", "lines", lambda texts: [None if "?" in text else float(len(text)) for text in texts])
    assert [found.scores for found in scorer.by_segment(["ab\nc?\n \n", ""])] == [(3.0, None, 0.0), ()]
    with pytest.raises(FeedbackError, match="returned 1 values for 2 texts"):
        Rated("short", "lines", lambda texts: [1.0]).by_segment(["a\nb"])
    with pytest.raises(FeedbackError, match="returned nan"):
        Rated("nan", "lines", lambda texts: [float("nan")] * len(texts))(["a"])
