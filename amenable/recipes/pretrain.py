"""Pretraining with human feedback: a language model from a scored corpus, by one of six objectives.

    1  corpus      documents in segments with scores; a tenth of the packages held out
    2  thresholds  quantiles of the training data's own scores
    3  training    from scratch, or on from a model; MLE until `switch_at`, if that is asked for
    4  measures    bits per byte on held-out documents, and how bad samples are

Source: Korbak et al. 2023, arXiv 2302.08582.
Changed from the paper: models of 1 to 15 million weights on a CPU; the sizes, the tokenizer and the corpus are ours; PEP8
models go without the paper's 10% of lines that have no control token (1% here, `drop`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from amenable.errors import ConfigError
from amenable.objective.pretraining import NAMES
from amenable.progress import duration
from amenable.recipes.environment import machine, prepare
from amenable.recipes.pretrain_arm import SIZES, arm, prepared
from amenable.recipes.pretrain_data import TASK, corpus_of, scoring_of
from amenable.recipes.pretrain_report import build_report
from amenable.recipes.settings import Recipe, setting
from amenable.report.html import write
from amenable.report.page import Report
from amenable.runs import Run

SPEED = {"bfloat16": 1.9e11, "float32": 1.2e11}
"""Operations a second of training on one core of the machine this was written on (AMX), for the plan's guess."""
A_TOKEN = 6e-5  # seconds a token besides


@dataclass(frozen=True)
class ArmSettings:
    """What a single training and its measurements need."""

    task: str = setting("pep8", TASK)
    corpus: str = setting(
        "", "scored documents: a file or run folder of `amenable score`; default: the standard library, for task=pep8"
    )
    model: str = setting(
        "",
        "go on from this causal model instead of from scratch: folder, id, or named small model; or from=",
        also="from",
    )
    size: str = setting("4m", "weights of a model from scratch", tuple(SIZES))
    tokens: int = setting(2_000_000, "token budget: predictions of the whole training, control tokens included")
    switch_at: float = setting(0.0, "share of the tokens that are learned by MLE before the objective sets in")
    quantile: float = setting(0.5, "share of the training data's scores that is called good at least")
    reward_scale: float = setting(1.0, "rwr, awr: the score whose reward is -1; 0: the data's 99% quantile above 0")
    drop: float = setting(0.01, "conditional: share of the segments without a control token")
    placing: str = setting(
        "each",
        "conditional, in use: <|good|> before each segment, or the first alone (texts end early)",
        ("each", "first"),
    )
    length: int = setting(256, "tokens of a packed row")
    batch_tokens: int = setting(8192, "tokens an optimiser step")
    positions: int = setting(4096, "tokens of a micro-batch (memory)")
    learning_rate: float = setting(0.0, "peak learning rate of AdamW; 0: 2e-3 from scratch, 1e-4 from a model")
    precision: str = setting("bfloat16", "arithmetic of training", ("bfloat16", "float32"))
    held_out: int = setting(200_000, "bytes of held-out documents that are scored")
    samples: int = setting(512, "unconditional samples")
    max_tokens: int = setting(128, "longest sample")
    temperature: float = setting(0.7, "of the samples")
    top_p: float = setting(0.9, "of the samples: nucleus")
    rows: int = setting(128, "samples decoded at once")
    checkpoint_every: int = setting(50, "optimiser steps between checkpoints, 0 for none")
    on_full: str = setting(
        "continue", "where the disk has no room for a checkpoint: continue without it, or stop", ("continue", "stop")
    )
    threads: int = setting(0, "CPU threads, 0 for all cores")


@dataclass(frozen=True)
class PretrainSettings(ArmSettings):
    """One objective, one seed."""

    objective: str = setting("conditional", "how the scores are used", NAMES)
    threshold: float | None = setting(
        None, "score up to which a segment is good (filtering: a document's mean); default: at `quantile` of the data"
    )
    alpha: float | None = setting(None, "unlikelihood: weight of bad tokens (1); awr: share of the likelihood (0.5)")
    beta: float | None = setting(None, "rwr (10), awr (1): temperature of the weights, in units of the reward")
    seed: int = setting(0, "seed of weights, order of documents and samples")


