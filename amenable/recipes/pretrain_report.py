"""What pretraining with feedback came to: bits per byte, scores of samples, thresholds, curves, samples; one page.

misalignment score      mean score of samples; an empty text has none and is counted apart
expected maximum of 25  mean over groups of 25 samples of the worst score in the group
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from amenable.evaluation.interval import Estimate, bootstrap_mean, wilson
from amenable.feedback.python_text import pep8_codes
from amenable.recipes.code_model_report import bits_per_byte
from amenable.recipes.environment import command_of, versions
from amenable.recipes.pretrain_arm import Arm, Prepared
from amenable.recipes.pretrain_data import BEYOND, SHARES, Corpus, spread
from amenable.report.page import (
    Cards,
    Column,
    Curves,
    Headline,
    Headlines,
    Report,
    SampleCard,
    Section,
    Series,
    Table,
)
from amenable.runs import Row

GROUP = 25
POINTS = 60  # of a curve
CARDS = 60


def score(samples: Sequence[Row]) -> Estimate:
    """Mean score of samples that are not empty; bootstrap over samples."""
    return bootstrap_mean([row["score"] for row in samples if row["score"] is not None])


def expected_maximum(samples: Sequence[Row]) -> Estimate:
    """Mean of the worst score in groups of 25; bootstrap over groups."""
    known = [row["score"] for row in samples if row["score"] is not None]
    return bootstrap_mean([max(known[at : at + GROUP]) for at in range(0, len(known) - GROUP + 1, GROUP)])


def share_bad(samples: Sequence[Row], task: str) -> Estimate:
    """Share of the samples that are not empty whose score is above 0, or `BEYOND` for a probability; Wilson."""
    known = [row["score"] for row in samples if row["score"] is not None]
    return wilson(sum(value > BEYOND.get(task, 0.0) for value in known), len(known))


def held_out(rows: Sequence[Row], *, clean: bool = False, told: bool = False) -> Estimate:
    """Bits per byte, bootstrap over packages. `clean`: of clean documents alone; `told`: control tokens are paid for."""
    chosen = [{**row, "bits": row["told_bits"] if told else row["bits"]} for row in rows if row["clean"] or not clean]
    return bits_per_byte(chosen)


def build_report(
    settings: Any, corpus: Corpus, made: Prepared, found: Arm, minutes: dict[str, float], machine: dict[str, Any],
    model: Path,
) -> Report:  # fmt: skip
    """One page: headline, bits, samples' scores, thresholds, training, samples to read."""
    bad, bits = score(found.samples), held_out(found.bits, clean=True)
    switched = f", after MLE for {settings.switch_at:.0%} of the tokens" if settings.switch_at else ""
    return Report(
        title=f"Pretraining with feedback: {settings.objective} on {settings.task}",
        summary=[
            f"{settings.objective}{switched}: samples score {bad.text()} ({settings.task}, 0 is nothing wrong), at "
            f"{bits.text()} bits per byte on clean held-out documents.",
            f"{found.facts['tokens']:,} tokens, {found.facts['parameters'] / 1e6:.1f}M weights. The model: {model}",
        ],
        command=command_of("pretrain", settings),
        sections=[
            Section(
                "Result",
                [
                    Headlines(
                        [
                            Headline("misalignment score", bad, note="mean over samples", percent=False),
                            Headline(f"samples {_bad(settings.task)}", share_bad(found.samples, settings.task)),
                            Headline("bits per byte", bits, note="clean held-out documents", percent=False),
                        ]
                    ),
                    _bits_table(found.bits), samples_table([(settings.objective, found.samples)], settings.task),
                    *([style_table([(settings.objective, found.samples)])] if settings.task == "pep8" else []),
                ],
            ),
            Section("What was learned from", [*data_tables(made), _training_table(corpus, made, found)]),
            Section("Training", _curves(found.metrics)),
            Section("Samples", [_cards(found.samples)]),
        ],
        config=asdict(settings), minutes=minutes, versions=versions(), machine=machine,
    )  # fmt: skip


def _bad(task: str) -> str:
    return f"with a score above {BEYOND[task]:g}" if task in BEYOND else "with something wrong"


def samples_table(arms: Sequence[tuple[str, Sequence[Row]]], task: str) -> Table:
    """One row an arm: scores, how long, how many are empty."""
    rows: list[list[Any]] = []
    for name, samples in arms:
        rows.append(
            [
                name, score(samples), share_bad(samples, task), expected_maximum(samples),
                bootstrap_mean([row["characters"] for row in samples]),
                wilson(sum(row["score"] is None for row in samples), len(samples)),
                wilson(sum(row["ended"] == "eos" for row in samples), len(samples)),
            ]
        )  # fmt: skip
    columns: list[str | Column] = [
        "objective", "score", Column(_bad(task), percent=True), "expected maximum of 25", "characters",
        Column("empty", percent=True), Column("ended", percent=True),
    ]  # fmt: skip
    note = (
        "Unconditional samples; an empty one has no score. Of Python that was cut off, whole lines count. 95%: bootstrap over "
        "samples (the maximum: over groups of 25); shares: Wilson. A model that says little has little wrong: read the lengths."
    )
    return Table("Samples", columns, rows, note)


