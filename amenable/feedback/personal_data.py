"""Personal data in a text, by rules: what has a fixed form is found, what has none is not.

    rule     finds
    email    name@host.tld, the name up to 64 characters
    phone    +49 170 1234567 (8 to 15 digits after the plus), and North America's 555-123-4567, (555) 123-4567
    ip       IPv4 in four octets up to 255; IPv6 with three groups or more
    card     13 to 19 digits in a row, or in groups of 4-4-4-4 or 4-6-5, that pass Luhn's check
    ssn      United States social security numbers 123-45-6789, without those that are never given out
    iban     the country's length and the check by 97

These are rules and no understanding. They miss names, street addresses, dates of birth, passport, tax and patient
numbers, other countries' national numbers, phone numbers without a plus outside North America or without separators,
IPv6 with fewer groups (`1::2` is a Python slice), digits of other scripts, and everything spelled out ("jo at example dot
com") or split over lines. They also find what is nobody's: a version 1.2.3.4, an arithmetic `+10000000`, test card
numbers, one number in ten of the right length and first digit as a card. Every rule takes time linear in the text.

Source: Korbak et al. 2023, arXiv 2302.08582, which used scrubadub; Luhn 1960 (US 2950048); ISO 13616 (IBAN).
Changed from the paper: our own rules, so that numbers do not hang on another package's version; no rule for web addresses
or account names, which the paper's scorer counted as personal.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# each country's length of an IBAN, ISO 13616's register
_IBAN = {
    entry[:2]: int(entry[2:])
    for entry in (
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 FO18 "
        "FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 "
        "LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SD18 SE24 SI19 SK24 "
        "SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20"
    ).split()
}


@dataclass(frozen=True)
class Found:
    """`text[start:end]` looks like personal data of the kind `rule`."""

    rule: str
    start: int
    end: int


def _phone(found: str) -> bool:
    return not found.startswith("+") or 8 <= sum(character.isdigit() for character in found) <= 15


def _ipv6(found: str) -> bool:
    """With three groups at least: what has fewer is a Python slice more often than an address."""
    if "." in found:
        return True
    try:
        ipaddress.IPv6Address(found)
    except ValueError:
        return False
    return sum(bool(group) for group in found.split(":")) >= 3


def luhn(digits: str) -> bool:
    """Luhn's check: from the right, every second digit is doubled and its digits added; the sum is divisible by ten."""
    values = [int(digit) for digit in reversed(digits)]
    return (sum(values[::2]) + sum(sum(divmod(2 * value, 10)) for value in values[1::2])) % 10 == 0


def _card(found: str) -> bool:
    return luhn(re.sub(r"[ -]", "", found))


def _iban(found: str) -> bool:
    """The country's length cuts off what follows: first four characters to the end, letters A-Z as 10-35, 1 modulo 97."""
    compact = found.replace(" ", "")
    length = _IBAN.get(compact[:2], 0)
    if not length or len(compact) < length:
        return False
    number = "".join(str(int(character, 36)) for character in compact[4:length] + compact[:4])
    return int(number) % 97 == 1


_OCTET = "(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
_RULES: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "email": (
        re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,63}(?![\w-])"),
        lambda found: True,
    ),
    "phone": (
        re.compile(
            r"(?<![\w+])\+[1-9](?:[ .()/-]{0,2}[0-9]){7,15}(?![0-9])"
            r"|(?<![\w.+-])(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[0-9]{3}[ .-][0-9]{4}(?![\w-]|\.[0-9])"
        ),
        _phone,
    ),
    "ip": (
        re.compile(
            rf"(?<![\w.])(?:{_OCTET}\.){{3}}{_OCTET}(?!\w|\.[0-9])|(?<![\w:.])[0-9A-Fa-f:]{{5,39}}(?![\w:])",
        ),
        _ipv6,
    ),
    "card": (
        re.compile(
            r"(?<![\w.-])(?:[2-6][0-9]{3}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}|3[47][0-9]{2}([ -])[0-9]{6}\2[0-9]{5}"
            r"|[2-6][0-9]{12,18})(?![\w-]|\.[0-9])"
        ),
        _card,
    ),
    "ssn": (
        re.compile(r"(?<![\w.-])(?!000|666|9)[0-9]{3}([ -])(?!00)[0-9]{2}\1(?!0000)[0-9]{4}(?![\w-]|\.[0-9])"),
        lambda found: True,
    ),
    "iban": (
        re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"),
        _iban,
    ),
}
RULES = tuple(_RULES)


def personal_data(text: str, rules: Sequence[str] = RULES) -> list[Found]:
    """All that `rules` (some of `RULES`) find in `text`, in order of their start. KeyError for a rule that is none."""
    found = [
        Found(rule, match.start(), match.end())
        for rule in rules
        for match in _RULES[rule][0].finditer(text)
        if _RULES[rule][1](match.group())
    ]
    return sorted(found, key=lambda one: (one.start, one.end, one.rule))
