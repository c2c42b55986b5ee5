"""One arm of a study of pretraining with feedback: train with an objective, then measure what it costs and what it brings.

    bits per byte   - sum log2 p(token) / bytes of held-out documents, <eos> counted in the bits; windows of `length` tokens
    score           how bad samples are, by the scorer of the corpus; texts that were cut off lose their unfinished line

A conditionally trained model is scored as it is used: <|good|> is placed where its placing says, and control tokens have no
probability anywhere else, so this is a law over texts. What it would pay to predict its control tokens itself, as in the
paper's KL, is counted apart (`told_bits`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amenable.feedback.scorers import Scorer
from amenable.method.corpus import Stream, Threshold, Tokens, stream_of, tokenised
from amenable.method.loop import Optimisation
from amenable.method.pretraining import Pretraining
from amenable.objective.pretraining import Objective
from amenable.policy.causal_lm import CausalLM
from amenable.policy.control import conditioned, controls_of, unconditioned, with_controls
from amenable.policy.loading import load_policy
from amenable.policy.packed import PackedLM
from amenable.policy.scratch import from_scratch
from amenable.progress import bar
from amenable.recipes.pretrain_data import Corpus, group_of, objective_of, scorer_of, thresholds, whole_lines
from amenable.recipes.training import trained
from amenable.records import Decoding
from amenable.runs import Row, Run
from amenable.seeding import derive, python_random
from amenable.task.scored_corpus import ScoredDocument

SIZES = {  # vocabulary, width, layers, heads
    "1m": (1024, 128, 4, 4),
    "4m": (2048, 256, 4, 4),
    "15m": (4096, 384, 8, 6),
    "124m": (32768, 768, 12, 12),
}
READ = 4_000_000  # characters that a tokenizer is learnt from
CHUNK = 256  # samples a stage


@dataclass(frozen=True)
class Prepared:
    """What all arms of a seed begin with: an untrained (or given) policy, the corpus as its tokens, the thresholds."""

    policy: CausalLM
    tokens: Tokens
    held_out: Tokens
    documents: Sequence[ScoredDocument]
    thresholds: dict[str, Threshold]


@dataclass(frozen=True)
class Arm:
    """A trained and measured objective: a row of `bits` a held-out document, a row a sample, and `facts` of the training."""

    objective: Objective
    metrics: Sequence[Row]
    bits: Sequence[Row]
    samples: Sequence[Row]
    facts: Row


def base_policy(settings: Any, corpus: Corpus, *, seed: int) -> CausalLM:
    """`settings.model` in float32, or random weights over a tokenizer learnt from a sample of the training documents.

    Errors: ModelError for a model that is no causal one; what `load_policy` raises.
    """
    if settings.model:
        # of a conditional model: as it learned; arms place their own control tokens
        policy = load_policy(settings.model, dtype="float32", rows=settings.rows, conditioning=False)
        if not isinstance(policy, CausalLM):
            from amenable.errors import ModelError

            raise ModelError(f"{settings.model} is an encoder-decoder model", "give a causal one")
        return policy
    texts = [document.text for document in corpus.train]
    python_random(0, "tokenizer").shuffle(texts)
    sizes = np.cumsum([len(text) for text in texts])
    texts = texts[: int(np.searchsorted(sizes, READ)) + 1]
    vocabulary, width, layers, heads = SIZES[settings.size]
    return from_scratch(
        texts, vocabulary=vocabulary, width=width, layers=layers, heads=heads,
        context=max(settings.length, settings.max_tokens + 64), seed=seed, name=f"{settings.size} from scratch",
        rows=settings.rows,
    )  # fmt: skip


def prepared(settings: Any, corpus: Corpus, *, seed: int, like: Prepared | None = None) -> Prepared:
    """Tokenises the corpus; of the held-out documents, whole ones of at most `settings.held_out` bytes together.

    `like`: what was prepared for another seed, whose tokens are the same.
    """
    policy = base_policy(settings, corpus, seed=seed)
    if like is not None and like.policy.tokenizer.get_vocab() == policy.tokenizer.get_vocab():
        return replace(like, policy=policy)
    chosen = whole_documents(corpus.held_out, settings.held_out)
    with bar("tokens") as progress:
        tokens = tokenised(corpus.train, policy.tokenizer, progress=progress)
    held_out = tokenised(chosen, policy.tokenizer)
    return Prepared(policy, tokens, held_out, chosen, thresholds(tokens, quantile=settings.quantile))


def whole_documents(documents: Sequence[ScoredDocument], size: int) -> list[ScoredDocument]:
    """Some of the documents, whole ones of at most `size` bytes together (one at least), the same ones each time."""
    rest = list(documents)
    python_random(0, "held out").shuffle(rest)
    chosen: list[ScoredDocument] = []
    for document in rest:
        own = len(document.text.encode("utf-8", "surrogatepass"))
        if own <= size or not chosen:
            chosen.append(document)
            size -= own
    return chosen


def method_of(settings: Any, made: Prepared, objective: Objective, policy: CausalLM, *, seed: int) -> Pretraining:
    """The training of an arm; `policy` knows the control tokens where the objective needs them."""
    controls = controls_of(policy)
    return Pretraining(
        made.tokens, objective, eos=made.policy.eos_ids[0], opening=made.policy.encode(""),
        controls=controls.ids if controls else None, tokens=settings.tokens, batch_tokens=settings.batch_tokens,
        length=settings.length, switch_at=settings.switch_at, positions=settings.positions, seed=seed,
    )  # fmt: skip


def arm(settings: Any, made: Prepared, *, seed: int, folder: Path, record: Run) -> Arm:
    """Train and measure `settings.objective` in `folder`; what `record` has of it is read and not done again."""
    objective = objective_of(settings, made.tokens, made.thresholds)
    policy = made.policy
    if objective.name == "conditional":
        policy = with_controls(policy, placing=settings.placing)
    learner = PackedLM.of(policy, value=objective.name == "awr")
    method = method_of(settings, made, objective, policy, seed=seed)
    rate = settings.learning_rate or (1e-4 if settings.model else 2e-3)
    result, metrics = trained(
        learner, method, adapter="none", folder=folder, record=record,
        optimisation=Optimisation(
            learning_rate=rate, schedule="cosine", warmup=0.05, weight_decay=0.1,
            precision=settings.precision,
        ),
        checkpoint_every=settings.checkpoint_every, on_full=settings.on_full,
    )  # fmt: skip
    assert isinstance(result, CausalLM)
    result = unconditioned(result)  # what it pays for control tokens itself is measured too
    result.model.requires_grad_(False)
    name = folder.name
    clean = made.thresholds["documents"].value
    bits = record.stage(f"{name} bits", lambda: held_out_bits(result, made, clean=clean, length=settings.length))
    samples = sampled(settings, result, scorer_of(settings), name, seed=seed, record=record)
    facts = {
        "tokens": method.tokens, "steps": method.steps, "switch": method.switch, "passes": method.passes(),
        "rows of a pass": method.rows_of_a_pass(), "parameters": sum(p.numel() for p in result.model.parameters()),
    }  # fmt: skip
    return Arm(objective, metrics, bits, samples, facts)


@torch.no_grad()
def held_out_bits(policy: CausalLM, made: Prepared, *, clean: float, length: int) -> list[Row]:
    """One row a held-out document: bits, bytes, and whether its mean score is at most `clean`."""
    controls = controls_of(policy)
    plain = PackedLM.of(policy)
    suppressed = PackedLM.of(conditioned(policy, suppress=controls.ids)) if controls else plain
    found, opening = [], made.policy.encode("")
    with bar("held-out bits") as progress:
        for at, document in enumerate(made.documents):
            stream = stream_of(
                made.held_out, np.array([at]), eos=made.policy.eos_ids[0], opening=opening, threshold=math.inf,
                controls=controls.ids if controls else None,
            )  # fmt: skip
            if controls and controls.placing == "first":
                stream = _with_the_first(stream)
            told = _log_probs(plain, stream, length)
            own = _log_probs(suppressed, stream, length) if controls else told
            text = ~stream.control[1:]
            score = float(made.held_out.means[at])
            found.append(
                {
                    "module": group_of(document), "document": document.id,
                    "bytes": len(document.text.encode("utf-8", "surrogatepass")),
                    "bits": -float(own[text].sum()) / math.log(2), "told_bits": -float(told.sum()) / math.log(2),
                    "clean": score <= clean, "score": None if math.isnan(score) else score,
                }
            )  # fmt: skip
            progress(at + 1, len(made.documents))
    return found


def _with_the_first(stream: Stream) -> Stream:
    """The stream with the first of its control tokens alone."""
    kept = ~stream.control
    kept[np.flatnonzero(stream.control)[:1]] = True
    return Stream(stream.ids[kept], stream.scores[kept], stream.control[kept])


def _log_probs(policy: PackedLM, stream: Stream, length: int) -> Any:
    """log p (S - 1,) of every token but the first, in windows of `length` that do not overlap; -inf where suppressed."""
    ids = torch.from_numpy(stream.ids)
    parts = [ids[first : first + length + 1] for first in range(0, len(ids) - 1, length)]
    found = []
    for start in range(0, len(parts), 16):
        rows = torch.nn.utils.rnn.pad_sequence(parts[start : start + 16], batch_first=True)
        values = policy.packed_log_probs(rows).cpu()
        found += [row[: len(part) - 1] for row, part in zip(values, parts[start : start + 16], strict=True)]
    return torch.cat(found).double().numpy()


def sampled(settings: Any, policy: CausalLM, scorer: Scorer, name: str, *, seed: int, record: Run) -> list[Row]:
    """`settings.samples` unconditional samples: text, why it ended, characters, score (None for an empty text)."""
    law = conditioned(policy) if controls_of(policy) else policy
    decoding = Decoding(max_tokens=settings.max_tokens, temperature=settings.temperature, top_p=settings.top_p)
    found: list[Row] = []
    with bar("samples") as progress:
        for start in range(0, settings.samples, CHUNK):
            count = min(CHUNK, settings.samples - start)

            def compute(start: int = start, count: int = count) -> list[Row]:
                drawn = law.sample([""], n=count, decoding=decoding, seed=derive(seed, name, start))
                texts = list(drawn.texts)
                if scorer.unit == "lines":
                    ends = zip(texts, drawn.ended, strict=True)
                    texts = [whole_lines(text, ended=ended == "eos") for text, ended in ends]
                return [
                    {"text": text, "ended": ended, "characters": len(text), "score": score}
                    for text, ended, score in zip(texts, drawn.ended, scorer(texts), strict=True)
                ]

            found += record.stage(f"{name} samples/{start // CHUNK}", compute)
            progress(len(found), settings.samples)
    return found
