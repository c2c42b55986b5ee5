"""The rows that `amenable judge` writes: what the judge said of a pair, beside everything that the pair's own row held.

    prompt, first, second        as they came: texts, or lists of messages where the row was a conversation
    label                        P(first is better), null if missing; `LABELS` says which
    verdict                      first, second or tie: who won in both orders; null if missing
    consistent                   false for a flip; null if one order was asked, or one is missing
    forward, backward            mass of the answer shown first, in each order
    outside, rationale, rationale_backward, missing
    given                        P(first is better) as the row said it, null if it did not
    margin, score_first, ...     scores that the row had, turned to first and second
    before                       columns of the row that are called as one of the above: what another judge had said

All other columns of the row are kept as they are. A row of chosen and rejected becomes first and second in its coin's order
(`task.preferences`): what people chose is then in `given`, and nobody can take it for what the judge chose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from amenable.feedback.judging import Answer, Judgement, reconciled
from amenable.runs import Row
from amenable.task.dialogue import plain
from amenable.task.preferences import Comparison

LABELS = ("averaged", "tied", "verdict")
"""What `label` is: both orders averaged; the same, but 0.5 for a flip; the verdict as a number, 1, 0 or 0.5."""

_ORDERED = {"id", "prompt", "first", "second", "label", "margin"}
_CHOSEN = {"id", "prompt", "chosen", "rejected", "margin", "p_chosen", "score_chosen", "score_rejected"}
_KEPT = {"stage", "before"}  # a run's file says by `stage` where a row belongs


def judged_row(pair: Comparison, given: Mapping[str, Any], judgement: Judgement, label: str) -> Row:
    """The row of a pair: `given` is the row that it was read from, `label` one of `LABELS`."""
    own: Row = {
        "id": pair.id if given.get("id") in (None, "") else given["id"],
        **_texts(pair),
        **_labels(judgement, label),
        "consistent": judgement.consistent,
        "forward": judgement.forward.p_first,
        "backward": None if judgement.backward is None else judgement.backward.p_first,
        "both_orders": judgement.backward is not None,
        "outside": None if math.isnan(judgement.outside) else judgement.outside,
        "rationale": judgement.forward.rationale,
        "rationale_backward": "" if judgement.backward is None else judgement.backward.rationale,
        "missing": judgement.missing,
        "given": pair.label,
        **({} if pair.margin is None else {"margin": pair.margin}),
        **_scores(pair, given),
    }
    read = _ORDERED if _is_ordered(given) else _CHOSEN if "chosen" in given else {"id"}
    others = {name: _plain(value) for name, value in given.items() if name not in read}
    before = {name: others.pop(name) for name in list(others) if name in own or name in _KEPT}
    return {**own, **others, **({"before": before} if before else {})}


def relabelled(row: Row, label: str) -> Row:
    """A row with the label and the verdict of its own answers: a run begun before there were verdicts has others."""
    return {**row, **_labels(judgement_of(row), label)}


def judgement_of(row: Row) -> Judgement:
    """The judgement of a row of labels.jsonl; the reasons of a missing answer are not told apart by order."""

    def answer(p_first: float | None, rationale: str, outside: float | None) -> Answer:
        return Answer(
            p_first, math.nan if outside is None else outside, rationale, "" if p_first is not None else row["missing"]
        )

    there = answer(row["forward"], row["rationale"], row["outside"])
    if not row["both_orders"]:
        return reconciled(there, None)
    return reconciled(there, answer(row["backward"], row["rationale_backward"], row["outside"]))


def _texts(pair: Comparison) -> Row:
    talk = pair.conversation
    if talk is None:
        return {"prompt": pair.prompt, "first": pair.first, "second": pair.second}
    return {"prompt": plain(talk.prompt), "first": plain(talk.first), "second": plain(talk.second)}


def _labels(judgement: Judgement, label: str) -> Row:
    sides = {"first": 1.0, "second": 0.0, "tie": 0.5}
    hard = None if judgement.verdict is None else sides[judgement.verdict]
    soft = {"averaged": judgement.averaged, "tied": judgement.p_first, "verdict": hard}
    return {"label": soft[label], "verdict": judgement.verdict}


def _scores(pair: Comparison, given: Mapping[str, Any]) -> Row:
    """score_chosen and score_rejected as score_first and score_second."""
    names = ("score_chosen", "score_rejected")
    if _is_ordered(given) or not any(given.get(name) is not None for name in names):
        return {}
    sides = ("first", "second") if _chosen_is_first(pair) else ("second", "first")
    return {f"score_{side}": given.get(name) for side, name in zip(sides, names, strict=True)}


def _is_ordered(given: Mapping[str, Any]) -> bool:
    return "first" in given and "second" in given


def _chosen_is_first(pair: Comparison) -> bool:
    """Of a row of chosen and rejected; where they are alike it is its margin that tells, or nothing, and no matter."""
    if pair.label in (None, 0.5):
        return pair.margin is None or pair.margin >= 0
    return pair.label > 0.5


def _plain(value: Any) -> Any:
    """For JSON: a data set of the hub may hold dates and the like, which become text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | None) else str(value)
