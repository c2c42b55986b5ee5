"""All objectives of pretraining with feedback at equal tokens: how bad their samples are against what they cost in bits.

Every arm is one objective with one seed, trained on the same tokens, from the same weights, and kept for itself: run again,
the suite goes on with the arm and the step where it stopped, and a suite may be given more objectives or seeds later.

    better              Pareto-better: samples score lower and clean held-out documents take fewer bits
    OBJECTIVE-switched  MLE for the share `switch_at` of the same tokens, then the objective: the paper's fine-tuning arm

Source: Korbak et al. 2023, arXiv 2302.08582, sections 4 and 5.
Changed from the paper: bits per byte on held-out clean documents in place of the KL from GPT-3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from amenable.errors import ConfigError
from amenable.evaluation.interval import Estimate, over_seeds
from amenable.objective.pretraining import NAMES
from amenable.progress import duration, say
from amenable.recipes.environment import command_of, machine, prepare, versions
from amenable.recipes.pretrain import ArmSettings, PretrainSettings, check, forecast, what
from amenable.recipes.pretrain_arm import Arm, arm, prepared
from amenable.recipes.pretrain_data import corpus_of
from amenable.recipes.pretrain_report import data_tables, held_out, samples_table, score, style_table
from amenable.recipes.settings import Recipe, setting
from amenable.report.html import write
from amenable.report.page import Column, Curves, Report, Section, Series, Table
from amenable.report.svg import curve_svg
from amenable.runs import Run

FREE = ("objectives", "seeds")
SWITCHED = "-switched"
ARMS = (*NAMES, *(f"{name}{SWITCHED}" for name in NAMES if name != "mle"))
HALF = 0.5


@dataclass(frozen=True)
class SuiteSettings(ArmSettings):
    """All arms with one set of numbers."""

    switch_at: float = setting(0.0, "of the -switched arms: share of the tokens that are learned by MLE first; 0: half")
    objectives: tuple[str, ...] = setting(
        NAMES, "what is compared; NAME-switched: after MLE for `switch_at` of the tokens", ARMS
    )
    seeds: int = setting(3, "trainings of each objective; with one there is no interval over trainings")


def plan(settings: SuiteSettings) -> list[str]:
    """What the run will do, in lines."""
    _check(settings)
    arms = len(settings.objectives) * settings.seeds
    switched = [name for name in settings.objectives if name.endswith(SWITCHED)]
    seconds = forecast(settings) * arms
    time = f"about {duration(seconds)} on one free core" if seconds == seconds else "time: see the bars"
    first = f"{len(settings.objectives)} objectives, {settings.seeds} seeds: {arms} arms of {settings.tokens:,} tokens each; "
    lines = [first + time, *what(replace(settings, switch_at=0.0))]
    if switched:
        share = settings.switch_at or HALF
        lines.append(f"   {', '.join(switched)}: the same tokens, the first {share:.0%} of them by MLE")
    return lines


def run(settings: SuiteSettings, folder: Path) -> Report:
    """The suite in `folder`, an arm a folder OBJECTIVE-SEED; report.html and plane.svg at the end. Run again, it goes on."""
    clock = prepare(settings.threads)
    _check(settings)
    record = Run.of(folder, settings, free=FREE)
    corpus = corpus_of(settings)
    clock.lap("corpus")
    found: dict[str, list[Arm]] = {name: [] for name in settings.objectives}
    made = None
    for seed in range(settings.seeds):
        made = prepared(settings, corpus, seed=seed, like=made)
        clock.lap("tokens")
        for name in settings.objectives:
            say(f"objective {name}, seed {seed}")
            own = one(settings, name, seed)
            found[name].append(arm(own, made, seed=seed, folder=folder / f"{name}-{seed}", record=record))
            clock.lap(name)
    assert made is not None
    report = build_report(settings, found, data_tables(made), clock.minutes())
    write(report, folder / "report.html")
    (folder / "plane.svg").write_text(plane_svg(found), encoding="utf-8")
    record.close()
    return report


def plane_svg(found: dict[str, list[Arm]]) -> str:
    """The plane as a picture: a point a training, with the interval of its samples' score."""
    trained = [(name, arm) for name, arms in found.items() for arm in arms]
    return curve_svg(
        [held_out(arm.bits, clean=True).value for _, arm in trained],
        [score(arm.samples) for _, arm in trained],
        across_label="bits per byte, clean held-out documents",
        up_label="score of samples",
        names=[name for name, _ in trained],
    )


