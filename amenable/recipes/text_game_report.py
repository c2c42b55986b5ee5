"""What a text game found: was the target understood, and is the language still the prior's?

    success, outsider, elsewhere, noisy    P(target) by four readers (`recipes.text_game.spoken`)
    named      share of the target's words that stand in the text
    surprise   -log a(x|c) / tokens of x, nats a token: perplexity of the text under the prior is its exponential
    KL         log pi - log a, nats a text;   entropy  -log pi, nats a text
    distinct   different texts / texts

Intervals: 95% over scenes (all texts and seeds of a scene are one unit); differences, over scenes and seeds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amenable.evaluation.diversity import corpus_distinct_n
from amenable.evaluation.interval import Estimate, bootstrap_mean, paired_difference
from amenable.recipes.environment import command_of, machine, versions
from amenable.report.page import (
    Cards,
    Cell,
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


@dataclass(frozen=True)
class Training:
    """One training's texts and the metrics of its steps."""

    listener: str
    beta: float
    rows: list[Row]
    metrics: list[dict[str, Any]]


def named(row: Row) -> float:
    """Share of the words of the target's name that the text has, as words, in any case."""
    words = set(re.findall(r"[a-z]+", row["text"].lower()))
    wanted = row["target"].lower().split()
    return sum(word in words for word in wanted) / len(wanted)


MEASURES: dict[str, Callable[[Row], float]] = {
    "success": lambda row: row["success"],
    "outsider": lambda row: row["outsider"],
    "elsewhere": lambda row: row["elsewhere"],
    "noisy": lambda row: row["noisy"],
    "named": named,
    "surprise": lambda row: -row["log_prior"] / row["tokens"],
    "KL": lambda row: row["log_policy"] - row["log_prior"],
    "entropy": lambda row: -row["log_policy"],
    "tokens": lambda row: row["tokens"],
}
SHARES = ("success", "outsider", "elsewhere", "noisy", "named")
COMPARED = ("success", "outsider", "named", "surprise", "KL", "entropy")
CURVES = {
    "log_potential": "mean reward: the listener's success",
    "kl_policy_prior": "KL(π, a), nats a text",
    "entropy": "entropy of π, nats a text",
    "listener_loss": "listener's loss, nats a token",
}


def measures_of(rows: Sequence[Row]) -> dict[str, Estimate]:
    """Every measure of one or several seeds' texts, by its name."""
    clusters = [row["scene"] for row in rows]
    found = {
        name: bootstrap_mean([value(row) for row in rows], clusters=clusters, share=name in SHARES)
        for name, value in MEASURES.items()
        if name != "noisy" or "noisy" in rows[0]
    }
    whole = [row["text"].strip().replace(" ", "_") or "_" for row in rows]  # a text as one word
    return found | {"distinct": corpus_distinct_n(whole, 1)}


def difference(before: Sequence[Training], after: Sequence[Training], name: str) -> Estimate:
    """after - before in the measure `name`, over the same scenes; seeds in pairs."""
    old, new = (np.array([_by_scene(one.rows, name) for one in side]).T for side in (before, after))
    return paired_difference(old, new, share=name in SHARES)


def _by_scene(rows: Sequence[Row], name: str) -> list[float]:
    scenes = sorted({row["scene"] for row in rows})
    return [float(np.mean([MEASURES[name](row) for row in rows if row["scene"] == scene])) for scene in scenes]


