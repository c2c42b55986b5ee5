"""Label pairs by a judge: soft labels from both orders, with everything that shows whether the judge can be trusted.

Pairs are judged in chunks; each chunk is a stage of the run, and a server's answers are on the disk one by one, so that a
labelling that dies asks only for the rest. Before the first chunk, and after each, the canaries are tried
(`feedback.canaries`). A budget holds for all sessions of a run together, less what a killed one had spent on its last chunk.

    labels.jsonl   one row a pair, with all that its own row held (`recipes.judge_rows`): label, P(first is better), the
                   average of both orders; verdict: first, second, or tie, which a flip is; what each order said

Method: AI labels of RLAIF, Lee et al. 2023, arXiv 2309.00267.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amenable import durable
from amenable.errors import ConfigError, DataError, FeedbackError
from amenable.feedback.canaries import Canary, complaints, pair_canaries, together
from amenable.feedback.judging import PairJudge, judged
from amenable.feedback.questions import CRITERIA, Question, load_exemplars
from amenable.progress import bar, say
from amenable.recipes.environment import machine, prepare
from amenable.recipes.judge_report import Labelled, build_report, is_asked
from amenable.recipes.judge_rows import LABELS, judged_row, judgement_of, relabelled
from amenable.recipes.judges import JUDGES, Asking, judge_named, kind_of
from amenable.recipes.settings import Recipe, setting
from amenable.report.html import write
from amenable.report.page import Report
from amenable.runs import Row, Run
from amenable.seeding import python_random

if TYPE_CHECKING:
    from amenable.task.preferences import Comparison

Given = tuple["Comparison", Mapping[str, Any]]
"""A pair, and the row that it was read from."""

FREE = ("out", "on_canary", "requests", "tokens", "deadline", "tries", "parallel", "key_variable")
"""Settings that change no label: an interrupted run may go on with others."""


@dataclass(frozen=True)
class JudgeSettings:
    """What is judged, by whom, by which criteria, and what it may cost."""

    pairs: str = setting("", "the pairs: a file (JSONL, JSON, .gz), a run folder, or a data set by name")
    judge: str = setting("", f"who judges: {JUDGES}")
    criteria: str = setting(CRITERIA, "what better means: a sentence or more, or a file that holds them")
    noun: str = setting("Answer", "what an answer is called, such as Summary")
    exemplars: str = setting("", "a JSONL file of pairs with their answers, shown before each question")
    cot: bool = setting(False, "let the judge write a rationale first, anew for each order")
    rationale_tokens: int = setting(512, "longest rationale in tokens")
    both_orders: bool = setting(True, "ask in both orders and reconcile them")
    label: str = setting(
        "averaged", "the label: both orders averaged, or tied (0.5 for a flip), or the verdict (1, 0, 0.5)", LABELS
    )
    limit: int = setting(0, "number of pairs at random, 0 for all")
    split: str = setting("", "which part of the pairs: train, validation, test (by prompt); empty for all")
    canaries: int = setting(4, "honest answers that the canaries are tried against first (0: no canaries)")
    on_canary: str = setting("warn", "what a canary that wins does to the run", ("warn", "stop"))
    chunk: int = setting(32, "pairs a stage: what a run that dies may lose of a local judge's work")
    out: str = setting("", "also write the labels to this file")
    temperature: float = setting(1.0, "for scores as judges: P(first) = sigmoid(difference / temperature)")
    chat: bool = setting(False, "for likelihood and pmi: the prompt is a user's turn in the chat template")
    logprobs: bool = setting(True, "for servers: read log-probabilities where there are any, and not only the text")
    requests: int = setting(100_000, "for servers: requests that this run may make")
    tokens: int = setting(100_000_000, "for servers: tokens that this run may use, as the server counts them")
    deadline: float = setting(120.0, "for servers: seconds for one answer, all tries included")
    tries: int = setting(6, "for servers: tries for one answer")
    parallel: int = setting(8, "for servers: questions at once")
    key_variable: str = setting("OPENAI_API_KEY", "for servers: the environment variable that holds the key")
    dtype: str = setting("auto", "precision of a local model", ("auto", "float32", "bfloat16"))
    rows: int = setting(128, "for rationales of a local model: texts decoded at once")
    threads: int = setting(0, "CPU threads, 0 for all cores")
    trust_remote_code: str = setting("", "the id of a local model whose own Python code may be run")
    seed: int = setting(0, "seed of the choice of pairs, and of a server's answers")


def plan(settings: JudgeSettings) -> list[str]:
    pairs = [pair for pair, _ in comparisons_of(settings)]
    kind, _ = kind_of(settings.judge)
    _asking(settings, Path(), {})
    _out(settings)
    orders = ", both orders" if settings.both_orders else ", the order of the file alone"
    asked = kind in ("model", "server")
    each = (2 if settings.both_orders else 1) * (2 if settings.cot and asked else 1)
    known = sum(pair.label is not None for pair in pairs)
    lines = [
        f"label {len(pairs):,} pairs of {settings.pairs} by {settings.judge}{orders if is_asked(settings.judge) else ''}",
        f"{len(pairs) * each:,} questions{', rationales included' if settings.cot and asked else ''}"
        if asked
        else "the function is called"
        if kind == "function"
        else "each answer is scored for itself, in no order",
        f"{known:,} of the pairs have a label of their own to compare with",
    ]
    if settings.canaries:
        lines.append(
            f"canaries are tried before and after every {settings.chunk} pairs; on_canary={settings.on_canary}"
        )
    return lines


def run(settings: JudgeSettings, folder: Path) -> Report:
    """Judge, and write labels.jsonl and report.html into `folder`. Errors: FeedbackError of a server, or of a canary."""
    clock = prepare(settings.threads)
    given, outs = comparisons_of(settings), [folder / "labels.jsonl", *_out(settings)]
    record = Run.of(folder, settings, free=FREE)
    costs = Costs(folder / "cost.jsonl")
    asking = _asking(settings, folder, costs.total())

    @cache
    def judge() -> PairJudge:
        return judge_named(settings.judge, asking)

    watch, pairs = Watch(settings, record, judge, costs), [pair for pair, _ in given]
    watch.tried("canaries before", pairs[: settings.canaries])
    rows: list[Row] = []
    with bar("judgements") as tell:
        for start in range(0, len(given), settings.chunk):
            part = given[start : start + settings.chunk]

            def compute(part: Sequence[Given] = part) -> list[Row]:
                return costs.of("judgements", judge(), lambda: _rows(judge(), part, settings))

            rows += record.stage(f"judgements {start}", compute)
            watch.tried(f"canaries {start}", [pair for pair, _ in part[: min(1, settings.canaries)]])
            tell(len(rows), len(given))
    clock.lap("judgements")
    rows = [relabelled(row, settings.label) for row in rows]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    for file in outs:
        durable.write_file(file, text)
    found = Labelled(
        rows=rows,
        pairs=pairs,
        judgements=[judgement_of(row) for row in rows],
        before=watch.before,
        during=together(watch.during),
        cost=costs.total(),
    )
    report = build_report(settings, found, clock.minutes(), machine({}))
    write(report, folder / "report.html")
    record.close()
    return report


class Watch:
    """The canaries of a run. `before` and `during`: how each fared. A canary that wins is said loudly, once a time."""

    def __init__(self, settings: JudgeSettings, record: Run, judge: Callable[[], PairJudge], costs: Costs) -> None:
        self.settings, self.record, self.judge, self.costs = settings, record, judge, costs
        self.before: list[Canary] = []
        self.during: list[Canary] = []
        self._said: set[str] = set()

    def tried(self, stage: str, pairs: Sequence[Comparison]) -> None:
        """Try them against an honest answer of each of `pairs`. Errors: FeedbackError if one won and on_canary=stop."""
        if not pairs:
            return

        def compute() -> list[Row]:
            found = pair_canaries(self.judge(), [pair.prompt for pair in pairs], [honest_of(pair) for pair in pairs])
            return [canary.as_row() for canary in found]

        rows = self.record.stage(stage, lambda: self.costs.of("canaries", self.judge(), compute))
        found = [Canary(**row) for row in rows]
        if stage == "canaries before":
            self.before = found
        else:
            self.during += found
        counted = found if stage == "canaries before" else [c for c in together(self.during) if c.n >= 4]
        for canary in counted:
            if not canary.failed or canary.name in self._said:
                continue
            self._said.add(canary.name)
            say(f"WARNING: {complaints([canary])[0]}. Do not trust {self.settings.judge} with these criteria.")
        if self.settings.on_canary == "stop" and any(canary.failed for canary in counted):
            raise FeedbackError(
                f"{self.settings.judge} fails its canaries: {'; '.join(complaints(counted))}",
                "use another judge or other criteria; on_canary=warn goes on all the same",
            )


def honest_of(pair: Comparison) -> str:
    """The answer that the label prefers, the first where there is none: the other one may deserve to lose to a canary."""
    return pair.second if pair.label is not None and pair.label < 0.5 else pair.first


class Costs:
    """What the judging cost, a line a chunk in a file of its own: times and cached answers differ from run to run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def of(self, what: str, judge: PairJudge, work: Callable[[], list[Row]]) -> list[Row]:
        """Do `work` and note its seconds, and what a server's client has spent meanwhile."""
        spent = getattr(getattr(judge, "client", None), "spent", None)
        keys = ("requests", "tokens", "cached", "missing") if spent is not None else ()
        before, began = {key: getattr(spent, key) for key in keys}, time.monotonic()
        try:
            return work()
        finally:
            used = {key: getattr(spent, key) - before[key] for key in keys}
            line = json.dumps({f"seconds of {what}": round(time.monotonic() - began, 2), **used}) + "\n"
            with open(self.path, "ab", buffering=0) as file:
                durable.append(file, line.encode())

    def total(self) -> dict[str, float]:
        """Sums over all sessions of the run."""
        totals: dict[str, float] = {}
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            try:
                row = json.loads(line)
            except ValueError:
                continue  # torn by a kill
            for key, value in row.items() if isinstance(row, dict) else ():
                totals[key] = totals.get(key, 0) + value
        return totals