def one(settings: SuiteSettings, name: str, seed: int) -> PretrainSettings:
    """The settings of an arm, as `amenable run pretrain` has them."""
    shared = {field.name: getattr(settings, field.name) for field in fields(ArmSettings)}
    switch_at = (settings.switch_at or HALF) if name.endswith(SWITCHED) else 0.0
    objective = name.removesuffix(SWITCHED)
    return replace(PretrainSettings(**shared), objective=objective, switch_at=switch_at, seed=seed)


def over(values: Sequence[Estimate]) -> Estimate:
    """The mean over seeds, Student's t; one seed keeps the interval of its own samples or documents."""
    return values[0] if len(values) == 1 else over_seeds([value.value for value in values])


def build_report(
    settings: Any, found: dict[str, list[Arm]], tables: Sequence[Table], minutes: dict[str, float]
) -> Report:
    """The plane, its numbers, the differences to MLE, samples, data."""
    bad = {name: over([score(one.samples) for one in arms]) for name, arms in found.items()}
    bits = {name: over([held_out(one.bits, clean=True) for one in arms]) for name, arms in found.items()}
    best = min(bad, key=lambda name: (math.isnan(bad[name].value), bad[name].value))
    lines = [
        f"{best} has the lowest score, {bad[best].text()}, at {bits[best].text()} bits per byte on clean held-out documents.",
    ]
    if "mle" in found and best != "mle":
        lines.append(f"mle: score {bad['mle'].text()}, {bits['mle'].text()} bits per byte.")
    frontier = [name for name in found if not any(_better(other, name, bad, bits) for other in found)]
    lines.append(f"Not beaten in both by any other, as far as means go: {', '.join(frontier)}.")
    pooled = [(name, [row for one in arms for row in one.samples]) for name, arms in found.items()]
    style = [style_table(pooled)] if settings.task == "pep8" else []
    return Report(
        title=f"Pretraining with feedback: objectives compared on {settings.task}",
        summary=lines,
        command=command_of("phf-suite", settings),
        sections=[
            Section("Alignment against capability", [_plane(found), _table(found, bad, bits)]),
            Section("Against MLE", [_differences(found)] if "mle" in found else []),
            *_switching(found),
            Section("Samples", [samples_table(pooled, settings.task), *style]),
            Section("Data", [*tables, _trainings(found)]),
        ],
        config=asdict(settings), minutes=minutes, versions=versions(), machine=machine({}),
    )  # fmt: skip


def _better(one: str, other: str, bad: dict[str, Estimate], bits: dict[str, Estimate]) -> bool:
    return bad[one].value < bad[other].value and bits[one].value < bits[other].value


def _plane(found: dict[str, list[Arm]]) -> Curves:
    """A point a training, with the interval of its samples' score."""
    series = []
    for name, arms in found.items():
        scores = [score(arm.samples) for arm in arms]
        xs = [held_out(arm.bits, clean=True).value for arm in arms]
        series.append(
            Series(
                name, xs, [one.value for one in scores], [one.low for one in scores], [one.high for one in scores],
                joined=False,
            )
        )  # fmt: skip
    caption = "A point is a training, its interval that of the mean over its samples. Best: below, and to the left."
    return Curves(
        "The plane", "bits per byte, clean held-out documents", "score of samples", series, caption, zero=True
    )


def _table(found: dict[str, list[Arm]], bad: dict[str, Estimate], bits: dict[str, Estimate]) -> Table:
    rows: list[list[Any]] = []
    for name, arms in found.items():
        every = over([held_out(arm.bits) for arm in arms])
        told = over([held_out(arm.bits, clean=True, told=True) for arm in arms])
        rows.append([name, bad[name], bits[name], told, every, arms[0].facts["tokens"], arms[0].facts["passes"]])
    columns = [
        "objective", "score of samples", "bits per byte, clean", "with control tokens paid for", "bits per byte, all",
        "tokens", "passes",
    ]  # fmt: skip
    note = "Equal tokens, control tokens counted. 95%: Student's t over seeds; of one seed over samples and packages."
    return Table("Objectives", columns, rows, note)


