"""How good a small code model is: bits per byte, how many samples compile and how much they say; and the page that shows it.

    bits per byte = - sum_x log2 pi(x) / sum_x |x|        x: whole functions; EOS is counted in the bits and not in the bytes

A sample is *finished* if it ended by EOS and is not empty. It *compiles* if CPython makes code of it, behind its signature; it
*does something* if it also has a statement that is not `pass` or a constant: then the studies' constraint `compiles` holds.
Samples are drawn from the model's own law: temperature 1, nothing cut off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from amenable.evaluation.code import mean_ast_nodes
from amenable.evaluation.interval import Estimate, bootstrap_mean, no_data, wilson
from amenable.feedback.python_text import is_program, silent
from amenable.policy.causal_lm import CausalLM
from amenable.progress import bar
from amenable.recipes.environment import command_of, versions
from amenable.records import Decoding, Failure, Verdict, as_samples
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
from amenable.runs import Run
from amenable.seeding import derive, python_random
from amenable.task.functions import SPLITS, Function, of_split

CHUNK = 512  # samples, or scored functions, a stage
CARDS = 60  # of each kind
SMOOTH = 20  # steps a point of the loss curve


@dataclass(frozen=True)
class Drawn:
    """One sample: `program` is the signature (if it had one) and what was drawn."""

    signature: str
    drawn: str
    ended: str
    tokens: int
    finished: bool
    compiles: bool
    does_something: bool

    @property
    def program(self) -> str:
        return self.signature + self.drawn


@dataclass(frozen=True)
class Measured:
    """Bits and bytes a function by split, and the samples of both kinds; `reference` are the held-out functions."""

    bits: dict[str, list[dict[str, Any]]]
    unconditional: list[Drawn]
    bodies: list[Drawn]
    reference: Sequence[Function]
    known: frozenset[str]  # training functions, white space joined


def measure(
    policy: CausalLM, functions: Sequence[Function], signatures: Sequence[Function], settings: Any, record: Run
) -> Measured:
    """Score and sample, stage by stage. `functions` of all splits; of the training split as many are scored as held out."""
    reference = of_split(functions, "held-out")
    bits = {}
    for split in SPLITS:
        chosen = of_split(functions, split)
        if len(chosen) > len(reference):
            chosen = python_random(settings.seed, "scored", split).sample(chosen, len(reference))
        bits[split] = _scored(policy, chosen, f"bits, {split}", record)
    longest, seed = settings.longest, settings.seed
    bodies = [function.signature for function in signatures]
    return Measured(
        bits=bits,
        unconditional=_drawn(policy, [""], settings.samples, "unconditional samples", longest, seed, record),
        bodies=_drawn(policy, bodies, settings.samples_per_context, "bodies", longest, seed, record),
        reference=reference,
        known=frozenset(_joined(function.text) for function in of_split(functions, "train")),
    )


def bits_per_byte(rows: Sequence[dict[str, Any]], *, seed: int = 0, resamples: int = 10_000) -> Estimate:
    """Bits over bytes of rows {module, bits, bytes}; percentile bootstrap over modules, `n` counts these."""
    method = "bootstrap over modules"
    if not rows:
        return no_data(method)
    names = list(dict.fromkeys(row["module"] for row in rows))
    place = {name: index for index, name in enumerate(names)}
    sums = np.zeros((len(names), 2))
    for row in rows:
        sums[place[row["module"]]] += row["bits"], row["bytes"]
    value = float(sums[:, 0].sum() / sums[:, 1].sum())
    if len(names) == 1:
        return Estimate(value, math.nan, math.nan, 1, method)
    rng = np.random.default_rng(derive(seed, "bits per byte"))
    drawn = sums[rng.integers(0, len(names), size=(resamples, len(names)))].sum(axis=1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    return Estimate(value, float(low), float(high), len(names), method)


def _scored(policy: CausalLM, functions: Sequence[Function], name: str, record: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with bar(name) as progress:
        for start in range(0, len(functions), CHUNK):
            part = functions[start : start + CHUNK]

            def compute(part: Sequence[Function] = part) -> list[dict[str, Any]]:
                ids = [policy.encode_completion(function.text) for function in part]
                samples = as_samples([policy.encode("")] * len(part), ids)
                nats = policy.log_prob(samples).double().sum(-1).tolist()
                return [
                    {"module": one.module, "bits": -value / math.log(2), "bytes": len(one.text.encode())}
                    for one, value in zip(part, nats, strict=True)
                ]

            found += record.stage(f"{name}/{start // CHUNK}", compute)
            progress(len(found), len(functions))
    return found


def _drawn(
    policy: CausalLM, signatures: Sequence[str], n: int, name: str, longest: int, seed: int, record: Run
) -> list[Drawn]:
    """`n` samples of every signature, signature-major."""
    owners = [signature for signature in signatures for _ in range(n)]
    found: list[Drawn] = []
    with bar(name) as progress:
        for start in range(0, len(owners), CHUNK):
            part = owners[start : start + CHUNK]

            def compute(part: list[str] = part, start: int = start) -> list[dict[str, Any]]:
                tick = lambda done, _: progress(start + done, len(owners))
                decoding = Decoding(max_tokens=longest)
                samples = policy.sample(part, decoding=decoding, seed=derive(seed, name, start), progress=tick)
                return [
                    {"signature": signature, "drawn": text, "ended": ended, "tokens": int(length)}
                    for signature, text, ended, length in zip(
                        part, samples.texts, samples.ended, samples.lengths, strict=True
                    )
                ]

            rows = record.stage(f"{name}/{start // CHUNK}", compute)
            found += [_judged(row) for row in rows]
            progress(len(found), len(owners))
    return found


def _judged(row: dict[str, Any]) -> Drawn:
    signature, drawn = row["signature"], row["drawn"]
    finished = row["ended"] == "eos" and bool(drawn.strip())
    with silent():
        compiles, does = (finished and is_program(signature, drawn, statements=least) for least in (0, 1))
    return Drawn(**row, finished=finished, compiles=compiles, does_something=does)


def build_report(
    settings: Any,
    metrics: Sequence[dict[str, Any]],
    measured: Measured,
    minutes: dict[str, float],
    machine: dict[str, Any],
    home: str,
) -> Report:
    """One page: headline, bits per byte, what compiles, how much it says, training, samples."""
    free, bodies = finished_that_compile(measured.unconditional), finished_that_compile(measured.bodies)
    held_out = bits_per_byte(measured.bits["held-out"])
    return Report(
        title="A small code model, from scratch",
        summary=[
            f"{free.text(percent=True)} of finished samples compile, and {bodies.text(percent=True)} of bodies for "
            f"signatures of modules that it never saw; {held_out.text()} bits per byte there.",
            f"Stopped early on purpose: a prior to improve on. In the cache: {home}",
        ],
        command=command_of("code-model", settings),
        sections=[
            Section(
                "Result",
                [
                    Headlines(
                        [
                            Headline("bits per byte", held_out, note="held-out modules", percent=False),
                            Headline("samples that compile", free, note="of those that are finished and not empty"),
                            Headline("bodies that compile", bodies, note="held-out signatures, finished"),
                        ]
                    )
                ],
            ),
            Section("How well it predicts", [_bits_table(measured)]),
            Section("What compiles", [_compile_table(measured), _size_table(measured)]),
            Section("Training", _curves(metrics)),
            Section("Samples", [_cards(measured)]),
        ],
        config=asdict(settings),
        minutes=minutes,
        versions=versions(),
        machine=machine,
    )


def finished_that_compile(drawn: Sequence[Drawn]) -> Estimate:
    """Share of finished, non-empty samples that compile; Wilson over samples."""
    finished = [one for one in drawn if one.finished]
    return wilson(sum(one.compiles for one in finished), len(finished))


def _bits_table(measured: Measured) -> Table:
    rows: list[list[Any]] = []
    for split, found in measured.bits.items():
        rows.append([split, bits_per_byte(found), len(found), sum(row["bytes"] for row in found)])
    note = (
        "Exact likelihoods of whole functions, EOS included; 95% bootstrap over modules. Training functions: a sample."
    )
    return Table("Bits per byte", ["functions of", "bits per byte", "functions", "bytes"], rows, note)


def _compile_table(measured: Measured) -> Table:
    rows: list[list[Any]] = []
    for label, drawn in (("unconditional", measured.unconditional), ("bodies", measured.bodies)):
        finished = [one for one in drawn if one.finished]
        good = [one for one in finished if one.compiles]
        owners = [one.signature for one in finished] if label == "bodies" else None
        by_context = bootstrap_mean([float(one.compiles) for one in finished], clusters=owners, share=True)
        rows.append(
            [
                label,
                wilson(len(finished), len(drawn)),
                finished_that_compile(drawn),
                by_context if owners else None,
                wilson(sum(one.does_something for one in drawn), len(drawn)),
                len({_joined(one.program) for one in good}) / len(good) if good else None,
                wilson(sum(_joined(one.program) in measured.known for one in good), len(good)),
            ]
        )
    columns: list[str | Column] = [
        "samples", Column("finished, not empty", percent=True), Column("of these compile", percent=True),
        Column("the same, over signatures", percent=True), Column("of all compile and do something", percent=True),
        Column("different, of compiling", percent=True), Column("training functions, of compiling", percent=True),
    ]  # fmt: skip
    note = "95%: Wilson over samples; over signatures a bootstrap, as bodies of one signature are alike."
    return Table("What compiles", columns, rows, note)


def _size_table(measured: Measured) -> Table:
    programs = {
        "samples that compile": [one.program for one in measured.unconditional if one.compiles],
        "signatures with bodies that compile": [one.program for one in measured.bodies if one.compiles],
        "held-out functions": [one.text for one in measured.reference],
    }
    rows: list[list[Any]] = [
        [label, mean_ast_nodes(found), bootstrap_mean([len(one) for one in found])] for label, found in programs.items()
    ]
    return Table(
        "How much they say",
        ["programs", "syntax tree nodes", "characters"],
        rows,
        "Means; 95% bootstrap over programs.",
    )


def _curves(metrics: Sequence[dict[str, Any]]) -> list[Curves]:
    """The loss in bits a token, in means of `SMOOTH` steps."""
    groups = [metrics[start : start + SMOOTH] for start in range(0, len(metrics), SMOOTH)]
    steps = [float(group[-1]["step"] + 1) for group in groups]
    losses = [float(np.mean([row["loss"] for row in group])) / math.log(2) for group in groups]
    caption = f"Each point is a mean over up to {SMOOTH} optimiser steps, before the step was taken."
    return [Curves("Training loss", "step", "bits a token", [Series("training functions", steps, losses)], caption)]


def _cards(measured: Measured) -> Cards:
    cards = []
    for arm, drawn in (("unconditional", measured.unconditional), ("body", measured.bodies)):
        for index in range(0, len(drawn), max(1, len(drawn) // CARDS)):
            one = drawn[index]
            verdict = Verdict("pass", (True,))
            if not one.compiles:
                what = _trouble(one.program) if one.finished else "empty" if one.ended == "eos" else "not finished"
                verdict = Verdict("fail", (False,), Failure(test="compiles", error=what))
            cards.append(SampleCard(f"{arm} {index}", one.signature, refinement=one.drawn, verdict=verdict, arm=arm))
    return Cards(
        "Samples to read", cards, note="Evenly taken; the one test is that it compiles.", refinement_label="Sample"
    )


def _trouble(program: str) -> str:
    """Why it does not compile."""
    try:
        with silent():
            compile(program, "<sample>", "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"{type(error).__name__}: {error.msg} (line {error.lineno})"
    except Exception as error:  # as in `python_text.parse`
        return f"{type(error).__name__}: {error}"
    return ""


def _joined(text: str) -> str:
    return " ".join(text.split())
