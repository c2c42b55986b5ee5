"""What a study of pretraining with feedback reads: a scored corpus, its split, its thresholds, and a scorer for samples.

    held out    documents whose `split` says so ("held-out" or "test"; "validation" is left alone); where none is given, those
                of a tenth of the groups, one at least: a row's `package` or `repo_name`, or the first folder of its id
    threshold   a quantile of the training data's own scores: of segments, or of documents' means for filtering

No group is in both parts. With fewer than ten groups each document is its own.
"""

from __future__ import annotations

import hashlib
import json
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pycodestyle

from amenable.cache import cache_folder
from amenable.errors import ConfigError, DataError
from amenable.feedback.scorers import Scorer, pep8_scorer
from amenable.method.corpus import Threshold, Tokens, checked, threshold_at
from amenable.objective.pretraining import Objective
from amenable.progress import bar
from amenable.recipes import score
from amenable.seeding import derive
from amenable.task.corpus import SourceFile, python_sources
from amenable.task.scored_corpus import ScoredDocument, read_scored, write_scored

TASK = "what is bad: style violations (pep8), personal data (pii), offensive language (toxicity), FILE.py:FUNCTION"
BEYOND = {"toxicity": 0.5}
"""What a score has to be above to count as bad, where it is a probability; 0 for the others."""
ALPHA = {"unlikelihood": 1.0, "awr": 0.5}
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
BETA = {"rwr": 10.0, "awr": 1.0}


@dataclass(frozen=True)
class Corpus:
    """Documents to learn from and documents held out, of other groups; `source` says where they are from."""

    train: Sequence[ScoredDocument]
    held_out: Sequence[ScoredDocument]
    source: str


def corpus_of(settings: Any) -> Corpus:
    """The corpus that `settings.corpus` names, or the standard library scored here (cached), split by group.

    Errors: DataError for a file that cannot be read, or without documents on both sides.
    """
    if settings.corpus:
        documents, source = list(read_scored(settings.corpus)), str(settings.corpus)
    elif settings.task == "pep8":
        documents, source = list(read_scored(scored_library())), "the standard library"
    else:
        raise ConfigError(
            f"task={settings.task} without a corpus: the standard library has next to nothing of it",
            f"give corpus=SCORED.jsonl, from `amenable score CORPUS task={settings.task}`",
        )
    groups = [group_of(document) for document in documents]
    if len(set(groups)) < 10:
        groups = [document.id for document in documents]
    draws = {group: derive(0, "pretraining", group) for group in groups}
    chosen = {group for group, draw in draws.items() if draw % 10 == 0} or set(sorted(draws, key=draws.__getitem__)[:1])
    parts = [_part(document, group in chosen) for document, group in zip(documents, groups, strict=True)]
    train = [document for document, part in zip(documents, parts, strict=True) if part == "train"]
    rest = [document for document, part in zip(documents, parts, strict=True) if part == "held-out"]
    if not train or not rest:
        raise DataError(
            f"{source} has {len(train)} documents to learn from and {len(rest)} held out",
            "give more documents; where rows have a `split`, some of them must say held-out, or test",
        )
    return Corpus(train, rest, source)


def _part(document: ScoredDocument, chosen: bool) -> str:
    """ "train", "held-out", or "validation", which is neither learned from nor measured on."""
    said = str(document.facts.get("split", "held-out" if chosen else "train"))
    return "held-out" if said == "test" else said


def group_of(document: ScoredDocument) -> str:
    """The package a document belongs to: documents of one are never on both sides."""
    own = (document.facts.get(key) for key in ("package", "repo_name"))  # the second is CodeParrot's
    return next((str(name) for name in own if name), "") or document.id.replace("\\", "/").split("/")[0]


def scored_library() -> Path:
    """The standard library (`task.corpus`), scored for PEP8 by line: a file in the cache, made at its first use.

    `amenable score` does the same with several processes, and for other corpora.
    """
    files = python_sources()
    key = hashlib.sha256(
        json.dumps([[one.id, one.size, pycodestyle.__version__] for one in files]).encode()
    ).hexdigest()
    path = cache_folder() / "scored" / f"standard-library-pep8-{key[:16]}.jsonl.gz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_scored(path, _scored(files))
    return path