def comparisons_of(settings: JudgeSettings) -> list[Given]:
    """The pairs that are judged, with their rows: all of the file, or `limit` at random, in order. Errors: DataError."""
    from amenable.task.preferences import load_with_rows

    if not settings.pairs:
        raise ConfigError("no pairs are named", "amenable judge PAIRS.jsonl judge=...")
    if settings.chunk < 1 or settings.limit < 0 or settings.canaries < 0:
        raise ConfigError(
            f"chunk={settings.chunk}, limit={settings.limit}, canaries={settings.canaries} cannot be",
            "use chunk=1 or more, the others 0 or more",
        )
    pairs = load_with_rows(settings.pairs, split=settings.split or None, seed=settings.seed)
    if not pairs:
        raise DataError(f"{settings.pairs} holds no pairs", "give rows with prompt, first, second, or chosen, rejected")
    if not 0 < settings.limit < len(pairs):
        return pairs
    kept = python_random(settings.seed, "limit").sample(range(len(pairs)), settings.limit)
    return [pairs[i] for i in sorted(kept)]


def _rows(judge: PairJudge, given: Sequence[Given], settings: JudgeSettings) -> list[Row]:
    texts = ([getattr(pair, name) for pair, _ in given] for name in ("prompt", "first", "second"))
    found = judged(judge, *texts, both_orders=settings.both_orders)
    return [judged_row(pair, row, one, settings.label) for (pair, row), one in zip(given, found, strict=True)]


