"""The page of `amenable judge calibrate`, and its one sentence of judgement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from amenable.evaluation.interval import Estimate
from amenable.evaluation.judge_bias import Preferred, sigmoid
from amenable.evaluation.judge_calibration import Calibration
from amenable.recipes.environment import command_of, versions
from amenable.recipes.judge_findings import Findings, WinRate
from amenable.recipes.judge_labels import Judged
from amenable.report.page import (
    Block,
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

ALONE = 0.7
"""A judge that agrees with people on fewer pairs than this should not be used alone. A convention of this package."""

TWICE = 0.15
"""A judge that prefers the same place in both orders on more pairs than this should be asked in both orders."""

SHOWN = 20
AS_IT_IS = "the label as it is"
BOTH = "both orders averaged"


def verdict(found: Findings) -> str:
    """One sentence: how far to trust the judge, and what to do. Its rules are those of docs/judge_calibration.md."""
    agrees = found.agreement[AS_IT_IS][0]
    if math.isnan(agrees.value):
        return "nothing can be said of this judge: no pair has its answer and a preference of people"
    facts = [f"this judge agrees with people on {_percent(agrees)}"]
    advice = []
    if not agrees.has_interval or agrees.low <= 0.5 <= agrees.high:
        advice.append("do not use it: on these pairs it cannot be told from a coin")
    elif agrees.high < 0.5:
        advice.append("do not use it: it prefers what people reject")
    same = found.position.same if found.position else None
    if same is not None and not math.isnan(same.value):
        facts.append(f"asked twice it contradicts itself on {100 * same.value:.0f}%")
        if not advice and (same.value > TWICE or same.low > TWICE):
            advice.append("use both orders")
    if not advice or advice == ["use both orders"]:
        advice += _advice(found, agrees)
    return f"{'; '.join(facts)}: {_listed(advice)}"


def _advice(found: Findings, agrees: Estimate) -> list[str]:
    """What to do with a judge that is better than a coin."""
    advice = []
    averaged = found.agreement.get(BOTH)
    if averaged is not None and averaged[0].value > agrees.high:
        advice.append(f"average the orders instead of calling a flip a tie ({100 * averaged[0].value:.0f}%)")
    twice = found.regression.get("length")
    if twice is not None and (twice.low > 0.5 or twice.high < 0.5):
        advice.append(f"compare at equal length (it likes {'long' if twice.value > 0.5 else 'short'} answers)")
    own = found.regression.get("own")
    if own is not None and own.low > 0.5:
        advice.append("do not let it judge its own model")
    slope = None if found.calibration is None else found.calibration.slope
    if slope is not None and slope.high < 0.8:
        advice.append(f"do not take its confidence at its word (its logits want a factor of {slope.value:.2g})")
    if agrees.value < ALONE:
        advice.append("do not use it alone: correct its win rates by people's labels")
    else:
        advice.append("correct its win rates by people's labels")
    return advice


def build_report(
    settings: Any, found: Findings, both: Judged, minutes: Mapping[str, float], where: dict[str, Any]
) -> Report:
    """The whole page."""
    said = verdict(found)
    sections = [
        Section("Result", [_headlines(found)], list(found.notes)),
        Section("Agreement with people", [_agreement(found)]),
        Section("What it follows besides", [_biases(found)]),
    ]
    if found.calibration is not None:
        sections.append(Section("Is it as sure as it should be?", _calibration(found.calibration)))
    if found.win_rate is not None:
        sections.append(Section("The win rate, corrected", [_win_rate(found.win_rate)]))
    sections.append(Section("Where it was surest, and people disagreed", [_cards(both)]))
    return Report(
        title=f"Can the judge of {settings.labelled} be trusted?",
        summary=[f"{said[0].upper()}{said[1:]}."],
        command=command_of("judge-calibrate", settings).replace("run judge-calibrate", "judge calibrate"),
        sections=sections,
        config=asdict(settings),
        minutes=minutes,
        versions=versions(),
        machine=where,
    )


def _headlines(found: Findings) -> Headlines:
    share, kappa, _ = found.agreement[AS_IT_IS]
    items = [
        Headline("agrees with people", share, f"{found.pairs:,} pairs; 50% is a coin"),
        Headline("Cohen's kappa", kappa, "0 is a coin, 1 is people's answer always", percent=False),
    ]
    if found.position is not None:
        items.append(Headline("same place in both orders", found.position.same, "0% for a judge that reads"))
    if "length" in found.regression:
        items.append(Headline("twice the length wins", found.regression["length"], "50% without a taste for length"))
    if found.win_rate is not None:
        items.append(Headline("win rate of A, corrected", found.win_rate.powered.estimate, "prediction-powered"))
    return Headlines(items[:5])


def _agreement(found: Findings) -> Table:
    note = (
        "Agreement: share of pairs on which the judge's likelier answer is people's; a tie of the judge counts half, pairs "
        "that people call equal are left out. Kappa and alpha (ordinal: second, tie, first) keep them; each pair under both "
        "namings. 95%, over prompts."
    )
    columns: list[str | Column] = ["the judge's answer", Column("agreement", percent=True), "kappa", "alpha"]
    return Table("Agreement", columns, [[way, *numbers] for way, numbers in found.agreement.items()], note)


def _biases(found: Findings) -> Table:
    rows: list[list[Any]] = []
    note = "95%, over prompts."
    position = found.position
    if position is not None:
        rows.append(["the same place wins in both orders", position.same, "0%"])
        rows.append(["what is shown first wins", position.first_wins, "50%"])
        rows.append(["shown first wins between equals", _as_share(position.bonus), "50%"])
        note += f" Order bonus: {position.bonus.text(signed=True)} logits."
    rows += _preferred("the longer answer", found.length)
    if found.own is not None:
        rows += _preferred("the judge's own model's answer", found.own)
    for name, label, fair in (
        ("length", "twice the length wins where people are undecided", "50%"),
        ("own", "its own wins where people are undecided, at equal length", "50%"),
        ("first", "the first wins where people are undecided, at equal length", "50%"),
        ("people", "people's answer wins at equal length", "50% is a coin"),
    ):
        if name in found.regression:
            rows.append([label, found.regression[name], fair])
    if any("separated" in estimate.method for estimate in found.regression.values()):
        note += (
            " No data in the last lines: length and people's labels tell the judge's answers apart without an error."
        )
    return Table("Biases", ["what", Column("share", percent=True), "without bias"], rows, note)


def _preferred(what: str, found: Preferred) -> list[list[Any]]:
    gap = found.difference
    less = f"people's share; difference {gap.text(percent=True, signed=True)}" if gap.has_interval else "people's share"
    return [
        [f"{what} wins with people", found.people, ""],
        [f"{what} wins with the judge", found.judge, less],
        [f"{what} wins with the judge where people call it a tie", found.where_equal, "50%"],
    ]


def _as_share(bonus: Estimate) -> Estimate:
    value, low, high = sigmoid(np.array([bonus.value, bonus.low, bonus.high])).tolist()
    return Estimate(value, low, high, bonus.n, bonus.method, bonus.level)


def _calibration(found: Calibration) -> list[Block]:
    rows: list[list[Any]] = [
        ["Brier score (0.25 is always 1/2)", *found.brier],
        ["expected calibration error (0 is perfect)", *found.ece],
    ]
    note = (
        f"Calibrated: P = sigma(a logit p) with a = {found.slope.text()}; below 1 the judge is too sure, at 0 it knows "
        f"nothing. Each pair by a temperature that was fitted to other prompts. Brier score gained: "
        f"{found.gain.text(signed=True)}. The calibration error's interval is conservative."
    )
    table = Table("Confidence", ["", "as the judge says", "calibrated, cross-fitted"], rows, note)
    series = [
        Series(
            name,
            [one.confidence for one in bins],
            [one.right.value for one in bins],
            [one.right.low for one in bins],
            [one.right.high for one in bins],
        )
        for name, bins in zip(("as the judge says", "calibrated"), found.bins, strict=True)
    ]
    series.append(Series("as sure as right", [0.5, 1.0], [0.5, 1.0]))
    caption = "How often the judge's favourite is people's, by how sure the judge is; 95%, over prompts."
    return [
        table,
        Curves("Confidence and agreement", "the judge's confidence", "people agree", series, caption, percent=True),
    ]


def _win_rate(found: WinRate) -> Table:
    powered = found.powered
    rows: list[list[Any]] = [
        ["people, on the pairs that they labelled", found.people],
        ["the judge, on the same pairs", found.judge],
        ["the judge, on the pairs it labelled alone: not corrected", found.alone],
        ["corrected: prediction-powered", powered.estimate],
        ["corrected: Rogan-Gladen", found.rogan_gladen],
        ["the judge says A where people do", found.errors.sensitivity],
        ["the judge says B where people do", found.errors.specificity],
    ]
    note = (
        f"Prediction-powered: unbiased whatever the judge does wrong, if the labelled pairs were drawn at random from the same "
        f"ones; the judge has weight {powered.judge_weight:.2f}, and the number is as precise as "
        f"{powered.effective_labels:.0f} labels of people alone. Rogan-Gladen: if the judge errs as often on both, wherever "
        "the labelled pairs come from."
    )
    if math.isnan(found.rogan_gladen.value):
        note += f" No Rogan-Gladen: {found.rogan_gladen.method}."
    return Table("Win rate of A", ["", Column("share", percent=True)], rows, note)


def _cards(both: Judged) -> Cards:
    gaps = np.abs(both.answer - both.human)
    order = [int(place) for place in np.argsort(-np.nan_to_num(gaps, nan=-1.0), kind="stable") if gaps[place] > 0.5]
    cards = []
    for place in order[:SHOWN]:
        row, pair = both.rows[place], both.pairs[place]
        said = f"the judge: P(first) = {both.answer[place]:.3f}, people: {both.human[place]:g}"
        rationale = "\n\n".join(filter(None, [row.get("rationale"), row.get("rationale_backward")]))
        cards.append(
            SampleCard(
                str(row.get("id") or place + 1),
                pair.prompt,
                feedback=f"{said}\n\n{rationale}".strip(),
                refinement=f"FIRST\n{pair.first}\n\nSECOND\n{pair.second}",
                arm="first" if both.answer[place] > 0.5 else "second",
            )
        )
    note = f"{len(cards)} of {len(order)} pairs, the largest distance first."
    return Cards("Disagreements", cards, note, refinement_label="The two answers")


def _percent(estimate: Estimate) -> str:
    """ "61% [55, 67]"."""
    ends = f" [{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]" if estimate.has_interval else " (no interval)"
    return f"{100 * estimate.value:.0f}%{ends}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, and {parts[-1]}"
