"""What RLHF, RLAIF and direct-RLAIF share: prompts, pairs, who labels them, the score that they become.

    people   label pairs of the prior's own answers         ->  reward model   (RLHF)
    judge    labels the same pairs, asked in both orders    ->  reward model   (RLAIF)
    judge    rates every sample, 1 to 10                    ->  that rating    (direct-RLAIF)

Scores are brought to mean 0 and standard deviation 1 on the prior's samples before they are divided by beta: only so does one
beta mean the same for the logit of a reward model and a rating in [-1, 1].

Without data, prompts and judge of the user's own, a scripted reader plays the people (`task.scripted`), and a judge that knows
that taste up to noise, likes the first answer and long ones plays the AI: a study for two cores, of nobody's real preference.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from amenable import durable
from amenable.errors import ConfigError, FeedbackError
from amenable.evaluation.interval import Estimate, wilson
from amenable.feedback.judging import PairJudge, Rater, judged
from amenable.feedback.kinds import Score
from amenable.feedback.reward_model import RewardModel, load_reward_model
from amenable.feedback.synthetic_judge import SyntheticJudge
from amenable.method.imitation import Example
from amenable.policy.language_model import LanguageModel
from amenable.policy.loading import load_policy
from amenable.progress import say
from amenable.recipes.code_model import Making, code_model, functions_of, home
from amenable.recipes.judges import Asking, judge_named, rater_named
from amenable.recipes.reward_model import RewardModelSettings
from amenable.recipes.reward_model import run as run_reward_model
from amenable.recipes.sample import contexts_of
from amenable.recipes.settings import setting
from amenable.records import Decoding
from amenable.runs import Run
from amenable.seeding import derive, python_random
from amenable.task.functions import contexts
from amenable.task.preferences import Comparison, load_comparisons
from amenable.task.scripted import labelled_by_people, reader_score

CODE = "code-model"
WHO = ("people", "judge", "rating")


@dataclass(frozen=True)
class AlignmentSettings:
    """The policy, what it is asked, who says what is better, and how it is trained."""

    model: str = setting(
        CODE, "the policy to begin with: code-model (small, made here once), folder, hub id, named model"
    )
    prompts: str = setting(
        "",
        "a file of prompts, one a line (JSONL: its prompt); a quarter is held out. Default: those of data, or signatures",
    )
    data: str = setting(
        "", "pairs that people labelled (TRL's or HH-RLHF's format); default: pairs of the model's own answers"
    )
    reward: str = setting("", "rlhf, rlaif: the folder of a reward model that is trained already")
    judge: str = setting(
        "", "rlaif, direct-rlaif: MODEL, MODEL@URL, pmi:MODEL, FILE.py:FUNCTION; default: a scripted one"
    )
    pairs: int = setting(1024, "pairs of the model's own answers that are labelled, without data")
    prompt_count: int = setting(
        50, "signatures to train on, and as many of other modules to evaluate on, without prompts"
    )
    body: str = setting("", "of the reward model: folder, hub id or named small model; default: the model itself")
    depth: float = setting(1.0, "share of the body's layers that the reward model keeps")
    reward_training: str = setting(
        "full",
        "what is trained of the reward model besides its head: nothing, an adapter, or all",
        ("frozen", "lora", "full"),
    )
    reward_epochs: int = setting(3, "passes of the reward model over the pairs")
    reward_rate: float = setting(1e-4, "learning rate of the reward model's body; 1e-5 for a model of 100M weights")
    gold: str = setting(
        "",
        "a second scorer, named as judge is, or reward:FOLDER: nothing is trained on it, it decides who wins and watches for "
        "over-optimisation; default: the scripted reader where people are scripted",
    )
    readings: int = setting(5, "times that the gold scorer looks at the policy during training, 0 for never")
    best_of: int = setting(8, "n of best-of-n")
    beta: float = setting(0.3, "standard deviations of the score (over the model's own samples) a nat of KL")
    estimator: str = setting(
        "leave-one-out",
        "of the gradient: leave-one-out (RLOO), group (GRPO), none (REINFORCE), value (REINFORCE with a learned value), ppo, "
        "ppo-value",
        ("leave-one-out", "group", "none", "value", "ppo", "ppo-value"),
    )  # fmt: skip
    steps: int = setting(40, "optimiser steps")
    prompts_per_step: int = setting(16, "prompts a step")
    samples_per_prompt: int = setting(8, "samples a prompt and step")
    adapter: str = setting(
        "none",
        "none trains all weights; lora a low-rank adapter: less noise from the same samples, at 10 to 30 times the rate",
        ("none", "lora"),
    )
    learning_rate: float = setting(6e-5, "learning rate of AdamW, constant after a warm-up")
    max_tokens: int = setting(128, "longest sample in tokens")
    evaluation: int = setting(1000, "samples of every policy that is measured, in all")
    precision: str = setting("float32", "arithmetic of training", ("float32", "bfloat16"))
    checkpoint_every: int = setting(20, "optimiser steps between checkpoints, 0 for none")
    on_full: str = setting(
        "continue", "where the disk has no room for a checkpoint: continue without it, or stop", ("continue", "stop")
    )
    rows: int = setting(256, "samples decoded at once")
    threads: int = setting(0, "CPU threads, 0 for all cores")
    seed: int = setting(0, "seed of the whole study")


@dataclass(frozen=True)
class Problem:
    """The prior, its prompts, and whose taste counts: `gold` is known where people are scripted, or a setting names it."""

    prior: LanguageModel
    prompts: list[str]
    held_out: list[str]
    decoding: Decoding
    gold: Score | None


@dataclass(frozen=True)
class Scored:
    """A score of mean 0 and deviation 1 on the prior's samples, as a `kinds.Score`; `raw` as it was given."""

    raw: Score
    mean: float
    deviation: float
    name: str
    binary: bool = False

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float | None]:
        found = self.raw(prompts, completions, **columns)
        return [None if value is None else (value - self.mean) / self.deviation for value in found]