def _differences(found: dict[str, list[Arm]]) -> Table:
    """Score as a share of MLE's, and bits per byte above MLE's, paired by seed."""
    rows: list[list[Any]] = []
    for name, arms in found.items():
        if name == "mle":
            continue
        pairs = list(zip(arms, found["mle"], strict=True))
        shares = [_ratio(score(arm.samples).value, score(mle.samples).value) for arm, mle in pairs]
        costs = [
            _ratio(held_out(arm.bits, clean=True).value, held_out(mle.bits, clean=True).value) - 1 for arm, mle in pairs
        ]
        rows.append([name, over_seeds(shares), over_seeds(costs)])
    columns: list[str | Column] = [
        "objective",
        "score, as a share of MLE's",
        Column("bits per byte", percent=True, signed=True),
    ]
    return Table(
        "Against MLE of the same seed", columns, rows, "95%: Student's t over seeds; one seed has no interval."
    )


def _switching(found: dict[str, list[Arm]]) -> list[Section]:
    """Objectives that were trained both ways: from scratch, and after MLE; paired by seed. No section if there is none."""
    rows: list[list[Any]] = []
    for name in found:
        if f"{name}{SWITCHED}" not in found:
            continue
        scratch, switched = found[name], found[f"{name}{SWITCHED}"]
        pairs = list(zip(scratch, switched, strict=True))
        scores = [over([score(arm.samples) for arm in arms]) for arms in (scratch, switched)]
        times = over_seeds([_ratio(score(two.samples).value, score(one.samples).value) for one, two in pairs])
        costs = [
            _ratio(held_out(two.bits, clean=True).value, held_out(one.bits, clean=True).value) - 1 for one, two in pairs
        ]
        share = switched[0].facts["switch"] / switched[0].facts["steps"]
        rows.append([name, share, *scores, times, over_seeds(costs), switched[0].facts["tokens"]])
    columns: list[str | Column] = [
        "objective", Column("MLE first", percent=True), "score from scratch", "score when switched",
        "switched / from scratch", Column("bits per byte, switched over from scratch", percent=True, signed=True),
        "tokens of each",
    ]  # fmt: skip
    note = (
        "Above 1 in the fifth column: from scratch is better at equal tokens. In the paper (section 5, personal data, 124M "
        "weights, 3.3B tokens, conditional, half of them MLE): 0.0013 from scratch, 0.0018 when switched, 1.4 times; one "
        "training each. Paired by seed; 95%: Student's t over seeds, one seed has no interval."
    )
    return (
        [Section("From scratch or switched", [Table("From scratch or switched", columns, rows, note)])] if rows else []
    )


def _ratio(one: float, other: float) -> float:
    return one / other if other else math.nan


def _trainings(found: dict[str, list[Arm]]) -> Table:
    rows: list[list[Any]] = []
    for name, arms in found.items():
        objective, last = arms[0].objective, arms[0].metrics[-1]
        weights = [row["weight"] for row in arms[0].metrics if "weight" in row]
        rows.append(
            [
                name, objective.threshold, objective.beta if weights else None,
                min(weights) if weights else None, max(weights) if weights else None,
                math.exp(-1 / objective.beta) if name == "rwr" else None, last["nats"], last["control"],
            ]
        )  # fmt: skip
    columns: list[str | Column] = [
        "objective", "threshold", "beta", "lowest mean weight of a step", "highest", "weight of the worst token",
        "last step, nats a token", Column("control tokens", percent=True),
    ]  # fmt: skip
    note = "Seed 0. Where the worst token has nearly the weight of the best, 1, the loss is nearly MLE's."
    return Table("Trainings", columns, rows, note)


def _check(settings: SuiteSettings) -> None:
    check(settings)
    if not settings.objectives or settings.seeds < 1:
        raise ConfigError(
            f"{len(settings.objectives)} objectives and seeds={settings.seeds}", "use at least one of each"
        )


RECIPE = Recipe(
    "phf-suite", "all objectives of pretraining with feedback at equal tokens, in one plane", SuiteSettings, plan, run
)
