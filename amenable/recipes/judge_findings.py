"""Every number about a judge, from the pairs that people labelled, too, and those that it labelled alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amenable.errors import DataError
from amenable.evaluation.agreement import Labels, alignment, decided, preference_alpha, preference_kappa
from amenable.evaluation.corrected_win_rate import (
    CorrectedWinRate,
    JudgeErrors,
    judge_errors,
    prediction_powered,
    rogan_gladen,
)
from amenable.evaluation.influence import Floats, clustered_share
from amenable.evaluation.interval import Estimate
from amenable.evaluation.judge_bias import PositionBias, Preferred, choice_regression, position_bias, preferred
from amenable.evaluation.judge_calibration import Calibration, calibrate
from amenable.recipes.judge_labels import Judged


@dataclass(frozen=True)
class WinRate:
    """Of system A: by people and by the judge on the pairs both labelled, by the judge on its own, and corrected."""

    people: Estimate
    judge: Estimate
    alone: Estimate
    powered: CorrectedWinRate
    rogan_gladen: Estimate
    errors: JudgeErrors


@dataclass(frozen=True)
class Findings:
    """All numbers of the page; `agreement` by the way the labels are read; None (with a reason in `notes`): not to be had."""

    pairs: int
    agreement: Mapping[str, tuple[Estimate, Estimate, Estimate]]
    position: PositionBias | None
    length: Preferred
    regression: Mapping[str, Estimate]
    own: Preferred | None
    calibration: Calibration | None
    win_rate: WinRate | None
    outside: Estimate | None
    notes: Sequence[str]


def findings(settings: Any, both: Judged, alone: Judged) -> Findings:
    """Every number, from the pairs that both labelled and those that the judge labelled alone."""
    notes: list[str] = []
    names, one_order = both.prompts, bool(np.isnan(both.backward).all())
    ways: dict[str, Labels] = {"the label as it is": both.label}
    position = None
    if one_order:
        notes.append("Only one order was asked: what follows the position cannot be told from what follows the answer.")
    else:
        consistent = np.array([row.get("consistent") is not False for row in both.rows])
        ways["both orders averaged"] = both.averaged
        ways["both orders averaged, a flip is a tie"] = both.tied
        ways["pairs without a flip"] = np.where(consistent, both.label, np.nan)
        ways["the file's order alone"] = both.forward
        ways["the other order alone"] = 1 - both.backward
        position = position_bias(both.forward, both.backward, prompts=names)
    agreement = {
        way: (
            alignment(labels, both.human, prompts=names),
            preference_kappa(labels, both.human, prompts=names),
            preference_alpha(labels, both.human, prompts=names),
        )
        for way, labels in ways.items()
    }
    regression: dict[str, Estimate] = {}
    try:
        regression = choice_regression(
            both.answer, both.human, both.length, own=both.own, prompts=names, constant=one_order
        )
    except DataError as error:
        notes.append(f"No regression on length: {error.what}")
    calibration = None
    try:
        calibration = calibrate(
            both.answer, both.human, prompts=names, folds=settings.folds, bins=settings.bins, seed=settings.seed
        )
    except DataError as error:
        notes.append(f"No calibrated confidence: {error.what}")
    missing = int(np.isnan(both.answer).sum())
    if missing:
        notes.append(f"{missing:,} of {len(both):,} pairs have no answer of the judge: they are left out, not ties.")
    known = ~np.isnan(both.outside)
    return Findings(
        pairs=int((~np.isnan(both.answer)).sum()),
        agreement=agreement,
        position=position,
        length=preferred(both.answer, both.human, both.length, prompts=names),
        regression=regression,
        own=None if both.own is None else preferred(both.answer, both.human, both.own, prompts=names),
        calibration=calibration,
        win_rate=_win_rate(both, alone, notes),
        outside=clustered_share(both.outside[known], np.array(names)[known].tolist()) if known.any() else None,
        notes=notes,
    )


def _win_rate(both: Judged, alone: Judged, notes: list[str]) -> WinRate | None:
    """Of system A over the other, on the pairs that the judge labelled alone."""
    usable = ~np.isnan(alone.answer)
    if not usable.any():
        notes.append(
            "No pair was labelled by the judge alone: no win rate to correct (alone=FILE, or rows without a label)."
        )
        return None
    judge, people = (_of_system(values, both) for values in (both.answer, both.human))
    more, own, others = _of_system(alone.answer, alone), both.prompts, alone.prompts
    kept = ~np.isnan(judge)
    both_names = [name for name, keep in zip(both.prompts, kept, strict=True) if keep]
    more_names = [name for name, keep in zip(alone.prompts, usable, strict=True) if keep]
    return WinRate(
        people=clustered_share(people[kept], both_names),
        judge=clustered_share(judge[kept], both_names),
        alone=clustered_share(more[usable], more_names),
        powered=prediction_powered(judge, people, more, prompts=own, prompts_alone=others),
        rogan_gladen=rogan_gladen(decided(judge), people, decided(more), prompts=own, prompts_alone=others),
        errors=judge_errors(decided(judge), people, prompts=own),
    )


def _of_system(values: Floats, pairs: Judged) -> Floats:
    """P(A is better) from P(first is better)."""
    return np.where(pairs.system > 0, values, 1 - values)
