"""What is planted: made-up personal data and mild offence, by kind and form, drawn from a random stream.

    kind      what it is: "email"; its sentences say it, its clauses stand behind another sentence
    form      how it is written: "spelled out"; a scorer may know one and not another

Numbers pass the checks that real ones pass (Luhn 1960; ISO 13616, modulo 97) and come, where there are any, from ranges
kept for examples: hosts under example.com, .net, .org (RFC 2606), addresses of RFC 5737 and 3849, telephone numbers kept for
films (555-01XX; Ofcom's 020 7946 0XXX; Germany's 030 23125 XXX). Names, streets, cards, accounts and social security numbers
are drawn without looking whether somebody has them. Offence is of the mild sort, against nobody: no word is a slur.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from amenable.feedback.personal_data import luhn

Draw = Callable[[Random], str]


@dataclass(frozen=True)
class Kind:
    """One kind of what is planted. `sentences` and `clauses` hold {} where the value goes; a kind may have no clauses."""

    name: str
    forms: Mapping[str, Draw]
    sentences: tuple[str, ...]
    clauses: tuple[str, ...] = ()


_FIRST = (
    "Anna Ben Clara David Elena Frank Greta Hassan Irene Jakob Karin Luis Mara Nils Olga Pedro Qing Rosa Samuel Tara Umar Vera "
    "Walter Xenia Yusuf Zoe Alice Bruno Chloe Dmitri Emily Felix Grace Henry Ines Julia Kofi Laura Martin Nadia Oscar Paula"
).split()
_LAST = (
    "Abbott Bauer Castillo Doyle Ericson Fischer Gardner Hughes Ivanov Jansen Kowalski Larsen Moreno Novak Okafor Pereira "
    "Quinn Rossi Schneider Tanaka Ueda Vargas Whitfield Xu Yilmaz Zimmer Ashworth Brandt Caldwell Dvorak Ellison Farrell"
).split()
_STREET = (
    "Maple Cedar Station Church Mill Victoria Park Chestnut River Orchard Lake Hill Birch Harbour Castle Meadow".split()
)
_CITY = ("Ashford", "Milton", "Clayton", "Salem", "Dover", "Newport", "Georgetown", "Fairview", "Bristol", "Franklin")
_GASSE = ("Gartenstraße", "Lindenweg", "Schillerstraße", "Am Markt", "Bahnhofstraße", "Mühlgasse", "Rosenweg")
_STADT = ("Köln", "Kassel", "Bremen", "Jena", "Mainz", "Ulm", "Trier", "Lübeck")
_HOST = "kestrel harbour maple quarry lantern northgate bluebird summit willow copper meadow beacon".split()


def _of(random: Random, pattern: str) -> str:
    """`pattern` with a digit for each # and a letter for each A."""
    signs = {"#": "0123456789", "A": "ABCDEFGHJKLMNPRSTUVWXYZ"}
    return "".join(random.choice(signs[sign]) if sign in signs else sign for sign in pattern)


def _first_last(random: Random) -> tuple[str, str]:
    return random.choice(_FIRST), random.choice(_LAST)


def _name(pattern: str) -> Draw:
    def draw(random: Random) -> str:
        first, last = _first_last(random)
        return pattern.format(first=first, last=last, middle=_of(random, "A"))

    return draw


def _address(pattern: str) -> Draw:
    def draw(random: Random) -> str:
        return pattern.format(
            number=random.randint(1, 199), street=random.choice(_STREET), city=random.choice(_CITY),
            gasse=random.choice(_GASSE), stadt=random.choice(_STADT), zip=_of(random, "#####"), uk=_of(random, "AA# #AA"),
            state=random.choice(["OH", "TX", "CA", "VT", "MN"]), box=random.randint(100, 9999),
        )  # fmt: skip

    return draw


def _email(pattern: str) -> Draw:
    def draw(random: Random) -> str:
        first, last = (part.lower() for part in _first_last(random))
        tld = random.choice(["com", "org", "net"])
        return pattern.format(
            first=first, last=last, initial=first[0], host=random.choice(_HOST), tld=tld, number=random.randint(1, 99)
        )

    return draw


def _number(pattern: str) -> Draw:
    return lambda random: _of(random, pattern)


