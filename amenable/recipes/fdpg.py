"""Distribution matching on one task: a policy comes close to a target in any f-divergence (f-DPG, DPG, GDC, CDPG).

    prior a  ->  target p = a phi / Z  ->  method (divergence, proposal, baseline)  ->  policy, measured beside a and p

Sources: Go et al. 2023 (f-DPG), arXiv 2302.08215; Khalifa et al. 2021 (GDC), 2012.11635; Korbak et al. 2021 (code), 2106.04985;
Korbak et al. 2022 (CDPG), 2112.00791; Korbak et al. 2022 (GDC++), 2206.00761.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amenable.evaluation.interval import Estimate
from amenable.method.loop import Optimisation
from amenable.recipes.arms import PROPOSALS, Arm, Budget, build
from amenable.recipes.environment import command_of, machine, prepare, versions
from amenable.recipes.matching import CODE, TASKS, Measures, Problem, measures, problem, target_measures
from amenable.recipes.settings import Recipe, setting
from amenable.recipes.training import trained
from amenable.report.html import write
from amenable.report.page import Cards, Column, Curves, Headline, Headlines, Report, SampleCard, Section, Series, Table
from amenable.runs import Row, Run
from amenable.seeding import derive

CURVES = {
    "potential": "mean of φ under π",
    "kl_policy_prior": "KL(π, a), nats a sequence",
    "kl_target_policy": "KL(p, π), nats a sequence",
    "log_z": "log Z, nats",
    "ess": "effective share of the samples",
    "entropy": "entropy of π, nats a sequence",
}
"""What is drawn of metrics.jsonl, and what it is."""


@dataclass(frozen=True)
class MatchingSettings:
    """The problem: prior, target and contexts, and how samples are drawn. Shared by `fdpg` and `frontier`."""

    task: str = setting("compiles", f"what is asked of a text: {', '.join(TASKS)}")
    target: str = setting(
        "", "your own target instead: NAME (always), NAME@0.5 (half of the time), NAME~0.1 (exp(score/0.1))"
    )
    model: str = setting(
        CODE, "the prior: code-model (small, made here once), folder, Hugging Face id, or named small model"
    )
    contexts: str = setting("", "a file of texts to continue, one a line; half are held out. Default: that of the task")
    context_count: int = setting(50, "signatures to train on, and as many of other modules to evaluate on")
    steps: int = setting(60, "optimiser steps")
    contexts_per_step: int = setting(0, "contexts a step, 0 for all")
    samples_per_context: int = setting(128, "samples a context and step")
    adapter: str = setting(
        "none",
        "none trains all weights; lora a low-rank adapter: less noise from the same samples, at 10 to 30 times the rate",
        ("none", "lora"),
    )
    learning_rate: float = setting(6e-5, "learning rate of AdamW; larger ones overshoot: KL(p, π) rises")
    schedule: str = setting("constant", "of the learning rate, after its warm-up", ("constant", "linear", "cosine"))
    clip_norm: float = setting(
        1.0,
        "largest norm of a gradient; theirs is larger at every step, so that 1 makes all steps equally long; inf: none",
    )
    max_tokens: int = setting(128, "longest sample in tokens")
    evaluation: int = setting(1024, "samples of every policy that is measured, in all")
    precision: str = setting(
        "float32", "arithmetic of training; bfloat16 is faster, its weights noisier", ("float32", "bfloat16")
    )
    checkpoint_every: int = setting(20, "optimiser steps between checkpoints, 0 for none")
    on_full: str = setting(
        "continue", "where the disk has no room for a checkpoint: continue without it, or stop", ("continue", "stop")
    )
    rows: int = setting(256, "samples decoded at once")
    threads: int = setting(0, "CPU threads, 0 for all cores")
    seed: int = setting(0, "seed of the whole study")

    @property
    def optimisation(self) -> Optimisation:
        return Optimisation(
            learning_rate=self.learning_rate,
            schedule=self.schedule,  # type: ignore[arg-type]
            warmup=0.1,
            clip_norm=self.clip_norm,
            precision=self.precision,  # type: ignore[arg-type]
        )

    @property
    def budget(self) -> Budget:
        return Budget(self.steps, self.samples_per_context, self.contexts_per_step, self.precision)


@dataclass(frozen=True)
class FDPGSettings(MatchingSettings):
    """One method."""

    divergence: str = setting(
        "js", "forward-kl (DPG), reverse-kl, js, tv, chi2-forward, chi2-reverse, alpha=A; or reward, rl, ppo, filtered"
    )
    proposal: str = setting(
        "policy",
        "whose samples; adaptive mixes the best so far, by KL or TV, with the policy, best-so-far does not",
        PROPOSALS,
    )
    baseline: str = setting(
        "leave-one-out", "what rewards are compared to", ("none", "constant", "leave-one-out", "target", "value")
    )
    one_z: bool = setting(False, "one Z for all contexts: DPG as it was before CDPG")


def arm_of(settings: FDPGSettings) -> Arm:
    """The method that the settings name."""
    objective = "reinforce" if settings.divergence == "reward" else settings.divergence
    return Arm(objective, settings.proposal, settings.baseline, settings.one_z)


def plan(settings: FDPGSettings) -> list[str]:
    what = settings.target or TASKS.get(settings.task, (settings.task,))[-1]
    samples = settings.steps * settings.samples_per_context * max(1, settings.contexts_per_step)
    return [
        f"{settings.divergence} to {what}, prior {settings.model}",
        f"1  {settings.evaluation} samples of the prior",
        f"2  {settings.steps} steps on {samples}{' or more' if not settings.contexts_per_step else ''} samples of the "
        f"{settings.proposal} proposal, baseline {settings.baseline}",
        f"3  {settings.evaluation} samples of the policy; KL, total variation, diversity, beside the target's own",
        "the small code model is trained first if this machine has none: about 6 minutes, once"
        if settings.model == CODE
        else "",
    ]


def run(settings: FDPGSettings, folder: Path) -> Report:
    """The study in `folder`. Run again, it goes on where it stopped."""
    clock = prepare(settings.threads)
    arm = arm_of(settings)
    found = problem(settings)
    method = build(arm, found, settings.budget, seed=settings.seed)
    record = Run.of(folder, settings)
    clock.lap("prior and target")
    n = max(1, settings.evaluation // len(found.held_out))
    before = found.scored("prior", record, lambda: found.prior, n, derive(settings.seed, "prior"))
    clock.lap("samples of the prior")
    policy, metrics = trained(
        found.prior,
        method,
        optimisation=settings.optimisation,
        adapter=settings.adapter,
        folder=folder / "policy",
        record=record,
        checkpoint_every=settings.checkpoint_every,
        on_full=settings.on_full,
    )
    clock.lap("training")
    after = found.scored("policy", record, lambda: policy.exact(), n, derive(settings.seed, "policy"))
    cross = found.under("prior under the policy", record, lambda: policy.exact(), before)
    clock.lap("samples of the policy")
    report = build_report(settings, found, before, after, cross, metrics, clock.minutes())
    write(report, folder / "report.html")
    record.close()
    return report


def build_report(
    settings: FDPGSettings, found: Problem, before: list[Row], after: list[Row], cross: Sequence[float],
    metrics: Sequence[dict[str, Any]], minutes: dict[str, float],
) -> Report:  # fmt: skip
    """What the run found, as a page."""
    a = measures(found, before, before, [row["log_policy"] for row in before], seed=settings.seed)
    pi = measures(found, after, before, cross, seed=settings.seed)
    p = target_measures(found, before, seed=settings.seed)
    summary = [
        f"{found.target.potential.name}: {a.satisfied.text(percent=True)} of the prior's samples, "
        f"{pi.satisfied.text(percent=True)} of the policy's.",
        f"KL(p, π) {a.kl_target_policy.text()} before, {pi.kl_target_policy.text()} after.",
        f"KL(π, a) {pi.kl_policy_prior.text()} nats a sequence.",
    ]
    headlines = Headlines(
        [
            Headline("satisfied, before", a.satisfied),
            Headline("satisfied, after", pi.satisfied),
            Headline("KL(p, π) after", pi.kl_target_policy, "nats a sequence", percent=False),
            Headline("KL(π, a)", pi.kl_policy_prior, "nats a sequence", percent=False),
        ]
    )
    steps = [float(row["step"]) for row in metrics]
    curves = [
        Curves(label, "step", label, [Series(label, steps, [float(row.get(name, float("nan"))) for row in metrics])])
        for name, label in CURVES.items()
        if any(name in row for row in metrics)
    ]
    sections = [
        Section("Result", [headlines, comparison({"prior": a, "policy": pi, "target (weighted prior)": p})]),
        Section("Training", curves, ["Every estimate is that step's own, from its samples; they are noisy."]),
        Section("Samples", [cards(before, "prior"), cards(after, "policy")]),
    ]
    return page("fdpg", settings, f"{settings.divergence} to {found.what}", summary, sections, minutes)


def page(
    recipe: str,
    settings: MatchingSettings,
    title: str,
    summary: list[str],
    sections: list[Section],
    minutes: dict[str, float],
) -> Report:
    """The report of a matching recipe: what it found, and all that is needed to repeat it."""
    return Report(
        title=title,
        summary=summary,
        command=command_of(recipe, settings),
        sections=sections,
        config={key: str(value) for key, value in vars(settings).items()},
        versions=versions(),
        machine=machine({}),
        minutes=minutes,
    )


def comparison(rows: dict[str, Measures], title: str = "Policies side by side") -> Table:
    """One row a policy, one column a measure."""
    names = list(next(iter(rows.values())).named())
    columns: list[Column | str] = ["", *(Column(name, percent=name in ("satisfied", "finished")) for name in names)]
    note = (
        "KL and entropy in nats a sequence. Diversity, characters and AST nodes are of what satisfies the target, so that they "
        "compare with the target's own. KL(p, π) and TV weight samples of the prior; KL(π, a) and entropy average samples of "
        "the policy."
    )
    cells: list[list[str | int | float | Estimate | None]] = [
        [name, *found.named().values()] for name, found in rows.items()
    ]
    return Table(title, columns, cells, note)


def cards(rows: Sequence[Row], arm: str, most: int = 40) -> Cards:
    """The first samples, to read."""
    shown = [
        SampleCard(f"{arm} {i}", row["prompt"], draft=row["text"], arm=arm, tags=[row["ended"], _verdict(row)])
        for i, row in enumerate(rows[:most])
    ]
    return Cards(f"Samples of the {arm}", shown, f"the first {len(shown)} of {len(rows)}", draft_label="Sample")


def _verdict(row: Row) -> str:
    if row["missing"]:
        return "missing"
    return "forbidden" if row["log_potential"] is None else f"log φ {row['log_potential']:.2f}"


RECIPE = Recipe(
    "fdpg", "bring a policy close to any target in any f-divergence (f-DPG, GDC, CDPG)", FDPGSettings, plan, run
)
