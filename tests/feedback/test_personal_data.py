"""Personal data by rules: what they find, what they are known to miss, and that they take linear time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amenable.feedback.constraints import no_pii
from amenable.feedback.personal_data import RULES, luhn, personal_data


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("mail jo.doe+x@mail.example.co.uk.", ["email"]),
        ("jo@localhost, @decorator, a @ b.com, x@y.z1", []),
        ("+49 170 1234567", ["phone"]),
        ("call (555) 123-4567 or 555.123.4567", ["phone", "phone"]),
        ("+1 (555) 123-4567", ["phone"]),
        ("x = 5551234567; y = a+12345; 2024-01-02 10:20:30", []),
        ("+1234567, +1234567890123456", []),
        ("192.168.0.1", ["ip"]),
        ("256.1.1.1 and 1.2.3 and 1.2.3.4.5", []),
        ("2001:db8::8a2e:370:7334", ["ip"]),
        ("2001:0db8:85a3:0000:0000:8a2e:0370:7334", ["ip"]),
        ("x[::2], x[1::2], 12:30:45, a::b, std::abc::dead", []),
        ("4111 1111 1111 1111", ["card"]),
        ("4111111111111111", ["card"]),
        ("4111-1111-1111-1111", ["card"]),
        ("3782 822463 10005", ["card"]),
        ("4111 1111 1111 1112 and 0000000000000000", []),
        ("4111-1111 1111-1111", []),
        ("123-45-6789", ["ssn"]),
        ("000-45-6789 666-45-6789 900-45-6789 123-00-6789 123-45-0000 123456789", []),
        ("DE89 3704 0044 0532 0130 00", ["iban"]),
        ("DE89370400440532013000", ["iban"]),
        ("GB82 WEST 1234 5698 7654 32 AND more", ["iban"]),
        ("NO93 8601 1117 947", ["iban"]),
        ("MT84 MALT 0110 0001 2345 MTLC AST0 01S", ["iban"]),
        ("DE88 3704 0044 0532 0130 00", []),
        ("XX89 3704 0044 0532 0130 00", []),
        ("", []),
    ],
)
def test_personal_data(text: str, rules: list[str]) -> None:
    assert [found.rule for found in personal_data(text)] == rules
    assert no_pii()([""], [text]) == [float(not rules)]


def test_what_the_rules_are_known_to_miss() -> None:
    missed = (
        "John Smith, 12 High Street, born 1 May 1980, jo at example dot com, 030 1234567, fe80::1, passport C01X00T47"
    )
    assert personal_data(missed) == []


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "1",
        ":",
        "a@",
        "a.",
        "x@" + "a." * 50,
        "1-",
        "1 ",
        "AB12 ",
        "+1",
        "+1 ",
        "a@a.",
        "4111 ",
        "::1",
        "+",
        "1.",
        "(5",
    ],
)
def test_rules_take_linear_time(text: str) -> None:
    start = time.perf_counter()
    personal_data((text * 100_000)[:100_000])
    assert time.perf_counter() - start < 1.0


@given(st.integers(0, 10**15), st.integers(0, 9))
def test_luhn_takes_one_last_digit_in_ten_and_sees_any_wrong_digit(number: int, place: int) -> None:
    assert sum(luhn(f"{number}{last}") for last in range(10)) == 1
    digits = list(f"{number:010d}")
    good = next("".join(digits) + str(last) for last in range(10) if luhn("".join(digits) + str(last)))
    changed = good[:place] + str((int(good[place]) + 1) % 10) + good[place + 1 :]
    assert not luhn(changed)


@given(st.text(max_size=30))
def test_fewer_rules_find_less(text: str) -> None:
    text += " a@b.org 192.168.0.1 "
    assert {found.rule for found in personal_data(text, ["ip"])} == {"ip"}
    assert no_pii(rules=["ssn"])([""], [text]) == [1.0]
    assert no_pii(rules=RULES)([""], [text]) == [0.0]
