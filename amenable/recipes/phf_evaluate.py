"""The evaluation of pretraining with human feedback, for any causal models side by side, however they were trained.

    1  samples     unconditional ones: how bad, how varied, how long; of code, how many of the finished ones compile
    2  answers     25 to each of many prompts: how bad, the worst of 25, the share beyond a threshold
    3  reference   KL(reference, model) on the reference's own samples, if there is a reference
    4  bits        bits per byte of held-out documents, where there is a scored corpus

    KL(reference, model) = E_reference[log p_reference(x) - log p(x)]    x: up to 64 tokens, no prompt, temperature 1

A model with control tokens is measured as it is used, <|good|> given (at every segment where it was trained so) and no
probability on control tokens elsewhere. Counted apart: what it would pay to predict its control tokens itself, as in the
paper, whose KL holds that against conditional training.

Source: Korbak et al. 2023, arXiv 2302.08582, section 4 and its released code.
Changed from the paper: any reference in place of GPT-3. Where the vocabularies are the same the reference's own tokens are
scored. Else its texts are, tokenised again: one of many tokenisations on either side, so that such numbers compare models of
one vocabulary with each other, and mean little by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from amenable.errors import ConfigError, ModelError
from amenable.feedback.segments import Unit, segment_ends
from amenable.method.corpus import segment_of, threshold_at, tokenised
from amenable.policy.causal_lm import CausalLM
from amenable.policy.control import BAD, GOOD, conditioned, controls_of, unconditioned
from amenable.policy.packed import PackedLM
from amenable.progress import bar
from amenable.recipes.audit import (
    AuditSettings,
    causal,
    check,
    corpus_for,
    has_corpus,
    labels,
    prompted,
    prompts_of,
)
from amenable.recipes.environment import machine, prepare
from amenable.recipes.phf_evaluate_report import Found, build_report
from amenable.recipes.pretrain_arm import Prepared, held_out_bits, sampled, whole_documents
from amenable.recipes.pretrain_data import Corpus, scorer_of
from amenable.recipes.settings import Recipe, setting
from amenable.records import Decoding
from amenable.report.html import write
from amenable.report.page import Report
from amenable.runs import Row, Run
from amenable.seeding import derive

BATCH = 64  # reference samples scored at once


@dataclass(frozen=True)
class EvaluateSettings(AuditSettings):
    """What is measured, and how much of it."""

    samples: int = setting(512, "unconditional samples, 0 for none")
    most_prompts: int = setting(64, "prompts, 0 for none")
    answers: int = setting(25, "answers to a prompt; the expected maximum is of so many")
    beyond: float | None = setting(None, "share of scores above this; default: 0, for toxicity 0.5")
    reference: str = setting("", "model whose KL from each is estimated, such as a larger one trained by MLE")
    reference_samples: int = setting(512, "samples of the reference")
    reference_tokens: int = setting(64, "longest sample of the reference")
    held_out: int = setting(200_000, "bytes of held-out documents that are scored, 0 for none")
    length: int = setting(256, "tokens of a window of held-out text")
    quantile: float = setting(
        0.5, "a document is clean if its mean score is at most this quantile of the training data's"
    )


def plan(settings: EvaluateSettings) -> list[str]:
    """What the run will do, in lines."""
    _check(settings)
    reference = (
        f"KL({settings.reference}, model) on {settings.reference_samples} samples" if settings.reference else "none"
    )
    bits = f"{settings.held_out:,} held-out bytes" if settings.held_out and has_corpus(settings) else "none: no corpus"
    return [
        f"evaluate {', '.join(settings.models)} for {settings.task}",
        f"1  {settings.samples} unconditional samples of up to {settings.max_tokens} tokens, "
        f"temperature {settings.temperature:g}, nucleus {settings.top_p:g}",
        f"2  {settings.answers} answers to each of at most {settings.most_prompts} prompts "
        f"({settings.prompts or 'openings of held-out documents'})",
        f"3  reference: {reference}",
        f"4  bits per byte: {bits}",
    ]


def run(settings: EvaluateSettings, folder: Path) -> Report:
    """The evaluation in `folder`. Run again, it goes on where it stopped; it may be given more models."""
    clock = prepare(settings.threads)
    _check(settings)
    record = Run.of(folder, settings, free=("models",))
    corpus, scorer = corpus_for(settings), scorer_of(settings)
    prompts = prompts_of(settings, corpus, settings.most_prompts, scorer.unit) if settings.most_prompts else []
    clock.lap("corpus")
    drawn: list[Row] = []
    words: set[str] = set()
    if settings.reference:
        reference = causal(settings.reference, settings)
        if controls_of(reference) is not None:
            raise ModelError(f"{settings.reference} has control tokens", "give a reference that was trained without")
        words = set(reference.tokenizer.get_vocab())
        drawn = record.stage("reference samples", lambda: reference_samples(settings, reference))
        clock.lap("reference")
    found = []
    for name, label in zip(settings.models, labels(settings.models), strict=True):
        policy = causal(name, settings)
        samples = sampled(settings, policy, scorer, label, seed=settings.seed, record=record)
        answers = prompted(settings, policy, prompts, scorer, label, record, n=settings.answers)
        clock.lap("samples")
        against: list[Row] = []
        if settings.reference:
            own = set(policy.tokenizer.get_vocab()) - {GOOD, BAD}

            def scored(policy: CausalLM = policy, same: bool = own == words) -> list[Row]:
                return on_reference(policy, drawn, unit=scorer.unit, same=same)

            against = record.stage(f"{label} reference", scored)
            clock.lap("reference")
        bits: list[Row] = []
        if corpus is not None and settings.held_out:
            bits = record.stage(f"{label} bits", lambda policy=policy: bits_of(settings, policy, corpus))  # type: ignore[misc]
            clock.lap("held-out bits")
        size = sum(value.numel() for value in unconditioned(policy).model.parameters())
        found.append(Found(label, samples, answers, against, bits, size, controls_of(policy) is not None))
    report = build_report(settings, found, prompts, clock.minutes(), machine({}))
    write(report, folder / "report.html")
    record.close()
    return report


def _check(settings: EvaluateSettings) -> None:
    check(settings)
    for name in ("answers", "reference_samples", "reference_tokens", "length", "max_tokens"):
        if getattr(settings, name) < 1:
            raise ConfigError(f"{name}={getattr(settings, name)} is not a size", f"use {name}=1 or more")


def reference_samples(settings: EvaluateSettings, reference: CausalLM) -> list[Row]:
    """Samples at temperature 1 without a prompt: tokens (an <eos> that ends them included), text, log-probability."""
    with bar("reference samples") as progress:
        drawn = reference.sample(
            [""], n=settings.reference_samples, decoding=Decoding(max_tokens=settings.reference_tokens),
            seed=derive(settings.seed, "reference"), progress=progress,
        )  # fmt: skip
    return [
        {
            "tokens": drawn.ids(i), "text": drawn.texts[i], "ended": drawn.ended[i],
            "log_prob": float(drawn.log_probs[i].double().sum()),
        }
        for i in range(len(drawn))
    ]  # fmt: skip


@torch.no_grad()
def on_reference(policy: CausalLM, drawn: Sequence[Row], *, unit: Unit, same: bool) -> list[Row]:
    """log p_reference - log p of each sample, nats: as the model is used (`nats`), and paying for control tokens (`told`).

    `same`: the vocabularies are the same, so the tokens are scored as they were drawn.
    """
    raw, controls = unconditioned(policy), controls_of(policy)
    plain = PackedLM.of(raw)
    used = PackedLM.of(conditioned(policy, suppress=controls.ids)) if controls else plain
    opening, found = raw.encode(""), list[Row]()
    for start in range(0, len(drawn), BATCH):
        part = drawn[start : start + BATCH]
        ids, given = [], []
        for row in part:
            ended = row["ended"] == "eos"
            own = row["tokens"] if same else raw.encode_completion(row["text"], eos=ended)
            placed = _with_controls(raw, own, row["text"], unit, controls.placing if controls else "")
            ids.append(torch.tensor([*opening, *placed]))
            given.append(torch.tensor([token in (controls.ids if controls else ()) for token in placed]))
        rows = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
        laws = [law.packed_log_probs(rows).double().cpu()[:, len(opening) - 1 :] for law in (used, plain)]
        for at, (row, control) in enumerate(zip(part, given, strict=True)):
            as_used, told = (law[at, : len(control)] for law in laws)
            found.append(
                {
                    "nats": row["log_prob"] - float(as_used[~control].sum()), "told": row["log_prob"] - float(told.sum()),
                    "tokens": len(row["tokens"]), "same": same,
                }
            )  # fmt: skip
    return found


def _with_controls(policy: CausalLM, ids: Sequence[int], text: str, unit: Unit, placing: str) -> list[int]:
    """`ids` with <|good|> where the model was trained to see it: before each segment ("each"), or the first ("first")."""
    controls = controls_of(policy)
    if controls is None:
        return list(ids)
    if placing == "first" or not text:
        return [controls.good, *ids]
    lengths = [len(policy.tokenizer.decode(list(ids[:count]))) for count in range(len(ids) + 1)]
    lengths = [min(length, len(text)) for length in lengths]  # an <eos> has no characters in the text
    place = segment_of(segment_ends(text, unit), list(pairwise(lengths)))
    begins = np.diff(place, prepend=-1) != 0
    return [token for own, first in zip(ids, begins, strict=True) for token in ([controls.good] * int(first) + [own])]


def bits_of(settings: EvaluateSettings, policy: CausalLM, corpus: Corpus) -> list[Row]:
    """Bits of held-out documents, `settings.held_out` bytes of whole ones together, as `pretrain` chooses them."""
    chosen = whole_documents(corpus.held_out, settings.held_out)
    means = np.array([math.nan if one.mean is None else one.mean for one in corpus.train])
    clean = threshold_at(means, quantile=settings.quantile, of="documents")
    raw = unconditioned(policy)
    tokens = tokenised(chosen, raw.tokenizer)
    made = Prepared(raw, tokens, tokens, chosen, {"documents": clean})
    return held_out_bits(raw, made, clean=clean.value, length=settings.length)


RECIPE = Recipe(
    "phf-evaluate",
    "models side by side: how bad their samples and answers are, and what that cost (PHF)",
    EvaluateSettings,
    plan,
    run,
)
