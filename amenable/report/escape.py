"""Text that nobody vouches for, made safe and visible.

Model outputs may hold markup, terminal escapes, NULs, invisible characters, and controls that reverse the
direction of writing so that code reads otherwise than it runs (Boucher and Anderson 2021, arXiv 2111.00169,
"Trojan Source"). Every character of the Unicode categories Cc, Cf, Cs, Co, Cn, Zl and Zp but newline and
tab is shown as its code point.
"""

from __future__ import annotations

import html
import unicodedata
from functools import lru_cache

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


@lru_cache(maxsize=4096)
def _hidden(character: str) -> bool:
    return character not in "\n\t" and unicodedata.category(character) in _HIDDEN


def visible(text: str) -> str:
    """Plain text in which hidden characters stand as "<U+202E>"; for terminals and attributes."""
    text = text.replace("\r\n", "\n")
    return "".join(f"<U+{ord(one):04X}>" if _hidden(one) else one for one in text)


def attribute(text: str) -> str:
    """`text` for use between double quotes in a tag."""
    return html.escape(visible(text), quote=True)


def escaped(text: str) -> str:
    """`text` for use between tags; hidden characters stand in a span of class "hidden-char"."""
    text = text.replace("\r\n", "\n")
    return "".join(
        f'<span class="hidden-char">U+{ord(one):04X}</span>' if _hidden(one) else html.escape(one, quote=True)
        for one in text
    )
