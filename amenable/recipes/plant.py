"""A corpus with known faults: personal data, offence or bad style planted in a share of its segments, the truth beside it.

    planted.jsonl    {"id", "text", "planted": [[start, end, kind, form], ...], and what the row had besides} a document

`amenable score` reads it as any corpus and carries `planted` on; `amenable run scorer-check` measures scorers on it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from amenable import durable
from amenable.errors import ConfigError, DataError, nearest
from amenable.feedback.planted_style import SLIPS, plant_style
from amenable.feedback.planted_values import KINDS
from amenable.feedback.planting import Planted, plant
from amenable.feedback.segments import line_ends, sentence_ends
from amenable.progress import bar
from amenable.recipes.environment import Clock, command_of, machine, versions
from amenable.recipes.settings import Recipe, setting
from amenable.report.html import write
from amenable.report.page import Column, Report, Section, Table
from amenable.runs import Run
from amenable.seeding import derive, python_random
from amenable.task.documents import Corpus, Missing, find_corpus, text_and_facts

FILE = "planted.jsonl"


@dataclass(frozen=True)
class PlantSettings:
    """What is planted, and into how much of which corpus."""

    corpus: str = setting(
        "prose", "what `amenable score` takes: a file, folder, JSONL(.gz), prose, prose:NAME,NAME, ..."
    )
    task: str = setting(
        "pii", "what is planted: personal data, offensive language, or bad style of Python", (*KINDS, "pep8")
    )
    kinds: tuple[str, ...] = setting(
        (),
        "which kinds, empty for all of the task",
        (*(kind.name for kinds in KINDS.values() for kind in kinds), *SLIPS),
    )
    documents: float = setting(0.5, "share of the documents that get something, by a hash")
    sentences: float = setting(
        0.15, "share of their sentences (task=pep8: of their lines, where a line has a place for it)"
    )
    keep: float = setting(1.0, "share of the corpus's documents that are taken, by a hash")
    field: str = setting("", "the field of rows that holds the text; empty: text")
    seed: int = setting(0, "seed of everything that is drawn")


@dataclass
class Counts:
    """What was done; sentences are lines of code; `pieces` by (kind, form), `examples` texts."""

    documents: int = 0
    into: int = 0
    sentences: int = 0
    sentences_into: int = 0
    sentences_with: int = 0
    characters: int = 0
    missing: int = 0
    pieces: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], str] = field(default_factory=dict)


def plan(settings: PlantSettings) -> list[str]:
    """What the run will do, in lines. Errors: ConfigError, DataError."""
    chosen = ", ".join(kinds_of(settings))
    return [
        f"plant {settings.task} ({chosen}) into {settings.sentences:.0%} of the sentences in {settings.documents:.0%} "
        f"of the documents of {settings.corpus}",
        f"writes {FILE}: the texts, and where what was planted is",
    ]


def run(settings: PlantSettings, folder: Path) -> Report:
    """Write planted.jsonl and report.html into `folder`; the same settings and corpus give the same bytes."""
    clock = Clock()
    kinds = kinds_of(settings)
    record = Run.of(folder, settings)
    corpus = find_corpus(settings.corpus, files=("*.txt", "*.md", "*.rst", "*.py"), field=settings.field)
    clock.lap("finding")
    counts = Counts()
    work = folder / f".{FILE}.partial"
    with open(work, "wb") as file:
        for row in rows(settings, corpus, kinds, counts):
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
        file.flush()
        os.fsync(file.fileno())
    if not counts.pieces:
        raise DataError(
            f"nothing was planted: {counts.documents} documents with {counts.sentences} sentences",
            "give a larger corpus, or larger shares",
        )
    durable.rename(work, folder / FILE)
    clock.lap("planting")
    report = build_report(settings, counts, clock.minutes())
    write(report, folder / "report.html")
    record.close()
    return report


def _planted(settings: PlantSettings, text: str, kinds: tuple[str, ...], random: Random) -> tuple[str, list[Planted]]:
    """The text with the faults of the task, and what they are."""
    if settings.task == "pep8":
        return plant_style(text, kinds, share=settings.sentences, random=random)
    chosen = [kind for kind in KINDS[settings.task] if kind.name in kinds]
    return plant(text, chosen, share=settings.sentences, random=random)


def rows(settings: PlantSettings, corpus: Corpus, kinds: tuple[str, ...], counts: Counts) -> Iterator[dict[str, Any]]:
    """The rows; `counts` is filled on the way."""
    with bar("planting, documents") as tell:
        for document in corpus.documents():
            if not _drawn(settings, "kept", document.id, settings.keep):
                continue
            try:
                text, facts = text_and_facts(document, corpus.field)
            except Missing:
                counts.missing += 1
                continue
            into = _drawn(settings, "planted", document.id, settings.documents)
            random = python_random(settings.seed, "planting", document.id)
            new, truth = _planted(settings, text, kinds, random) if into else (text, [])
            _count(counts, new, truth, line_ends(new) if settings.task == "pep8" else sentence_ends(new), into=into)
            tell(counts.documents, max(counts.documents, len(corpus.sources)))
            others = {key: value for key, value in facts.items() if key != "planted"}
            yield {"id": document.id, "text": new, "planted": [astuple(piece) for piece in truth], **others}


def truth_of(facts: Any, where: str) -> list[Planted]:
    """What a row says was planted. Errors: DataError."""
    try:
        return [Planted(int(start), int(end), str(kind), str(form)) for start, end, kind, form in facts["planted"]]
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{where} does not say what was planted in it.", f"give the {FILE} of `amenable run plant`"
        ) from None


def _drawn(settings: PlantSettings, what: str, name: str, share: float) -> bool:
    return derive(settings.seed, what, name) % 1_000_000 < share * 1_000_000


def _count(counts: Counts, text: str, truth: list[Planted], ends: Sequence[int], *, into: bool) -> None:
    sentences = len(ends)
    counts.documents += 1
    counts.into += into
    counts.sentences += sentences
    counts.sentences_into += sentences * into
    counts.sentences_with += len({piece.start for piece in truth})
    counts.characters += len(text)
    for piece in truth:
        key = (piece.kind, piece.form)
        counts.pieces[key] += 1
        counts.examples.setdefault(key, text[piece.start : piece.end])


def kinds_of(settings: PlantSettings) -> tuple[str, ...]:
    """The kinds that the settings name. Errors: ConfigError for a kind of another task, or a share that is none."""
    for name in ("documents", "sentences", "keep"):
        if not 0 < getattr(settings, name) <= 1:
            raise ConfigError(f"{name}={getattr(settings, name):g} is no share", "use a number above 0, up to 1")
    known = tuple(SLIPS) if settings.task == "pep8" else tuple(kind.name for kind in KINDS[settings.task])
    for name in settings.kinds:
        if name not in known:
            raise ConfigError(f"{name} is no kind of task={settings.task}", nearest(name, known))
    return settings.kinds or known


def build_report(settings: PlantSettings, counts: Counts, minutes: dict[str, float]) -> Report:
    """What was planted, by kind and form."""
    unit = "lines" if settings.task == "pep8" else "sentences"
    lines = [
        f"{counts.documents:,} documents, {counts.characters / 1e6:,.2f} million characters; {counts.missing:,} could not be "
        "read and are left out.",
        f"{sum(counts.pieces.values()):,} pieces in {counts.into:,} documents, in "
        f"{counts.sentences_with / counts.sentences_into:.1%} of their {unit}; "
        f"{counts.sentences_with / counts.sentences:.1%} of all {counts.sentences:,} {unit}.",
    ]
    table: list[list[Any]] = [
        [kind, form, count, counts.examples[kind, form]] for (kind, form), count in sorted(counts.pieces.items())
    ]
    columns: list[str | Column] = ["kind", "form", "pieces", "for example"]
    return Report(
        title=f"{settings.task} planted in {settings.corpus}",
        summary=lines,
        command=command_of("plant", settings),
        sections=[Section("What was planted", [Table("Pieces", columns, table, "All of it is made up.")])],
        config=asdict(settings), versions=versions(), machine=machine({}), minutes=minutes,
    )  # fmt: skip


RECIPE = Recipe(
    "plant",
    "plant made-up personal data, or offence, in a known share of a corpus's sentences",
    PlantSettings,
    plan,
    run,
)
