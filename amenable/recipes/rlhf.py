"""RLHF, RLAIF and direct-RLAIF as recipes: one study, three scores.

    prior  ->  people's reward model | judge's reward model | judge's rating  ->  posterior  ->  policy, against the prior

`amenable run rlhf`, `rlaif`, `direct-rlaif` train one policy each, `best-of-n` none; `amenable run preference-study` does all
of them over several seeds, beside supervised fine-tuning on the preferred answers, and compares them with each other.
An arm is made in `rlhf_arm` and measured in `rlhf_outcome`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

from amenable.errors import ConfigError
from amenable.recipes.alignment import CODE, AlignmentSettings, check, problem
from amenable.recipes.environment import prepare
from amenable.recipes.rlhf_arm import METHODS, one_arm, sampled, who_of
from amenable.recipes.rlhf_report import Arm, build_report, study_report
from amenable.recipes.settings import Recipe, setting
from amenable.report.html import write
from amenable.report.page import Report
from amenable.runs import Run
from amenable.seeding import derive


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
