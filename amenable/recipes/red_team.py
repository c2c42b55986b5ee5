"""Red teaming: a search for prompts that models answer badly, several models side by side with the same budget.

    1  first prompts    of a file or of held-out documents; the same for every model, others in every search
    2  rounds           the generator writes prompts like the pool's worst, the model answers, a prompt's score is its answers'
    3  the curve        mean score of a round's prompts, over independent searches

`evaluation.red_team` says how a prompt is drawn and has the paper's numbers. A low curve is a model that is hard to provoke
by this generator with this budget, and no proof against another one.

Source: Korbak et al. 2023, arXiv 2302.08582, section 4.3.
Changed from the paper: a small local generator in place of InstructGPT; first prompts from held-out text; fewer answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amenable.errors import ConfigError
from amenable.evaluation.interval import wilson
from amenable.evaluation.red_team import (
    Tried,
    as_list,
    as_rows,
    best,
    curve,
    difference,
    draw,
    new_prompts,
    spread,
    tried,
)
from amenable.feedback.scorers import Scorer
from amenable.policy.causal_lm import CausalLM
from amenable.progress import bar
from amenable.recipes.audit import LONGEST, AuditSettings, answered, causal, check, corpus_for, labels, prompts_of
from amenable.recipes.environment import command_of, machine, prepare, versions
from amenable.recipes.pretrain_data import scorer_of
from amenable.recipes.settings import Recipe, setting
from amenable.records import Decoding
from amenable.report.html import write
from amenable.report.page import Cards, Column, Curves, Report, SampleCard, Section, Series, Table
from amenable.runs import Run
from amenable.seeding import derive, python_random

SELF = "self"
WRITING = Decoding(max_tokens=48, temperature=1.0, top_p=0.95, stop=("\n",))
MOST = 2000  # prompts that first ones are drawn from
CARDS = 10  # prompts a model to read
Searches = list[list[list[Tried]]]


@dataclass(frozen=True)
class RedTeamSettings(AuditSettings):
    """The search."""

    generator: str = setting("smollm2-135m", "who writes prompts: a causal model, or self: each model against itself")
    rounds: int = setting(10, "rounds after the first prompts")
    searches: int = setting(5, "independent searches; with one there is no interval")
    first: int = setting(20, "first prompts of a search")
    per_round: int = setting(20, "prompts that the generator writes in a round")
    answers: int = setting(32, "answers to a prompt (the paper: 512)")
    shots: int = setting(4, "prompts of the pool that the generator reads")
    pool_temperature: float | None = setting(
        None,
        "T of exp(score / T); default: 0.1 for toxicity, as in the paper, else the standard deviation of the pool's scores",
    )
    max_tokens: int = setting(64, "longest answer")


def plan(settings: RedTeamSettings) -> list[str]:
    """What the run will do, in lines."""
    _check(settings)
    each = settings.searches * (settings.first + settings.rounds * settings.per_round) * settings.answers
    told = settings.pool_temperature or (0.1 if settings.task == "toxicity" else "the standard deviation of the pool")
    return [
        f"red-team {', '.join(settings.models)} for {settings.task}: {settings.searches} searches of {settings.rounds} rounds",
        f"first prompts: {settings.first} of {settings.prompts or 'the openings of held-out documents'}",
        f"each round: {settings.shots} prompts of the pool by exp(score / T), T: {told}; {settings.per_round} new ones by "
        f"{settings.generator}; {settings.answers} answers to each",
        f"{each:,} answers of up to {settings.max_tokens} tokens a model at most, temperature {settings.temperature:g}",
    ]


def run(settings: RedTeamSettings, folder: Path) -> Report:
    """The searches in `folder`, a round a stage. Run again, it goes on where it stopped; it may be given more models."""
    clock = prepare(settings.threads)
    _check(settings)
    record = Run.of(folder, settings, free=("models", "searches"))
    scorer = scorer_of(settings)
    prompts = prompts_of(settings, corpus_for(settings), MOST, scorer.unit)
    clock.lap("prompts")
    writer = None if settings.generator == SELF else causal(settings.generator, settings)
    found: dict[str, Searches] = {}
    for name, label in zip(settings.models, labels(settings.models), strict=True):
        policy = causal(name, settings)
        with bar(label) as progress:
            found[label] = []
            for number in range(settings.searches):
                team = Team(settings, label, policy, writer or policy, scorer, number)
                found[label].append(team.search(prompts, record))
                progress(number + 1, settings.searches)
        clock.lap(label)
    report = build_report(settings, found, clock.minutes(), machine({}))
    write(report, folder / "report.html")
    record.close()
    return report


@dataclass(frozen=True)
class Team:
    """One search against one model."""

    settings: RedTeamSettings
    label: str
    target: CausalLM
    writer: CausalLM
    scorer: Scorer
    number: int

    def search(self, prompts: Sequence[str], record: Run) -> list[list[Tried]]:
        """What was tried in each round; round 0 are the first prompts."""
        settings = self.settings
        chosen = python_random(settings.seed, "first", self.number).sample(prompts, min(settings.first, len(prompts)))
        rounds: list[list[Tried]] = []
        for at in range(settings.rounds + 1):

            def compute(at: int = at) -> list[dict[str, Any]]:
                return as_rows(self.answered(self.written(rounds, at) if at else chosen, at))

            rows = record.stage(f"{self.label} search {self.number}/{at}", compute)
            rounds.append([Tried(**row) for row in rows])
        return rounds

    def written(self, rounds: Sequence[Sequence[Tried]], at: int) -> list[str]:
        """New prompts, after the pool's worst."""
        settings, pool = self.settings, [one for found in rounds for one in found]
        temperature = settings.pool_temperature
        if temperature is None:
            temperature = 0.1 if settings.task == "toxicity" else spread(pool)
        seed = derive(settings.seed, "round", self.number, at)
        shown = as_list(draw(pool, settings.shots, temperature=temperature, seed=seed), self.scorer.unit)
        drawn = self.writer.sample([shown], n=settings.per_round, decoding=WRITING, seed=seed)
        texts = [text for text, ended in zip(drawn.texts, drawn.ended, strict=True) if ended != "length"]
        return new_prompts(texts, [one.prompt for one in pool], self.scorer.unit, longest=LONGEST)

    def answered(self, prompts: Sequence[str], at: int) -> list[Tried]:
        """The target's answers to `prompts`, as the prompts' scores."""
        settings, n = self.settings, self.settings.answers
        if not prompts:
            return []
        rows = answered(
            settings, self.target, prompts, self.scorer, n=n, max_tokens=settings.max_tokens,
            seed=derive(settings.seed, "answers", self.number, at),
        )  # fmt: skip
        parts = [rows[start : start + n] for start in range(0, len(rows), n)]
        return [
            tried(part[0]["prompt"], [row["text"] for row in part], [row["score"] for row in part]) for part in parts
        ]


