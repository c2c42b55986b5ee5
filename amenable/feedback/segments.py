"""A text in segments: lines for code, sentences for prose. The segments joined are the text, to the character.

    lines       end after LF, CRLF or CR, as Python's own files do (a form feed or U+2028 ends none)
    sentences   end after . ! ? or an ellipsis, with the quotes and brackets behind it and the white space after those, where
                the next letter is no small one; after a blank line; after the CJK marks without white space
    document    one segment

Titles, initials and common abbreviations ("Dr.", "J. K.", "e.g.", "vs.") end no sentence. These are rules for prose in Latin
and CJK scripts, not an analysis: an abbreviation that is not listed, before a capital letter, makes two segments of one
sentence, which moves no character. White space belongs to the segment before it. Every rule takes time linear in the text.

Source: Korbak et al. 2023, arXiv 2302.08582 (scores of sentences and lines). Changed from the paper: rules in place of spaCy.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, get_args

from amenable.errors import ConfigError, nearest

Unit = Literal["lines", "sentences", "document"]

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_BREAK = re.compile(
    r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+\s++"  # the end of a sentence, perhaps
    r"|[。！？][\"'”’»」』）]*+\s*+"
    r"|\r?\n[ \t]*+\r?\n\s*+"  # a blank line
)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[\"'“‘])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|No|Nos|Fig|Figs|Eq|Sec|Vol|Inc|Ltd|Co|Corp|Gen|Col|Lt|Sgt|Capt"
    r"|[eE]\.g|[iI]\.e|[cC]f|vs|etc|al|approx|[pP]p|[aA]\.m|[pP]\.m|U\.S|U\.K)\.$"
)


def line_ends(text: str) -> list[int]:
    """Where each line of `text` ends, its newline included, in characters from the start; [] for ""."""
    return [match.end() for match in _LINE.finditer(text)]


def sentence_ends(text: str) -> list[int]:
    """Where each sentence of `text` ends, the white space behind it included; [] for ""."""
    ends = [match.end() for match in _BREAK.finditer(text) if match.end() < len(text) and _is_break(text, match)]
    return [*ends, len(text)] if text else []


def document_end(text: str) -> list[int]:
    """[len(text)], or [] for ""."""
    return [len(text)] if text else []


def _is_break(text: str, match: re.Match[str]) -> bool:
    found = match.group()
    if found[0] not in ".!?…" or "\n\n" in found:
        return True
    if text[match.end()].islower():
        return False
    return found[0] != "." or _ABBREVIATION.search(text[max(0, match.start() - 8) : match.start() + 1]) is None


_ENDS: dict[str, Callable[[str], list[int]]] = {
    "lines": line_ends,
    "sentences": sentence_ends,
    "document": document_end,
}


def segment_ends(text: str, unit: Unit) -> list[int]:
    """Where the segments of `text` end; they rise strictly to len(text). Errors: ConfigError for another unit."""
    if unit not in _ENDS:
        raise ConfigError(f"segments={unit!r} is not known.", nearest(str(unit), get_args(Unit)))
    return _ENDS[unit](text)


def pieces(text: str, ends: list[int]) -> list[str]:
    """The segments themselves."""
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
