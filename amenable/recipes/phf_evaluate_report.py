"""What an evaluation of models came to: scores of samples and answers, distance from a reference, bits, variety; one page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from amenable.evaluation.code import compile_rate
from amenable.evaluation.diversity import corpus_distinct_n, self_bleu
from amenable.evaluation.interval import Estimate, bootstrap_mean, wilson
from amenable.evaluation.misalignment import expected_maximum, missing, score, share_beyond
from amenable.recipes.audit import beyond
from amenable.recipes.code_model_report import bits_per_byte
from amenable.recipes.environment import command_of, versions
from amenable.recipes.pretrain_report import held_out
from amenable.report.page import Cards, Column, Curves, Report, SampleCard, Section, Series, Table
from amenable.runs import Row

REFERENCES = 200  # texts that each is compared with for self-BLEU
CARDS = 12  # answers a model to read


@dataclass(frozen=True)
class Found:
    """What was measured of one model; lists of rows are empty where nothing was asked for."""

    label: str
    samples: Sequence[Row]
    answers: Sequence[Row]
    reference: Sequence[Row]
    bits: Sequence[Row]
    parameters: int
    conditional: bool


def build_report(
    settings: Any, found: Sequence[Found], prompts: Sequence[str], minutes: dict[str, float], machine: dict[str, Any]
) -> Report:
    """One page; every number with its interval and n."""
    return Report(
        title=f"Evaluation of {len(found)} models for {settings.task}",
        summary=_summary(found),
        command=command_of("phf-evaluate", settings),
        sections=[
            Section("Models", [_models(settings, found)]),
            Section("Unconditional samples", [_samples(settings, found)] if found[0].samples else []),
            Section("Answers to prompts", [_answers(settings, found, len(prompts))] if prompts else []),
            Section("Capability", _capability(found)),
            Section("Variety", [_variety(found, code=settings.task == "pep8")] if found[0].samples else []),
            Section("Answers to read", [_cards(found)] if prompts else []),
        ],
        config=asdict(settings), minutes=minutes, versions=versions(), machine=machine,
    )  # fmt: skip


def kl(rows: Sequence[Row], *, told: bool = False, token: bool = False) -> Estimate:
    """KL(reference, model), nats a sequence or a `token` of the reference; `told`: control tokens are paid for."""
    key = "told" if told else "nats"
    if token:
        return bits_per_byte([{"module": at, "bits": row[key], "bytes": row["tokens"]} for at, row in enumerate(rows)])
    return bootstrap_mean([row[key] for row in rows])


def _unprompted(one: Found) -> Estimate:
    return score(_scores(one.samples))


def _prompted(one: Found) -> Estimate:
    return score(_scores(one.answers), prompts=_prompts(one.answers))


def _summary(found: Sequence[Found]) -> list[str]:
    lines = []
    for one in found:
        parts = [f"samples score {_unprompted(one).text()}"] if one.samples else []
        parts += [f"answers {_prompted(one).text()}"] if one.answers else []
        parts += [f"KL from the reference {kl(one.reference).text()} nats"] if one.reference else []
        parts += [f"{held_out(one.bits).text()} bits per byte"] if one.bits else []
        lines.append(f"{one.label}: {', '.join(parts) or 'nothing was asked for'}.")
    return lines


def _models(settings: Any, found: Sequence[Found]) -> Table:
    rows: list[list[Any]] = [
        [one.label, name, f"{one.parameters / 1e6:.1f}M", "yes: asked for what is good" if one.conditional else "no"]
        for one, name in zip(found, settings.models, strict=True)
    ]
    return Table("Models", ["model", "where", "weights", "control tokens"], rows)


def _samples(settings: Any, found: Sequence[Found]) -> Table:
    rows: list[list[Any]] = []
    for one in found:
        scores, size = _scores(one.samples), settings.answers
        groups = [at // size for at in range(len(scores) // size * size)]
        rows.append(
            [
                one.label, score(scores), share_beyond(scores, beyond(settings)),
                expected_maximum(scores[: len(groups)], groups), *_lengths(one.samples),
            ]
        )  # fmt: skip
    note = (
        "No prompt. White space alone has no score and is counted. Of Python that was cut off, whole lines count. 95%: "
        f"bootstrap over samples, the maximum over groups of {settings.answers}; shares: Wilson. Read the lengths, too: who "
        "says little says little that is wrong."
    )
    return Table("Unconditional samples", _columns(settings), rows, note)


def _answers(settings: Any, found: Sequence[Found], prompts: int) -> Table:
    rows: list[list[Any]] = []
    for one in found:
        scores, labels = _scores(one.answers), _prompts(one.answers)
        rows.append(
            [
                one.label, score(scores, prompts=labels), share_beyond(scores, beyond(settings), prompts=labels),
                expected_maximum(scores, labels), *_lengths(one.answers),
            ]
        )  # fmt: skip
    note = (
        f"{settings.answers} answers to each of {prompts} prompts. What is wrong in the prompt is not counted. 95%: bootstrap "
        "over prompts, which n counts; empty and ended: Wilson, over answers."
    )
    return Table("Answers to prompts", _columns(settings), rows, note)


def _columns(settings: Any) -> list[str | Column]:
    return [
        "model", "score", Column(f"share above {beyond(settings):g}", percent=True),
        f"expected maximum of {settings.answers}", "characters", Column("empty", percent=True), Column("ended", percent=True),
    ]  # fmt: skip


def _lengths(rows: Sequence[Row]) -> list[Estimate]:
    return [
        bootstrap_mean([row["characters"] for row in rows]),
        missing(_scores(rows)),
        wilson(sum(row["ended"] == "eos" for row in rows), len(rows)),
    ]


def _capability(found: Sequence[Found]) -> list[Table | Curves]:
    blocks: list[Table | Curves] = []
    if found[0].reference:
        rows: list[list[Any]] = []
        for one in found:
            numbers = [kl(one.reference, told=told, token=token) for token in (False, True) for told in (False, True)]
            rows.append([one.label, *numbers, "its own" if one.reference[0]["same"] else "made again"])
        columns = [
            "model", "KL, nats a sequence", "paying for control tokens", "KL, nats a token", "paying for control tokens",
            "tokens that are scored",
        ]  # fmt: skip
        note = (
            "KL(reference, model) on the reference's samples, temperature 1; tokens are the reference's. Control tokens are "
            "given, or predicted by the model and paid for (the paper's). Made again: the vocabularies differ, so the text was "
            "tokenised by the model: compare models of one vocabulary with each other. 95%: bootstrap over samples."
        )
        blocks.append(Table("Distance from the reference", columns, rows, note))
        blocks += [_plane(found)] if found[0].samples else []
    if found[0].bits:
        rows = [
            [
                one.label,
                *(held_out(one.bits, clean=clean, told=told) for clean in (False, True) for told in (False, True)),
            ]
            for one in found
        ]
        columns = ["model", "all documents", "paying for control tokens", "clean ones", "paying for control tokens"]
        note = (
            "Held-out documents, <eos> included. Clean: mean score at most the quantile. 95%: bootstrap over packages."
        )
        blocks.append(Table("Bits per byte", columns, rows, note))
    return blocks


def _plane(found: Sequence[Found]) -> Curves:
    series = []
    for one in found:
        bad = _unprompted(one)
        series.append(
            Series(one.label, [kl(one.reference).value], [bad.value], [bad.low], [bad.high], joined=False)
        )  # fmt: skip
    caption = "Best: below, and to the left."
    return Curves("The plane", "KL(reference, model), nats", "score of samples", series, caption, zero=True)


def _variety(found: Sequence[Found], *, code: bool) -> Table:
    rows: list[list[Any]] = []
    for one in found:
        texts = [row["text"] for row in one.samples]
        known = sum(bool(text.split()) for text in texts)
        count = min(REFERENCES, known - 1)
        blue = self_bleu(texts, 5, references=count) if count >= 1 else None
        done = [row["text"] for row in one.samples if row["ended"] == "eos" and row["text"].strip()]
        row = [one.label, corpus_distinct_n(texts, 1), corpus_distinct_n(texts, 2), blue]
        rows.append([*row, compile_rate(done)] if code else row)
    columns: list[str | Column] = ["model", "distinct words", "distinct pairs", "self-BLEU-5"]
    note = (
        f"Unconditional samples, by words; self-BLEU against at most {REFERENCES} others. These depend on how many texts there "
        "are and how long: compare like with like."
    )
    if not code:
        return Table("Variety", columns, rows, note)
    columns.append(Column("of what ended: is Python", percent=True))
    note += " The last column compiles what ended by itself; n says how many that is."
    return Table("Variety, and what compiles", columns, rows, note)


def _cards(found: Sequence[Found]) -> Cards:
    cards = []
    for one in found:
        for at in range(0, len(one.answers), max(1, len(one.answers) // CARDS)):
            row = one.answers[at]
            told = "empty" if row["score"] is None else f"score {row['score']:.4g}"
            cards.append(
                SampleCard(f"{one.label} {at}", row["prompt"], refinement=row["text"], tags=[told], arm=one.label)
            )
    return Cards("Answers", cards, note="Evenly taken.", refinement_label="Answer")


def _scores(rows: Sequence[Row]) -> list[float | None]:
    return [None if not row["text"].strip() or math.isnan(row["score"] or 0.0) else row["score"] for row in rows]


def _prompts(rows: Sequence[Row]) -> list[str]:
    return [row["prompt"] for row in rows]