def forecast(settings: ArmSettings) -> float:
    """Seconds of one arm's training and samples on one core, roughly; nan for a given model, whose size is not known yet."""
    if settings.model:
        return float("nan")
    vocabulary, width, layers, _ = SIZES[settings.size]
    weights = vocabulary * width + layers * 12 * width**2
    drawn = settings.samples * settings.max_tokens + settings.held_out / 4
    return (settings.tokens + drawn / 2) * (6 * weights / SPEED[settings.precision] + A_TOKEN)


def check(settings: ArmSettings) -> None:
    """Errors: ConfigError for sizes that cannot be."""
    for name in ("tokens", "length", "batch_tokens", "positions", "held_out", "samples", "max_tokens"):
        if getattr(settings, name) < 1:
            raise ConfigError(f"{name}={getattr(settings, name)} is not a size", f"use {name}=1 or more")
    scoring_of(settings)
    if settings.task != "pep8" and not settings.corpus:
        raise ConfigError(
            f"task={settings.task} without a corpus: the standard library has next to nothing of it",
            f"give corpus=SCORED.jsonl, from `amenable score CORPUS task={settings.task}`",
        )


def what(settings: ArmSettings) -> list[str]:
    """The lines of a plan that all studies of this kind share."""
    corpus = settings.corpus or "the standard library, scored at its first use (a minute or two) and kept"
    start = settings.model or f"a model of {settings.size} from scratch"
    steps = max(1, round(settings.tokens / (settings.batch_tokens // settings.length * settings.length)))
    switch = f", the first {settings.switch_at:.0%} of them MLE" if settings.switch_at else ""
    return [
        f"1  corpus: {corpus}; a tenth of the packages held out",
        f"2  thresholds: the {settings.quantile:.0%} quantile of the training scores ({settings.task}); shown in the report",
        f"3  {start}: {settings.tokens:,} tokens in {steps} steps of {settings.batch_tokens:,}{switch}, "
        f"{settings.precision}",
        f"4  bits per byte on {settings.held_out:,} held-out bytes; {settings.samples} samples of up to "
        f"{settings.max_tokens} tokens at temperature {settings.temperature:g}",
    ]


def plan(settings: PretrainSettings) -> list[str]:
    """What the run will do, in lines."""
    check(settings)
    seconds = forecast(settings)
    time = f"about {duration(seconds)} on one free core" if seconds == seconds else "time: see the bar"
    told = f", control token: {settings.placing}" if settings.objective == "conditional" else ""
    given = "" if settings.threshold is None else f", threshold {settings.threshold:g} as given"
    return [f"pretraining with feedback, objective {settings.objective}{given}{told}; {time}", *what(settings)]


def run(settings: PretrainSettings, folder: Path) -> Report:
    """The study in `folder`: OBJECTIVE-SEED/model, samples.jsonl, report.html. Run again, it goes on where it stopped."""
    clock = prepare(settings.threads)
    check(settings)
    record = Run.of(folder, settings)
    corpus = corpus_of(settings)
    clock.lap("corpus")
    made = prepared(settings, corpus, seed=settings.seed)
    clock.lap("tokens")
    name = f"{settings.objective}-{settings.seed}"
    found = arm(settings, made, seed=settings.seed, folder=folder / name, record=record)
    clock.lap("training and measures")
    report = build_report(settings, corpus, made, found, clock.minutes(), machine({}), folder / name / "model")
    write(report, folder / "report.html")
    record.close()
    return report


RECIPE = Recipe(
    "pretrain",
    "pretrain a language model on a scored corpus, by one of six objectives (PHF)",
    PretrainSettings,
    plan,
    run,
)
