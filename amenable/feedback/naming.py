r"""The small grammar in which constraints are named on a command line; every error is a ConfigError that says the fix.

    name            kind [":" argument]      or  kind bound ["," bound]
    words           word {"," word}          a comma of a word is written \, and a backslash \\
    options         key "=" value {"," key "=" value}         several values of one key are joined by "+"
    bound           ("<=" | ">=") whole number
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from amenable.errors import ConfigError, nearest


def with_options(kind: str, options: Iterable[str]) -> str:
    """ "kind:a=1,b=2", or "kind" if there are none."""
    return ":".join(part for part in (kind, ",".join(options)) if part)


def from_words(words: Iterable[str]) -> str:
    r""" "a,b\,c" of ["a", "b,c"]."""
    return ",".join(re.sub(r"([\\,])", r"\\\1", word) for word in words)


def to_words(text: str) -> list[str]:
    r"""["a", "b,c"] of "a,b\,c"; spaces belong to the words."""
    parts = re.findall(r"((?:[^\\,]|\\.|\\$)*)(,|$)", text, re.DOTALL)
    last = next(index for index, (_, comma) in enumerate(parts) if not comma)
    return [re.sub(r"\\(.)", r"\1", word, flags=re.DOTALL) for word, _ in parts[: last + 1]]


def to_options(kind: str, argument: str, known: Sequence[str]) -> dict[str, str]:
    """{"a": "1", "b": "x"} of "a=1,b=x"; keys that are none of `known` are refused."""
    options: dict[str, str] = {}
    for part in argument.split(",") if argument else []:
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in known:
            raise ConfigError(f"{kind} has no option {key!r}.", nearest(key, known))
        if not value or key in options:
            raise ConfigError(f"{kind}: {part!r} gives {key} no value, or a second one.", f"write {key}=VALUE once.")
        options[key] = value
    return options


def to_whole(kind: str, key: str, text: str) -> int:
    """The whole number `text`, the value of `key`."""
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ConfigError(f"{kind}: {key}={text!r} is not a whole number.", f"write {key}=1, for example.")
    return int(text)


def to_bounds(kind: str, text: str) -> tuple[int | None, int | None]:
    """(3, 10) of ">=3,<=10", (None, 10) of "<=10"."""
    found = re.fullmatch(r"(<=|>=)([0-9]{1,9})(?:,(<=|>=)([0-9]{1,9}))?", re.sub(r"\s", "", text))
    if found is None or found[1] == found[3]:
        raise ConfigError(f"{kind}{text} has no bounds that can be read.", f"write {kind}<=100, or {kind}>=3,<=100")
    bounds = {found[1]: int(found[2])} | ({found[3]: int(found[4])} if found[3] else {})
    return bounds.get(">="), bounds.get("<=")
