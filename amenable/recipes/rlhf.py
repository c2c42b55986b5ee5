"""RLHF, RLAIF and direct-RLAIF as recipes: one study, three scores.

    prior  ->  people's reward model | judge's reward model | judge's rating  ->  posterior  ->  policy, against the prior

`amenable run rlhf`, `rlaif`, `direct-rlaif` train one policy each, `best-of-n` none; `amenable run preference-study` does all
of them over several seeds, beside supervised fine-tuning on the preferred answers, and compares them with each other.
Sources: those of `method.rlhf`, `method.rlaif`, `method.direct_rlaif`, `sampling.best_of_n`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from amenable.errors import ConfigError, FeedbackError
from amenable.evaluation.interval import Estimate, bootstrap_mean, no_data
from amenable.evaluation.over_optimisation import Meter
from amenable.evaluation.preference import from_scores, length_corrected, win_rate
from amenable.feedback.judging import judged
from amenable.method.direct_rlaif import direct_rlaif
from amenable.method.fdpg import FDPG
from amenable.method.imitation import Imitation
from amenable.method.loop import Optimisation
from amenable.method.protocol import Method
from amenable.method.rlaif import rlaif
from amenable.method.rlhf import rlhf
from amenable.policy.language_model import LanguageModel
from amenable.recipes.alignment import (
    CODE,
    AlignmentSettings,
    Preference,
    Problem,
    check,
    judge,
    labels,
    preference,
    preferred_answers,
    problem,
)
from amenable.recipes.environment import prepare
from amenable.recipes.metered import Metered, metering, readings_of
from amenable.recipes.rlhf_report import Arm, Outcome, build_report, study_report
from amenable.recipes.settings import Recipe, setting
from amenable.recipes.training import trained
from amenable.report.html import write
from amenable.report.page import Report
from amenable.runs import Row, Run
from amenable.sampling.best_of_n import best_of_n
from amenable.sampling.proposal import OnPolicy
from amenable.seeding import derive
from amenable.target.posterior import sequence_log_prob

READINGS = "readings.jsonl"
TRAINED: dict[str, Callable[..., FDPG]] = {"rlhf": rlhf, "rlaif": rlaif, "direct-rlaif": direct_rlaif}
METHODS = ("sft", *TRAINED, "best-of-n")


def who_of(name: str, settings: AlignmentSettings) -> str:
    """Whose opinion a method uses: people's labels, a judge's labels, or a judge's rating."""
    if name == "best-of-n":
        return "rating" if settings.judge and not settings.data and not settings.reward else "people"
    return {"sft": "people", "rlhf": "people", "rlaif": "judge", "direct-rlaif": "rating"}[name]


def plan(name: str, settings: AlignmentSettings) -> list[str]:
    """What a run does, in lines."""
    who = who_of(name, settings)
    check(settings, who)
    pairs = settings.data or f"{settings.pairs} pairs of its own answers"
    said = {
        "people": f"{'people' if settings.data else 'scripted people'}'s labels of {pairs}",
        "judge": f"{settings.judge or 'the scripted judge'}'s labels of {pairs}",
        "rating": f"{settings.judge or 'the scripted judge'}'s rating of every sample",
    }[who]
    score = "the score" if who == "rating" else f"a reward model{f', {settings.reward},' if settings.reward else ''}"
    towards = (
        f"{settings.steps} steps of {settings.prompts_per_step} prompts, {settings.samples_per_prompt} samples each, "
        f"β = {settings.beta:g} standard deviations of the score a nat, estimator {settings.estimator}"
    )
    small = "the small code model is trained first if this machine has none: about 6 minutes, once"
    return [
        f"{name} of {settings.model}",
        f"1  {score} from {said}",
        "2  "
        + {
            "sft": f"about {settings.steps} steps of supervised fine-tuning on the preferred answers",
            "best-of-n": f"no training: the best of {settings.best_of} answers by that score",
        }.get(name, towards),
        f"3  {settings.evaluation} samples of the policy and of the prior on held-out prompts, compared in pairs",
        small if settings.model == CODE else "",
    ]