STYLE = {
    "E1": "indentation", "E2": "white space", "E3": "blank lines", "E4": "imports", "E5": "line length", "E7": "statements",
    "E9": "cannot be read", "W2": "white space at the end of a line", "W3": "blank line at the end", "W6": "deprecated",
}  # fmt: skip
"""pycodestyle's groups of codes, by their first two characters."""


def style_table(arms: Sequence[tuple[str, Sequence[Row]]]) -> Table:
    """What is wrong with Python's style: violations of each group in 1,000 characters, a row a group, a column an arm."""
    found: dict[str, list[dict[str, float]]] = {}
    for name, samples in arms:
        texts = [row["text"] for row in samples if row["score"] is not None]
        found[name] = []
        for text in texts:
            groups: defaultdict[str, float] = defaultdict(float)
            for code, count in pep8_codes(text).items():
                groups[code[:2]] += 1000 * count / len(text)
            found[name].append(groups)
    every = sorted({group for rows in found.values() for row in rows for group in row})
    table: list[list[Any]] = [
        [
            group,
            STYLE.get(group, ""),
            *(bootstrap_mean([row.get(group, 0.0) for row in rows]) for rows in found.values()),
        ]
        for group in every
    ]
    note = "Mean over samples, seeds together; 95%: bootstrap over samples. That a text cannot be read is no matter of style."
    return Table("Violations in 1,000 characters", ["codes", "of", *found], table, note)


def _bits_table(rows: Sequence[Row]) -> Table:
    table: list[list[Any]] = []
    for label, clean in (("all held-out documents", False), ("clean ones", True)):
        chosen = [row for row in rows if row["clean"] or not clean]
        size = sum(row["bytes"] for row in chosen)
        table.append([label, held_out(rows, clean=clean), held_out(rows, clean=clean, told=True), len(chosen), size])
    note = (
        "Clean: mean score of its segments at most that of the documents' threshold. Control tokens are placed, not paid "
        "for; in the third column they are (the paper's KL). 95%: bootstrap over packages."
    )
    columns = ["documents", "bits per byte", "with control tokens paid for", "documents", "bytes"]
    return Table("Held-out bits per byte", columns, table, note)


def data_tables(made: Prepared) -> list[Table]:
    """The thresholds that were chosen, and the quantiles they were chosen from."""
    chosen: list[list[Any]] = [[of, one.value, one.below, one.n] for of, one in made.thresholds.items()]
    columns: list[str | Column] = ["of", "threshold", Column("good", percent=True), "known scores"]
    return [
        Table("Thresholds", columns, chosen, "Good: at most the threshold, which may be 0."),
        Table("Scores of the training data", ["of", *[f"{share:.0%} quantile" for share in SHARES]],
              [[of, *values] for of, values in spread(made.tokens)]),
    ]  # fmt: skip


def _training_table(corpus: Corpus, made: Prepared, found: Arm) -> Table:
    facts, objective, last = found.facts, found.objective, found.metrics[-1]
    rows: list[list[Any]] = [
        ["corpus", corpus.source], ["training documents", len(corpus.train)], ["training tokens, once", len(made.tokens)],
        ["tokens learned from", facts["tokens"]], ["optimiser steps", facts["steps"]],
        ["of these MLE, before the switch", facts["switch"]], ["passes over the objective's documents", facts["passes"]],
        ["control tokens, share of the last step", last["control"]], ["tokens with a known score, last step", last["known"]],
    ]  # fmt: skip
    if objective.threshold is not None:
        rows.append(["threshold that was used", objective.threshold])
    weights = [row["weight"] for row in found.metrics if "weight" in row]
    if weights:
        rows += [["beta", objective.beta], ["score whose reward is -1", objective.scale]]
        rows += [["mean weight of a token, lowest and highest step", f"{min(weights):.4g} to {max(weights):.4g}"]]
    if objective.name == "rwr":
        rows += [["weight of the worst token, best is 1", float(np.exp(-1 / objective.beta))]]
    note = "Where weights are all nearly 1, the loss is nearly MLE's." if weights else ""
    return Table("Training", ["what", "value"], rows, note)


def _curves(metrics: Sequence[Row]) -> list[Curves]:
    size = max(1, len(metrics) // POINTS)
    groups = [metrics[start : start + size] for start in range(0, len(metrics), size)]
    xs = [float(sum(row["tokens"] for row in metrics[: group[-1]["step"] + 1])) for group in groups]
    drawn = {"the objective's loss": "loss", "nats a token": "nats", "of these control tokens": "control_nats"}
    series = [Series(label, xs, [float(np.mean([row[key] for row in group])) for group in groups])
              for label, key in drawn.items()]  # fmt: skip
    if "value_error" in metrics[-1]:
        errors = [float(np.mean([row.get("value_error", np.nan) for row in group])) for group in groups]
        series.append(Series("squared error of the value", xs, errors))
    return [Curves("Training", "tokens", "nats a token", series, f"Each point is a mean over up to {size} steps.")]


def _cards(samples: Sequence[Row]) -> Cards:
    cards = []
    for index in range(0, len(samples), max(1, len(samples) // CARDS)):
        row = samples[index]
        told = "empty" if row["score"] is None else f"score {row['score']:.4g}"
        tags = [told, "ended" if row["ended"] == "eos" else "cut off"]
        cards.append(SampleCard(f"sample {index}", refinement=row["text"], tags=tags))
    return Cards("Samples to read", cards, note="Evenly taken.", refinement_label="Sample")
