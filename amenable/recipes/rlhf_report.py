"""The pages of `recipes.rlhf`: one policy, or a study of several methods over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from amenable.evaluation.interval import Estimate, over_seeds
from amenable.evaluation.over_optimisation import Meter
from amenable.evaluation.preference import from_scores, length_corrected, win_rate
from amenable.recipes.alignment import AlignmentSettings, Preference, Problem
from amenable.recipes.environment import command_of, machine, versions
from amenable.recipes.meter_report import meter_section
from amenable.report.page import Cards, Column, Curves, Headline, Headlines, Report, SampleCard, Section, Series, Table
from amenable.runs import Row

CURVES = {"reward": "pseudo-reward", "log_potential": "score / β", "kl_policy_prior": "KL(π, a), nats a sequence"}


@dataclass(frozen=True)
class Outcome:
    """A policy beside the prior, on held-out prompts. Scores are standardised; KL in nats a sequence, length in characters."""

    wins: Estimate
    wins_at_equal_length: Estimate
    score: Estimate
    gold: Estimate
    kl: Estimate
    length: Estimate

    def named(self) -> dict[str, Estimate]:
        """Name -> estimate, in order."""
        return {
            "wins against the prior": self.wins, "… at equal length": self.wins_at_equal_length, "score optimised": self.score,
            "gold score": self.gold, "KL(π, a)": self.kl, "characters": self.length,
        }  # fmt: skip


def by_whom(settings: AlignmentSettings, found: Problem) -> str:
    """Who decided which answer wins."""
    if found.gold is not None:
        return f"the gold scorer {settings.gold}" if settings.gold else "the scripted reader"
    return (
        f"the judge {settings.judge}, in both orders"
        if settings.judge
        else "the score that was optimised (no judge= was given)"
    )


@dataclass(frozen=True)
class Arm:
    """A method, done: its score, its outcome, its samples, the metrics of its steps, and what watched it."""

    chosen: Preference
    result: Outcome
    rows: list[Row]
    metrics: list[dict[str, Any]]
    watched: Meter | None


def build_report(
    name: str, settings: AlignmentSettings, found: Problem, arm: Arm, before: Sequence[Row], minutes: dict[str, float]
) -> Report:
    """One policy, as a page."""
    result, metrics, after = arm.result, arm.metrics, arm.rows
    summary = [
        f"{name}: the policy's answer wins against the prior's in {result.wins.text(percent=True)} of the pairs, "
        f"{result.wins_at_equal_length.text(percent=True)} at equal length.",
        f"KL(π, a) {result.kl.text()} nats a sequence.",
        f"Decided by {by_whom(settings, found)}.",
        *worth(arm.chosen),
        *([] if arm.watched is None else [f"Meter: {arm.watched.words}."]),
    ]
    heads = [Headline("wins", result.wins), Headline("KL(π, a)", result.kl, "nats a sequence", percent=False)]
    steps = [float(row["step"]) for row in metrics]
    curves = [
        Curves(label, "step", label, [Series(label, steps, [float(row[key]) for row in metrics])])
        for key, label in CURVES.items()
        if metrics and key in metrics[0]
    ]
    pairs = [
        SampleCard(
            f"pair {i}", there["prompt"], draft=there["text"], arm=name, tags=[f"prior: {here['text'].strip()[:400]}"]
        )
        for i, (here, there) in enumerate(zip(before[:40], after[:40], strict=False))
    ]
    sections = [
        Section("Result", [Headlines(heads), table({name: result})]),
        *([Section("Training", curves, ["Each estimate is that step's own."])] if curves else []),
        *([] if arm.watched is None else [meter_section(arm.watched, proxy="score optimised", gold="gold score")]),
        Section("Answers", [Cards("Answers of the policy", pairs, f"the first {len(pairs)}", draft_label="Policy")]),
    ]
    return page(name, settings, f"{name} of {settings.model}", summary, sections, minutes)


def worth(chosen: Preference) -> list[str]:
    """What the score is worth, in a sentence."""
    if chosen.accuracy is None:
        return []
    return [
        f"The reward model agrees with {chosen.accuracy.text(percent=True)} of the labels of pairs on held-out prompts."
    ]


def table(rows: dict[str, Outcome], title: str = "Against the prior, on held-out prompts") -> Table:
    """One row a policy."""
    names = list(next(iter(rows.values())).named())
    columns: list[Column | str] = ["", *(Column(name, percent="wins" in name or "equal" in name) for name in names)]
    cells: list[list[str | int | float | Estimate | None]] = [
        [name, *found.named().values()] for name, found in rows.items()
    ]
    return Table(
        title,
        columns,
        cells,
        "Ties count half. The score is in deviations of the prior's samples; sft does not optimise it.",
    )


def page(
    recipe: str, settings: AlignmentSettings, title: str, summary: list[str], sections: list[Section], minutes: dict[str, float]
) -> Report:  # fmt: skip
    """The report, with all that is needed to repeat it."""
    return Report(
        title=title, summary=summary, command=command_of(recipe, settings), sections=sections,
        config={key: str(value) for key, value in vars(settings).items()}, versions=versions(), machine=machine({}),
        minutes=minutes,
    )  # fmt: skip


def study_report(
    settings: AlignmentSettings, found: Problem, arms: dict[str, list[Arm]], minutes: dict[str, float]
) -> Report:
    """Means over seeds, and the methods against each other, seed by seed."""
    seeds = len(next(iter(arms.values())))
    means = {
        name: Outcome(
            **{key: over_seeds([getattr(one.result, key).value for one in several]) for key in vars(several[0].result)}
        )
        for name, several in arms.items()
    }
    names = list(arms)
    against: list[list[str | int | float | Estimate | None]] = []
    for i, one in enumerate(names):
        for other in names[i + 1 :] if found.gold is not None else ():
            rates = [_head_to_head(found, a.rows, b.rows) for a, b in zip(arms[one], arms[other], strict=True)]
            cells = [over_seeds(list(column)) for column in zip(*rates, strict=True)]
            against.append([f"{one} against {other}", *cells])
    best = max(means, key=lambda name: means[name].wins.value)
    users: dict[str, list[str]] = {}  # of each reward model
    for name, several in arms.items():
        for line in worth(several[0].chosen) if name != "sft" else ():
            users.setdefault(line, []).append(name)
    summary = [
        f"Most wins against the prior: {best}, {means[best].wins.text(percent=True)} over {seeds} seeds, "
        f"by {by_whom(settings, found)}.",
        *(f"{' and '.join(using)}, seed 0: {line}" for line, using in users.items()),
        *(
            f"{name}, seed {seed}: {one.watched.words}."
            for name, several in arms.items()
            for seed, one in enumerate(several)
            if one.watched is not None and one.watched.alarm is not None
        ),
    ]
    tables = [table(means, f"Means over {seeds} seeds, with Student's interval")]
    if against:
        columns: list[Column | str] = ["", Column("wins", percent=True), Column("… at equal length", percent=True)]
        tables.append(
            Table(
                "Against each other, seed by seed", columns, against, "On the same held-out prompts. Ties count half."
            )
        )
    title = f"People's, a judge's, and a judge's direct feedback: {settings.model}"
    return page("preference-study", settings, title, summary, [Section("Result", list(tables))], minutes)


def _head_to_head(found: Problem, one: Sequence[Row], other: Sequence[Row]) -> tuple[float, float]:
    """The win rate of one policy over another by gold, raw and at equal length."""
    assert found.gold is not None
    prompts = [row["prompt"] for row in one]
    texts, others = [row["text"] for row in one], [row["text"] for row in other]
    better = from_scores(found.gold(prompts, texts), found.gold(prompts, others))
    lengths = [max(1, len(text)) for text in texts], [max(1, len(text)) for text in others]
    return win_rate(better, prompts=prompts).rate.value, length_corrected(better, *lengths, prompts=prompts).rate.value
