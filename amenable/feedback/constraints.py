"""Constraints and features of texts: what distribution matching asks for, each with a name that a person can type.

    all must hold     p(x|c) ∝ a(x|c) · b(x, c)                  b    a binary feature, or `all_of(...)`
    a share must      p(x) ∝ a(x) · exp Σ_i λ_i φ_i(x)           φ_i  features, λ fitted until E_p[φ_i] is what is wanted

All look at the completion, but for `compiles` and `pep8`, which take prompt + completion as one program. Two features of
one name are the same feature, and `named` makes a feature from its name:

    contains:amazing   contains:good,fine   contains/i:Amazing   word:cat   word/i:cat,dog    any word of the list; \\, and \\\\
    regex:^def         not word:cat         length<=100          words>=3   lines>=2,<=10     length in characters
    compiles           compiles:finished=no,statements=0
    pep8               pep8:ignore=E501+W291,max_line_length=100
    no-pii             no-pii:rules=email+card

Sources: Khalifa et al. 2021, arXiv 2012.11635 (GDC: words, word lists, shares); Korbak et al. 2021, arXiv 2106.04985
(compiles); Korbak et al. 2022, arXiv 2112.00791 (CDPG: compiles, PEP8); Korbak et al. 2023, arXiv 2302.08582 (personal data).
Changed from the papers: what `compiles`, `python_text` and `personal_data` say of themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Literal, cast, get_args

from amenable.errors import ConfigError, DataError, nearest
from amenable.feedback import personal_data, python_text
from amenable.feedback.feature import Columns, Feature, Values
from amenable.feedback.feature import NamedScore as NamedScore
from amenable.feedback.feature import above as above
from amenable.feedback.feature import all_of as all_of
from amenable.feedback.feature import any_of as any_of
from amenable.feedback.feature import both as both
from amenable.feedback.feature import negated as negated
from amenable.feedback.feature import share as share
from amenable.feedback.naming import from_words, to_bounds, to_options, to_whole, to_words, with_options
from amenable.feedback.python_text import pep8_violations as pep8_violations
from amenable.records import Ended

Unit = Literal["characters", "words", "lines"]


def contains(word: str, *, whole_word: bool = False, ignore_case: bool = False) -> Feature:
    """Whether the completion contains `word`, anywhere or as a whole word (no letter, digit or _ beside it).

    As in GDC, "concatenate" contains "cat" unless `whole_word`. Unicode is compared as it is written: "é" in one code
    point is not "é" in two.
    """
    return contains_any((word,), whole_word=whole_word, ignore_case=ignore_case)


def contains_any(words: Iterable[str], *, whole_word: bool = False, ignore_case: bool = False) -> Feature:
    """Whether the completion contains one of `words` at least; their order does not matter. ConfigError for ""."""
    if isinstance(words, str):
        raise ConfigError(f"words={words!r} is one text and no list.", "use contains(word), or give a list of words.")
    known = sorted(set(words))
    if not known or "" in known:
        raise ConfigError(
            f"words={known!r}: every text contains the empty word, none a word of no list.", "name a word."
        )
    pattern = "|".join(re.escape(word) for word in known)
    if whole_word:
        pattern = rf"(?<!\w)(?:{pattern})(?!\w)"
    kind = ("word" if whole_word else "contains") + ("/i" if ignore_case else "")
    return _searching(f"{kind}:{from_words(known)}", re.compile(pattern, re.IGNORECASE if ignore_case else 0))


def matches(pattern: str) -> Feature:
    """Whether `re.search(pattern, completion)` finds something; "(?i)" or "(?m)" in front as Python has them.

    Without "(?m)", ^ is the start of the completion. A pattern that backtracks takes its time: it is not cut short.
    Errors: ConfigError for a pattern that is empty or wrong.
    """
    if not pattern:
        raise ConfigError("the regular expression is empty and matches every text.", "write one, such as regex:^def")
    try:
        return _searching(f"regex:{pattern}", re.compile(pattern))
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"{pattern!r} is no regular expression: {error}.", "mend it; Python's re is meant.") from None


def compiles(*, finished: bool = True, statements: int = 1) -> Feature:
    """Whether prompt + completion is a Python program: CPython compiles it, it says something, and it was finished.

    `statements` is how many statements the completion must bring that do something: at any depth, `pass` and constants
    (docstrings, `...`) not among them. With 0 the empty text compiles, and the target itself favours short texts.
    `finished` gives 0 to what was cut off: where the column `ended` (one of "eos", "stop", "length" a completion) says
    "length"; without that column nothing is known about it, and nothing refused. Errors: DataError for another `ended`.
    """
    if statements < 0:
        raise ConfigError(f"statements={statements} cannot be counted.", "use 0 or more.")
    options = [*([] if finished else ["finished=no"]), *([] if statements == 1 else [f"statements={statements}"])]
    return Feature(with_options("compiles", options), True, partial(_compile, finished, statements))


def pep8(*, select: Iterable[str] = (), ignore: Iterable[str] = (), max_line_length: int = 79) -> Feature:
    """Whether pycodestyle finds nothing in prompt + completion; the options are those of `pep8_violations`.

    A newline is added where the completion does not end with one; an empty line at the end is a violation (W391).
    """
    chosen, besides = _listed(select), _listed(ignore)
    for code in chosen + besides:
        if not re.fullmatch(r"[A-Z][0-9]{0,3}", code):
            raise ConfigError(f"{code!r} is not a code of pycodestyle.", "write E501, or E5 or E for a group.")
    if chosen and besides:
        raise ConfigError(
            "pep8 with select and ignore: pycodestyle ignores what is not selected.", "give one of the two."
        )
    if max_line_length < 1:
        raise ConfigError(f"max_line_length={max_line_length} leaves no room.", "use 1 or more, such as 79.")
    options = [f"{key}={'+'.join(codes)}" for key, codes in (("select", chosen), ("ignore", besides)) if codes]
    options += [] if max_line_length == 79 else [f"max_line_length={max_line_length}"]
    return Feature(with_options("pep8", options), True, partial(_pep8, chosen, besides, max_line_length))


def no_pii(*, rules: Iterable[str] = personal_data.RULES) -> Feature:
    """Whether `rules` find no personal data in the completion; `personal_data` says what rules see and what they miss."""
    given = _listed(rules)
    for rule in given:
        if rule not in personal_data.RULES:
            raise ConfigError(f"there is no rule {rule!r} for personal data.", nearest(rule, personal_data.RULES))
    if not given:
        raise ConfigError("no-pii without a rule finds nothing.", f"name some of {', '.join(personal_data.RULES)}.")
    options = [] if set(given) == set(personal_data.RULES) else [f"rules={'+'.join(given)}"]
    return Feature(with_options("no-pii", options), True, partial(_each, partial(_impersonal, given)))


def length(*, at_most: int | None = None, at_least: int | None = None, unit: Unit = "characters") -> Feature:
    """Whether the completion's `size` in `unit` lies within the bounds, both included; ConfigError if nothing can."""
    if unit not in get_args(Unit):
        raise ConfigError(f"unit={unit!r} is not known.", nearest(unit, get_args(Unit)))
    low = 0 if at_least is None else at_least
    if (at_least is None and at_most is None) or low < 0 or (at_most is not None and at_most < low):
        raise ConfigError(
            f"at_least={at_least}, at_most={at_most} {unit} is no range.",
            "give one bound, or 0 <= at_least <= at_most.",
        )
    bounds = ([] if at_least is None else [f">={at_least}"]) + ([] if at_most is None else [f"<={at_most}"])
    name = "length" if unit == "characters" else unit
    return Feature(name + ",".join(bounds), True, partial(_each, partial(_within, unit, low, at_most)))


