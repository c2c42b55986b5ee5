"""Can a reward be trained with? What it answers, to whom, and the target that it makes.

    phi = exp(r / beta),  p proportional to a phi      so r must be a number of one text and its prompt, the same every time

A reward that looks at the rest of its batch (ranks, means, duplicates) has no p: the same text is worth another number each
time, and leave-one-out, which needs the other samples' rewards not to depend on this one, is biased. None is "no answer": the
sample is left out and counted. Then its target is enumerated (`reward_target`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from amenable.objective.divergence import Divergence
from amenable.selftest.check import Check, attempt, shown, told, within
from amenable.selftest.reward_target import PROMPTS, SAME, target_checks

Pair = tuple[str, str]
TEXTS = (
    "No.", "yes", "42", "The weather is fine today, and I am glad.", "def f(x):\n    return x + 1\n", '{"a": [1, 2]}',
    "I am sorry, but I cannot help with that!", "a b c d e f g h i j k l m n o p", "1 + 1 = 2", "so so so so so",
)  # fmt: skip
ODD = {
    "empty text": ["", " ", "\n\t\n"],
    "unicode": ["naïve café", "漢字とかな", "🙂👩‍👩‍👧", "e\u0301\u200b\u202e", "\x00\x07\ufffd"],
    "very long text": ["word " * 40_000, "x" * 200_000, "(" * 5_000],
}
SECONDS = 60.0  # for one call


class Unfit(Exception):
    """An answer that is not one number, or None, a sample."""


@dataclass(frozen=True)
class Reward:
    """A user's function, asked about (prompt, text) pairs."""

    function: Callable[..., Any]
    name: str

    def __call__(self, pairs: Sequence[Pair]) -> list[float | None]:
        """Errors: Unfit, TimeoutError, and whatever the function raises."""
        prompts, texts = [prompt for prompt, _ in pairs], [text for _, text in pairs]
        lengths = [1 + len(text.split()) for text in texts]
        columns = {"ended": ["eos"] * len(texts), "lengths": lengths}
        given = list(prompts), list(texts)
        found = within(SECONDS, lambda: self.function(prompts=given[0], completions=given[1], **columns))
        if given != (prompts, texts):
            raise Unfit("it changed the lists of prompts and completions that it was given: work on a copy")
        if isinstance(found, str | bytes | dict) or not hasattr(found, "__len__") or not hasattr(found, "__iter__"):
            raise Unfit(f"it returned {shown(found)}, where a list of numbers is due")
        if len(found) != len(texts):
            raise Unfit(f"it returned {len(found)} values for {len(texts)} samples: return one a sample")
        return [_number(value, text) for value, text in zip(found, texts, strict=True)]


