"""What an arm of a preference study came to: its samples scored, beside the prior's, and along its training.

scores      what the score that was optimised, and gold where there is one, say of each sample
outcome     who wins against the prior, KL(pi, a), length, each with its interval
meter_of    proxy and gold at every reading of the training, its end included
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from amenable.evaluation.interval import Estimate, bootstrap_mean, no_data
from amenable.evaluation.over_optimisation import Meter
from amenable.evaluation.preference import from_scores, length_corrected, win_rate
from amenable.feedback.judging import judged
from amenable.recipes.alignment import AlignmentSettings, Preference, Problem, judge
from amenable.recipes.metered import metering, readings_of
from amenable.recipes.rlhf_report import Outcome
from amenable.runs import Row, Run

READINGS = "readings.jsonl"


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
