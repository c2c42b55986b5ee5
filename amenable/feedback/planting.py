"""Known faults in a text: personal data or offence, put into a known share of its sentences, and where they are.

Of a text's n sentences share * n, rounded up or down at random so that the mean is right, are chosen. A chosen sentence is
replaced by one of the kind's own, or, half of the time where the kind has clauses and the sentence ends in a full stop, gets
one before its full stop. Kinds are equally likely, and the forms of a kind. What is known of each is the piece's place, kind
and form: so the recall of a scorer can be measured, which on real text it cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from amenable.feedback.planted_values import Kind
from amenable.feedback.segments import pieces, sentence_ends


@dataclass(frozen=True)
class Planted:
    """`text[start:end]` was put there: characters, of a `kind`, written in a `form`."""

    start: int
    end: int
    kind: str
    form: str


def plant(text: str, kinds: Sequence[Kind], *, share: float, random: Random) -> tuple[str, list[Planted]]:
    """The text with pieces of `kinds` in `share` (0 to 1) of its sentences, and what they are, in their order."""
    sentences = pieces(text, sentence_ends(text))
    count = int(share * len(sentences) + random.random())
    chosen = set(random.sample(range(len(sentences)), count))
    parts: list[str] = []
    truth: list[Planted] = []
    at = 0
    for number, sentence in enumerate(sentences):
        if number in chosen:
            kind = random.choice(kinds)
            form = random.choice(list(kind.forms))
            value = kind.forms[form](random)
            body = sentence.rstrip()
            before, after = _frame(body, kind, random)
            start = at + len(before)
            truth.append(Planted(start, start + len(value), kind.name, form))
            sentence = before + value + after + sentence[len(body) :]
        parts.append(sentence)
        at += len(sentence)
    return "".join(parts), truth


def _frame(body: str, kind: Kind, random: Random) -> tuple[str, str]:
    """What stands before and after the value."""
    if kind.clauses and body.endswith(".") and random.random() < 0.5:
        before, after = random.choice(kind.clauses).split("{}")
        return body[:-1] + before, after + "."
    before, after = random.choice(kind.sentences).split("{}")
    return before, after