def _number(value: Any, text: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise Unfit(f"it returned {shown(value)} for {shown(text)}: return a number, or None where there is none")
    try:
        number = float(value)
    except Exception:
        raise Unfit(f"it returned {shown(value)} for {shown(text)}: return one number") from None
    if not math.isfinite(number):
        raise Unfit(f"it returned {number} for {shown(text)}: return None where there is no answer")
    return number


def reward_checks(
    function: Callable[..., Any], *, pieces: Sequence[str] = (), mine: Divergence | None, seed: int
) -> Iterator[Check]:
    """What it answers; then the target and the gradients, if it can be relied upon."""
    reward = Reward(function, getattr(function, "__name__", type(function).__name__))
    pairs = [(PROMPTS[place % 2], text) for place, text in enumerate((*TEXTS, *pieces))]
    first, values = _batch(reward, pairs)
    yield first
    if not first.ok:
        return
    sound = True
    for name, work in (
        ("the same answer again", _again),
        ("alone as in a batch", _alone),
        ("in another order", _order),
        ("in another batch", _company),
        ("missing", _missing),
    ):
        label = f"{reward.name}, {name}"
        check = attempt(label, partial(work, reward, label, pairs, values))
        yield check
        sound = sound and check.ok is not False
        if not sound and work is _again:
            break
    for name, texts in ODD.items():
        yield _odd(reward, f"{reward.name}, {name}", texts)
    if sound:
        yield from target_checks(function, reward.name, tuple(pieces) or _told_apart(pairs, values), mine, seed)


def _told_apart(pairs: list[Pair], values: list[float | None]) -> tuple[str, ...]:
    """The texts with the least, a middle and the greatest reward."""
    known = sorted((value, text) for (_, text), value in zip(pairs, values, strict=True) if value is not None)
    return tuple(dict.fromkeys(known[place][1] for place in (0, len(known) // 2, -1)))


# --- what it answers


def _batch(reward: Reward, pairs: list[Pair]) -> tuple[Check, list[float | None]]:
    name = f"{reward.name}, one number a sample"
    try:
        values = reward(pairs)
    except Exception as error:
        return Check(name, "", False, _why(error) + ("" if isinstance(error, Unfit) else _culprit(reward, pairs))), []
    known = [value for value in values if value is not None]
    return Check(name, f"{len(pairs)} samples" + (f", {min(known):.3g} to {max(known):.3g}" if known else "")), values


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, Unfit | TimeoutError) else f"it {told(error)}"


def _culprit(reward: Reward, pairs: list[Pair]) -> str:
    """The first sample that fails alone too, where that is what it is."""
    for pair in pairs:
        try:
            reward([pair])
        except Exception:
            return f", for the text {shown(pair[1])}"
    return ", for a batch; each sample alone is answered"


def _again(reward: Reward, name: str, pairs: list[Pair], values: list[float | None]) -> Check:
    place = _differs(values, again := reward(pairs))
    if place is None:
        return Check(name, "the same")
    why = f"{shown(pairs[place][1])} scored {_value(values[place])}, then {_value(again[place])}: it is random, or remembers"
    return Check(name, "", False, why)


def _alone(reward: Reward, name: str, pairs: list[Pair], values: list[float | None]) -> Check:
    for place, pair in enumerate(pairs):
        try:
            (alone,) = reward([pair])
        except Exception as error:
            return Check(name, "", False, f"{shown(pair[1])} alone: {_why(error)}. A batch may be a single sample")
        if _differs([values[place]], [alone]) is not None:
            return _depends(name, pair, values[place], alone, "alone")
    return Check(name, "the same")


def _order(reward: Reward, name: str, pairs: list[Pair], values: list[float | None]) -> Check:
    backwards = reward(pairs[::-1])[::-1]
    place = _differs(values, backwards)
    if place is None:
        return Check(name, "the same")
    return _depends(name, pairs[place], values[place], backwards[place], "in the reversed batch")


def _company(reward: Reward, name: str, pairs: list[Pair], values: list[float | None]) -> Check:
    """Among half of the others, and beside a copy of itself, as policies write them."""
    half, twice = reward(pairs[::2]), reward([pair for pair in pairs for _ in range(2)])[::2]
    for usual, other, order, where in (
        (values[::2], half, pairs[::2], "among half of the others"),
        (values, twice, pairs, "beside a copy of itself"),
    ):
        place = _differs(usual, other)
        if place is not None:
            return _depends(name, order[place], usual[place], other[place], where)
    return Check(name, "the same")


def _depends(name: str, pair: Pair, one: float | None, other: float | None, where: str) -> Check:
    why = (
        f"{shown(pair[1])} scores {_value(one)} in the batch and {_value(other)} {where}. A reward depends on its own text "
        "alone: else leave-one-out is biased, and there is no target p(x)"
    )
    return Check(name, "", False, why)


def _missing(reward: Reward, name: str, pairs: list[Pair], values: list[float | None]) -> Check:
    none = [pair[1] for pair, value in zip(pairs, values, strict=True) if value is None]
    found = f"None for {len(none)} of {len(pairs)} samples"
    if len(none) == len(pairs):
        return Check(name, found, False, "there is no answer for any sample: nothing can be learnt")
    return Check(name, found + (f", such as {shown(none[0])}: left out and counted" if none else ""))


def _odd(reward: Reward, name: str, texts: Sequence[str]) -> Check:
    for text in texts:
        try:
            reward([(PROMPTS[0], text)])
        except Exception as error:
            why = f"{shown(text)} ({len(text)} characters): {_why(error)}. Policies write such texts; None is an answer"
            return Check(name, "", False, why)
    return Check(name, f"{len(texts)} texts are answered")


# --- how things are told


def _differs(one: Sequence[float | None], other: Sequence[float | None]) -> int | None:
    """The first place where two answers are not the same."""
    for place, (first, second) in enumerate(zip(one, other, strict=True)):
        if (first is None) != (second is None):
            return place
        if first is not None and second is not None and abs(first - second) > SAME * (1 + abs(first)):
            return place
    return None


def _value(value: float | None) -> str:
    return "None" if value is None else f"{value:.4g}"
