"""What `amenable sample` found, as a page: how much was accepted, how far the law is from the target, how far to trust it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from amenable.evaluation.divergence import with_interval
from amenable.evaluation.interval import Estimate, wilson
from amenable.recipes.environment import command_of, versions
from amenable.recipes.targets import Factor, factors_of
from amenable.report.page import (
    Block,
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
from amenable.sampling.acceptance import Quality, quality
from amenable.sampling.best_of_n import kl_bound
from amenable.sampling.importance import Diagnosis, diagnose
from amenable.target.partition import PARETO_LIMIT, LogZ

CARDS = 60
CONTEXTS = 50  # lines of the table of contexts
FACTORS = (1 / 64, 1 / 16, 1 / 4, 1.0, 4.0, 16.0)  # of the beta that was used, for the law as a function of beta


@dataclass(frozen=True)
class Outcome:
    """The rows of a run: its samples, the weights of its proposals, the fitted moments; beta by context (empty: none)."""

    contexts: list[str]
    beta: Mapping[str, float]
    samples: list[Row]
    proposals: list[Row]
    moments: list[Row]


def weight_rows(prompts: list[str], log_weights: torch.Tensor, accepted: torch.Tensor | None = None) -> list[Row]:
    """One row a proposal: a weight of 0 is null, a missing one is said to be missing."""
    rows: list[Row] = []
    for place, (prompt, value) in enumerate(zip(prompts, log_weights.tolist(), strict=True)):
        row: Row = {"prompt": prompt, "log_weight": value if math.isfinite(value) else None}
        if math.isnan(value):
            row["missing"] = True
        if accepted is not None:
            row["accepted"] = bool(accepted[place])
        rows.append(row)
    return rows


def weights_of(rows: Sequence[Row]) -> torch.Tensor:
    """The log weights (N,) float64 that `weight_rows` wrote down."""
    nothing = {True: math.nan, False: -math.inf}
    values = [nothing["missing" in row] if row["log_weight"] is None else row["log_weight"] for row in rows]
    return torch.tensor(values, dtype=torch.float64)


def build_report(settings: Any, outcome: Outcome, minutes: dict[str, float], where: dict[str, Any]) -> Report:
    """The page of one run."""
    got = {row["prompt"] for row in outcome.samples}
    without = [context for context in outcome.contexts if context not in got]
    summary = [
        f"{len(outcome.samples)} samples of {len(got)} of {len(outcome.contexts)} contexts, by {settings.method}; "
        f"proposal {settings.proposal or settings.model}."
    ]
    if without:
        summary.append(f"Nothing came for {len(without)} contexts: {', '.join(repr(c[:40]) for c in without[:5])}.")
    parts = {"importance": _importance, "best-of-n": _best}.get(settings.method, _rejection)
    blocks, told = parts(settings, outcome)
    sections = [Section("Result", [*blocks, _features(settings, outcome)])]
    if outcome.moments:
        sections.append(Section("Shares", [_moments(outcome.moments)]))
    if settings.method != "best-of-n":
        sections.append(Section("Contexts", [_contexts(outcome)]))
    sections.append(Section("Samples", [_cards(outcome)]))
    return Report(
        title=f"Samples of {settings.target}",
        summary=[*summary, *told],
        command=command_of("sample", settings),
        sections=sections,
        config=asdict(settings),
        minutes=minutes,
        versions=versions(),
        machine=where,
    )


def _rejection(settings: Any, outcome: Outcome) -> tuple[list[Block], list[str]]:
    prompts, weights = [row["prompt"] for row in outcome.proposals], weights_of(outcome.proposals)
    scored = int((~weights.isnan()).sum())
    accepted = wilson(sum(row["accepted"] for row in outcome.proposals), scored)
    bounds = torch.tensor([math.log(outcome.beta[prompt]) for prompt in prompts], dtype=torch.float64)
    above = int((weights > bounds + 1e-6).sum())
    betas = [{context: factor * beta for context, beta in outcome.beta.items()} for factor in FACTORS]
    laws = quality(prompts, weights, betas)
    now = laws[FACTORS.index(1.0)]
    if above:
        told = (
            f"{above} of {scored} proposals had P/q above beta, so that texts like them come too rarely: the law is "
            f"{with_interval(now.total_variation).text()} in total variation away from the target."
        )
    else:
        told = f"None of {scored} proposals had P/q above beta: nothing seen contradicts that the samples are exact."
    headlines = Headlines(
        [
            Headline("accepted", accepted, "of the proposals that have a score"),
            Headline("TV to the target", with_interval(now.total_variation), percent=False),
            Headline("KL(target, law)", with_interval(now.kl), "nats a sequence", percent=False),
        ]
    )
    return [headlines, *_laws(outcome, laws)], [told]


def _laws(outcome: Outcome, laws: Sequence[Quality]) -> list[Block]:
    """The law as a function of beta, from the proposals of this run; nothing where it is exact at every beta."""
    if not any(abs(law.total_variation.value) > 1e-6 for law in laws):
        return []
    one = len(set(outcome.beta.values())) == 1
    beta = next(iter(outcome.beta.values()))
    rows: list[list[Cell]] = [
        [
            f"{beta * factor:.4g}" if one else f"{factor:g} times",
            with_interval(law.acceptance),
            with_interval(law.total_variation),
            with_interval(law.kl),
        ]
        for factor, law in zip(FACTORS, laws, strict=True)
    ]
    note = (
        "Averages over contexts. beta was chosen before these proposals were drawn; KL in nats a sequence. "
        "A larger beta is closer to the target and accepts less."
    )
    table = Table("The law as a function of beta", ["beta", Column("accepted", percent=True), "TV", "KL"], rows, note)
    points = [
        (law.acceptance.value, with_interval(law.total_variation))
        for law in laws
        if math.isfinite(law.total_variation.value)
    ]
    curve = Curves(
        "What closeness costs",
        "share accepted",
        "TV to the target",
        [
            Series(
                "p_beta",
                [x for x, _ in points],
                [y.value for _, y in points],
                [y.low for _, y in points],
                [y.high for _, y in points],
            )
        ],
        zero=True,
    )
    return [table, curve]


def _importance(settings: Any, outcome: Outcome) -> tuple[list[Block], list[str]]:
    lines = _diagnoses(outcome)
    total = sum(line.log_z.ess for line in lines)
    distinct = len({row["place"] for row in outcome.samples})
    worst = max((line.pareto_k for line in lines if not math.isnan(line.pareto_k)), default=math.nan)
    rows: list[list[Cell]] = [
        ["proposals", len(outcome.proposals)],
        ["effective sample size", total],
        ["samples", len(outcome.samples)],
        ["different ones", distinct],
        ["largest pareto k", worst],
    ]
    told = [f"{distinct} different texts among {len(outcome.samples)}; effective sample size {total:.1f}."]
    if worst > PARETO_LIMIT:
        told.append(
            f"Pareto k reaches {worst:.2f}, above {PARETO_LIMIT}: a few weights decide, and more proposals would differ."
        )
    return [Table("Weights", ["", "number"], rows)], told


def _best(settings: Any, outcome: Outcome) -> tuple[list[Block], list[str]]:
    (counts,) = outcome.proposals
    bound = kl_bound(settings.best_of, missing=counts["missing"] / counts["proposed"])
    forbidden = sum(row["log_potential"] is None for row in outcome.samples)
    rows: list[list[Cell]] = [
        ["texts drawn", counts["proposed"]],
        ["without a score", counts["missing"]],
        ["samples", len(outcome.samples)],
        ["of these forbidden by the target", forbidden],
        ["KL(best-of-n, proposal) at most, nats", bound],
    ]
    return [Table(f"Best of {settings.best_of}", ["", "number"], rows)], [
        f"The law differs from the proposal's by a KL of at most {bound:.3f} nats; it is not the target's."
    ]


def _features(settings: Any, outcome: Outcome) -> Table:
    rows: list[list[Cell]] = []
    for factor in factors_of(settings.target):
        rows.append([factor.feature.name, _asked(factor), _share(factor, outcome.samples)])
    return Table("What the samples are", ["feature", "asked", Column("has it", percent=True)], rows)


def _asked(factor: Factor) -> str:
    return {"constraint": "always", "share": f"{factor.number:g}", "tilt": f"exp(b / {factor.number:g})"}[factor.kind]


def _share(factor: Factor, rows: Sequence[Row]) -> Estimate:
    values = factor.feature(
        prompts=[row["prompt"] for row in rows],
        completions=[row["completion"] for row in rows],
        ended=[row["ended"] for row in rows],
        lengths=[len(row["tokens"]) for row in rows],
    )
    known = [value for value in values if value is not None]
    return wilson(round(sum(known)), len(known))


def _moments(moments: Sequence[Row]) -> Table:
    columns = ["feature", "asked", "prior", "fitted", "fresh samples", "standard error", "coefficient"]
    keys = ("name", "asked", "prior", "fitted", "fresh", "standard_error", "coefficient")
    return Table("Fitted shares", columns, [[row[key] for key in keys] for row in moments])


def _diagnoses(outcome: Outcome) -> list[Diagnosis]:
    return diagnose([row["prompt"] for row in outcome.proposals], weights_of(outcome.proposals))


def _contexts(outcome: Outcome) -> Table:
    counts = dict.fromkeys(outcome.contexts, 0)
    for row in outcome.samples:
        counts[row["prompt"]] += 1
    rows: list[list[Cell]] = [
        [
            repr(line.context[-60:]),
            counts[line.context],
            line.n,
            line.positive,
            line.missing,
            outcome.beta.get(line.context),
            _log_z(line.log_z),
            line.log_z.ess,
            line.pareto_k,
        ]
        for line in _diagnoses(outcome)[:CONTEXTS]
    ]
    columns = ["context", "samples", "proposals", "positive", "missing", "beta", "log Z", "ESS", "pareto k"]
    note = f"pareto k above {PARETO_LIMIT}: log Z and ESS cannot be trusted; no data: too few weights, or all equal."
    return Table(
        "Contexts" if len(outcome.contexts) <= CONTEXTS else f"The first {CONTEXTS} contexts", columns, rows, note
    )


def _log_z(found: LogZ) -> Estimate:
    half = 1.96 * found.standard_error
    if not math.isfinite(found.value):
        return Estimate(math.nan, math.nan, math.nan, found.n, "importance")
    return Estimate(found.value, found.value - half, found.value + half, found.n, "importance")


def _cards(outcome: Outcome) -> Cards:
    cards = [
        SampleCard(str(number), row["prompt"], refinement=row["completion"], tags=(f"ended by {row['ended']}",))
        for number, row in enumerate(outcome.samples[:CARDS], start=1)
    ]
    return Cards("Samples", cards, f"the first {len(cards)}", refinement_label="Completion")
