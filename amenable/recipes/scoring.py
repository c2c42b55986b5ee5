"""Scoring a corpus: in order, in several processes, in bounded memory, so that a kill at any instant loses and doubles nothing.

    scored.jsonl     the rows, in the corpus's order                     see task/scored_corpus.py
    progress.jsonl   a line a chunk: documents read so far, the length of scored.jsonl, what the chunk adds to the account

A chunk's rows are brought to the disk before its line is: whatever stands in scored.jsonl behind the length that the last
whole line names is cut off when the folder is opened again, and the corpus is taken up at the number of documents which
that line names. Chunks are cut by the corpus alone, so that the bytes do not depend on the number of processes.

The account is kept in sums and in a histogram of scores with bins of 1% width, so that it takes no memory: a quantile is
exact to 0.5% of its value, zeros are counted exactly.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import Any

from amenable import durable
from amenable.errors import DataError, FeedbackError
from amenable.evaluation.interval import Estimate, no_data
from amenable.feedback.scorers import Scorer, Segments
from amenable.task.documents import Document, Missing, text_and_facts
from amenable.task.scored_corpus import SCORED, ScoredDocument, to_line

PROGRESS = "progress.jsonl"
DOCUMENTS = 256  # in a chunk at most, besides its bytes
_TOLD = 200  # characters of an error's message at most
_WIDTH = math.log(1.01)
_SUMS = (
    "documents", "characters", "bytes", "segments", "missing_segments", "above", "total",
    "total2", "cross", "segments2", "above2", "above_cross",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """What a worker needs: the scorer, the field of rows, the longest text."""

    scorer: Scorer
    field: str = "text"
    longest: int = 1_000_000


@dataclass
class Account:
    """What is known of the scores: sums over documents, two histograms, and of each reason why one is missing the first."""

    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_SUMS, 0))
    missing: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    segments: Counter[str] = field(default_factory=Counter)
    documents: Counter[str] = field(default_factory=Counter)

    def see(self, document: ScoredDocument, size: int) -> None:
        """Count one document of `size` bytes."""
        known = [score for score in document.scores if score is not None]
        n, above, total = len(known), sum(score > 0 for score in known), math.fsum(known)
        values: list[float] = [1, len(document.text), size, n, len(document.scores) - n, above, total]
        values += [total * total, total * n, n * n, above * above, above * n]
        for name, value in zip(_SUMS, values, strict=True):
            self.sums[name] += value
        self.segments.update(map(_bin, known))
        if known:
            self.documents[_bin(total / n)] += 1

    def miss(self, reason: Missing, document: Document) -> None:
        """Count a document that has no scores."""
        self.missing[str(reason)] += 1
        self.first.setdefault(str(reason), f"{document.id}{reason.told}")

    def add(self, row: dict[str, Any]) -> None:
        """Add what `as_row` wrote."""
        for name, value in row["sums"].items():
            self.sums[name] += value
        self.missing.update(row["missing"])
        self.first = row.get("first", {}) | self.first
        self.segments.update(row["segments"])
        self.documents.update(row["documents"])

    def as_row(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))

    def mean(self) -> Estimate:
        """The mean score of a segment, 95% by the ratio estimator's linearised variance over documents."""
        return self._ratio("total", "total2", "cross", share=False)

    def above(self) -> Estimate:
        """The share of segments with a score above 0, the same way."""
        return self._ratio("above", "above2", "above_cross", share=True)

    def _ratio(self, top: str, square: str, cross: str, *, share: bool) -> Estimate:
        sums, documents = self.sums, int(self.sums["documents"])
        n = sums["segments"]
        if not n:
            return no_data("ratio over documents")
        ratio = sums[top] / n
        if documents < 2:
            return Estimate(ratio, math.nan, math.nan, documents, "ratio over documents")
        left = max(0.0, sums[square] - 2 * ratio * sums[cross] + ratio * ratio * sums["segments2"])
        half = 1.96 * math.sqrt(left * documents / (documents - 1)) / n
        low, high = ratio - half, ratio + half
        return Estimate(
            ratio, max(0.0, low) if share else low, min(1.0, high) if share else high, documents, "ratio over documents"
        )


def quantiles(histogram: Counter[str], shares: Sequence[float]) -> list[float]:
    """The least value with at least that share of the mass at or below it; nan for an empty histogram."""
    ordered = sorted((_value(key), count) for key, count in histogram.items())
    total, found = sum(count for _, count in ordered), []
    for share in shares:
        seen = 0
        for value, count in ordered:
            seen += count
            if seen >= share * total - 1e-9:
                found.append(value)
                break
        else:
            found.append(math.nan)
    return found


def _bin(score: float) -> str:
    if score == 0:
        return "0"
    return f"{'-' if score < 0 else '+'}{round(math.log(abs(score)) / _WIDTH)}"


def _value(key: str) -> float:
    return 0.0 if key == "0" else math.copysign(math.exp(int(key[1:]) * _WIDTH), -1 if key[0] == "-" else 1)


@dataclass(frozen=True)
class Done:
    """What came of a chunk: the rows' bytes, what they add to the account, documents and bytes read, CPU seconds.

    `failed` are the documents on which the scorer failed.
    """

    rows: bytes
    account: dict[str, Any]
    read: int
    size: int
    seconds: float
    failed: int = 0