@dataclass(frozen=True)
class Preference:
    """A score to optimise, and how well the reward model behind it knows its labels: None where there is none."""

    score: Scored
    accuracy: Estimate | None
    labels: int


def problem(settings: AlignmentSettings, folder: Path) -> Problem:
    """`folder` keeps what a gold scorer says. Errors: ConfigError for settings that go ill together, DataError for files."""
    decoding = Decoding(max_tokens=settings.max_tokens)
    if settings.model == CODE:
        prior: LanguageModel = code_model(rows=settings.rows)
    else:
        prior = load_policy(settings.model, dtype="float32", rows=settings.rows)
    scripted = not (settings.data or settings.reward or settings.judge or settings.prompts)
    gold = rater_named(settings.gold, Asking(folder / "gold")) if settings.gold else reader_score if scripted else None
    if settings.prompts or settings.data:
        if settings.prompts:
            lines = contexts_of(settings.prompts)
        else:
            lines = [pair.prompt for pair in load_comparisons(settings.data)]
        unique = list(dict.fromkeys(lines))
        python_random(settings.seed, "prompts").shuffle(unique)
        cut = max(1, len(unique) // 4)
        return Problem(prior, unique[cut:] or unique, unique[:cut], decoding, gold)
    train, held_out = (
        [function.signature for function in contexts(functions_of(Making()), split, settings.prompt_count, seed=settings.seed)]
        for split in ("train", "held-out")
    )  # fmt: skip
    return Problem(prior, train, held_out, decoding, gold)


def preference(who: str, settings: AlignmentSettings, found: Problem, folder: Path, record: Run) -> Preference:
    """The score of `people` or `judge` (a reward model on their labels), or the judge's own `rating`."""
    if who == "rating":
        return _standardised(rater(settings, folder), settings, found, record, "rating")
    if settings.reward:
        return _standardised(load_reward_model(settings.reward), settings, found, record, "reward")
    labelled = labels(who, settings, found, folder, record)
    model, accuracy = reward_model(settings, labelled, folder / f"reward-{who}")
    made = _standardised(model, settings, found, record, who)
    return Preference(made.score, accuracy, len(labelled))


def preferred_answers(prior: LanguageModel, pairs: Sequence[Comparison], decoding: Decoding) -> list[Example]:
    """The better answer of every pair that has one; an answer that was cut at the longest length has no end to imitate."""
    better = [
        (pair.prompt, pair.first if pair.label > 0.5 else pair.second)
        for pair in pairs
        if pair.label not in (None, 0.5)
    ]
    if not better:
        raise FeedbackError(
            f"none of {len(pairs)} pairs has a better answer", "label some: every one is a tie, or unlabelled"
        )
    return [
        Example(prompt, text, eos=len(prior.encode_completion(text, eos=False)) < decoding.max_tokens)
        for prompt, text in better
    ]


def judge(settings: AlignmentSettings, folder: Path) -> PairJudge:
    """The judge that the settings name, or the scripted one: its own taste is the reader's, but for noise and two vices."""
    if settings.judge:
        return judge_named(settings.judge, Asking(folder))
    return SyntheticJudge(
        reader_score, order_bonus=1.0, noise=0.7, length_taste=0.3, seed=settings.seed, name="scripted judge"
    )


def rater(settings: AlignmentSettings, folder: Path) -> Score | Rater:
    """The judge as a rater of single answers."""
    if settings.judge:
        return rater_named(settings.judge, Asking(folder))
    made = judge(settings, folder)
    assert isinstance(made, SyntheticJudge)
    return ScriptedRating(made)


@dataclass(frozen=True)
class ScriptedRating:
    """The scripted judge asked about one answer: against an empty one, without an order; P(better) mapped to [-1, 1]."""

    judge: SyntheticJudge
    name: str = "scripted rating"
    binary: bool = False

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: object) -> list[float | None]:
        average = ["    return None\n"] * len(prompts)
        found = judged(self.judge, list(prompts), list(completions), average)
        return [None if one.averaged is None else 2 * one.averaged - 1 for one in found]


