"""Can this judge be trusted? What `amenable judge` wrote about pairs that people labelled, too, in one page with intervals.

    amenable judge calibrate LABELLED.jsonl [human=COLUMN] [alone=JUDGED.jsonl] [own=COLUMN] [system=COLUMN]

    LABELLED   rows as `amenable judge` writes them: prompt, first, second (texts or messages), label, forward, backward; and
               people's P(first is better), in [0, 1], or "first", "second", "tie". Rows without one: the judge alone
    alone      more rows that the judge alone judged: the pairs whose win rate is asked
    own        column that says which answer is the judge's own model's: "first", "second" or nothing
    system     column that says which answer is system A's, whose win rate over the other is asked; without it, the first

Written are report.html, calibration.json (every number), and calibrated.jsonl: the rows, with `calibrated`, P(first is better)
after the temperature; of a pair that people labelled, a temperature that did not see it. Equations: `evaluation.agreement`,
`judge_bias`, `judge_calibration`, `corrected_win_rate`. Intervals are over prompts (of dialogues, over their openings).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amenable import durable
from amenable.evaluation.judge_calibration import Calibration, calibrated
from amenable.recipes.environment import machine, prepare
from amenable.recipes.judge_calibrate_report import build_report, verdict
from amenable.recipes.judge_findings import Findings, findings
from amenable.recipes.judge_labels import ANSWERS, Judged, read
from amenable.recipes.settings import Recipe, setting
from amenable.report.html import write
from amenable.report.page import Report
from amenable.runs import Run


@dataclass(frozen=True)
class JudgeCalibrateSettings:
    """Which rows, and which of their columns."""

    labelled: str = setting("", "what `amenable judge` wrote (labels.jsonl or its run's folder), with people's labels")
    human: str = setting("", "column with people's P(first is better); default: human, else given")
    alone: str = setting("", "more rows that the judge alone labelled, whose win rate is asked")
    own: str = setting("", "column that says which answer is the judge's own model's: first, second or nothing")
    system: str = setting("", "column that says which answer is system A's: first or second; default: the first")
    answers: str = setting(
        "label",
        "the judge's answer: label as written, both orders averaged, the same tied (0.5 for a flip), or one order",
        ANSWERS,
    )
    folds: int = setting(5, "parts of the cross-fitted calibration")
    bins: int = setting(10, "bins of the calibration error, at least 20 pairs in each")
    seed: int = setting(0, "seed of the folds")


def plan(settings: JudgeCalibrateSettings) -> list[str]:
    both, alone = read(settings)
    lines = [f"calibrate the judge of {settings.labelled} on {len(both):,} pairs that people labelled, too"]
    if len(alone):
        lines.append(f"and correct its win rate on {len(alone):,} pairs that it labelled alone")
    return lines


def run(settings: JudgeCalibrateSettings, folder: Path) -> Report:
    """Compute, and write report.html, calibration.json and calibrated.jsonl into `folder`."""
    clock = prepare(1)
    both, alone = read(settings)
    record = Run.of(folder, settings)
    found = findings(settings, both, alone)
    durable.write_file(folder / "calibrated.jsonl", _calibrated_rows(found, both, alone))
    numbers = {"verdict": verdict(found), **_plain({**asdict(found), "calibration": _without_rows(found.calibration)})}
    durable.write_file(folder / "calibration.json", json.dumps(numbers, indent=1, ensure_ascii=False))
    clock.lap("calibration")
    report = build_report(settings, found, both, clock.minutes(), machine({}))
    write(report, folder / "report.html")
    record.close()
    return report


def _calibrated_rows(found: Findings, both: Judged, alone: Judged) -> str:
    """The rows with their calibrated confidence, null where there is none."""
    slope = math.nan if found.calibration is None else found.calibration.slope.value
    own = np.full(len(both), np.nan) if found.calibration is None else found.calibration.confidence
    more = np.full(len(alone), np.nan) if math.isnan(slope) else calibrated(alone.answer, slope)
    lines = []
    for rows, values in ((both.rows, own), (alone.rows, more)):
        for row, value in zip(rows, values.tolist(), strict=True):
            lines.append(json.dumps({**row, "calibrated": None if math.isnan(value) else value}, ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines)


def _without_rows(calibration: Calibration | None) -> dict[str, Any] | None:
    if calibration is None:
        return None
    return {key: value for key, value in asdict(calibration).items() if key != "confidence"}


def _plain(value: Any) -> Any:
    """For JSON: nan is null."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


RECIPE = Recipe(
    "judge-calibrate",
    "can a judge be trusted: agreement with people, biases, calibrated confidence, corrected win rate",
    JudgeCalibrateSettings,
    plan,
    run,
)
