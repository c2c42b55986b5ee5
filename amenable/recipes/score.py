"""Annotate a corpus with how bad each of its segments is: `amenable score CORPUS task=pep8|pii|toxicity|FILE.py:FUNCTION`.

    scored.jsonl    {"id", "text", "ends", "scores"} a document: see task/scored_corpus.py, which reads it
    summary.json    the account, written when every document was seen

Scores say how bad: violations or detections a character, a probability of toxicity. Pretraining with feedback takes its
thresholds from their quantiles. Method: Korbak et al. 2023, arXiv 2302.08582.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

from amenable import durable
from amenable.config import resolve
from amenable.errors import ConfigError, DataError, FeedbackError, nearest
from amenable.feedback.personal_data import RULES
from amenable.feedback.scorers import (
    Rated,
    Scorer,
    classifier_scorer,
    pep8_scorer,
    pii_scorer,
    presidio_scorer,
    profanity_scorer,
    scrubadub_scorer,
)
from amenable.feedback.segments import Unit
from amenable.progress import EVERY, bar, duration, say
from amenable.recipes.environment import Clock, command_of, machine, versions
from amenable.recipes.scoring import Account, Done, Job, Progress, Workers, chunks, quantiles
from amenable.recipes.settings import Recipe, setting
from amenable.report.html import write
from amenable.report.page import Block, Headline, Headlines, Report, Section, Table
from amenable.runs import Run
from amenable.task.documents import Corpus, find_corpus
from amenable.task.rows import excerpt
from amenable.task.scored_corpus import SCORED, SUMMARY
from amenable.user_code import function_named

TASKS = ("pep8", "pii", "toxicity")
PII = {"presidio": presidio_scorer, "scrubadub": scrubadub_scorer}
"""Scorers of personal data besides our rules, which have the name "rules", or none."""
DETOXIFY = ("unitary/unbiased-toxic-roberta", "toxicity", "sigmoid")
"""The paper's classifier as it stands on the hub: its name there, its label, its activation."""
FREE = ("processes",)
GIVE_UP = 10  # documents on which a scorer fails, and no other: there is nothing to go on for
_SHARES = (0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class ScoreSettings:
    """What is scored, and how."""

    corpus: str = setting(
        "",
        "a file, folder or glob, JSONL(.gz), Parquet, CSV, a saved data set; of the hub: OWNER/NAME, codeparrot, pile; of this "
        "machine: python, python:all, python:NAME,NAME, and their prose: prose, prose:all, prose:NAME,NAME",
    )
    task: str = setting("pep8", "how bad is a segment: pep8, pii, toxicity, or FILE.py:FUNCTION (texts -> numbers)")
    segments: str = setting(
        "auto", "auto: lines for pep8 and code, sentences else", ("auto", "lines", "sentences", "document")
    )
    model: str = setting(
        "",
        "pii: presidio or scrubadub (empty, or rules: ours); toxicity: a Hugging Face sequence classifier, or detoxify "
        "(empty, or profanity: alt-profanity-check)",
    )
    label: str = setting("", "toxicity: the classifier's label, a name or a number")
    activation: str = setting("auto", "toxicity: of the classifier's head", ("auto", "softmax", "sigmoid"))
    better: str = setting(
        "low", "for a function: high means that its high scores are good ones; they are negated", ("low", "high")
    )
    max_line_length: int = setting(79, "pep8: the longest line")
    rules: tuple[str, ...] = setting(RULES, "pii: which rules count", RULES)
    files: tuple[str, ...] = setting(
        (), "names that are read in a folder; empty: *.py for pep8, else *.txt,*.md,*.rst,*.py"
    )
    field: str = setting("", "the field of rows that holds the text; empty: text (content for codeparrot)")
    split: str = setting("train", "of a data set on the hub")
    tests: bool = setting(False, "of python: test modules too")
    limit: int = setting(0, "documents, 0 for all")
    longest: int = setting(1_000_000, "longer documents, in characters, are left out and counted; 0: none")
    chunk: int = setting(1_000_000, "bytes between two notes of how far it is: what a run that dies may do again")
    processes: int = setting(0, "processes that score, 0: one a core (one for a classifier)")


def plan(settings: ScoreSettings) -> list[str]:
    """What the run will do, in lines. Errors: ConfigError, DataError."""
    check(settings)
    corpus = corpus_of(settings)
    held = len(corpus.files) or len(corpus.sources)
    size = f"{held:,} files, {corpus.total / 1e6:,.1f} MB" if held else "streamed from the hub"
    by = settings.model or ("alt-profanity-check" if settings.task == "toxicity" else settings.task)
    return [
        f"score {corpus.name} ({size}) by {by}: a number for each of its {_unit(settings)}, higher is worse",
        f"{_processes(settings)} processes; a chunk of {settings.chunk / 1e6:g} MB is the most that a kill costs",
    ]


def run(settings: ScoreSettings, folder: Path) -> Report:
    """Score, and write scored.jsonl, summary.json and report.html into `folder`; a folder is gone on with."""
    clock = Clock()
    check(settings)
    corpus = corpus_of(settings)
    record = Run.of(folder, settings, free=FREE)
    job = Job(scorer_of(settings), corpus.field, settings.longest)
    progress = Progress(folder, corpus.fingerprint())
    clock.lap("finding")
    before, began = progress.account.sums["bytes"], time.monotonic()
    seconds = 0.0
    if not (folder / SUMMARY).exists():
        seconds = _score(settings, corpus, job, progress)
    clock.lap("scoring")
    account = progress.account
    if not account.sums["documents"]:
        reasons = "; ".join(f"{count:,}: {reason}" for reason, count in account.missing.most_common()) or "it is empty"
        raise DataError(f"no document of {corpus.name} was scored ({reasons}).", "check the corpus, field= and task=")
    speed = {"bytes": account.sums["bytes"] - before, "seconds": time.monotonic() - began, "cpu_seconds": seconds}
    if not (folder / SUMMARY).exists():
        durable.write_file(folder / SUMMARY, json.dumps(account.as_row(), indent=1))
    report = build_report(settings, progress, speed, clock.minutes())
    write(report, folder / "report.html")
    progress.close()
    record.close()
    return report


def _score(settings: ScoreSettings, corpus: Corpus, job: Job, progress: Progress) -> float:
    """Every document that was not read before; the CPU seconds that it took.

    Until a document has scores nothing is written: a scorer that fails on the first ten, or on all, is a mistake to be mended.
    """
    workers = Workers(job, _processes(settings))
    waiting = corpus.documents(progress.read)
    if settings.limit:
        waiting = islice(waiting, max(0, settings.limit - progress.read))
    held: list[Done] = []
    seconds, said = 0.0, time.monotonic()
    known = corpus.total > 0 and not settings.limit and not corpus.table  # a table's bytes are not its texts'
    try:
        with bar(f"scoring {corpus.name}, in {'kB' if known else 'documents'}") as tell:
            for done in workers.map(chunks(waiting, settings.chunk)):
                held.append(done)
                seconds += done.seconds
                if not progress.account.sums["documents"] and not done.rows:  # nor has any that is held
                    if done.failed:
                        _refuse(job, held, GIVE_UP)
                    continue
                while held:
                    progress.add(held.pop(0))
                if known:
                    tell(progress.size // 1000, max(corpus.total, progress.size) // 1000)
                elif settings.limit:
                    tell(progress.read, max(settings.limit, progress.read))
                elif time.monotonic() - said > EVERY:
                    said = time.monotonic()
                    say(f"{progress.read:,} documents, {progress.size / 1e6:,.1f} MB; how many there are is not known")
    finally:
        workers.close()
    _refuse(job, held, 1)
    for done in held:
        progress.add(done)
    return seconds


def _refuse(job: Job, held: list[Done], most: int) -> None:
    """Errors: FeedbackError if the scorer failed on `most` documents or more, and on none it did not."""
    failed = sum(done.failed for done in held)
    if failed >= most:
        account = Account()
        for done in held:
            account.add(done.account)
        reason = next(reason for reason in account.first if reason.startswith(f"{job.scorer.name} failed"))
        raise FeedbackError(
            f"{account.first[reason]}; it failed on {failed:,} of {failed:,} documents",
            "mend the scorer, then go on with --out: no document is counted as missing yet",
        )


def corpus_of(settings: ScoreSettings) -> Corpus:
    """The corpus that the settings name. Errors: ConfigError, DataError."""
    files = settings.files or (("*.py",) if settings.task == "pep8" else ("*.txt", "*.md", "*.rst", "*.py"))
    return find_corpus(settings.corpus, files=files, field=settings.field, split=settings.split, tests=settings.tests)


def scorer_of(settings: ScoreSettings) -> Scorer:
    """The scorer that the settings name. Errors: ConfigError, ModelError."""
    unit = _unit(settings)
    if settings.task == "pep8":
        return pep8_scorer(max_line_length=settings.max_line_length)
    if settings.task == "pii":
        if settings.model in PII:
            return PII[settings.model](unit=unit)
        return pii_scorer(unit=unit, rules=settings.rules)
    if settings.task == "toxicity":
        if settings.model in ("", "profanity"):
            return profanity_scorer(unit=unit)
        model, label, activation = (
            DETOXIFY if settings.model == "detoxify" else (settings.model, settings.label, "auto")
        )
        chosen = activation if settings.activation == "auto" else settings.activation
        return classifier_scorer(model, label, unit=unit, activation=None if chosen == "auto" else chosen)
    function = function_named(settings.task, parameters="texts")
    name = settings.task.rpartition(":")[2]
    return Rated(name, unit, _of_texts(function, name, high_is_good=settings.better == "high"))


def scored_with(corpus: str) -> ScoreSettings | None:
    """The settings of the run of `amenable score` whose folder, or whose scored.jsonl, `corpus` is; None for another file."""
    folder = Path(corpus) if Path(corpus).is_dir() else Path(corpus).parent
    made = folder / "config.yaml"
    own = Path(corpus) in (folder, folder / SCORED) and (folder / SUMMARY).is_file() and made.is_file()
    return resolve(ScoreSettings, resumed=made) if own else None


def _of_texts(
    function: Callable[..., Any], name: str, *, high_is_good: bool
) -> Callable[[list[str]], Sequence[float | None]]:
    """A user's f(texts), or f(prompts, completions, **columns) as TRL has it, as a function of texts; low is good.

    Errors: FeedbackError that names the text on which it fails.
    """
    trl = "completions" in inspect.signature(function).parameters

    def asked(texts: list[str]) -> list[float | None]:
        found = list(function(prompts=[""] * len(texts), completions=texts) if trl else function(texts))
        return [None if value is None else 0.0 - value for value in found] if high_is_good else found

    def answered(texts: list[str]) -> list[float | None]:
        try:
            return asked(texts)
        except Exception as error:
            if len(texts) > 1:
                for text in texts:
                    answered([text])
            shown = excerpt(texts[0]) if len(texts) == 1 else f"{len(texts)} texts together, though on none alone"
            told = f"{type(error).__name__}: {error}".removesuffix(": ")
            raise FeedbackError(f"{name} failed on {shown}: {told}", f"mend {name}, or return None there") from error

    return answered


def _unit(settings: ScoreSettings) -> Unit:
    if settings.segments != "auto":
        return cast("Unit", settings.segments)
    code = settings.corpus in ("codeparrot", "python") or settings.corpus.startswith("python:")
    return "lines" if settings.task == "pep8" or code or settings.corpus.endswith(".py") else "sentences"


def _processes(settings: ScoreSettings) -> int:
    one = settings.task == "toxicity" and settings.model not in ("", "profanity")  # a classifier takes all cores itself
    return settings.processes or (1 if one else len(os.sched_getaffinity(0)))


def check_task(task: str) -> None:
    """Errors: ConfigError for a task that is not known, and for a function that is not there."""
    if re.search(r"\.py:\w+$", task):
        function_named(task, parameters="texts")
    elif task not in TASKS:
        raise ConfigError(f"there is no task {task!r}", f"{nearest(task, TASKS)} Or FILE.py:FUNCTION")


def check(settings: ScoreSettings) -> None:
    """Errors: ConfigError for settings that cannot be, before anything is read."""
    check_task(settings.task)
    if settings.task == "pep8" and settings.segments not in ("auto", "lines"):
        raise ConfigError(f"pep8 has violations by line, not by {settings.segments}", "leave segments=auto")
    known: dict[str, tuple[str, ...]] = {"pii": ("", "rules", *PII), "toxicity": ("", "profanity", "detoxify")}
    if settings.model and (
        settings.task not in known or (settings.task == "pii" and settings.model not in known["pii"])
    ):
        raise ConfigError(
            f"model={settings.model} cannot score task={settings.task}",
            "use task=toxicity, or task=pii model=presidio or model=scrubadub",
        )
    if settings.task == "toxicity" and settings.model not in known["toxicity"] and not settings.label:
        raise ConfigError(
            f"model={settings.model}: which of its labels is the bad one?", "add label=NAME, or its number"
        )
    if settings.better == "high" and settings.task in TASKS:
        raise ConfigError(f"high scores of {settings.task} are bad ones", "better=high is for a function of yours")
    for name, least in (("chunk", 1), ("limit", 0), ("longest", 0), ("processes", 0), ("max_line_length", 1)):
        if getattr(settings, name) < least:
            raise ConfigError(f"{name}={getattr(settings, name)} cannot be", f"use {name}={least} or more")


def build_report(
    settings: ScoreSettings, progress: Progress, speed: dict[str, float], minutes: dict[str, float]
) -> Report:
    """The account of a finished scoring."""
    account, sums = progress.account, progress.account.sums
    absent = sum(account.missing.values())
    rows: list[list[Any]] = [
        [f"{share:.0%}" if share < 1 else "largest", of_segments, of_documents]
        for share, of_segments, of_documents in zip(
            _SHARES, quantiles(account.segments, _SHARES), quantiles(account.documents, _SHARES), strict=True
        )
    ]
    told = [
        f"{int(sums['documents']):,} documents with {int(sums['segments']):,} scored segments, {sums['bytes'] / 1e6:,.1f} MB; "
        f"{absent:,} documents are missing, and {int(sums['missing_segments']):,} segments have no score."
    ]
    if speed["bytes"] and speed["cpu_seconds"]:
        rate, each = (speed["bytes"] / 1e6 / speed[name] * 60 for name in ("seconds", "cpu_seconds"))
        took = duration(speed["seconds"])
        told.append(f"{speed['bytes'] / 1e6:,.1f} MB in {took}: {rate:,.1f} MB a minute, {each:,.1f} MB a CPU-minute.")
    blocks: list[Block] = [
        Headlines(
            [
                Headline("mean score of a segment", account.mean(), "ratio over documents", percent=False),
                Headline("segments with a score above 0", account.above(), "ratio over documents"),
            ]
        ),
        Table(
            "Quantiles of scores (to 0.5% of their value), for thresholds",
            [
                "at or below",
                f"a segment, n={int(sums['segments']):,}",
                f"a document's mean, n={int(sums['documents']):,}",
            ],
            rows,
        ),
    ]
    why: list[list[Any]] = [
        [reason, count, account.first.get(reason, "")] for reason, count in account.missing.most_common()
    ]
    missing = Table("Documents that are missing", ["why", "documents", "the first"], why or [["none", 0, ""]])
    return Report(
        title=f"Scores of {settings.corpus} by {settings.task}",
        summary=told,
        command=command_of("score", settings),
        sections=[Section("Scores", blocks, ["Higher is worse; the reward of a segment is minus its score."]),
                  Section("What is not there", [missing])],
        config=asdict(settings),
        versions=versions(),
        machine=machine({}),
        minutes={name: value for name, value in minutes.items() if not math.isnan(value)},
    )  # fmt: skip


RECIPE = Recipe("score", "scores for each segment of a corpus: PEP8, personal data, toxicity", ScoreSettings, plan, run)
