"""What a reward model is worth, from held-out pairs: how often it is right, how sure it may be, and whether it counts length.

    right = 1, 1/2, 0   the better answer has the higher, the same, the lower reward; ties in the labels (1/2) are left out
    confidence          sigma(|r1 - r2|), what Bradley-Terry says of its own choice

Shares are over prompts: pairs of dialogues that open with the same words are one unit. Beside each accuracy stand those of
"the longer answer is better" and "the shorter one", which need no model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from amenable.evaluation.influence import clustered_mean, clustered_share
from amenable.evaluation.interval import Estimate, no_data
from amenable.evaluation.judge_calibration import brier_score, calibration_error, reliability
from amenable.evaluation.paired import clustered_difference
from amenable.recipes.environment import command_of, versions
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
from amenable.runs import Row
from amenable.task.dialogue import opening

SHOWN = 40
LOWEST = 4  # tokens of an answer


@dataclass(frozen=True)
class Found:
    """What the run found. Rows as of `scored`; `linear` are those of the head on the body as it was.

    every    pairs of the cross-validation: label, opening, longer (sign), gaps (r1 - r2, one a repeat)
    worth    tokens of both answers of the `shown` pairs and what each is worth; none where the last token is read
    """

    train: int
    held_out: list[Row]
    linear: list[Row]
    head: Row
    every: list[Row]
    worth: list[Row]
    metrics: list[dict[str, Any]]
    unlabelled: int
    too_long: int


@dataclass(frozen=True)
class Judged:
    """Pairs with a winner: `gap` r1 - r2, `label`, `longer` (sign of the difference in characters), `prompt`; (n,) each."""

    gap: np.ndarray
    label: np.ndarray
    longer: np.ndarray
    prompt: list[str]

    @staticmethod
    def of(rows: Sequence[Row]) -> Judged:
        kept = [row for row in rows if row["label"] != 0.5]
        return Judged(
            np.array([row["reward_first"] - row["reward_second"] for row in kept], dtype=float),
            np.array([row["label"] for row in kept], dtype=float),
            np.array([np.sign(len(row["first"]) - len(row["second"])) for row in kept], dtype=float),
            [opening(row["prompt"]) for row in kept],
        )

    def __len__(self) -> int:
        return len(self.gap)

    def at(self, places: np.ndarray) -> Judged:
        """Those where `places` is True."""
        prompts = [prompt for prompt, kept in zip(self.prompt, places, strict=True) if kept]
        return Judged(self.gap[places], self.label[places], self.longer[places], prompts)

    def right(self, by: np.ndarray | None = None) -> np.ndarray:
        """1, 1/2, 0 a pair, by the rewards, or by another number whose sign picks the first."""
        return np.array(0.5 + 0.5 * np.sign(self.gap if by is None else by) * np.sign(self.label - 0.5))

    def accuracy(self, by: np.ndarray | None = None) -> Estimate:
        return clustered_share(self.right(by), self.prompt) if len(self) else no_data("accuracy")


def build_report(settings: Any, found: Found, minutes: Mapping[str, float], where: Mapping[str, Any]) -> Report:
    """The page of one run."""
    pairs, linear = Judged.of(found.held_out), Judged.of(found.linear)
    accuracy, longer, shorter = pairs.accuracy(), pairs.accuracy(pairs.longer), pairs.accuracy(-pairs.longer)
    best = max(longer, shorter, key=lambda one: one.value)
    summary = [
        f"Right on {accuracy.text(percent=True)} held-out pairs; by length alone {best.text(percent=True)}.",
        f"Learned from {found.train} pairs"
        + (f"; {found.unlabelled} without a label left out" if found.unlabelled else "")
        + (f"; {found.too_long} with a text that is too long left out" if found.too_long else "")
        + (
            f"; {len(found.held_out) - len(pairs)} held-out ties not counted."
            if len(found.held_out) > len(pairs)
            else "."
        ),
    ]
    if settings.body != "frozen":
        change = clustered_difference(
            linear.right().tolist(), pairs.right().tolist(), before_clusters=linear.prompt,
            after_clusters=pairs.prompt, share=True,
        )  # fmt: skip
        summary.append(
            f"The head alone was right on {linear.accuracy().text(percent=True)}; training the body changed that by "
            f"{change.text(percent=True, signed=True)}."
        )
    every, divisions = _cross_validation(found.every)
    blocks: list[Block] = [
        Headlines(
            [
                Headline("accuracy, held out", accuracy, "of pairs with a winner"),
                *(
                    [Headline("accuracy, cross-validated", every, "the head; every pair held out once")]
                    if every
                    else []
                ),
                Headline("the longer one is better", longer, "no model"),
                Headline("Brier score", _brier(pairs), "0.25 for who always says 1/2", percent=False),
            ]
        ),
        _by_margin(pairs),
    ]
    blocks.extend(divisions)
    if found.head["losses"]:
        blocks.append(_penalties(found.head))
    if every:
        summary.append(
            f"The head alone, each of {len(found.every)} pairs held out once: right on {every.text(percent=True)}."
        )
    sections = [
        Section("Result", blocks),
        Section("Calibration", [_calibration(pairs)]),
        Section("Length", [_length(pairs)]),
    ]
    if found.metrics:
        sections.append(Section("Training", _curves(found.metrics)))
    sections.append(Section("Pairs", [_cards(found)]))
    return Report(
        title=f"Reward model on {settings.model}",
        summary=summary,
        command=command_of("reward-model", settings),
        sections=sections,
        config=asdict(settings),
        versions=versions(),
        machine=where,
        minutes=minutes,
    )


def _by_margin(pairs: Judged) -> Table:
    """Accuracy by how far apart the two rewards are, in quarters."""
    rows: list[list[Any]] = []
    for name, part in _quarters(pairs):
        gaps = np.abs(part.gap)
        rows.append([name, float(gaps.min()), float(gaps.max()), part.accuracy()])
    columns: list[str | Column] = ["pairs", "from", "to", Column("accuracy", percent=True)]
    return Table(
        "By margin |r1 - r2|", columns, rows, "A model that knows when it knows is right more often further down."
    )


def _quarters(pairs: Judged) -> list[tuple[str, Judged]]:
    order = np.argsort(np.abs(pairs.gap), kind="stable")
    names = ("closest quarter", "second", "third", "furthest quarter")
    parts = []
    for name, places in zip(names, np.array_split(order, 4), strict=True):
        if len(places):
            chosen = np.zeros(len(pairs), dtype=bool)
            chosen[places] = True
            parts.append((name, pairs.at(chosen)))
    return parts


def _cross_validation(rows: Sequence[Row]) -> tuple[Estimate | None, list[Block]]:
    """The share of right pairs, each by a head that saw no pair of its opening, and the table; None and no block without."""
    sided = [row for row in rows if row["label"] != 0.5]
    if not sided:
        return None, []
    better = np.array([np.sign(row["label"] - 0.5) for row in sided])
    openings = [row["opening"] for row in sided]

    def right(by: Sequence[float]) -> np.ndarray:
        return np.array(0.5 + 0.5 * np.sign(by) * better)

    divisions = [right(gaps) for gaps in zip(*(row["gaps"] for row in sided), strict=True)]
    every = clustered_share(np.mean(divisions, axis=0), openings)
    longer = right([row["longer"] for row in sided])
    shares: list[list[Any]] = [["the head", every]]
    if len(divisions) > 1:
        shares += [[f"the head, division {at}", clustered_share(one, openings)] for at, one in enumerate(divisions, 1)]
    shares += [
        ["the longer answer is better", clustered_share(longer, openings)],
        ["the shorter answer is better", clustered_share(1 - longer, openings)],
    ]
    note = (
        f"{len(sided)} pairs with a winner, of {every.n} openings. Each is held out once a division, with all pairs of its "
        "opening, from the head and from the choice of its penalty. The interval is over openings; the body is as it was."
    )
    return every, [Table("Cross-validation", ["who chooses", Column("accuracy", percent=True)], shares, note)]


def _penalties(head: Row) -> Table:
    rows: list[list[Any]] = [
        [float(penalty), loss, "chosen" if float(penalty) == head["penalty"] else ""]
        for penalty, loss in head["losses"].items()
    ]
    note = "Held-out loss of the head over the training pairs. Who knows nothing loses log 2 = 0.693."
    return Table("Penalty of the head", ["penalty", "loss, nats a pair", ""], rows, note)


def _brier(pairs: Judged) -> Estimate:
    if not len(pairs):
        return no_data("Brier")
    return brier_score(_confidence(pairs).tolist(), pairs.label.tolist(), prompts=pairs.prompt)


def _confidence(pairs: Judged) -> np.ndarray:
    """P(first is better) that the rewards say."""
    return np.array(0.5 * (1 + np.tanh(pairs.gap / 2)))


def _calibration(pairs: Judged) -> Table:
    confidence = _confidence(pairs)
    error = calibration_error(confidence, pairs.label, prompts=pairs.prompt)
    loss = np.logaddexp(0, -pairs.gap) * pairs.label + np.logaddexp(0, pairs.gap) * (1 - pairs.label)
    nats = clustered_mean(loss, pairs.prompt) if len(pairs) else no_data("loss")
    rows: list[list[Any]] = [
        [one.confidence, one.right] for one in reliability(confidence, pairs.label, prompts=pairs.prompt, bins=5)
    ]
    note = (
        f"Calibration error {error.text(percent=True)}. Loss {nats.text()} nats a pair, {math.log(2):.3f} for who always says "
        "1/2: a model that is right more often than not may still lose by being too sure."
    )
    return Table(
        "Says it is sure, and is right", [Column("confidence", percent=True), Column("right", percent=True)], rows, note
    )


def _length(pairs: Judged) -> Table:
    """Whether the reward is length in disguise."""
    better = np.sign(pairs.label - 0.5)
    known = pairs.longer != 0
    parts = {
        "all pairs": np.ones(len(pairs), dtype=bool),
        "the longer answer is better": known & (pairs.longer == better),
        "the shorter answer is better": known & (pairs.longer == -better),
    }
    rows: list[list[Any]] = []
    for name, places in parts.items():
        part = pairs.at(places)
        prefers = 0.5 + 0.5 * np.sign(part.gap) * part.longer
        chosen = clustered_share(prefers, part.prompt) if len(part) else no_data("share")
        rows.append([name, part.accuracy(), chosen, part.accuracy(part.longer), part.accuracy(-part.longer)])
    columns: list[str | Column] = [
        "pairs", Column("accuracy", percent=True), Column("model prefers the longer", percent=True),
        Column("“longer is better”", percent=True), Column("“shorter is better”", percent=True),
    ]  # fmt: skip
    note = "Length in characters. A model that only counted would be right on all pairs of one kind, and on none of the other."
    return Table("Length", columns, rows, note)


def _curves(metrics: Sequence[Mapping[str, Any]]) -> list[Block]:
    steps = [float(row["step"]) for row in metrics]
    named = {"loss": "loss, nats a pair", "accuracy": "accuracy of the batch", "margin": "reward margin of the batch"}
    return [
        Curves(label, "step", label, [Series(label, steps, [float(row[name]) for row in metrics])])
        for name, label in named.items()
    ]


def shown(rows: Sequence[Row]) -> list[Row]:
    """The pairs on which the model is furthest from people, either way."""
    order = sorted(rows, key=lambda row: (row["reward_first"] - row["reward_second"]) * np.sign(row["label"] - 0.5))
    return [*order[: SHOWN // 2], *order[max(SHOWN // 2, len(order) - SHOWN // 2) :]]


def _cards(found: Found) -> Cards:
    cards = []
    for at, row in enumerate(shown(found.held_out)):
        gap = row["reward_first"] - row["reward_second"]
        agree = gap * (row["label"] - 0.5)
        said = f"rewards {row['reward_first']:.2f} and {row['reward_second']:.2f}; label {row['label']:g}"
        if found.worth:
            said += "".join(f"\n{side}: {_lowest(found.worth[at][side])}" for side in ("first", "second"))
        cards.append(
            SampleCard(
                str(row["id"]), row["prompt"], feedback=said,
                refinement=f"FIRST\n{row['first']}\n\nSECOND\n{row['second']}",
                arm="agrees" if agree > 0 else "disagrees" if agree < 0 else "tie",
            )
        )  # fmt: skip
    note = f"the {len(cards)} of {len(found.held_out)} held-out pairs on which the model is most wrong, and most right"
    if found.worth:
        note += "; the tokens that cost each answer most (its reward is the mean of all of its tokens')"
    return Cards("Held-out pairs", cards, note, refinement_label="The two answers")


def _lowest(worth: Sequence[Sequence[Any]]) -> str:
    return ", ".join(f"{text!r} {value:.1f}" for text, value in sorted(worth, key=lambda one: one[1])[:LOWEST])