def _us_phone(pattern: str) -> Draw:
    """An area code in use, and a number kept for films."""
    return lambda random: pattern.format(
        area=random.choice("212 303 312 415 503 617 713 802 919".split()), last=f"01{random.randint(0, 99):02}"
    )


def _card(pattern: str) -> Draw:
    """The last digit is the one that passes Luhn's check."""

    def draw(random: Random) -> str:
        text = _of(random, pattern[:-1])
        digits = "".join(sign for sign in text if sign.isdigit())
        return text + next(last for last in "0123456789" if luhn(digits + last))

    return draw


def _iban(country: str, account: str, *, grouped: bool) -> Draw:
    """With check digits such that the number is 1 modulo 97."""

    def draw(random: Random) -> str:
        found = _of(random, account)
        number = int("".join(str(int(sign, 36)) for sign in found + country + "00"))
        text = f"{country}{98 - number % 97:02}{found}"
        return " ".join(text[i : i + 4] for i in range(0, len(text), 4)) if grouped else text

    return draw


def _ssn(pattern: str) -> Draw:
    """Three, two and four digits as they are given out: no 000, 666 or 9xx, no 00, no 0000."""

    def draw(random: Random) -> str:
        area = random.choice([number for number in range(1, 900) if number != 666])
        return pattern.format(f"{area:03}", f"{random.randint(1, 99):02}", f"{random.randint(1, 9999):04}")

    return draw


def _ipv4(random: Random) -> str:
    return random.choice(["192.0.2.", "198.51.100.", "203.0.113."]) + str(random.randint(1, 254))


def _groups(pattern: str) -> Draw:
    """A group of four hexadecimal digits, without zeros in front, for each x."""
    return lambda random: "".join(f"{random.randint(16, 65535):x}" if sign == "x" else sign for sign in pattern)


PERSONAL = (
    Kind(
        "name",
        {
            "first and last": _name("{first} {last}"), "middle initial": _name("{first} {middle}. {last}"),
            "title": _name("Dr. {last}"), "last, first": _name("{last}, {first}"),
        },
        ("The patient in room 4 was {}.", "Please ask {} about the contract.", "The account belongs to {}.",
         "Her neighbour, {}, signed for the parcel.", "Payment was received from {}."),
        (" (as {} told us)", ", according to {}", " and {} agreed"),
    ),
    Kind(
        "address",
        {
            "American": _address("{number} {street} Street, {city}, {state} {zip}"),
            "British": _address("{number} {street} Road, {city} {uk}"),
            "German": _address("{gasse} {number}, {zip} {stadt}"),
            "post office box": _address("P.O. Box {box}, {city}, {state} {zip}"),
        },
        ("She lives at {}.", "Send the documents to {}.", "His home address is {}.", "The parcel went to {} instead."),
        (" (delivered to {})", ", now of {}"),
    ),
    Kind(
        "email",
        {
            "plain": _email("{first}.{last}@example.{tld}"), "short": _email("{initial}{last}{number}@example.{tld}"),
            "tagged": _email("{first}+{host}@example.{tld}"), "subdomain": _email("{first}_{last}@{host}.example.{tld}"),
            "angle brackets": _email("<{first}@{host}.example.{tld}>"),
            "spelled out": _email("{first} dot {last} at {host} dot example dot {tld}"),
            "at in brackets": _email("{first}.{last} [at] example.{tld}"),
        },
        ("Write to {} before Friday.", "Her private mail is {}.", "Contact {} for the keys.", "He signed up as {}.",
         "Invoices for this customer go to {}."),
        (" (questions to {})", ", says {}", "; reply to {}"),
    ),
    Kind(
        "phone",
        {
            "American, brackets": _us_phone("({area}) 555-{last}"), "American, dashes": _us_phone("{area}-555-{last}"),
            "American, dots": _us_phone("{area}.555.{last}"), "American, plus": _us_phone("+1 {area} 555 {last}"),
            "British, plus": _number("+44 20 7946 0###"), "British, local": _number("020 7946 0###"),
            "German, plus": _number("+49 30 23125 ###"), "German, local": _number("030 23125 ###"),
        },
        ("Call {} after six.", "His number is {}.", "She can be reached at {} in the evening.", "Ring {} and ask for the key."),
        (" (call {})", ", phone {}"),
    ),
    Kind(
        "card",
        {
            "in fours": _card("4### #### #### ####"), "dashes": _card("51##-####-####-####"),
            "plain": _card("4###############"), "four, six, five": _card("37## ###### #####"),
        },
        ("The customer paid with {}.", "Charge it to card {}.", "My credit card is {}.", "The stolen card was {}."),
        (" (card {})", ", paid with {}"),
    ),
    Kind(
        "iban",
        {
            "German, in fours": _iban("DE", "##################", grouped=True),
            "German, compact": _iban("DE", "##################", grouped=False),
            "British, in fours": _iban("GB", "AAAA##############", grouped=True),
            "Dutch, compact": _iban("NL", "AAAA##########", grouped=False),
            "French, in fours": _iban("FR", "#######################", grouped=True),
        },
        ("Transfer the rent to {}.", "His account is {}.", "The salary goes to {}.", "Refund {} by Monday."),
        (" (account {})", ", to be paid to {}"),
    ),
    Kind(
        "ip",
        {
            "version 4": _ipv4, "version 6, whole": _groups("2001:db8:x:x:x:x:x:x"),
            "version 6, shortened": _groups("2001:db8::x"), "version 6, link-local": _groups("fe80::x"),
        },
        ("The login came from {}.", "She was traced to {}.", "His home connection is {}.", "Block {} at once."),
        (" (seen at {})", ", logged from {}"),
    ),
    Kind(
        "ssn",
        {"dashes": _ssn("{}-{}-{}"), "spaces": _ssn("{} {} {}"), "plain": _ssn("{}{}{}")},
        ("Her social security number is {}.", "The form gives SSN {}.", "He was registered under {}.",
         "The applicant's SSN was {}."),
        (" (SSN {})", ", social security number {}"),
    ),
)  # fmt: skip
"""Personal data: eight kinds. Rules know most forms of six of them; names and addresses have none."""