def _scored(files: Sequence[SourceFile]) -> Iterator[ScoredDocument]:
    scorer = pep8_scorer()
    with bar("scoring the standard library") as progress:
        for at, one in enumerate(files):
            with tokenize.open(one.path) as file:
                text = file.read()
            found = scorer.by_segment([text])[0]
            yield ScoredDocument(one.id, text, found.ends, found.scores, one.facts())
            progress(at + 1, len(files))


def scorer_of(settings: Any) -> Scorer:
    """What scores the samples: what scored the corpus. Errors: those of `scoring_of`; ConfigError, ModelError."""
    return score.scorer_of(scoring_of(settings))


def scoring_of(settings: Any) -> score.ScoreSettings:
    """The settings that the corpus was scored with, where it lies in its run folder; else those of the task alone.

    Errors: ConfigError for a task that is not known, or that is not what the corpus was scored for.
    """
    score.check_task(settings.task)
    made = score.scored_with(settings.corpus) if settings.corpus else None
    if made is None:
        return score.ScoreSettings(task=settings.task)
    if made.task != settings.task and {made.task, settings.task} & set(score.TASKS):
        raise ConfigError(
            f"{settings.corpus} was scored for task={made.task}, not {settings.task}", f"add task={made.task}"
        )
    return replace(made, task=settings.task)


def whole_lines(text: str, *, ended: bool) -> str:
    """A text that was cut off, without its last, unfinished line: that it is unfinished is nobody's style."""
    return text if ended else text[: text.rfind("\n") + 1]


def thresholds(tokens: Tokens, *, quantile: float) -> dict[str, Threshold]:
    """Of "segments" and of "documents", at `quantile` of the training data. Errors: those of `threshold_at`."""
    parts = (("segments", tokens.scores), ("documents", tokens.means))
    return {of: threshold_at(scores, quantile=quantile, of=of) for of, scores in parts}


def objective_of(settings: Any, tokens: Tokens, chosen: dict[str, Threshold]) -> Objective:
    """The objective with its numbers; what is not given is the paper's, or the data's.

    Errors: DataError for a given threshold that calls every score good, or none.
    """
    name = settings.objective
    below = float((tokens.scores < 0).mean())
    if name in ("rwr", "awr") and below:
        raise DataError(
            f"{below:.1%} of the segments score below 0, where {name} has no reward: it reads 0 as nothing wrong",
            "score how bad a segment is, from 0, such as 1 - quality in place of better=high; or use another objective",
        )
    of = "documents" if name == "filtering" else "segments"
    threshold = chosen[of].value
    if settings.threshold is not None:
        threshold = checked(settings.threshold, tokens.means if of == "documents" else tokens.scores, of=of).value
    given_alpha, given_beta = settings.alpha, settings.beta
    return Objective(
        name,
        threshold=threshold if name in ("filtering", "conditional", "unlikelihood") else None,
        alpha=ALPHA.get(name, 1.0) if given_alpha is None else given_alpha,
        beta=BETA.get(name, 10.0) if given_beta is None else given_beta,
        scale=settings.reward_scale or scale_of(tokens),
        drop=settings.drop,
    )


def scale_of(tokens: Tokens) -> float:
    """The score at which the reward is -1: the 99% quantile of the scores above 0 (1 where there is none)."""
    above = tokens.scores[tokens.scores > 0]  # NaN is not
    return float(np.quantile(above, 0.99, method="inverted_cdf")) if len(above) else 1.0


def spread(tokens: Tokens) -> list[tuple[str, list[float]]]:
    """The quantiles at `SHARES` of segments' scores and of documents' means, for the page."""
    parts = (("segments", tokens.scores), ("documents", tokens.means))
    return [(name, [float(q) for q in np.nanquantile(scores, SHARES)]) for name, scores in parts]