def score_chunk(job: Job, documents: Sequence[Document]) -> Done:
    """Read and score a chunk; what cannot be read or scored is counted with the reason, and is no row."""
    began, account, rows, failed = time.process_time(), Account(), [], 0
    texts: list[tuple[Document, str, Mapping[str, Any]]] = []
    for document in documents:
        try:
            texts.append((document, *_text(document, job)))
        except Missing as reason:
            account.miss(reason, document)
    answers = _segments(job, [text for _, text, _ in texts])
    for (document, text, facts), found in zip(texts, answers, strict=True):
        if isinstance(found, Missing):
            account.miss(found, document)
            failed += 1
            continue
        scored = ScoredDocument(document.id, text, found.ends, found.scores, facts)
        account.see(scored, len(text.encode("utf-8", "surrogatepass")))
        rows.append(to_line(scored))
    size = sum(document.size for document in documents)
    return Done(b"".join(rows), account.as_row(), len(documents), size, time.process_time() - began, failed)


def _text(document: Document, job: Job) -> tuple[str, Mapping[str, Any]]:
    text, facts = text_and_facts(document, job.field)
    if not text:
        raise Missing("the document is empty")
    if job.longest and len(text) > job.longest:
        raise Missing(f"the document is longer than longest={job.longest} characters")
    return text, facts


def _segments(job: Job, texts: list[str]) -> list[Segments | Missing]:
    """The scorer's answer to all, or to each alone where it fails: one bad text does not cost the others."""
    try:
        return list(job.scorer.by_segment(texts))
    except Exception as error:
        if len(texts) == 1:
            told = f": {error.what if isinstance(error, FeedbackError) else error}"[:_TOLD].removesuffix(": ")
            return [Missing(f"{job.scorer.name} failed: {type(error.__cause__ or error).__name__}", told)]
    return [_segments(job, [text])[0] for text in texts]


class Progress:
    """The two files of a folder, opened where the last whole chunk ends. Errors: DataError if the corpus has changed."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.rows, self.path = folder / SCORED, folder / PROGRESS
        self.account, self.read, self.length, self.size = Account(), 0, 0, 0
        try:
            whole = self._take_up(fingerprint)
            self._rows = open(self.rows, "ab", buffering=0)  # noqa: SIM115 (open as long as the run)
            self._lines = open(self.path, "ab", buffering=0)  # noqa: SIM115
            self._rows.truncate(self.length)
            self._lines.truncate(whole)
            if not whole:
                self._commit(json.dumps({"corpus": fingerprint}))
        except OSError as error:
            raise durable.storage_error(folder, error) from error

    def add(self, done: Done) -> None:
        """Bring a chunk to the disk: its rows, then its line. Errors: StorageError; what was there before stays."""
        try:
            durable.append(self._rows, done.rows)
            durable.sync(self.rows)
            now = {"read": self.read + done.read, "size": self.size + done.size, "length": self.length + len(done.rows)}
            self._commit(json.dumps({**now, "account": done.account}))
        except OSError as error:
            raise durable.storage_error(self.rows.parent, error) from error
        self.read, self.size, self.length = now["read"], now["size"], now["length"]
        self.account.add(done.account)

    def close(self) -> None:
        self._rows.close()
        self._lines.close()

    def _commit(self, line: str) -> None:
        durable.append(self._lines, (line + "\n").encode())
        durable.sync(self.path)

    def _take_up(self, fingerprint: str) -> int:
        """Read the whole lines; how many bytes they are."""
        whole = 0
        if not self.path.exists():
            return 0
        with open(self.path, "rb") as lines:
            for line in lines:
                try:
                    row = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    row = None
                if row is None:
                    break
                whole += len(line)
                if "corpus" in row and row["corpus"] != fingerprint:
                    raise DataError(
                        f"the corpus is not the one that {self.path.parent} was begun with (its files or their sizes differ)",
                        "score it into a new folder with --out",
                    )
                if "account" in row:
                    self.read, self.size, self.length = row["read"], row["size"], row["length"]
                    self.account.add(row["account"])
        return whole


def chunks(documents: Iterator[Document], size: int) -> Iterator[list[Document]]:
    """Documents in their order, some `size` bytes at a time."""
    chunk: list[Document] = []
    held = 0
    for document in documents:
        chunk.append(document)
        held += document.size
        if held >= size or len(chunk) >= DOCUMENTS:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


class Workers:
    """`score_chunk` in forked processes, in order, with at most three chunks a process under way.

    They are started at once, before the parent has threads; one that outlives its parent ends itself.
    """

    def __init__(self, job: Job, processes: int) -> None:
        global _job
        _job, self.job, self.processes = job, job, processes
        self._pool: ProcessPoolExecutor | None = None
        if processes > 1 and "fork" in get_all_start_methods():
            self._pool = ProcessPoolExecutor(processes, get_context("fork"), _begin, (os.getpid(),))
            self._pool.submit(os.getpid).result()

    def map(self, parts: Iterator[list[Document]]) -> Iterator[Done]:
        """What came of each chunk, in order. Errors: FeedbackError if a process died."""
        if self._pool is None:
            yield from (score_chunk(self.job, part) for part in parts)
            return
        waiting: deque[Future[Done]] = deque()
        try:
            for part in itertools.chain(parts, itertools.repeat(None)):
                if part is not None:
                    waiting.append(self._pool.submit(_work, part))
                if not waiting:
                    return
                if part is None or len(waiting) >= 3 * self.processes:
                    yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise FeedbackError(
                "a process that scores has died, most often for want of memory",
                "use fewer with processes=1, or leave out long documents with longest=",
            ) from error

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


_job: Job | None = None


def _begin(parent: int) -> None:
    """A worker: signals are the parent's affair, and so is its life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(documents: list[Document]) -> Done:
    assert _job is not None
    return score_chunk(_job, documents)
