"""Planting: the truth is where the text is, the share is kept, the numbers pass the checks that real ones pass."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from itertools import pairwise
from random import Random

import pytest

from amenable.feedback.personal_data import luhn, personal_data
from amenable.feedback.planted_values import KINDS, OFFENCE, PERSONAL
from amenable.feedback.planting import plant
from amenable.feedback.segments import sentence_ends
from amenable.seeding import python_random

TEXT = "The first sentence stands here. Is the second one longer than that? It is.\n\nA blank line came before. " * 25


@pytest.mark.parametrize("task", list(KINDS))
def test_what_is_said_to_be_planted_stands_there(task: str) -> None:
    text, truth = plant(TEXT, KINDS[task], share=0.3, random=Random(0))
    before = len(sentence_ends(TEXT))
    assert len(truth) == int(0.3 * before)
    assert [piece.start for piece in truth] == sorted(piece.start for piece in truth)
    assert all(a.end <= b.start for a, b in pairwise(truth))
    known = {kind.name: kind for kind in KINDS[task]}
    for piece in truth:
        assert piece.form in known[piece.kind].forms
        frames = [(s, s.replace("{}", text[piece.start : piece.end])) for s in known[piece.kind].sentences]
        frames += [(c, c.replace("{}", text[piece.start : piece.end]) + ".") for c in known[piece.kind].clauses]
        assert any(text.startswith(filled, piece.start - frame.index("{}")) for frame, filled in frames)
    outside = "".join(text[a.end : b.start] for a, b in pairwise(truth))
    assert "stands here. Is the second" in outside  # the rest is as it was
    assert len(sentence_ends(text)) >= before - 1  # one sentence each: "Dr." and "P.O." split a few
    assert plant(TEXT, KINDS[task], share=0.3, random=Random(0)) == (text, truth)
    assert plant(TEXT, KINDS[task], share=0.0, random=Random(0)) == (TEXT, [])


def test_the_share_is_right_in_the_mean_also_of_short_texts() -> None:
    found = sum(
        len(plant("One. Two. Three.", PERSONAL, share=0.15, random=python_random(n, "t"))[1]) for n in range(2000)
    )
    assert found / 6000 == pytest.approx(0.15, abs=0.015)


def test_numbers_pass_their_own_checks() -> None:
    random = Random(1)
    forms = {(kind.name, form): draw for kind in PERSONAL for form, draw in kind.forms.items()}
    for _ in range(200):
        for (kind, _form), draw in forms.items():
            value = draw(random)
            if kind == "card":
                assert luhn(re.sub(r"\D", "", value)), value
            if kind == "iban":
                compact = value.replace(" ", "")
                moved = compact[4:] + compact[:4]
                assert int("".join(str(int(sign, 36)) for sign in moved)) % 97 == 1, value
                assert len(compact) == {"DE": 22, "GB": 22, "NL": 18, "FR": 27}[compact[:2]]
            if kind == "ip":
                assert not ipaddress.ip_address(value).is_global, value
            if kind == "ssn":
                digits = re.sub(r"\D", "", value)
                assert re.fullmatch(r"(?!000|666|9)\d{3}(?!00)\d\d(?!0000)\d{4}", digits), value
            if kind == "phone":
                assert re.search(r"555.?01\d\d|7946 0\d{3}|30 23125 \d{3}", value), value
            if kind == "email" and "@" in value:
                assert re.search(r"@(\w+\.)?example\.(com|org|net)>?$", value), value


def test_the_rules_find_the_forms_they_are_for_and_miss_those_they_are_known_to_miss() -> None:
    random, found = Random(2), Counter[tuple[str, str]]()
    for kind in PERSONAL:
        for form, draw in kind.forms.items():
            found[kind.name, form] = sum(bool(personal_data(kind.sentences[0].format(draw(random)))) for _ in range(20))
    missed = {key for key, count in found.items() if count == 0}
    assert {"name", "address"} <= {kind for kind, _ in missed}
    assert {
        ("email", "spelled out"),
        ("email", "at in brackets"),
        ("phone", "German, local"),
        ("ssn", "plain"),
    } <= missed
    for key in (("email", "tagged"), ("phone", "British, plus"), ("iban", "French, in fours"), ("card", "dashes")):
        assert found[key] == 20


def test_offence_has_words_of_its_own_and_no_placeholder_is_left() -> None:
    random = Random(3)
    for kind in OFFENCE:
        for draw in kind.forms.values():
            for sentence in (*kind.sentences, *kind.clauses):
                said = sentence.format(draw(random))
                assert not re.search(r"[{}]", said)