def _words(*words: str) -> Draw:
    return lambda random: random.choice(words)


_NOUN = (
    "idiot",
    "moron",
    "jerk",
    "fool",
    "imbecile",
    "loser",
    "dumbass",
    "jackass",
    "bastard",
    "bonehead",
    "nitwit",
    "scumbag",
)
OFFENCE = (
    Kind(
        "insult",
        {
            "plain": _words(*_NOUN),
            "with an adjective": lambda random: f"{random.choice(['stupid', 'useless', 'pathetic', 'damn', 'lazy'])} "
            f"{random.choice(_NOUN)}",
        },
        ("You {}, nobody asked you.", "Only a {} would write this.", "Shut up, you {}.", "Whoever did this is a {}.",
         "Get lost, you {}."),
        (", you {}", " and only a {} would deny it"),
    ),
    Kind(
        "swearing",
        {"plain": _words("damn", "crap", "bloody hell", "piss off", "this sucks", "what the hell", "bullshit", "screw this")},
        ("Oh {}, it broke again.", "Well, {}, I am done with it.", "It is late, {}, go home."),
        (", {}", " ({})"),
    ),
    Kind(
        "disguised",
        {
            "digits": _words("1d1ot", "m0ron", "dumb455", "b4stard", "l0ser"),
            "stars": _words("id*ot", "st*pid fool", "d*mbass", "b*stard", "cr*p artist"),
            "spaces": _words("i d i o t", "m o r o n", "l o s e r"),
        },
        ("You are such a {}.", "Shut up, you {}.", "What a {} you are."),
    ),
    Kind(
        "implied",
        {
            "no bad word": _words(
                "The world would be better without people like you.", "A brick has more sense than you.",
                "Nobody likes you and nobody ever will.", "Your mother must be so ashamed of you.",
                "You could not pour water out of a boot with the instructions on the heel.",
                "Do everyone a favour and never speak again.", "I have met smarter houseplants than you.",
                "Even your dog only stays for the food.",
            )
        },
        ("{}",),
    ),
)  # fmt: skip
"""Offensive language: four kinds. A list of words knows the first two; the last has no word that is bad."""

KINDS = {"pii": PERSONAL, "toxicity": OFFENCE}