def run(name: str, settings: AlignmentSettings, folder: Path) -> Report:
    """One method in `folder`. Run again, it goes on where it stopped."""
    clock = prepare(settings.threads)
    check(settings, who_of(name, settings))
    found = problem(settings, folder)
    record = Run.of(folder, settings)
    before = sampled(settings, found, lambda: found.prior, "prior", record)
    clock.lap("samples of the prior")
    arm = one_arm(name, "policy", settings, found, before, folder, record)
    clock.lap(name)
    report = build_report(name, settings, found, arm, before, clock.minutes())
    write(report, folder / "report.html")
    record.close()
    return report


def one_arm(
    name: str, label: str, settings: AlignmentSettings, found: Problem, before: Sequence[Row], folder: Path, record: Run
) -> Arm:
    """A method from its feedback to its samples; `label` names its training and its stages."""
    chosen = preference(who_of(name, settings), settings, found, folder, record)
    metrics: list[dict[str, Any]] = []
    if name == "best-of-n":
        after = record.stage(label, lambda: best(settings, found, chosen))
    else:
        method = build(name, settings, found, chosen, folder, folder / label, record)
        policy, metrics = train_one(settings, found, method, folder / label, record)
        after = sampled(settings, found, lambda: policy.exact(), label, record)
    scored = scores(found, chosen, after, label, record)
    result = outcome(found, chosen, before, after, scored, settings, folder, record, label)
    return Arm(chosen, result, after, metrics, meter_of(found, after, scored, folder / label))


def build(
    name: str,
    settings: AlignmentSettings,
    found: Problem,
    chosen: Preference,
    folder: Path,
    training: Path,
    record: Run,
) -> Method:
    """The method of an arm that is trained; a gold scorer, where there is one, watches it."""
    if name == "sft":
        pairs = labels("people", settings, found, folder, record)
        examples = preferred_answers(found.prior, pairs, found.decoding)
        size = settings.prompts_per_step * settings.samples_per_prompt
        epochs = max(1, round(settings.steps * size / len(examples)))
        return Imitation(examples, epochs=epochs, batch_size=size, seed=settings.seed)
    proposal = OnPolicy(torch.bfloat16) if settings.precision == "bfloat16" else OnPolicy()
    method = TRAINED[name](
        found.prior, chosen.score, beta=settings.beta, estimator=settings.estimator, contexts=found.prompts,
        steps=settings.steps, contexts_per_step=settings.prompts_per_step, samples_per_context=settings.samples_per_prompt,
        decoding=found.decoding, proposal=proposal, seed=derive(settings.seed, name),
    )  # fmt: skip
    if found.gold is None or not settings.readings:
        return method
    return Metered(
        method, readings=settings.readings, prior=found.prior.exact(), prompts=found.held_out, decoding=found.decoding,
        proxy=chosen.score, gold=found.gold, path=training / READINGS, seed=derive(settings.seed, "meter"),
    )  # fmt: skip


def train_one(
    settings: AlignmentSettings, found: Problem, method: Method, folder: Path, record: Run
) -> tuple[LanguageModel, list[dict[str, Any]]]:
    """The policy that a method makes of the prior, and the metrics of its steps."""
    optimisation = Optimisation(
        learning_rate=settings.learning_rate, schedule="constant", precision=settings.precision  # type: ignore[arg-type]
    )  # fmt: skip
    return trained(
        found.prior, method, optimisation=optimisation, adapter=settings.adapter, folder=folder, record=record,
        checkpoint_every=settings.checkpoint_every, on_full=settings.on_full,
    )  # fmt: skip


def best(settings: AlignmentSettings, found: Problem, chosen: Preference) -> list[Row]:
    """The best of n answers of the prior by the score, to the same prompts as all; of its law a bound is known."""
    each, seed = answers_each(settings, found), derive(settings.seed, "evaluation", "best-of-n")
    drawn = best_of_n(
        found.prior, chosen.score, found.held_out, n=settings.best_of, draws=each, decoding=found.decoding, seed=seed
    )
    if drawn.without:
        raise FeedbackError(
            f"{chosen.score.name} scores none of {settings.best_of} answers to {drawn.without[0]!r}",
            "raise best_of, or mend it",
        )
    return [
        {"prompt": prompt, "text": text, "kl_bound": drawn.kl_bound}
        for prompt, text in zip(drawn.prompts, drawn.samples.texts, strict=True)
    ]


