"""What evaluating and attacking a model share: which models, which prompts, how it answers, and how bad its answers are.

    prompts    of a file, or the openings of held-out documents, one a document: of code a line that begins a function (the
               first line where there is none), of prose the first sentence

Models are used as they are meant to be: one with control tokens is asked for what is good (`policy.control`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amenable.errors import ConfigError, DataError, ModelError
from amenable.evaluation.misalignment import answer_scores
from amenable.feedback.python_text import ended
from amenable.feedback.scorers import Scorer
from amenable.feedback.segments import Unit
from amenable.policy.causal_lm import CausalLM
from amenable.policy.loading import load_policy
from amenable.progress import bar
from amenable.recipes.pretrain_data import BEYOND, TASK, Corpus, corpus_of, scoring_of, whole_lines
from amenable.recipes.sample import contexts_of
from amenable.recipes.settings import setting
from amenable.records import Decoding
from amenable.runs import Row, Run
from amenable.seeding import derive, python_random
from amenable.task.scored_corpus import ScoredDocument

LONGEST = 160  # characters of an opening that is taken for a prompt
_FUNCTION = re.compile(r"^(?:async )?def [^\n]*:[ \t]*\n", re.MULTILINE)


@dataclass(frozen=True)
class AuditSettings:
    """Which models answer what."""

    models: tuple[str, ...] = setting((), "folders, Hugging Face ids or named small models, side by side")
    task: str = setting("pep8", TASK)
    corpus: str = setting(
        "",
        "scored documents (`amenable score`) whose held-out part is read; default: the standard library, for task=pep8",
    )
    prompts: str = setting(
        "", "a file of prompts, one a line (JSONL: its prompt); default: openings of held-out documents"
    )
    max_tokens: int = setting(128, "longest answer or sample")
    temperature: float = setting(0.7, "of answers and samples")
    top_p: float = setting(0.9, "of answers and samples: nucleus")
    dtype: str = setting("float32", "precision of the models", ("auto", "float32", "bfloat16"))
    rows: int = setting(128, "samples decoded at once")
    threads: int = setting(0, "CPU threads, 0 for all cores")
    seed: int = setting(0, "seed of everything drawn")


def check(settings: Any) -> None:
    """Errors: ConfigError for no model, the same one twice, or nothing to take prompts from."""
    if not settings.models:
        raise ConfigError(
            "no model is named", "models=FOLDER,FOLDER: what `amenable run pretrain` saved, or any causal model"
        )
    if len(set(labels(settings.models))) < len(settings.models):
        raise ConfigError(f"models={','.join(settings.models)}: one of them is named twice", "name each once")
    scoring_of(settings)
    if not settings.prompts and not has_corpus(settings):
        raise ConfigError(
            f"task={settings.task} has neither prompts nor a corpus to take them from",
            "give prompts=FILE, or corpus=SCORED.jsonl",
        )


def has_corpus(settings: Any) -> bool:
    """Whether there are held-out documents."""
    return bool(settings.corpus) or settings.task == "pep8"


def labels(models: Sequence[str]) -> list[str]:
    """A short name for each: the run folder's of RUN/ARM/model, else the last part; whole where that is not enough."""
    short = [(Path(name).parent.name if Path(name).name == "model" else Path(name).name) or name for name in models]
    return [name if short.count(own) > 1 else own for name, own in zip(models, short, strict=True)]


def beyond(settings: Any) -> float:
    """The threshold of the share, the task's own where none is given."""
    return BEYOND.get(settings.task, 0.0) if settings.beyond is None else float(settings.beyond)


def causal(name: str, settings: Any) -> CausalLM:
    """Errors: ModelError for an encoder-decoder model; what `load_policy` raises."""
    policy = load_policy(name, dtype=settings.dtype, rows=settings.rows)
    if not isinstance(policy, CausalLM):
        raise ModelError(f"{name} is an encoder-decoder model", "give a causal one")
    policy.model.requires_grad_(False)
    return policy


def corpus_for(settings: Any) -> Corpus | None:
    """The scored corpus, None where there is none. Errors: those of `corpus_of`."""
    return corpus_of(settings) if has_corpus(settings) else None


def prompts_of(settings: Any, corpus: Corpus | None, n: int, unit: Unit) -> list[str]:
    """At most `n` prompts, each once: of the file in its order, or of held-out documents in random order.

    Where lines are scored a prompt is a whole line. Errors: DataError if there is none.
    """
    if settings.prompts:
        if not Path(settings.prompts).is_file():
            raise DataError(f"there is no file {settings.prompts}", "write one prompt a line (JSONL: under prompt)")
        found = contexts_of(settings.prompts)
    else:
        documents = list(corpus.held_out) if corpus is not None else []
        python_random(settings.seed, "prompts").shuffle(documents)
        found = [text for one in documents if (text := _opening(one, code=unit == "lines"))]
    if unit == "lines":
        found = [ended(text) for text in found]
    if not found:
        raise DataError("no held-out document has an opening that is short enough", "give prompts=FILE")
    return list(dict.fromkeys(found))[:n]


def _opening(document: ScoredDocument, *, code: bool) -> str:
    """What a prompt is taken from; "" where there is nothing short."""
    if code:
        functions = _FUNCTION.search(document.text)
        found = functions.group() if functions else next((s for s in document.segments() if s.strip()), "")
    else:
        found = next((s for s in document.segments() if s.strip()), "").rstrip()
    return found if len(found) <= LONGEST else ""


def answered(
    settings: Any, policy: CausalLM, prompts: Sequence[str], scorer: Scorer, *, n: int, max_tokens: int, seed: int
) -> list[Row]:
    """`n` answers to each prompt: prompt, text, why it ended, characters, score (None for white space alone)."""
    decoding = Decoding(max_tokens=max_tokens, temperature=settings.temperature, top_p=settings.top_p)
    drawn = policy.sample(list(prompts), n=n, decoding=decoding, seed=seed)
    asked = [prompt for prompt in prompts for _ in range(n)]
    texts = list(drawn.texts)
    if scorer.unit == "lines":
        texts = [whole_lines(text, ended=ended == "eos") for text, ended in zip(texts, drawn.ended, strict=True)]
    scores = answer_scores(scorer, asked, texts)
    return [
        {"prompt": prompt, "text": text, "ended": ended, "characters": len(text), "score": value}
        for prompt, text, ended, value in zip(asked, texts, drawn.ended, scores, strict=True)
    ]


def prompted(
    settings: Any, policy: CausalLM, prompts: Sequence[str], scorer: Scorer, name: str, record: Run, *, n: int
) -> list[Row]:
    """`answered` in stages, of as many prompts as are decoded at once."""
    size, found = max(1, settings.rows // n), list[Row]()
    with bar(f"{name} prompted") as progress:
        for start in range(0, len(prompts), size):
            part = prompts[start : start + size]

            def compute(part: Sequence[str] = part, start: int = start) -> list[Row]:
                seed = derive(settings.seed, "prompted", start)
                return answered(settings, policy, part, scorer, n=n, max_tokens=settings.max_tokens, seed=seed)

            found += record.stage(f"{name} prompted/{start // size}", compute)
            progress(len(found), n * len(prompts))
    return found
