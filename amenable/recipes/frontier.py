"""The frontier of alignment and diversity: every divergence and method on one task, the same samples, several seeds.

One point a trained policy: how much of what was asked, against KL(pi, a), KL(p, pi), entropy and diversity; intervals over
seeds.
Source of the comparison: Go et al. 2023 (f-DPG), arXiv 2302.08215, figures 2 to 4; Khalifa et al. 2021 (GDC), 2012.11635.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from amenable import durable
from amenable.errors import ConfigError
from amenable.evaluation.interval import over_seeds
from amenable.recipes.arms import ARMS, build
from amenable.recipes.environment import prepare
from amenable.recipes.fdpg import MatchingSettings, cards, comparison, page
from amenable.recipes.matching import TASKS, Measures, Problem, best, measures, problem, target_measures
from amenable.recipes.settings import Recipe, setting
from amenable.recipes.training import trained
from amenable.report.html import write
from amenable.report.page import Curves, Report, Section, Series
from amenable.runs import Row, Run
from amenable.seeding import derive


@dataclass(frozen=True)
class FrontierSettings(MatchingSettings):
    """Which methods, over how many seeds."""

    methods: tuple[str, ...] = setting(
        ("kl", "rkl", "js", "tv", "gdc", "reinforce", "rl", "ppo", "filtered", "best-of-n"), "which", tuple(ARMS)
    )
    seeds: int = setting(3, "trainings of each, which differ in everything random but the prior")
    best_of: int = setting(4, "n of best-of-n")
    keep_models: bool = setting(False, "keep every trained model, and not its samples alone")


def plan(settings: FrontierSettings) -> list[str]:
    what = settings.target or TASKS.get(settings.task, (settings.task,))[-1]
    count = len(settings.methods) * settings.seeds
    return [
        f"{len(settings.methods)} methods, {settings.seeds} seeds each, on one task: {what}; prior {settings.model}",
        f"every training: {settings.steps} steps of {settings.samples_per_context} samples a context; "
        f"then {settings.evaluation} samples of every policy",
        f"{count} trainings, one after the other; each is kept when it is done",
    ]


def run(settings: FrontierSettings, folder: Path) -> Report:
    """The study in `folder`. Run again, it goes on where it stopped; methods and seeds may be added."""
    unknown = [name for name in settings.methods if name not in ARMS]
    if unknown or settings.seeds < 1:
        raise ConfigError(
            f"methods {unknown}, seeds={settings.seeds}", f"use methods of {', '.join(ARMS)}, and seeds >= 1"
        )
    clock = prepare(settings.threads)
    found = problem(settings)
    record = Run.of(folder, settings, free=("methods", "seeds"))
    n = max(1, settings.evaluation // len(found.held_out))
    before = found.scored("prior", record, lambda: found.prior, n, derive(settings.seed, "prior"))
    clock.lap("prior")
    results: dict[str, list[Measures]] = {}
    shown: dict[str, list[Row]] = {"prior": before}
    for seed in range(settings.seeds):
        for name in settings.methods:
            rows, cross = _one(settings, found, name, seed, n, folder, record)
            results.setdefault(name, []).append(measures(found, rows, before, cross, seed=settings.seed))
            shown.setdefault(name, rows)
            clock.lap(name)
    report = build_report(settings, found, before, results, shown, clock.minutes())
    write(report, folder / "report.html")
    record.close()
    return report


def _one(
    settings: FrontierSettings, found: Problem, name: str, seed: int, n: int, folder: Path, record: Run
) -> tuple[list[Row], list[float] | None]:
    """Samples of one trained policy, and what it makes of the prior's; no law is known of best-of-n."""
    arm, own = ARMS[name], derive(settings.seed, name, seed)
    label = f"{name} {seed}"
    prior = record.stage("prior", list)
    if arm.objective == "best-of-n":
        return record.stage(label, lambda: best(found, n, settings.best_of, own)), None
    if not record.has(f"{label} on the prior"):
        policy, _ = trained(
            found.prior,
            build(arm, found, settings.budget, seed=own),
            optimisation=settings.optimisation,
            adapter=settings.adapter,
            folder=folder / f"{name}-{seed}",
            record=record,
            checkpoint_every=settings.checkpoint_every,
            on_full=settings.on_full,
        )
        exact = policy.exact()
        found.scored(label, record, lambda: exact, n, derive(own, "evaluation"))
        found.under(f"{label} on the prior", record, lambda: exact, prior)
        if not settings.keep_models:
            durable.delete(folder / f"{name}-{seed}" / "model")
    rows = record.stage(label, list)
    return rows, [row["log_policy"] for row in record.stage(f"{label} on the prior", list)]


def build_report(
    settings: FrontierSettings, found: Problem, before: Sequence[Row], results: dict[str, list[Measures]],
    shown: dict[str, list[Row]], minutes: dict[str, float],
) -> Report:  # fmt: skip
    """The table over seeds, and the picture: what was asked against what it cost."""
    own = [row["log_policy"] for row in before]
    prior = measures(found, before, before, own, seed=settings.seed)
    target = target_measures(found, before, seed=settings.seed)
    rows = {"prior": prior, "target (weighted prior)": target}
    rows |= {name: _over_seeds(several) for name, several in results.items()}
    best_name = max(results, key=lambda name: rows[name].satisfied.value)
    summary = [
        f"{found.target.potential.name}: {prior.satisfied.text(percent=True)} of the prior's samples; "
        f"most with {best_name}, {rows[best_name].satisfied.text(percent=True)} over {settings.seeds} seeds.",
        "Up is more of what was asked. In the first picture, left is closer to the prior; in the second, closer to the target, "
        "where every divergence would end, with time and a policy that can be it.",
    ]
    pictures = [
        ("kl_policy_prior", "KL(π, a), nats a sequence"),
        ("kl_target_policy", "KL(p, π), nats a sequence"),
        ("entropy", "entropy, nats a sequence"),
        ("distinct_1", "distinct-1"),
        ("self_bleu", "self-BLEU-5, words"),
    ]
    sections = [
        Section("Frontier", [_picture(results, rows, name, label) for name, label in pictures]),
        Section("Numbers", [comparison(rows, f"Means over {settings.seeds} seeds, with Student's interval")]),
        Section("Samples", [cards(found_rows, name, 12) for name, found_rows in shown.items()]),
    ]
    return page("frontier", settings, f"Frontier: {found.what}", summary, sections, minutes)


def _over_seeds(several: Sequence[Measures]) -> Measures:
    """Each measure's mean over seeds."""
    return Measures(
        **{
            field.name: over_seeds([getattr(found, field.name).value for found in several])
            for field in fields(Measures)
        }
    )


def _picture(results: dict[str, list[Measures]], rows: dict[str, Measures], name: str, label: str) -> Curves:
    """Every trained policy as a point, beside the prior and the target."""
    points = {key: [found] for key, found in rows.items() if key not in results} | results
    series = [
        Series(
            key,
            [getattr(found, name).value for found in several],
            [found.satisfied.value for found in several],
            joined=False,
        )
        for key, several in points.items()
    ]
    return Curves(f"Satisfied against {label}", label, "satisfied", series, percent=True)


RECIPE = Recipe(
    "frontier",
    "sweep divergences and methods on one task: alignment against what it costs",
    FrontierSettings,
    plan,
    run,
)