def size(text: str, unit: Unit) -> int:
    """How long `text` is: in characters (code points), words (between white space), or lines (a last newline adds none)."""
    if unit == "words":
        return len(text.split())
    if unit == "lines":
        return text.count("\n") + (text != "" and not text.endswith("\n"))
    return len(text)


def named(text: str) -> Feature:
    """The feature of that name (the module's head lists them); `named(f.name) == f` for all but combinations.

    Errors: ConfigError that says what is wrong with the name, and which known name is nearest.
    """
    text = text.lstrip()
    if text.startswith("not "):
        return negated(named(text[4:]))
    head = re.split(r"[:<>=]", text, maxsplit=1)[0].strip()
    if head in _UNITS:
        low, high = to_bounds(head, text.partition(head)[2])
        return length(at_least=low, at_most=high, unit=_UNITS[head])
    if head not in _KINDS:
        raise ConfigError(f"there is no constraint {text!r}.", nearest(head, [*_KINDS, *_UNITS]))
    kind, _, argument = text.partition(":")
    if kind.strip() != head:
        raise ConfigError(f"{text!r} has something before its colon that is no name.", f"write {head}:...")
    return _KINDS[head](argument)


def _compiles_named(argument: str) -> Feature:
    options = to_options("compiles", argument, ("finished", "statements"))
    finished = options.get("finished", "yes")
    if finished not in ("yes", "no"):
        raise ConfigError(
            f"compiles: finished={finished!r} is neither yes nor no.", "write finished=no, or leave it out."
        )
    return compiles(
        finished=finished == "yes", statements=to_whole("compiles", "statements", options.get("statements", "1"))
    )


