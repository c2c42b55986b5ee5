"""Who won each pair of answers: by a judge, by a score of each, or by what people said.

Equal texts are a tie, and nobody is asked. Decisions are made in chunks, each a stage of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from amenable.errors import DataError
from amenable.evaluation.preference import from_scores
from amenable.feedback.judging import Judgement, PairJudge, Rater, judged
from amenable.progress import bar
from amenable.recipes.compare_runs import Said
from amenable.runs import Row, Run

CHUNK = 16  # pairs a stage: what a comparison that dies may lose of the work of a judge


@dataclass(frozen=True)
class Pair:
    """An answer of A and one of B to the same prompt."""

    key: str
    a: Said
    b: Said


@dataclass(frozen=True)
class Decided:
    """Who won each pair: `p` is P(A is better), None where missing, and `why` in words.

    Scores are kept where there are any; `consistent` and `outside` are a judge's (see `feedback.judging`).
    """

    name: str
    p: Sequence[float | None]
    why: Sequence[str]
    consistent: Sequence[bool | None] = ()
    outside: Sequence[float | None] = ()
    scores: tuple[Sequence[float | None], Sequence[float | None]] | None = None

    @staticmethod
    def of_scores(name: str, a: Sequence[float | None], b: Sequence[float | None]) -> Decided:
        told = [f"A {_number(x)}, B {_number(y)}" for x, y in zip(a, b, strict=True)]
        return Decided(name, from_scores(a, b), told, scores=(a, b))


Decide = Callable[[Run, Sequence[Pair], Any, Path], Decided]


def deciders(settings: Any) -> list[Decide]:
    """Those that the settings name: judge, score, reward, labels."""
    found: list[Decide] = []
    if settings.judge:
        found.append(_by_judge)
    if settings.score:
        found.append(lambda *given: _by_score("score", settings.score, *given))
    if settings.reward:
        found.append(lambda *given: _by_score("reward", f"reward:{settings.reward}", *given))
    if settings.labels:
        found.append(_by_people)
    return found


def _by_judge(record: Run, pairs: Sequence[Pair], settings: Any, folder: Path) -> Decided:
    """A judge's decisions, the mean of both orders also where they contradict each other; equal texts tie unasked."""
    from amenable.recipes.judges import judge_named

    @cache
    def judge() -> PairJudge:
        return judge_named(settings.judge, _asking(settings, folder))

    def ask(part: Sequence[Pair]) -> list[Row]:
        unlike = [pair for pair in part if pair.a.text != pair.b.text]
        prompts, first, second = (
            [pair.a.prompt for pair in unlike], [pair.a.text for pair in unlike], [pair.b.text for pair in unlike]
        )  # fmt: skip
        asked = judged(judge(), prompts, first, second, both_orders=settings.both_orders) if unlike else []
        answers = iter(asked)
        return [
            _row(next(answers)) if pair.a.text != pair.b.text else {"p": 0.5, "why": "equal texts"} for pair in part
        ]

    rows = _chunks(record, "judge", pairs, ask)
    return Decided(
        f"judge {settings.judge}",
        [row["p"] for row in rows],
        [row["why"] for row in rows],
        consistent=[row.get("consistent") for row in rows],
        outside=[row.get("outside") for row in rows],
    )


def _row(judgement: Judgement) -> Row:
    p, back = judgement.averaged, judgement.backward
    told = f"P(A) = {p:.3f}" if p is not None else f"missing: {judgement.missing}"
    if judgement.consistent is False:
        told += ", the mean of two orders that contradict each other"
    shown = [f"A first: {judgement.forward.rationale}"] if judgement.forward.rationale else []
    shown += [f"B first: {back.rationale}"] if back is not None and back.rationale else []
    outside = judgement.outside
    return {
        "p": p,
        "why": "\n\n".join([told, *shown]),
        "consistent": judgement.consistent,
        "outside": outside if outside == outside else None,
    }


def _by_score(name: str, rater: str, record: Run, pairs: Sequence[Pair], settings: Any, folder: Path) -> Decided:
    """The higher score wins; the scores are kept, to be compared as a number of their own.

    A text is scored once in a chunk: in two batches of a model, equal texts could differ in the last digit, and one would win.
    """
    from amenable.recipes.judges import rater_named

    @cache
    def ready() -> Rater:
        return rater_named(rater, _asking(settings, folder))

    def ask(part: Sequence[Pair]) -> list[Row]:
        texts = list(dict.fromkeys((pair.a.prompt, side.text) for pair in part for side in (pair.a, pair.b)))
        scores = ready()([prompt for prompt, _ in texts], [text for _, text in texts])
        known = dict(zip(texts, scores, strict=True))
        return [{"a": known[pair.a.prompt, pair.a.text], "b": known[pair.a.prompt, pair.b.text]} for pair in part]

    rows = _chunks(record, name, pairs, ask)
    return Decided.of_scores(
        f"{name} {_short(rater.removeprefix('reward:'))}", [row["a"] for row in rows], [row["b"] for row in rows]
    )


def _by_people(record: Run, pairs: Sequence[Pair], settings: Any, folder: Path) -> Decided:
    """What a file says of the same pairs, whichever stands first there; a pair that is not in it is missing."""
    from amenable.task.preferences import load_comparisons

    said: dict[tuple[str, str, str], float] = {}
    for one in load_comparisons(settings.labels):
        if one.label is not None:
            said[one.prompt, one.first, one.second] = one.label
            said[one.prompt, one.second, one.first] = 1 - one.label
    found = [said.get((pair.a.prompt, pair.a.text, pair.b.text)) for pair in pairs]
    if not any(p is not None for p in found):
        raise DataError(
            f"{settings.labels} has a label of none of the {len(pairs)} pairs",
            "label the pairs.jsonl that `amenable compare` writes: rows of prompt, first, second, label",
        )
    why = ["missing: nobody labelled it" if p is None else f"P(A) = {p:g}" for p in found]
    return Decided(f"labels {Path(settings.labels).name}", found, why)


def _chunks(record: Run, name: str, pairs: Sequence[Pair], ask: Callable[[Sequence[Pair]], list[Row]]) -> list[Row]:
    rows: list[Row] = []
    with bar(name) as tell:
        for start in range(0, len(pairs), CHUNK):
            part = pairs[start : start + CHUNK]
            rows += record.stage(f"{name} {start}", lambda part=part: ask(part))  # type: ignore[misc]
            tell(len(rows), len(pairs))
    return rows


def _short(path: str) -> str:
    """The last part of a path; a folder called model is known by the run that it stands in."""
    found = Path(path)
    return "/".join(found.parts[-2:]) if found.name == "model" else found.name


def _asking(settings: Any, folder: Path) -> Any:
    from amenable.feedback.questions import CRITERIA, Question
    from amenable.recipes.judges import Asking

    question = Question(criteria=settings.criteria or CRITERIA, cot=settings.cot)
    return Asking(folder=folder, question=question, dtype=settings.dtype, rows=settings.rows)


def _number(value: float | None) -> str:
    return "missing" if value is None else f"{value:.4g}"
