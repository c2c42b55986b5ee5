"""The report of the ILF study: what the feedback did to refinements, and what imitating them did to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from amenable.evaluation.copying import copying, summarise
from amenable.evaluation.interval import Estimate, bootstrap_mean, wilson
from amenable.evaluation.programs import PassComparison, compare_passes, evaluate_passes
from amenable.recipes.environment import command_of, versions
from amenable.recipes.ilf_study import Outcome
from amenable.recipes.programs import Attempt, judges, passes
from amenable.report.page import (
    Bar,
    Bars,
    Cards,
    Column,
    Curves,
    Headline,
    Headlines,
    Report,
    SampleCard,
    Section,
    Series,
    Table,
)

NAMES = {
    "tests": "feedback from the tests",
    "human": "written feedback",
    "llm": "feedback from a model",
    "shuffled": "another task's feedback",
    "none": "no feedback",
}
CARDS = 120


def build_report(
    settings: Any, what: str, outcome: Outcome, minutes: dict[str, float], machine: dict[str, Any]
) -> Report:
    """One page: headline, controls, held-out tasks, copying, training, samples."""
    ks = [k for k in settings.k if k <= settings.samples]
    gain = compare_passes(passes(outcome.before), passes(outcome.after), ks[0])
    return Report(
        title=f"ILF: {settings.model} learns from language feedback",
        subtitle="Chen et al. 2023, arXiv 2303.16749",
        summary=_summary(settings, outcome, gain),
        command=command_of("ilf", settings),
        sections=[
            Section("Result", [_headlines(settings, outcome, gain)]),
            Section("Does the feedback matter?", [_arm_bars(outcome), _arm_table(outcome)], [_arm_words(settings)]),
            Section("Held-out tasks, before and after", [_pass_table(outcome, ks)], [f"{what}."]),
            Section("What refinements copied", [_copying_table(outcome)]),
            Section("Training", _curves(outcome)),
            Section("Verdicts", [judges(_judged(outcome))], ["On refinements and held-out samples."]),
            Section("Samples", [_cards(settings, outcome)]),
        ],
        config=asdict(settings),
        minutes=minutes,
        versions=versions(),
        machine=machine,
    )


def _judged(outcome: Outcome) -> list[Attempt]:
    refined = [attempt for round_ in outcome.rounds for arm in round_.arms.values() for attempt in arm]
    return [*refined, *outcome.before, *outcome.after]


def pass_rate(attempts: Sequence[Attempt]) -> Estimate:
    """Share of attempts that pass all tests; bootstrap over tasks, missing verdicts left out."""
    judged = [one for one in attempts if not one.verdict.missing]
    tasks = [one.task.task_id for one in judged]
    return bootstrap_mean([float(one.verdict.ok) for one in judged], clusters=tasks, share=True)


def _summary(settings: Any, outcome: Outcome, gain: PassComparison) -> list[str]:
    first = outcome.rounds[0]
    change = gain.difference
    proof = "above 0" if change.low > 0 else "below 0" if change.high < 0 else "not distinguishable from 0"
    lines = [
        f"{len(outcome.accepted)} of the tasks with a failing draft got a refinement that passes; imitating one of them "
        f"a task, pass@{gain.k} on {gain.tasks} held-out tasks went from {gain.before.text(percent=True)} to "
        f"{gain.after.text(percent=True)}.",
        f"Paired difference {change.text(percent=True, signed=True)}: {proof}. One training seed: the interval speaks of "
        "tasks, not of other seeds.",
    ]
    arms = [arm for arm in first.arms if arm != settings.feedback]
    if arms:
        rates = ", ".join(f"{NAMES[arm]} {pass_rate(first.arms[arm]).text(percent=True)}" for arm in arms)
        main = pass_rate(first.arms[settings.feedback]).text(percent=True)
        lines.append(f"Refinements that pass: {NAMES[settings.feedback]} {main}; {rates}.")
    return lines


def _headlines(settings: Any, outcome: Outcome, gain: PassComparison) -> Headlines:
    first = outcome.rounds[0]
    known = [passed for passed in first.drafts_passed if passed is not None]
    drafts = "round 1, training tasks" if any(known) else "given drafts, chosen because they fail"
    return Headlines(
        [
            Headline("drafts that pass", wilson(sum(known), len(known)), note=drafts),
            Headline("refinements that pass", pass_rate(first.arms[settings.feedback]), note=NAMES[settings.feedback]),
            Headline(f"pass@{gain.k} before", gain.before, note="held-out tasks"),
            Headline(f"pass@{gain.k} after", gain.after, note="held-out tasks"),
            Headline("paired difference", gain.difference, note="same tasks", signed=True),
        ]
    )


def _arm_bars(outcome: Outcome) -> Bars:
    arms = outcome.rounds[0].arms
    first = next(iter(arms))
    bars = [Bar(NAMES[arm], pass_rate(found), emphasis=arm == first) for arm, found in arms.items()]
    return Bars("Refinements that pass all tests", bars, caption="Share of candidates; 95% bootstrap over tasks.")


def _arm_table(outcome: Outcome) -> Table:
    rows: list[list[Any]] = []
    for number, round_ in enumerate(outcome.rounds, 1):
        for arm, found in round_.arms.items():
            table = evaluate_passes(passes(found), [1])
            hidden = evaluate_passes(passes(found, hidden_only=True), [1])
            rows.append(
                [number, NAMES[arm], table.pass_at[1], hidden.pass_at[1], table.solved, table.samples, table.missing]
            )
    columns: list[str | Column] = [
        "round", "feedback", Column("passes", percent=True), Column("passes hidden tests", percent=True),
        Column("tasks with one", percent=True), "candidates", "missing",
    ]  # fmt: skip
    return Table("Refinements by feedback", columns, rows)


def _arm_words(settings: Any) -> str:
    return (
        f"The same failing drafts were refined {settings.refinements} times each with every kind of feedback. A model that "
        "only guesses again would do as well without feedback, or with feedback meant for another task. Tasks are chosen by "
        "a failing draft, so part of any pass rate is luck returning: compare arms, not an arm with 0."
    )


def _pass_table(outcome: Outcome, ks: Sequence[int]) -> Table:
    rows: list[list[Any]] = []
    for label, hidden in (("all tests", False), ("hidden tests only", True)):
        before, after = (passes(side, hidden_only=hidden) for side in (outcome.before, outcome.after))
        for k in ks:
            found = compare_passes(before, after, k)
            rows.append([label, f"pass@{k}", found.before, found.after, found.difference, found.tasks])
    columns: list[str | Column] = [
        "graded on", "", Column("before", percent=True), Column("after", percent=True),
        Column("difference", percent=True, signed=True), "tasks",
    ]  # fmt: skip
    return Table("pass@k", columns, rows, "95% bootstrap over tasks; the difference is paired by task.")


def _copying_table(outcome: Outcome) -> Table:
    rows: list[list[Any]] = []
    for arm, found in outcome.rounds[0].arms.items():
        for label, chosen in (("all", found), ("passing", [one for one in found if one.verdict.ok])):
            measured = [
                copying(one.draft, one.program, feedback=one.feedback, solution=one.task.solution) for one in chosen
            ]
            total = summarise(measured, clusters=[one.task.task_id for one in chosen])
            rows.append(
                [NAMES[arm], label, total.same_as_draft, total.same_as_solution, total.edit_distance, total.new_overlap,
                 total.refinements]
            )  # fmt: skip
    columns: list[str | Column] = [
        "feedback", "refinements", Column("same as draft", percent=True), Column("same as solution", percent=True),
        "edit distance", "new text from feedback", "n",
    ]  # fmt: skip
    note = "Edit distance: 0 unchanged, 1 nothing kept. New text from feedback: share of new 4-grams that stand in it."
    return Table("Copying", columns, rows, note)


def _curves(outcome: Outcome) -> list[Any]:
    series = [
        Series(f"round {number}", [row["step"] + 1 for row in round_.metrics], [row["loss"] for row in round_.metrics])
        for number, round_ in enumerate(outcome.rounds, 1)
    ]
    return [Curves("Loss of the imitated refinements", "optimiser step", "nats a token", series, zero=True)]


def _cards(settings: Any, outcome: Outcome) -> Cards:
    cards = []
    for arm, found in outcome.rounds[0].arms.items():
        step = max(1, settings.refinements)
        chosen = [next((c for c in found[i : i + step] if c.verdict.ok), found[i]) for i in range(0, len(found), step)]
        cards += [
            SampleCard(
                one.task.task_id, one.task.prompt, one.draft, one.feedback, one.program, one.verdict, arm=NAMES[arm]
            )
            for one in chosen[: CARDS // len(outcome.rounds[0].arms)]
        ]
    note = "One candidate a draft: the first that passes, or the first. So these cards show more passes than there are."
    return Cards("Drafts, feedback, refinements", cards, note)
