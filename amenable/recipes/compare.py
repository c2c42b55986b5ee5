"""Two runs (or two models) side by side, paired by prompt: who wins, by whom, and every number that both have.

    two runs      the samples that both folders hold, of the same prompts: nothing is drawn again
    two models    contexts=FILE: samples of both on the same texts, under the same decoding
    who wins      judge=: a judge, in both orders; score=, reward=: the higher score; labels=: what people said of the pairs
    difference    A - B, of means over samples, paired by prompt (`evaluation.paired`); n is the number of prompts

The i-th sample of A for a prompt meets the i-th of B. The pairs are written to pairs.jsonl, in an order drawn by a coin, for
people to label; `amenable compare ... labels=FILE` reads what they said.

Source: win rates and rates at equal length as in RLAIF, Lee et al. 2023, arXiv 2309.00267 (`evaluation.preference`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from amenable import durable
from amenable.errors import ConfigError, DataError
from amenable.policy.loading import load_policy
from amenable.progress import bar
from amenable.recipes.code_model import code_model
from amenable.recipes.compare_deciders import Pair, deciders
from amenable.recipes.compare_metrics import Found
from amenable.recipes.compare_report import build_report
from amenable.recipes.compare_runs import Side, drawn_said, is_run, model_of, read_side
from amenable.recipes.environment import machine, prepare
from amenable.recipes.sample import CODE, contexts_of
from amenable.recipes.settings import Recipe, setting
from amenable.records import Decoding
from amenable.report.html import write
from amenable.report.page import Report
from amenable.runs import Row, Run
from amenable.seeding import derive, python_random


@dataclass(frozen=True)
class CompareSettings:
    """What is compared, and who decides."""

    a: str = setting(
        "", "the first run's folder; with contexts= a model's folder, id or name, or a run that kept its model"
    )
    b: str = setting("", "the second one")
    stage_a: str = setting("", "which samples of A, such as 'before' or 'js 0'; default: what its recipe ends with")
    stage_b: str = setting("", "which samples of B")
    judge: str = setting("", "who decides: a judge, as in `amenable judge`")
    score: str = setting(
        "", "who decides: FILE.py:NAME, f(prompts, completions, **columns) -> [score]; the higher wins"
    )
    reward: str = setting("", "who decides: the folder of a reward model, or of the run that made it; the higher wins")
    labels: str = setting("", "who decides: a file of labelled pairs, such as pairs.jsonl with people's labels")
    criteria: str = setting("", "for judge=: what better means; default: that of `amenable judge`")
    cot: bool = setting(False, "for judge=: let it write a rationale first, anew for each order")
    both_orders: bool = setting(True, "for judge=: ask in both orders; a flip is a tie")
    pairs: int = setting(500, "pairs that are decided at most, spread over the prompts; 0 for all")
    common: bool = setting(False, "compare the prompts that both runs have, where they do not have the same ones")
    contexts: str = setting("", "draw from two models: a text, or a file with one a line (JSONL: its prompt)")
    n: int = setting(4, "for contexts=: samples a context of each model")
    max_tokens: int = setting(128, "for contexts=: longest sample in tokens")
    temperature: float = setting(1.0, "for contexts=: sampling temperature, 0 for greedy")
    dtype: str = setting("auto", "for contexts= and judge=: precision of models", ("auto", "float32", "bfloat16"))
    rows: int = setting(128, "samples decoded at once")
    threads: int = setting(0, "CPU threads, 0 for all cores")
    seed: int = setting(0, "seed of everything drawn")


def plan(settings: CompareSettings) -> list[str]:
    if not settings.a or not settings.b:
        raise ConfigError("two runs are to be compared", "amenable compare RUN_A RUN_B [judge=...]")
    if settings.pairs < 0 or settings.n < 1:
        raise ConfigError(f"pairs={settings.pairs}, n={settings.n} cannot be", "use pairs >= 0 and n >= 1")
    if settings.contexts:
        count = len(contexts_of(settings.contexts))
        lines = [
            f"{settings.n} samples of {count} contexts from A, {model_of(settings.a)}, and B, {model_of(settings.b)}",
            f"temperature {settings.temperature:g}, at most {settings.max_tokens} tokens",
        ]
    else:
        a, b = _read(settings)
        lines = [f"A: {a.name}, {len(a.said)} samples; B: {b.name}, {len(b.said)} samples"]
        count = len(_matched(a, b, settings))
        lines.append(f"paired by {count} prompts" if count > 1 else "one prompt: samples are not paired")
    asked = [
        f"{name}={getattr(settings, name)}"
        for name in ("judge", "score", "reward", "labels")
        if getattr(settings, name)
    ]
    orders = ", in both orders" if settings.judge and settings.both_orders else ""
    most = f"at most {settings.pairs} pairs" if settings.pairs else "all pairs"
    lines.append(
        f"{most} decided by {' and '.join(asked)}{orders}" if asked else "nobody decides who wins: no judge is named"
    )
    return lines


def run(settings: CompareSettings, folder: Path) -> Report:
    """Compare, and write pairs.jsonl and report.html into `folder`. Run again, it goes on where it stopped."""
    clock = prepare(settings.threads)
    plan(settings)
    a, b = (None, None) if settings.contexts else _read(settings)
    record = Run.of(folder, settings)
    if a is None or b is None:
        a, b = (_drawn(record, name, side, settings) for name, side in (("A", settings.a), ("B", settings.b)))
        clock.lap("samples")
    keys = _matched(a, b, settings)
    pairs, whole = _pairs(a, b, keys, settings)
    _same_as_before(record, pairs)
    _write_pairs(folder / "pairs.jsonl", pairs, settings.seed)
    decided = [decide(record, pairs, settings, folder) for decide in deciders(settings)]
    clock.lap("decisions")
    found = Found(a, b, keys, pairs, whole, decided)
    report = build_report(settings, found, clock.minutes(), machine({}))
    write(report, folder / "report.html")
    record.close()
    return report


def _read(settings: CompareSettings) -> tuple[Side, Side]:
    a, b = read_side(settings.a, settings.stage_a), read_side(settings.b, settings.stage_b)
    if Path(settings.a).resolve() == Path(settings.b).resolve() and a.name == b.name:
        raise ConfigError(f"{settings.a} would be compared with itself", "name two runs, or stage_a= and stage_b=")
    if a.name == b.name:
        a, b = (
            replace(side, name=f"{Path(folder).resolve().parent.name}/{side.name}")
            for side, folder in ((a, settings.a), (b, settings.b))
        )
    return a, b


def _drawn(record: Run, name: str, side: str, settings: CompareSettings) -> Side:
    """Samples of one model; each side has its own random stream."""
    model = model_of(side)
    contexts = contexts_of(settings.contexts)

    def compute() -> list[Row]:
        law = (
            code_model(rows=settings.rows)
            if model == CODE
            else load_policy(model, dtype=settings.dtype, rows=settings.rows)
        )
        decoding = Decoding(max_tokens=settings.max_tokens, temperature=settings.temperature)
        with bar(f"samples of {name}") as progress:
            samples = law.sample(
                contexts, n=settings.n, decoding=decoding, seed=derive(settings.seed, name), progress=progress
            )
        return [
            {
                "prompt": contexts[i // settings.n],
                "text": text,
                "tokens": int(samples.lengths[i]),
                "ended": samples.ended[i],
            }
            for i, text in enumerate(samples.texts)
        ]

    rows = record.stage(f"samples of {name}", compute)
    label = Path(side).resolve().name if is_run(side) or Path(side).is_dir() else side
    return Side(label, [drawn_said(row["prompt"], row["text"], row["tokens"], row["ended"]) for row in rows])


def _matched(a: Side, b: Side, settings: CompareSettings) -> list[str]:
    """The prompts that are compared, in A's order. Errors: DataError that says how the two runs' prompts differ."""
    there, here = a.by_key(), b.by_key()
    both = [key for key in there if key in here]
    alone = [key for key in there if key not in here], [key for key in here if key not in there]
    if both and (settings.common or not any(alone)):
        return both
    told = [
        f"{len(keys)} only in {name} ({side.name}), such as {_short(keys[0])}"
        for name, side, keys in (("A", a, alone[0]), ("B", b, alone[1]))
        if keys
    ]
    differing = [
        f"{key} ({a.config.get(key)!r} in A, {b.config.get(key)!r} in B)"
        for key in ("task", "data", "contexts", "context_count", "split", "test_split", "limit", "test_limit", "seed")
        if a.config.get(key) != b.config.get(key)
    ]
    why = f"; the runs differ in {', '.join(differing)}" if differing else ""
    fix = f"common=true compares the {len(both)} prompts that both have; " if both else ""
    raise DataError(
        f"the prompts of the runs differ: {len(both)} are in both, {', '.join(told)}{why}",
        f"{fix}compare runs on the same prompts, or draw from both models anew: contexts=FILE",
    )


def _pairs(a: Side, b: Side, keys: Sequence[str], settings: CompareSettings) -> tuple[list[Pair], int]:
    """The pairs to decide, each prompt's first before any second, and how many there are in all."""
    there, here = a.by_key(), b.by_key()
    order = list(keys)
    python_random(settings.seed, "pairs").shuffle(order)
    rounds = max(min(len(there[key]), len(here[key])) for key in keys)
    found = [
        Pair(key, there[key][i], here[key][i])
        for i in range(rounds)
        for key in order
        if i < min(len(there[key]), len(here[key]))
    ]
    return found[: settings.pairs or None], len(found)


def _same_as_before(record: Run, pairs: Sequence[Pair]) -> None:
    """Decisions that were kept belong to these very pairs. Errors: DataError if a run has changed meanwhile."""
    now = [hashlib.sha256(json.dumps([p.a.prompt, p.a.text, p.b.text]).encode()).hexdigest()[:16] for p in pairs]
    if [row["pair"] for row in record.stage("pairs", lambda: [{"pair": digest} for digest in now])] != now:
        raise DataError(
            f"the runs have other samples than when {record.folder} was begun", "compare them anew: --out a new folder"
        )


def _write_pairs(file: Path, pairs: Sequence[Pair], seed: int) -> None:
    """The pairs for people to label: which of the two stands first is a coin's, so that nobody sees whose it is."""
    lines = []
    for number, pair in enumerate(pairs):
        texts = [pair.a.text, pair.b.text]
        if python_random(seed, "order", number).random() < 0.5:
            texts.reverse()
        row = {"id": str(number), "prompt": pair.a.prompt, "first": texts[0], "second": texts[1], "label": None}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    durable.write_file(file, "".join(lines))


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else shown[:57] + "...'"


RECIPE = Recipe("compare", "two runs or two models side by side, paired by prompt", CompareSettings, plan, run)