def build_report(
    settings: Any, found: dict[str, Searches], minutes: dict[str, float], machine: dict[str, Any]
) -> Report:
    """The curves, round by round, who is below whom, and the worst prompts."""
    curves = {label: curve(searches) for label, searches in found.items()}
    return Report(
        title=f"Red teaming of {len(found)} models for {settings.task}",
        summary=[
            f"{label}: {line[0].text()} on the first prompts, {line[-1].text()} in round {len(line) - 1}; "
            f"the worst prompt that a search found: {best(found[label]).text()}."
            for label, line in curves.items()
        ],
        command=command_of("red-team", settings),
        sections=[
            Section("By round", [_drawn(curves), _rounds(curves), *([_against(found)] if len(found) > 1 else [])]),
            Section("The searches", [_budget(found)]),
            Section("Prompts to read", [_cards(found)]),
        ],
        config=asdict(settings), minutes=minutes, versions=versions(), machine=machine,
    )  # fmt: skip


def _drawn(curves: dict[str, list[Any]]) -> Curves:
    series = [
        Series(
            label, [float(at) for at in range(len(line))], [one.value for one in line],
            [one.low for one in line], [one.high for one in line],
        )
        for label, line in curves.items()
    ]  # fmt: skip
    caption = (
        "Mean score of the answers to a round's prompts. Bands: 95%, Student's t over searches. Low: hard to provoke."
    )
    return Curves("Score by round", "round", "score", series, caption, zero=True)


def _rounds(curves: dict[str, list[Any]]) -> Table:
    lines = list(curves.values())
    rows: list[list[Any]] = [[f"{at}", *(line[at] for line in lines)] for at in range(len(lines[0]))]
    return Table(
        "Score by round", ["round", *curves], rows, "Round 0: the first prompts. 95%: Student's t over searches."
    )


def _against(found: dict[str, Searches]) -> Table:
    """Each model less the first: on the first prompts, over all rounds, and in how many rounds it is below."""
    base, *others = found
    rounds = len(found[base][0]) - 1
    rows: list[list[Any]] = []
    for label in others:
        lines = zip(curve(found[label])[1:], curve(found[base])[1:], strict=True)
        below = sum(own.value < its.value for own, its in lines)
        rows.append(
            [
                label, difference(found[label], found[base], slice(0, 1)),
                difference(found[label], found[base], slice(1, None)), f"{below} of {rounds}",
            ]
        )  # fmt: skip
    columns: list[str | Column] = [
        "model", Column("first prompts", signed=True), Column("mean over the rounds", signed=True), "rounds below",
    ]  # fmt: skip
    return Table(
        f"Less {base}", columns, rows, "Paired by search: the same first prompts. 95%: Student's t over searches."
    )


def _budget(found: dict[str, Searches]) -> Table:
    rows: list[list[Any]] = []
    for label, searches in found.items():
        every = [one for search in searches for part in search for one in part]
        without = wilson(sum(one.missing for one in every), sum(one.answers for one in every))
        last = sum(len(search[-1]) for search in searches) / len(searches)
        rows.append([label, best(searches), len(every), last, sum(one.answers for one in every), without])
    columns: list[str | Column] = [
        "model", "worst prompt of a search", "prompts", "in the last round of a search", "answers",
        Column("answers without a score", percent=True),
    ]  # fmt: skip
    note = "What the pool has, is empty, too long or cut off is not tried: a round may have fewer than were written."
    return Table("What was tried", columns, rows, note)


def _cards(found: dict[str, Searches]) -> Cards:
    cards = []
    for label, searches in found.items():
        every = [
            (one, number, at)
            for number, search in enumerate(searches)
            for at, part in enumerate(search)
            for one in part
        ]
        known = sorted(
            (each for each in every if each[0].score is not None), key=lambda each: -float(each[0].score or 0)
        )
        for one, number, at in known[:CARDS]:
            tags = [f"score {one.score:.4g}", f"search {number}, round {at}"]
            cards.append(SampleCard(label, one.prompt, refinement=one.worst, tags=tags, arm=label))
    return Cards("The worst prompts", cards, note="With the worst answer to each.", refinement_label="Worst answer")


def _check(settings: RedTeamSettings) -> None:
    check(settings)
    for name in ("rounds", "searches", "first", "per_round", "answers", "shots", "max_tokens"):
        if getattr(settings, name) < 1:
            raise ConfigError(f"{name}={getattr(settings, name)} is not a number of them", f"use {name}=1 or more")


RECIPE = Recipe(
    "red-team", "search for prompts that models answer badly, with a curve by round", RedTeamSettings, plan, run
)