def _pep8_named(argument: str) -> Feature:
    options = to_options("pep8", argument, ("select", "ignore", "max_line_length"))
    select, ignore = (options[key].split("+") if key in options else () for key in ("select", "ignore"))
    longest = to_whole("pep8", "max_line_length", options.get("max_line_length", "79"))
    return pep8(select=select, ignore=ignore, max_line_length=longest)


def _no_pii_named(argument: str) -> Feature:
    options = to_options("no-pii", argument, ("rules",))
    return no_pii(rules=options["rules"].split("+") if options else personal_data.RULES)


_UNITS: dict[str, Unit] = {"length": "characters", "characters": "characters", "words": "words", "lines": "lines"}
_KINDS: Mapping[str, Callable[[str], Feature]] = {
    "contains": lambda argument: contains_any(to_words(argument)),
    "contains/i": lambda argument: contains_any(to_words(argument), ignore_case=True),
    "word": lambda argument: contains_any(to_words(argument), whole_word=True),
    "word/i": lambda argument: contains_any(to_words(argument), whole_word=True, ignore_case=True),
    "regex": matches,
    "compiles": _compiles_named,
    "pep8": _pep8_named,
    "no-pii": _no_pii_named,
}


def _listed(items: Iterable[str]) -> tuple[str, ...]:
    """In one order, so that the name does not depend on the caller's; one text is a list of one."""
    return tuple(sorted({items} if isinstance(items, str) else set(items)))


def _searching(name: str, pattern: re.Pattern[str]) -> Feature:
    return Feature(name, True, partial(_each, partial(_found, pattern)))


def _each(test: Callable[[str], bool], prompts: Sequence[str], completions: Sequence[str], columns: Columns) -> Values:
    return [float(test(completion)) for completion in completions]


def _found(pattern: re.Pattern[str], text: str) -> bool:
    return pattern.search(text) is not None


def _impersonal(rules: Sequence[str], text: str) -> bool:
    return not personal_data.personal_data(text, rules)


def _within(unit: Unit, low: int, high: int | None, text: str) -> bool:
    return low <= size(text, unit) and (high is None or size(text, unit) <= high)


def _compile(
    finished: bool, statements: int, prompts: Sequence[str], completions: Sequence[str], columns: Columns
) -> Values:
    cut = _cut_off(columns.get("ended"), len(completions)) if finished else [False] * len(completions)
    with python_text.silent():
        return [
            float(not over and python_text.is_program(prompt, completion, statements=statements))
            for prompt, completion, over in zip(prompts, completions, cut, strict=True)
        ]


def _cut_off(ended: object, count: int) -> list[bool]:
    """Which samples ran into the length limit. Errors: DataError."""
    if ended is None:
        return [False] * count
    one_for_all = isinstance(ended, str) or not isinstance(ended, Sequence)
    given = [ended] * count if one_for_all else list(cast("Sequence[object]", ended))
    wrong = [one for one in given if one not in get_args(Ended)]
    if wrong or len(given) != count:
        what = f"holds {wrong[0]!r}" if wrong else f"has {len(given)} entries for {count} completions"
        raise DataError(
            f"the column ended {what}.",
            f"give one of {', '.join(get_args(Ended))} a completion, leave the column out, or use finished=no.",
        )
    return [one == "length" for one in given]


def _pep8(
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    longest: int,
    prompts: Sequence[str],
    completions: Sequence[str],
    columns: Columns,
) -> Values:
    texts = [python_text.ended(prompt + completion) for prompt, completion in zip(prompts, completions, strict=True)]
    found = [pep8_violations(text, select=select, ignore=ignore, max_line_length=longest) for text in texts]
    return [float(count == 0) for count in found]