def _asking(settings: JudgeSettings, folder: Path, spent: Mapping[str, float]) -> Asking:
    criteria = settings.criteria
    if "\n" not in criteria and len(criteria) < 200 and Path(criteria).is_file():
        criteria = Path(criteria).read_text(encoding="utf-8").strip()
    exemplars = load_exemplars(Path(settings.exemplars)) if settings.exemplars else ()
    names = ("deadline", "tries", "parallel", "key_variable", "seed")
    left = {name: max(0, getattr(settings, name) - int(spent.get(name, 0))) for name in ("requests", "tokens")}
    return Asking(
        folder=folder,
        question=Question(criteria=criteria, exemplars=exemplars, cot=settings.cot, noun=settings.noun),
        rationale_tokens=settings.rationale_tokens,
        temperature=settings.temperature,
        chat=settings.chat,
        logprobs=settings.logprobs,
        limits={**left, **{name: getattr(settings, name) for name in names}},
        dtype=settings.dtype,
        rows=settings.rows,
        trust_remote_code=settings.trust_remote_code,
    )


def _out(settings: JudgeSettings) -> list[Path]:
    if not settings.out:
        return []
    path = Path(settings.out).expanduser()
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"out={settings.out} is no file that can be written", "name a file in a folder that exists")
    return [path]


RECIPE = Recipe("judge", "label pairs by a judge, and say whether it can be trusted", JudgeSettings, plan, run)