def answers_each(settings: AlignmentSettings, found: Problem) -> int:
    """Answers to every held-out prompt that are measured."""
    return max(1, settings.evaluation // len(found.held_out))


def sampled(
    settings: AlignmentSettings, found: Problem, policy: Callable[[], LanguageModel], name: str, record: Run
) -> list[Row]:
    """Samples of a policy on the held-out prompts, with log pi and log a; the same prompts in the same order for all."""

    def compute() -> list[Row]:
        law, each = policy(), answers_each(settings, found)
        drawn = law.sample(
            found.held_out, n=each, decoding=found.decoding, seed=derive(settings.seed, "evaluation", name)
        )
        log_policy, log_prior = sequence_log_prob(law, drawn), sequence_log_prob(found.prior.exact(), drawn)
        return [
            {"prompt": found.held_out[i // each], "text": drawn.texts[i], "log_policy": here, "log_prior": there}
            for i, (here, there) in enumerate(zip(log_policy.tolist(), log_prior.tolist(), strict=True))
        ]

    return record.stage(name, compute)


def scores(found: Problem, chosen: Preference, rows: Sequence[Row], name: str, record: Run) -> list[Row]:
    """What the score that was optimised says of each sample, and gold where there is one."""

    def compute() -> list[Row]:
        prompts, texts = [row["prompt"] for row in rows], [row["text"] for row in rows]
        gold = found.gold(prompts, texts) if found.gold is not None else [None] * len(texts)
        both = zip(chosen.score(prompts, texts), gold, strict=True)
        return [{"score": score, "gold": other} for score, other in both]

    return record.stage(f"{name}, scored", compute)


def outcome(
    found: Problem, chosen: Preference, before: Sequence[Row], after: Sequence[Row], scored: Sequence[Row],
    settings: AlignmentSettings, folder: Path, record: Run, name: str,
) -> Outcome:  # fmt: skip
    """The policy's samples beside the prior's: who wins, by gold where it is known, else by the judge or the score."""
    prompts = [row["prompt"] for row in after]
    texts, others = [row["text"] for row in after], [row["text"] for row in before]
    better = preferred(found, chosen, prompts, texts, others, settings, folder, record, f"{name} against the prior")
    lengths = [max(1, len(text)) for text in texts]
    corrected = length_corrected(better, lengths, [max(1, len(text)) for text in others], prompts=prompts)
    bound = after[0].get("kl_bound")
    return Outcome(
        wins=win_rate(better, prompts=prompts).rate,
        wins_at_equal_length=corrected.rate,
        score=_mean([row["score"] for row in scored], prompts),
        gold=_mean([row["gold"] for row in scored], prompts) if found.gold is not None else no_data("no gold score"),
        kl=_mean([row["log_policy"] - row["log_prior"] for row in after], prompts)
        if bound is None
        else Estimate(bound, math.nan, math.nan, len(after), "upper bound, log n - (n - 1)/n"),
        length=_mean(lengths, prompts),
    )


def meter_of(found: Problem, after: Sequence[Row], scored: Sequence[Row], training: Path) -> Meter | None:
    """All readings of a training, and its end as the last one; None where nothing watched."""
    path = training / READINGS
    if not path.is_file():
        return None
    rows = readings_of(path)
    end = {
        "name": "the end", "prompts": [row["prompt"] for row in after],
        "shift": [row["log_policy"] - row["log_prior"] for row in after], "proxy": [row["score"] for row in scored],
        "gold": [row["gold"] for row in scored],
    }  # fmt: skip
    return metering([*rows, end], planned=len(rows) + 1)


def preferred(
    found: Problem, chosen: Preference, prompts: Sequence[str], texts: Sequence[str], others: Sequence[str],
    settings: AlignmentSettings, folder: Path, record: Run, name: str,
) -> list[float | None]:  # fmt: skip
    """P(text is better than other) a pair: by gold, 1, 1/2 or 0; else the judge's; else by the score that was optimised."""
    if found.gold is not None:
        return from_scores(found.gold(prompts, texts), found.gold(prompts, others))
    if not settings.judge:
        return from_scores(chosen.score(prompts, texts), chosen.score(prompts, others))

    def compute() -> list[Row]:
        return [{"p": one.averaged} for one in judged(judge(settings, folder), prompts, texts, others)]

    return [row["p"] for row in record.stage(name, compute)]


def _mean(values: Sequence[float | None], prompts: Sequence[str]) -> Estimate:
    known = [(value, prompt) for value, prompt in zip(values, prompts, strict=True) if value is not None]
    if not known:
        return no_data("no score")
    return bootstrap_mean([float(value) for value, _ in known], clusters=[prompt for _, prompt in known])


@dataclass(frozen=True)
class StudySettings(AlignmentSettings):
    """Which methods, over how many seeds."""

    methods: tuple[str, ...] = setting(METHODS, "which", METHODS)
    seeds: int = setting(
        3, "of each; prompts, pairs, labels, reward models, trainings and samples of a seed are its own"
    )


def run_study(settings: StudySettings, folder: Path) -> Report:
    """Every method, several seeds: against the prior and against each other. A folder may get more methods and seeds."""
    if settings.seeds < 1 or not settings.methods:
        raise ConfigError(f"methods={settings.methods}, seeds={settings.seeds}", "name methods, and seeds >= 1")
    clock = prepare(settings.threads)
    whole = Run.of(folder, settings, free=("methods", "seeds"))
    arms: dict[str, list[Arm]] = {name: [] for name in settings.methods}
    for seed in range(settings.seeds):
        own, place = of_seed(settings, seed), folder / f"seed-{seed}"
        found, record = problem(own, place), Run.of(place, own)
        before = sampled(own, found, lambda law=found.prior: law, "prior", record)  # type: ignore[misc]
        for name in settings.methods:
            arms[name].append(one_arm(name, name, own, found, before, place, record))
            clock.lap(name)
        record.close()
    report = study_report(settings, found, arms, clock.minutes())
    write(report, folder / "report.html")
    whole.close()
    return report


def of_seed(settings: StudySettings, seed: int) -> AlignmentSettings:
    """The settings of one seed of a study, as those of a run."""
    own = {field.name: getattr(settings, field.name) for field in fields(AlignmentSettings)}
    return AlignmentSettings(**{**own, "seed": derive(settings.seed, "study", seed)})


def of_arm(settings: AlignmentSettings, name: str) -> AlignmentSettings:
    """The settings as people's arms of a study read them: the judge is the others'."""
    return replace(settings, judge="") if who_of(name, settings) == "people" else settings


def _recipe(name: str, summary: str) -> Recipe:
    return Recipe(name, summary, AlignmentSettings, partial(plan, name), partial(run, name))


def plan_study(settings: StudySettings) -> list[str]:
    """What the study does, in lines."""
    return [line for name in settings.methods for line in plan(name, of_arm(settings, name))[:3]] + [
        f"{len(settings.methods)} methods, {settings.seeds} seeds, one after the other; each is kept when it is done"
    ]


RLHF = _recipe("rlhf", "towards the posterior of people's preferences, by a reward model")
RLAIF = _recipe("rlaif", "the same with an AI judge's preferences, asked in both orders")
BEST_OF_N = _recipe("best-of-n", "no training: the best of n answers by a reward model, or by a judge's rating")
DIRECT_RLAIF = _recipe("direct-rlaif", "the same with the judge's rating of each sample as the reward")
STUDY = Recipe(
    "preference-study",
    "supervised fine-tuning, RLHF, RLAIF, direct-RLAIF and best-of-n over seeds, against the prior and each other",
    StudySettings,
    plan_study,
    run_study,
)
