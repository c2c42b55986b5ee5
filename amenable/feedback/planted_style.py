"""Known faults in Python: what a careless author does to the style of a line, and where. What the line does stays the same.

    slip                    before          after           pycodestyle
    crowded-operator        x = a == b      x=a==b          E225
    crowded-comma           f(a, b)         f(a,b)          E231
    padded-bracket          f(a)            f( a )          E201 E202
    space-before-bracket    f(a)            f (a)           E211
    wide-operator           x = a           x =  a          E222
    semicolon               x = a           x = a;          E703
    trailing-space          x = a           x = a           W291

A function has an author, who has two to four of the slips as habits, and makes every one of them wherever it can be made, on
`share` of the lines. Lines that are inside a text of several lines, continued, or have a comment are left alone.
"""

from __future__ import annotations

import io
import token
import tokenize
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from keyword import iskeyword
from random import Random

from amenable.feedback.planting import Planted

_COMPARING = frozenset("= == != < > <= >= += -= *= /= ->".split())
Tokens = Sequence[tokenize.TokenInfo]
Slip = Callable[[str, Tokens], str]
"""A line without its newline, and its tokens -> the line with the slip; the same line where there is no place for it."""


def _edited(line: str, edits: Sequence[tuple[int, int, str]]) -> str:
    """The line with the columns of each (from, to) replaced, from the right."""
    for start, end, text in sorted(edits, reverse=True):
        line = line[:start] + text + line[end:]
    return line


def _operators(line: str, tokens: Tokens) -> list[tuple[int, int]]:
    """Columns of the operators that have one space on each side."""
    found = [(one.start[1], one.end[1]) for one in tokens if one.type == token.OP and one.string in _COMPARING]
    return [(a, b) for a, b in found if line[a - 1 : a] == " " == line[b : b + 1] and line[: a - 1].strip()]


def _crowded_operator(line: str, tokens: Tokens) -> str:
    return _edited(line, [(a - 1, b + 1, line[a:b]) for a, b in _operators(line, tokens)])


def _wide_operator(line: str, tokens: Tokens) -> str:
    return _edited(line, [(b, b, " ") for _, b in _operators(line, tokens)])


def _crowded_comma(line: str, tokens: Tokens) -> str:
    ends = [one.end[1] for one in tokens if one.string == "," and one.type == token.OP]
    return _edited(line, [(end, end + 1, "") for end in ends if line[end : end + 1] == " "])


def _padded_bracket(line: str, tokens: Tokens) -> str:
    open_, edits = [], []
    for one in tokens:
        if one.type == token.OP and one.string in "([{":
            open_.append(one.end[1])
        elif one.type == token.OP and one.string in ")]}" and open_:
            start, end = open_.pop(), one.start[1]
            if line[start:end].strip():
                edits += [(start, start, " "), (end, end, " ")]
    return _edited(line, edits)


def _space_before_bracket(line: str, tokens: Tokens) -> str:
    called = [
        after.start[1]
        for name, after in pairwise(tokens)
        if name.type == token.NAME and not iskeyword(name.string) and after.string == "(" and name.end == after.start
    ]
    return _edited(line, [(at, at, " ") for at in called])


def _semicolon(line: str, tokens: Tokens) -> str:
    ended = len(tokens) > 1 and tokens[-1].type == token.NEWLINE and tokens[-2].string not in (":", ";")
    return line + ";" if ended and not line.lstrip().startswith("@") else line


def _trailing_space(line: str, tokens: Tokens) -> str:
    return line + " " if line.strip() else line


SLIPS: Mapping[str, Slip] = {
    "crowded-operator": _crowded_operator,
    "crowded-comma": _crowded_comma,
    "padded-bracket": _padded_bracket,
    "space-before-bracket": _space_before_bracket,
    "wide-operator": _wide_operator,
    "semicolon": _semicolon,
    "trailing-space": _trailing_space,
}


def plant_style(text: str, slips: Sequence[str], *, share: float, random: Random) -> tuple[str, list[Planted]]:
    """The source with some of `slips` on `share` (0 to 1) of its lines, and what was made: the place of the line, and the slip.

    What Python cannot read is returned as it is, with nothing planted.
    """
    lines = text.split("\n")
    by_line = _tokens_of_lines(text)
    habits = random.sample(list(slips), min(len(slips), random.randint(2, 4)))
    truth: list[Planted] = []
    at = 0
    for number, line in enumerate(lines):
        chosen = random.random() < share and number + 1 in by_line
        lines[number], made = _made(line, by_line[number + 1], habits) if chosen else (line, [])
        end = at + len(lines[number])
        truth += [Planted(at, end, "style", slip) for slip in made]
        at = end + 1
    return "\n".join(lines), truth


def _made(line: str, tokens: Tokens, habits: Sequence[str]) -> tuple[str, list[str]]:
    """The line with every one of the habits that has a place there, and which these were."""
    made = []
    for slip in (name for name in SLIPS if name in habits):
        new = SLIPS[slip](line, tokens)
        if new != line:
            made.append(slip)
            line, tokens = new, _tokens_of_lines(new).get(1, ())
    return line, made


def _tokens_of_lines(text: str) -> dict[int, Tokens]:
    """Tokens of each line that is a logical line by itself: neither continued nor part of one that is."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError, ValueError):
        return {}
    found: dict[int, list[tokenize.TokenInfo]] = defaultdict(list)
    first: int | None = None
    longer: set[int] = set()
    for one in tokens:
        if one.type in (token.INDENT, token.DEDENT, token.NL, token.COMMENT, token.ENDMARKER):
            continue
        first = one.start[0] if first is None else first
        found[one.start[0]].append(one)
        if one.end[0] != first and one.type != token.NEWLINE:
            longer.update(range(first, one.end[0] + 1))
        if one.type == token.NEWLINE:
            first = None
    for one in tokens:
        if one.type == token.COMMENT:
            longer.add(one.start[0])
    return {number: line for number, line in found.items() if number not in longer}
