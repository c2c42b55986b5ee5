"""A reward model from comparisons: which of two answers people (or a judge) prefer, learned by Bradley-Terry.

    1  features   what the body says of every text, once (cached)
    2  head       the best linear reader of them, its penalty by cross-validation over prompts; also the start of 3
    3  held out   every pair once, by a head that saw no pair of its opening (cross-validation, the penalty chosen inside)
    4  training   body=lora or full: some epochs of gradient descent; body=frozen: none
    5  held out   accuracy on pairs of other prompts, by margin, calibrated or not, beside "the longer one is better"

Sources: Stiennon et al. 2020, arXiv 2009.01325; starting at the linear reader: Kumar et al. 2022, arXiv 2202.10054.
Changed from the papers: the body is cut after a share of its layers (`depth`); see `feedback.reward_model`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from amenable.errors import ConfigError, DataError
from amenable.feedback.reward_model import RewardModel, new_reward_model
from amenable.method.loop import Optimisation
from amenable.method.preference import RewardModelling
from amenable.method.reward_head import cross_validated, fit_head
from amenable.objective.preference import smoothed
from amenable.policy.loading import find_folder
from amenable.progress import bar, say
from amenable.recipes.environment import machine, prepare
from amenable.recipes.pairs import Pairs, texts_of
from amenable.recipes.reward_model_report import Found, build_report, shown
from amenable.recipes.reward_training import cached_features, save_whole, trained_reward_model
from amenable.recipes.settings import Recipe, setting
from amenable.report.html import write
from amenable.report.page import Report
from amenable.runs import Row, Run
from amenable.task.dialogue import opening
from amenable.task.preferences import Comparison


@dataclass(frozen=True)
class RewardModelSettings:
    """Every choice of the training."""

    data: str = setting("", "pairs: a file in TRL's or HH-RLHF's format (.gz too), a run's folder, or a hub data set")
    test: str = setting("", "held-out pairs, a file; default: those of data whose prompts fall into a fixed fifth")
    model: str = setting("smollm2-135m", "the body: folder, Hugging Face id, or named small model")
    body: str = setting(
        "frozen", "what is trained besides the head: nothing (minutes), an adapter, or all", ("frozen", "lora", "full")
    )
    reads: str = setting(
        "answer", "what the head reads: the mean of the answer's tokens, or the last token", ("answer", "last")
    )
    depth: float = setting(0.6, "share of the body's layers that are kept; 1 for all")
    penalty: float = setting(0.0, "of the head's weights, in units of its features' spread; 0: by cross-validation")
    folds: int = setting(5, "parts of a cross-validation, whole openings each, every one held out once")
    repeats: int = setting(1, "cross-validations of all pairs of data, each with other parts; 0: none")
    epochs: int = setting(1, "body=lora, full: passes over the pairs")
    batch_size: int = setting(16, "body=lora, full: pairs an optimiser step")
    learning_rate: float = setting(1e-5, "body=lora, full: peak learning rate of AdamW; lora wants 10 times as much")
    margin: float = setting(0.0, "body=lora, full: by how much the better answer shall win")
    centring: float = setting(0.0, "body=lora, full: weight of (r1 + r2)^2; 0.01 is usual")
    smoothing: float = setting(0.0, "share of the labels that are taken for wrong")
    precision: str = setting("bfloat16", "arithmetic of training", ("bfloat16", "float32"))
    dtype: str = setting(
        "auto", "of the body that is read: bfloat16 where the machine is fast at it", ("auto", "bfloat16", "float32")
    )
    max_tokens: int = setting(0, "longest text in tokens; 0: what the model can see")
    too_long: str = setting("error", "pairs with longer texts: an error, or left out and counted", ("error", "missing"))
    limit: int = setting(0, "the first so many pairs, 0 for all")
    checkpoint_every: int = setting(20, "optimiser steps between checkpoints, 0 for none")
    on_full: str = setting(
        "continue", "where the disk has no room for a checkpoint: continue without it, or stop", ("continue", "stop")
    )
    threads: int = setting(0, "CPU threads, 0 for all cores")
    seed: int = setting(0, "seed of folds and batches")


def plan(settings: RewardModelSettings) -> list[str]:
    """What the run will do, in lines."""
    _check(settings)
    pairs = Pairs.of(settings.data, settings.test, limit=settings.limit)
    read = {"answer": "the answer's tokens", "last": "the last token"}[settings.reads]
    what = {"frozen": "the head alone", "lora": "a low-rank adapter and the head", "full": "all weights"}
    characters = sum(2 * len(p.prompt) + len(p.first) + len(p.second) for p in [*pairs.train, *pairs.held_out])
    lines = [
        f"a reward model on {settings.model}, {settings.depth:.0%} of its layers, read at {read}; "
        f"{what[settings.body]} learned",
        f"1  {len(pairs.train)} pairs to learn from, {len(pairs.held_out)} held out (other prompts), "
        f"{pairs.unlabelled} without a label left out",
        f"2  features of {2 * len(pairs.train) + 2 * len(pairs.held_out)} texts, about {characters // 4:,} tokens; "
        f"the head, by {settings.folds} folds",
    ]
    if settings.repeats:
        lines.append(
            f"3  {settings.repeats} cross-validations by {settings.folds} folds: every pair of data held out once"
        )
    if settings.body != "frozen":
        lines.append(f"4  {settings.epochs} epochs of {settings.body} training at {settings.learning_rate:g}")
    return lines


def run(settings: RewardModelSettings, folder: Path) -> Report:
    """The study in `folder`: model/, samples.jsonl, report.html. Run again, it goes on where it stopped."""
    clock = prepare(settings.threads)
    _check(settings)
    pairs = Pairs.of(settings.data, settings.test, limit=settings.limit)
    record = Run.of(folder, settings)
    base = _base(settings)
    pairs, left_out = _fitting(base, pairs)
    clock.lap("model")

    @cache
    def features() -> torch.Tensor:
        return cached_features(base, [*pairs.train, *pairs.held_out])

    head = record.stage("head", lambda: [_head(settings, pairs.train, features()[: len(pairs.train)])])[0]
    if head.get("reads", "last") != settings.reads:
        raise ConfigError(
            f"the head in {folder} reads {head.get('reads', 'last')}, and reads={settings.reads}: an older version made it",
            "give another folder",
        )
    clock.lap("head")
    pool = pairs.train if settings.test else [*pairs.train, *pairs.held_out]
    every = record.stage("cross-validation", lambda: _every_pair(settings, pool, features))
    clock.lap("cross-validation")
    model = base.with_head(torch.tensor(head["weight"], dtype=torch.float64), mean=head["mean"])
    linear = record.stage("held out, head", lambda: scored(pairs.held_out, _read(features()[len(pairs.train) :], head)))
    clock.lap("held out")
    after = linear
    metrics: list[dict[str, Any]] = []
    if settings.body == "frozen":
        if not (folder / "model").exists():
            save_whole(model, folder / "model")
    else:
        model, metrics = trained_reward_model(
            model, RewardModelling(
                pairs.train, epochs=settings.epochs, batch_size=settings.batch_size, margin=settings.margin,
                centring=settings.centring, smoothing=settings.smoothing, seed=settings.seed,
            ),
            optimisation=Optimisation(
                learning_rate=settings.learning_rate, precision=settings.precision,  # type: ignore[arg-type]
            ),
            adapter=settings.body, folder=folder, record=record, checkpoint_every=settings.checkpoint_every,
            on_full=settings.on_full, centre_on=pairs.train, dtype=settings.dtype,
        )  # fmt: skip
        clock.lap("training")
        after = record.stage("held out", lambda: scored(pairs.held_out, _scores(model, pairs.held_out)))
        clock.lap("held out")
    worth = record.stage("tokens", lambda: _tokens(model, shown(after)))
    found = Found(
        train=len(pairs.train), held_out=after, linear=linear, head=head, every=every, worth=worth, metrics=metrics,
        unlabelled=pairs.unlabelled, too_long=left_out,
    )  # fmt: skip
    report = build_report(settings, found, clock.minutes(), machine({}))
    write(report, folder / "report.html")
    record.close()
    return report


def scored(pairs: Sequence[Comparison], rewards: Sequence[Sequence[float]]) -> list[Row]:
    """One row a pair: what was compared, what people said, and the two rewards."""
    return [
        {
            "id": pair.id, "prompt": pair.prompt, "first": pair.first, "second": pair.second, "label": pair.label,
            "reward_first": float(one), "reward_second": float(other),
        }
        for pair, (one, other) in zip(pairs, rewards, strict=True)
    ]  # fmt: skip


def _base(settings: RewardModelSettings) -> RewardModel:
    """The body under a head of 0."""
    return new_reward_model(
        find_folder(settings.model), depth=settings.depth, reads=settings.reads,  # type: ignore[arg-type]
        dtype=settings.dtype, name=settings.model, max_tokens=settings.max_tokens or None, too_long=settings.too_long,
    )  # fmt: skip


def _fitting(model: RewardModel, pairs: Pairs) -> tuple[Pairs, int]:
    """The pairs whose texts the model can see, if longer ones are to be left out, and how many were."""
    if model.too_long == "error" or model.max_tokens is None:
        return pairs, 0
    most = model.max_tokens

    def fits(pair: Comparison) -> bool:
        return all(len(model.encode(pair.prompt, answer)) <= most for answer in (pair.first, pair.second))

    kept = [[pair for pair in side if fits(pair)] for side in (pairs.train, pairs.held_out)]
    left_out = len(pairs.train) + len(pairs.held_out) - len(kept[0]) - len(kept[1])
    if not all(kept):
        raise DataError(f"no pair fits into {most} tokens", "give a larger max_tokens")
    return Pairs(kept[0], kept[1], pairs.unlabelled), left_out


def _head(settings: RewardModelSettings, pairs: Sequence[Comparison], features: torch.Tensor) -> Row:
    """The head as plain data, and the loss of each penalty tried."""
    labels = smoothed(torch.tensor([pair.label for pair in pairs], dtype=torch.float64), settings.smoothing)
    found = fit_head(
        features[:, 0], features[:, 1], labels, groups=[opening(pair.prompt) for pair in pairs],
        penalty=settings.penalty or None, folds=settings.folds, seed=settings.seed,
    )  # fmt: skip
    rewards = features.double() @ found.weight
    return {
        "weight": found.weight.tolist(), "mean": float(rewards.mean()), "penalty": found.penalty, "reads": settings.reads,
        "losses": {f"{penalty:g}": loss for penalty, loss in found.losses.items()},
    }  # fmt: skip


def _every_pair(
    settings: RewardModelSettings, pairs: Sequence[Comparison], features: Callable[[], torch.Tensor]
) -> list[Row]:
    """Each pair with r(first) - r(second) by heads that saw no pair of its opening, one a repeat; none if there are too few."""
    openings = [opening(pair.prompt) for pair in pairs]
    if not settings.repeats:
        return []
    if len(set(openings)) < 2 * settings.folds:
        say(f"no cross-validation: {len(set(openings))} openings are too few for {settings.folds} folds of folds")
        return []
    labels = smoothed(torch.tensor([pair.label for pair in pairs], dtype=torch.float64), settings.smoothing)
    given = features()[: len(pairs)]
    gaps = []
    with bar("cross-validation") as progress:
        for repeat in range(settings.repeats):
            found = cross_validated(
                given[:, 0], given[:, 1], labels, groups=openings, penalty=settings.penalty or None, folds=settings.folds,
                seed=settings.seed + repeat,
            )  # fmt: skip
            progress(repeat + 1, settings.repeats)
            gaps.append(found.tolist())
    return [
        {
            "id": pair.id, "label": pair.label, "opening": start, "gaps": list(of_pair),
            "longer": (len(pair.first) > len(pair.second)) - (len(pair.first) < len(pair.second)),
        }
        for pair, start, of_pair in zip(pairs, openings, zip(*gaps, strict=True), strict=True)
    ]  # fmt: skip


def _tokens(model: RewardModel, rows: Sequence[Row]) -> list[Row]:
    """What each token of both answers is worth to a model that reads answers; nothing of another."""
    if model.reads != "answer":
        return []
    return [{side: model.per_token(row["prompt"], row[side]) for side in ("first", "second")} for row in rows]


def _read(features: torch.Tensor, head: Row) -> list[list[float]]:
    weight = torch.tensor(head["weight"], dtype=torch.float64)
    found: list[list[float]] = (features.double() @ weight - head["mean"]).tolist()
    return found


def _scores(model: RewardModel, pairs: Sequence[Comparison]) -> list[list[float]]:
    found = [value for value in model(*texts_of(pairs)) if value is not None]  # none is too long: see `_fitting`
    return [found[at : at + 2] for at in range(0, len(found), 2)]


def _check(settings: RewardModelSettings) -> None:
    if settings.body == "frozen" and (settings.margin or settings.centring):
        raise ConfigError(
            f"margin={settings.margin:g}, centring={settings.centring:g} with body=frozen, whose head is solved for",
            "use body=lora or full, or leave them out",
        )


RECIPE = Recipe(
    "reward-model", "learn which answers people prefer, from pairs (Bradley-Terry)", RewardModelSettings, plan, run
)