def labels(who: str, settings: AlignmentSettings, found: Problem, folder: Path, record: Run) -> list[Comparison]:
    """Labelled pairs: the file's, with its people's labels or the judge's; or pairs of the prior's own answers."""
    if settings.data:
        pairs = load_comparisons(settings.data)
        return pairs if who == "people" else _judged(pairs, settings, folder, record)
    drawn = _drawn(settings, found, record)
    if who == "judge":
        return _judged(drawn, settings, folder, record)
    texts = [pair.prompt for pair in drawn], [pair.first for pair in drawn], [pair.second for pair in drawn]
    return labelled_by_people(*texts, seed=derive(settings.seed, "people"))


def _drawn(settings: AlignmentSettings, found: Problem, record: Run) -> list[Comparison]:
    """Pairs of different answers of the prior to its training prompts."""

    def compute() -> list[dict[str, Any]]:
        each = 2 * -(-settings.pairs // len(found.prompts))  # an even number
        drawn = found.prior.sample(found.prompts, n=each, decoding=found.decoding, seed=derive(settings.seed, "pairs"))
        rows = [
            {"prompt": prompt, "first": drawn.texts[at], "second": drawn.texts[at + 1]}
            for place, prompt in enumerate(found.prompts)
            for at in range(place * each, (place + 1) * each, 2)
        ]
        return [row for row in rows if row["first"] != row["second"]][: settings.pairs]

    return [Comparison(row["prompt"], row["first"], row["second"]) for row in record.stage("pairs", compute)]


def _judged(pairs: Sequence[Comparison], settings: AlignmentSettings, folder: Path, record: Run) -> list[Comparison]:
    """The pairs with the judge's soft labels; those that it gave no answer to are left out, and said."""

    def compute() -> list[dict[str, Any]]:
        texts = [pair.prompt for pair in pairs], [pair.first for pair in pairs], [pair.second for pair in pairs]
        return [{"label": one.averaged, "why": one.missing} for one in judged(judge(settings, folder), *texts)]

    rows = record.stage("pairs, judged", compute)
    missing = [row["why"] for row in rows if row["label"] is None]
    if missing:
        say(f"{len(missing)} of {len(rows)} pairs have no label: {missing[0]}")
    kept = [
        Comparison(pair.prompt, pair.first, pair.second, row["label"])
        for pair, row in zip(pairs, rows, strict=True)
        if row["label"] is not None
    ]
    if not kept:
        raise FeedbackError(f"the judge gave no label to any of {len(rows)} pairs", "see why above, and mend the judge")
    return kept


def reward_model(
    settings: AlignmentSettings, pairs: Sequence[Comparison], folder: Path
) -> tuple[RewardModel, Estimate]:
    """`amenable run reward-model` on the pairs, in `folder`: the model, and its accuracy on pairs of other prompts."""
    body = settings.body or settings.model
    source = str(home(Making()) / "code-model" / "model") if body == CODE else body
    folder.mkdir(parents=True, exist_ok=True)
    given = folder / "pairs.jsonl"
    if not given.exists():
        durable.write_file(given, "".join(json.dumps(pair.row()) + "\n" for pair in pairs))
    own = RewardModelSettings(
        data=str(given), model=source, body=settings.reward_training, depth=settings.depth, precision=settings.precision,
        epochs=settings.reward_epochs, learning_rate=settings.reward_rate, dtype="float32", threads=settings.threads,
        seed=settings.seed, reads="last", repeats=0, checkpoint_every=settings.checkpoint_every, on_full=settings.on_full,
    )  # fmt: skip
    run_reward_model(own, folder)
    record = Run.of(folder, own)
    rows = record.stage("held out, head" if own.body == "frozen" else "held out", list)
    record.close()
    sided = [row for row in rows if row["label"] != 0.5]
    right = sum((row["reward_first"] > row["reward_second"]) == (row["label"] > 0.5) for row in sided)
    return load_reward_model(folder / "model", dtype="float32"), wilson(right, len(sided))


def _standardised(score: Any, settings: AlignmentSettings, found: Problem, record: Run, name: str) -> Preference:
    """`score` in units of its deviation over the prior's samples. Errors: FeedbackError if it says the same of all."""

    def compute() -> list[dict[str, Any]]:
        each = max(2, 512 // len(found.prompts))
        drawn = found.prior.sample(found.prompts, n=each, decoding=found.decoding, seed=derive(settings.seed, "scale"))
        values = score([prompt for prompt in found.prompts for _ in range(each)], drawn.texts)
        known = torch.tensor([value for value in values if value is not None], dtype=torch.float64)
        if len(known) < 2 or not float(known.std()) > 0:
            raise FeedbackError(
                f"{getattr(score, 'name', name)} says the same of all {len(known)} of {len(values)} samples that it scored",
                "there is nothing to learn from it: look at it with `amenable judge`, or use another one",
            )
        return [{"mean": float(known.mean()), "deviation": float(known.std())}]

    scale = record.stage(f"scale of the {name}", compute)[0]
    label = hashlib.sha256(json.dumps([name, scale]).encode()).hexdigest()[:8]
    return Preference(Scored(score, scale["mean"], scale["deviation"], f"{name} {label}"), None, 0)


def check(settings: AlignmentSettings, who: str) -> None:
    """Errors: ConfigError for settings that do not belong to who scores."""
    if who == "rating" and (settings.reward or settings.body):
        raise ConfigError("direct-rlaif has no reward model", "leave out reward and body, or run rlaif")
    if who == "people" and settings.judge:
        raise ConfigError(f"rlhf asks people, not judge={settings.judge}", "leave judge out, or run rlaif")
    if who == "people" and settings.prompts and not settings.data and not settings.reward:
        raise ConfigError("rlhf of your own prompts has no people", "give data=PAIRS.jsonl, or reward=FOLDER")
    if who != "people" and settings.prompts and not settings.judge and not settings.reward:
        raise ConfigError(
            "your own prompts have no judge", "give judge=MODEL, MODEL@URL, pmi:MODEL or FILE.py:FUNCTION"
        )
    if not settings.beta > 0:
        raise ConfigError(
            f"beta={settings.beta:g}: without a KL penalty there is no posterior", "use beta > 0, such as 0.3"
        )