def build_report(
    settings: Any, before: list[Row], found: Mapping[str, list[Training]], scenes: int, minutes: dict[str, float]
) -> Report:
    """The report of `amenable run text-game`."""
    prior = measures_of(before)
    pooled = {name: measures_of([row for one in several for row in one.rows]) for name, several in found.items()}
    chance = 1 / settings.candidates
    summary = [f"Chance {chance:.1%}. The untrained pair: {_sentence(prior)}"]
    summary += [f"{name[0].upper()}{name[1:]}: {_sentence(own)}" for name, own in pooled.items()]
    summary += _verdicts(found)
    first = next(iter(pooled.values()))
    columns: list[Column | str] = ["", *(Column(name, percent=name in (*SHARES, "distinct")) for name in first)]
    rows: list[list[Cell]] = [["prior", *(prior.get(name) for name in first)]]
    rows += [[name, *own.values()] for name, own in pooled.items()]
    by_seed: list[list[Cell]] = [
        [f"{name}, seed {seed}", *measures_of(one.rows).values()]
        for name, several in found.items()
        for seed, one in enumerate(several)
    ]
    note = (
        "P(target) on scenes of held-out combinations by the listener (success), by the pretrained model (outsider), by the "
        "listener where the text is about another scene (elsewhere); surprise in nats a token under the prior; KL and "
        "entropy in nats a text."
    )
    players = Table(f"Players, all texts together (seeds: {settings.seeds})", columns, rows, note)
    sections = [
        Section("Result", [_headlines(prior, pooled), players]),
        Section("Differences", [_differences(before, found)]),
        Section("Seeds", [Table("Each seed's own", columns, by_seed)] if settings.seeds > 1 else []),
        Section("Training", _curves(found), [f"{scenes} scenes of known combinations. Each point is one step's own texts."]),
        Section("Texts", [_cards("prior", before), *(_cards(name, several[0].rows) for name, several in found.items())]),
    ]  # fmt: skip
    return Report(
        title="A text game between two language models",
        summary=summary,
        command=command_of("text-game", settings),
        sections=[section for section in sections if section.blocks],
        config={key: str(value) for key, value in vars(settings).items()},
        versions=versions(),
        machine=machine({}),
        minutes=minutes,
    )


def _sentence(own: Mapping[str, Estimate]) -> str:
    return (
        f"understood with {own['success'].text(percent=True)}; by the pretrained model {own['outsider'].text(percent=True)}; "
        f"surprise {own['surprise'].text()} nats a token; KL(π, a) {own['KL'].text()}."
    )


def _verdicts(found: Mapping[str, list[Training]]) -> list[str]:
    """Does the KL keep it English? One line a listener that has been trained with and without."""
    lines = []
    for without, with_kl in _pairs(found):
        apart = difference(found[without], found[with_kl], "surprise")
        read = difference(found[without], found[with_kl], "outsider")
        lines.append(
            f"{with_kl} against β = 0: surprise {apart.text(signed=True)} nats a token, "
            f"understood by the pretrained model {read.text(percent=True, signed=True)}."
        )
    return lines


def _pairs(found: Mapping[str, list[Training]]) -> list[tuple[str, str]]:
    """(name without a KL, name with one) of the same listener."""
    arms = [(name, several[0]) for name, several in found.items()]
    return [
        (plain, name)
        for plain, one in arms
        if one.beta == 0
        for name, other in arms
        if other.beta > 0 and other.listener == one.listener
    ]


def _headlines(prior: Mapping[str, Estimate], pooled: Mapping[str, Mapping[str, Estimate]]) -> Headlines:
    items = [Headline("success, prior", prior["success"])]
    for name, own in list(pooled.items())[:2]:
        items += [Headline(f"success, {name}", own["success"])]
        items += [Headline(f"surprise, {name}", own["surprise"], "nats a token under the prior", percent=False)]
    return Headlines(items)


def _differences(before: list[Row], found: Mapping[str, list[Training]]) -> Table:
    start = [Training("", 0.0, before, [])]
    rows: list[list[Cell]] = [
        [f"{name} − prior", *(difference(start, several, key) for key in COMPARED)] for name, several in found.items()
    ]
    rows += [
        [f"{name} − β = 0", *(difference(found[plain], found[name], key) for key in COMPARED)]
        for plain, name in _pairs(found)
    ]
    columns: list[Column | str] = ["", *(Column(key, percent=key in SHARES, signed=True) for key in COMPARED)]
    return Table("Differences on the same scenes", columns, rows, "Paired bootstrap over scenes and seeds.")


def _curves(found: Mapping[str, list[Training]]) -> list[Curves]:
    runs = [
        (f"{name}, seed {seed}", one.metrics) for name, several in found.items() for seed, one in enumerate(several)
    ]
    made = []
    for key, label in CURVES.items():
        series = [
            Series(name, [float(row["step"]) for row in rows], [float(row[key]) for row in rows])
            for name, rows in runs
            if rows and key in rows[0]
        ]
        made += [Curves(label, "step", label, series)] if series else []
    return made


def _cards(name: str, rows: Sequence[Row], most: int = 24) -> Cards:
    shown = [
        SampleCard(
            f"{name} {place}",
            f"{row['target']} among {', '.join(row['others'])}",
            draft=row["text"],
            arm=name,
            tags=[f"P(target) {row['success']:.2f}", f"outsider {row['outsider']:.2f}", row["ended"]],
        )
        for place, row in enumerate(rows[:most])
    ]
    return Cards(f"Texts: {name}", shown, f"the first {len(shown)} of {len(rows)}", draft_label="Text")
