"""Judging pairs: one answer in one order, both orders reconciled, and what kind of thing a judge is.

    forward    p_f = P(judge picks the first shown)  when `first` is shown first
    backward   p_b = P(judge picks the first shown)  when `second` is shown first
    averaged   1/2 + (p_f - p_b) / 2                 un-swapped, then averaged: the soft label
    flip       p_f and 1 - p_b lie on different sides of 1/2: the judge followed the position
    p_first    the same, but 1/2 for a flip; the verdict is its side: first, second or tie
    outside    1 - the mass of the two answers: refusals, other words; the two are normalised, so only this shows them

The average is what to learn from: an order bonus cancels in it, and it keeps the side that the judge takes apart from the
order. A tie on a flip says honestly that the judge contradicted itself, and gives nothing back of what the position cost
(docs/judge_calibration.md measures both). A flip needs a winner in both orders: an order that is exactly undecided contradicts
nothing. Where one order is missing the judgement is missing (None), and not the other order alone: a judge that likes a
position would lend its taste to just those labels, unseen, and labels of two laws would stand in one file. A rationale (chain
of thought) mentions "the first summary": it is drawn anew for each order, because each order is a question of its own.

Source: RLAIF, Lee et al. 2023, arXiv 2309.00267 (both orders, averaged after un-swapping; share of same position preferred).
Changed from the paper: beside its label, the average, a verdict that calls a flip a tie; mass outside the answers is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from amenable.errors import DataError, FeedbackError
from amenable.feedback.kinds import Preference

Verdict = Literal["first", "second", "tie"]


@dataclass(frozen=True)
class Answer:
    """What a judge says when it is asked once, in one order.

    p_first    mass of the answer shown first, within the two answers, in [0, 1]; None: missing
    outside    mass on neither answer, in [0, 1]; nan where nobody knows it (no answer came)
    rationale  what the judge wrote before it decided, "" if it was not asked to
    missing    why p_first is None, "" if it is not
    """

    p_first: float | None
    outside: float
    rationale: str = ""
    missing: str = ""


@dataclass(frozen=True)
class Judgement:
    """A pair judged. `backward` is as it was answered: its p_first is the mass of `second`, which was shown first.

    p_first     P(first is better), both orders averaged, but 0.5 for a flip; None: missing. `averaged` has the flips, too
    consistent  False for a flip; None if only one order was asked, or one is missing
    outside     mean over the orders of the mass on neither answer; nan: unknown
    """

    p_first: float | None
    forward: Answer
    backward: Answer | None
    consistent: bool | None
    outside: float

    @property
    def averaged(self) -> float | None:
        """The soft label: P(first is better), the mean of the orders whether they contradict each other or not."""
        if self.forward.p_first is None or self.backward is None:
            return self.forward.p_first if self.backward is None else None
        return None if self.backward.p_first is None else mean_of_orders(self.forward.p_first, self.backward.p_first)

    @property
    def verdict(self) -> Verdict | None:
        """The hard label: who won, in both orders if both were asked; a flip is a tie. None: missing."""
        if self.p_first is None:
            return None
        return "tie" if self.p_first == 0.5 else "first" if self.p_first > 0.5 else "second"

    @property
    def missing(self) -> str:
        """Why there is no p_first, "" if there is one."""
        answers = [self.forward] if self.backward is None else [self.forward, self.backward]
        return "; ".join(dict.fromkeys(a.missing or "no answer" for a in answers if a.p_first is None))


class PairJudge(Protocol):
    """Says which of two answers to a prompt is better, in the order in which they are given; whole batches, in order.

    A judge whose answer cannot depend on the order says so by an attribute `symmetric = True`: it is then asked once.
    """

    @property
    def name(self) -> str: ...

    def ask(self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]) -> list[Answer]: ...


class Rater(Protocol):
    """A `kinds.Score` with a name: how good one answer is. Also a reward function for TRL, which wants `__name__`."""

    @property
    def name(self) -> str: ...

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: object) -> list[float | None]: ...


def judged(
    judge: PairJudge,
    prompts: Sequence[str],
    first: Sequence[str],
    second: Sequence[str],
    *,
    both_orders: bool = True,
) -> list[Judgement]:
    """One judgement a pair, in order. Both orders go to the judge in one batch; a symmetric judge is asked once.

    Errors: DataError for lists of different lengths; FeedbackError for a judge that answers with something else.
    """
    count = len(prompts)
    if not count == len(first) == len(second):
        raise DataError(
            f"{count} prompts, {len(first)} first and {len(second)} second answers are no pairs", "give equally many"
        )
    if not both_orders:
        return [reconciled(answer, None) for answer in _asked(judge, prompts, first, second)]
    if getattr(judge, "symmetric", False):
        forward = _asked(judge, prompts, first, second)
        backward = [Answer(_swapped(a.p_first), a.outside, a.rationale, a.missing) for a in forward]
    else:
        answers = _asked(judge, [*prompts, *prompts], [*first, *second], [*second, *first])
        forward, backward = answers[:count], answers[count:]
    return [reconciled(there, back) for there, back in zip(forward, backward, strict=True)]


def reconciled(forward: Answer, backward: Answer | None) -> Judgement:
    """The judgement that answers in both orders (or in one) make."""
    if backward is None:
        return Judgement(forward.p_first, forward, None, None, forward.outside)
    outside = _mean([forward.outside, backward.outside])
    if forward.p_first is None or backward.p_first is None:
        return Judgement(None, forward, backward, None, outside)
    flip = (forward.p_first - 0.5) * (backward.p_first - 0.5) > 0
    p_first = 0.5 if flip else mean_of_orders(forward.p_first, backward.p_first)
    return Judgement(p_first, forward, backward, not flip, outside)


def mean_of_orders(forward: float, backward: float) -> float:
    """P(first is better) from P(the first shown is better) in both orders; exactly 1/2 where they are equal."""
    return 0.5 + (forward - backward) / 2


def as_preference(judge: PairJudge, *, both_orders: bool = True) -> Preference:
    """The judge as a `kinds.Preference`: P(first is better), both orders averaged, None where missing."""

    def preference(prompts: Sequence[str], first: Sequence[str], second: Sequence[str]) -> list[float | None]:
        return [j.averaged for j in judged(judge, prompts, first, second, both_orders=both_orders)]

    preference.__name__ = judge.name
    return preference


def same_position(judgements: Sequence[Judgement]) -> tuple[int, int]:
    """How often both orders preferred the same position, of how many pairs that have a winner in both orders.

    The paper's measure of position bias: 0 for a judge that reads, near 1 for one that always says "1".
    """
    known = [
        (j.forward.p_first > 0.5, j.backward.p_first > 0.5)
        for j in judgements
        if j.backward is not None
        and j.forward.p_first not in (None, 0.5)
        and j.backward.p_first not in (None, 0.5)
        and j.forward.p_first is not None
        and j.backward.p_first is not None
    ]
    return sum(there == back for there, back in known), len(known)


def first_shown(judgements: Sequence[Judgement]) -> tuple[int, int]:
    """How often the answer shown first won, of how many single questions with a winner (half of them without bias)."""
    answers = [a.p_first for j in judgements for a in (j.forward, j.backward) if a is not None]
    known = [p for p in answers if p is not None and p != 0.5]
    return sum(p > 0.5 for p in known), len(known)


def mean_outside(judgements: Sequence[Judgement]) -> float | None:
    """Mean mass on neither answer, over the judgements that know it; None if none does."""
    known = [j.outside for j in judgements if not math.isnan(j.outside)]
    return sum(known) / len(known) if known else None


class AgainstReference:
    """A judge as a score: P(the completion is better than the reference for its prompt), orders averaged, in [0, 1].

    `reference` gives one text a prompt: a mapping, or the name of a column of the data, as TRL passes them. A prompt
    without a reference is missing. TRL's signature and `__name__`; conversations are read as `plain_text` says.
    """

    def __init__(
        self, judge: PairJudge, reference: Mapping[str, str] | str = "reference", *, both_orders: bool = True
    ) -> None:
        self.judge, self.reference, self.both_orders = judge, reference, both_orders
        self.name = self.__name__ = f"{judge.name} against a reference"

    def __call__(
        self, prompts: Sequence[object], completions: Sequence[object], **columns: object
    ) -> list[float | None]:
        """Errors: DataError if the column of references is not there."""
        asked = [plain_text(prompt) for prompt in prompts]
        if isinstance(self.reference, str):
            column = columns.get(self.reference)
            if not isinstance(column, Sequence) or isinstance(column, str) or len(column) != len(asked):
                raise DataError(
                    f"{self.name}: the data has no column {self.reference!r} with a text a sample",
                    "add it, name another one, or give a mapping from prompt to reference",
                )
            references = [None if text is None else plain_text(text) for text in column]
        else:
            references = [self.reference.get(prompt) for prompt in asked]
        known = [i for i, text in enumerate(references) if text is not None]
        found = judged(
            self.judge,
            [asked[i] for i in known],
            [plain_text(completions[i]) for i in known],
            [references[i] or "" for i in known],
            both_orders=self.both_orders,
        )
        scores: list[float | None] = [None] * len(asked)
        for i, judgement in zip(known, found, strict=True):
            scores[i] = judgement.averaged
        return scores


def as_reward(rater: Rater) -> Callable[..., list[float | None]]:
    """A rater as a reward function for TRL: conversations become plain text, and the function has the rater's name."""

    def reward(prompts: Sequence[object], completions: Sequence[object], **columns: object) -> list[float | None]:
        return rater([plain_text(p) for p in prompts], [plain_text(c) for c in completions], **columns)

    reward.__name__ = rater.name
    return reward


def plain_text(value: object) -> str:
    """A text as it is; a conversation (TRL's list of {"role", "content"}) as its only content, or role by role."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(isinstance(turn, Mapping) and "content" in turn for turn in value):
        if len(value) == 1:
            return str(value[0]["content"])
        return "\n\n".join(f"{str(turn.get('role', '')).capitalize()}: {turn['content']}" for turn in value)
    raise DataError(f"{str(value)[:80]!r} is neither a text nor a conversation", 'give text, or [{"role", "content"}]')


def _asked(judge: PairJudge, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]) -> list[Answer]:
    answers = judge.ask(list(prompts), list(first), list(second))
    if len(answers) != len(prompts):
        raise FeedbackError(
            f"the judge {judge.name} gave {len(answers)} answers to {len(prompts)} questions", "one is due for each"
        )
    for answer in answers:
        if answer.p_first is not None and not 0 <= answer.p_first <= 1:
            raise FeedbackError(
                f"the judge {judge.name} gave p_first={answer.p_first}, which is no probability",
                "give a number in [0, 1], or None where there is no answer",
            )
    return answers


def _swapped(p_first: float | None) -> float | None:
    return None if p_first is None else 1 - p_first


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
