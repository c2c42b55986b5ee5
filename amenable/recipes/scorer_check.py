"""Scorers held against a corpus in which it is known what was planted: recall by kind and form, precision by label.

`amenable run plant` makes the corpus. What a scorer finds where nothing was planted is listed apart: real cases, or errors.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from amenable.errors import ConfigError, DataError
from amenable.evaluation.detection import Detections, detected
from amenable.feedback.planting import Planted
from amenable.feedback.scorers import Scorer
from amenable.progress import bar
from amenable.recipes.environment import Clock, command_of, machine, versions
from amenable.recipes.plant import truth_of
from amenable.recipes.score import TASKS, ScoreSettings, scorer_of
from amenable.recipes.score import check as check_score
from amenable.recipes.settings import Recipe, setting
from amenable.report.html import write
from amenable.report.page import Block, Column, Report, Section, Table
from amenable.runs import Run
from amenable.task.documents import find_corpus, text_and_facts

Documents = list[tuple[str, str, list[Planted]]]
DEFAULTS = {"pii": ("rules",), "toxicity": ("profanity",)}


@dataclass(frozen=True)
class CheckSettings:
    """Which scorers, on what."""

    planted: str = setting("", "planted.jsonl of `amenable run plant`")
    task: str = setting("pii", "what was planted, and is scored", tuple(DEFAULTS))
    scorers: tuple[str, ...] = setting(
        (),
        "what `amenable score model=` takes, or FILE.py:NAME; pii: rules, presidio, scrubadub; toxicity: profanity, detoxify, "
        "a Hugging Face classifier; empty: the default one",
    )
    label: str = setting("", "of a Hugging Face classifier: the label that is bad")
    threshold: float = setting(
        0.5, "toxicity, functions: a segment of a score above this is a detection (what points at its finds needs none)"
    )
    limit: int = setting(0, "documents, 0 for all")


def plan(settings: CheckSettings) -> list[str]:
    """What the run will do, in lines. Errors: ConfigError."""
    _check(settings)
    named = ", ".join(settings.scorers or DEFAULTS[settings.task])
    return [f"check {named} on {settings.planted}: what they find of what was planted, and what else they find"]


def run(settings: CheckSettings, folder: Path) -> Report:
    """Ask every scorer about every document; report.html in `folder`."""
    clock = Clock()
    _check(settings)
    record = Run.of(folder, settings)
    documents = planted_documents(settings.planted, settings.limit)
    clock.lap("reading")
    found: dict[str, Detections] = {}
    seconds: dict[str, float] = {}
    for name in settings.scorers or DEFAULTS[settings.task]:
        scorer = scorer_of(_score_settings(settings, name))
        began = time.process_time()
        found[name] = _asked(name, scorer, documents, settings.threshold)
        seconds[name] = time.process_time() - began
        clock.lap(name)
    report = build_report(settings, documents, found, seconds, clock.minutes())
    write(report, folder / "report.html")
    record.close()
    return report


def _asked(name: str, scorer: Scorer, documents: Documents, threshold: float) -> Detections:
    with bar(f"{name}, documents") as tell:

        def passing() -> Any:
            for number, document in enumerate(documents, start=1):
                yield document
                tell(number, len(documents))

        return detected(scorer, passing(), threshold=threshold)


def planted_documents(path: str, limit: int = 0) -> Documents:
    """(id, text, what was planted) of each row. Errors: DataError."""
    corpus = find_corpus(path)
    found = []
    for document in islice(corpus.documents(), limit or None):
        text, facts = text_and_facts(document, corpus.field)
        found.append((document.id, text, truth_of(facts, f"{path}, {document.id}")))
    if not any(planted for _, _, planted in found):
        raise DataError(f"nothing was planted in {path}.", "give the planted.jsonl of `amenable run plant`")
    return found


def _score_settings(settings: CheckSettings, name: str) -> ScoreSettings:
    """The scorer as `amenable score` has it."""
    if ".py:" in name:
        return ScoreSettings(corpus=settings.planted, task=name, segments="sentences")
    own = name in ("rules", "presidio", "scrubadub", "profanity", "detoxify")
    return ScoreSettings(corpus=settings.planted, task=settings.task, model=name, label="" if own else settings.label)


def _check(settings: CheckSettings) -> None:
    """Errors: ConfigError for settings that cannot be, before anything is read."""
    if not settings.planted:
        raise ConfigError("no corpus is named", "amenable run plant makes one; give planted=RUN/planted.jsonl")
    for name in settings.scorers:
        if name in TASKS:
            raise ConfigError(f"{name} is a task, no scorer", f"write task={name}; scorers={','.join(DEFAULTS['pii'])}")
        check_score(_score_settings(settings, name))


def build_report(
    settings: CheckSettings,
    documents: Documents,
    found: dict[str, Detections],
    seconds: dict[str, float],
    minutes: dict[str, float],
) -> Report:
    """Recall by kind, then by form; precision by label; what was found and not planted."""
    size = sum(len(text) for _, text, _ in documents) / 1e6
    pieces = sum(len(planted) for _, _, planted in documents)
    lines = [f"{pieces:,} planted pieces in {len(documents):,} documents, {size:,.2f} million characters."]
    for name, one in found.items():
        lines.append(
            f"{name}: recall {one.recall().text(percent=True)}; precision at least {one.precision().text(percent=True)} "
            f"documents; {size / max(seconds[name], 1e-9) * 60:,.1f} million characters a CPU-minute."
        )
    return Report(
        title=f"Scorers of {settings.task} on what was planted",
        summary=lines,
        command=command_of("scorer-check", settings),
        sections=[
            Section("Recall", [_recall(found, by_form=False), _recall(found, by_form=True)]),
            Section("Precision", [_precision(found)],
                    ["Found and not planted: real cases of the text, and errors. So the share is a lower bound."]),
            Section("Found, not planted", _examples(found)),
        ],
        config=asdict(settings), versions=versions(), machine=machine({}), minutes=minutes,
    )  # fmt: skip


def _recall(found: dict[str, Detections], *, by_form: bool) -> Table:
    keys = sorted({key for one in found.values() for part in (one.found, one.missed, one.missing) for key in part})
    asked: Sequence[tuple[str, str]] = keys if by_form else [(kind, "") for kind in sorted({kind for kind, _ in keys})]
    names: list[str | Column] = ["kind", "form"] if by_form else ["kind"]
    rows: list[list[Any]] = [
        [kind, *([form] if by_form else []), *(one.recall(kind, form) for one in found.values())]
        for kind, form in asked
    ]
    missing = sum(n for one in found.values() for n in one.missing.values())
    note = "Share of the planted pieces that a detection overlaps; 95% by Wilson, over other pieces of these forms." + (
        f" {missing} answers are missing and not counted." if missing else ""
    )
    columns = names + [Column(name, percent=True) for name in found]
    return Table("By form" if by_form else "By kind", columns, rows, note)


def _precision(found: dict[str, Detections]) -> Table:
    rows: list[list[Any]] = []
    for name, one in found.items():
        for label in sorted(one.labels):
            total = sum(map(sum, one.labels[label].values()))
            rows.append([f"{name}: {label}", total, one.not_planted(label), one.precision(label)])
    columns: list[str | Column] = ["label", "detections", "not planted", Column("planted, n documents", percent=True)]
    return Table("By the scorer's own label", columns, rows, "95%: bootstrap over documents.")


def _examples(found: dict[str, Detections]) -> list[Block]:
    rows: list[list[Any]] = [
        [f"{name}: {label}", one.not_planted(label), example]
        for name, one in found.items()
        for label in sorted(one.examples)
        for example in one.examples[label]
    ]
    return [
        Table(
            "For example", ["label", "of the label", "the text, in brackets what was found"], rows or [["none", 0, ""]]
        )
    ]


RECIPE = Recipe(
    "scorer-check",
    "recall and precision of scorers of personal data or offence on planted cases",
    CheckSettings,
    plan,
    run,
)
