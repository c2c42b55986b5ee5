"""The head of a reward model whose body stays as it is: Bradley-Terry on given features, a convex problem, solved exactly.

    min over w    1/N sum_i BT(w . d_i; label_i) + penalty/2 |s w|^2        d = h(first) - h(second)

    letter  name         shape    what it is
    h       features     (N, D)   what the head reads, fixed
    d       differences  (N, D)
    s       scale        (D,)     standard deviation of each feature, so that one penalty fits all
    w       the head     (D,)     float64

Newton's method with halved steps: a few D x D systems, seconds for D of some hundreds. The penalty is chosen by
cross-validation, by the loss (which is smoother than the accuracy), whole groups of pairs at a time: pairs of one prompt are
never on both sides. The same folds give every pair a score by a head that did not see it. `cross_validated` holds every pair
out once from all of that, the choice of the penalty included.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from amenable.errors import ConfigError, TrainingError
from amenable.objective.preference import bradley_terry
from amenable.seeding import python_random

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True)
class Head:
    """`weight` (D,) float64, and how it was found.

    held_out   (N,) d . w of every pair by the head of the folds that do not hold it; None if the penalty was given
    losses     mean held-out loss, nats a pair, of each penalty tried
    """

    weight: torch.Tensor
    penalty: float
    held_out: torch.Tensor | None
    losses: dict[float, float]


def fit_head(
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    *,
    groups: Sequence[Hashable] = (),
    penalty: float | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Head:
    """The head for features (N, D) of the first and second answers, `labels` (N,) = P(first is better).

    `penalty` None: the best of `PENALTIES` over `folds` parts of `groups` (default: each pair is its own group).
    Errors: TrainingError for fewer groups than folds, ConfigError for a penalty that is not positive.
    """
    first, second, labels = first.double(), second.double(), labels.double()
    scale = torch.cat([first, second]).std(0).clamp(min=1e-12)
    differences = (first - second) / scale
    held_out, losses = None, {}
    if penalty is None:
        parts = fold_of(groups or range(len(labels)), folds=folds, seed=seed)
        tried = {value: _held_out(differences, labels, parts, value) for value in PENALTIES}
        nothing = torch.zeros_like(labels)
        losses = {value: float(bradley_terry(found, nothing, labels).mean()) for value, found in tried.items()}
        penalty = min(losses, key=lambda value: losses[value])
        held_out = tried[penalty]
    return Head(logistic(differences, labels, penalty=penalty) / scale, penalty, held_out, losses)


def cross_validated(
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    *,
    groups: Sequence[Hashable],
    penalty: float | None = None,
    folds: int = 5,
    seed: int = 0,
) -> torch.Tensor:
    """w . d of every pair, (N,) float64, by a head that saw no pair of its group. Arguments as of `fit_head`.

    Each part of the groups is held out once; the penalty is chosen anew, by `folds` parts of the others.
    Errors: TrainingError for too few groups, ConfigError for a penalty that is not positive.
    """
    parts = fold_of(groups, folds=folds, seed=seed)
    found = torch.zeros(len(labels), dtype=torch.float64)
    for part in range(folds):
        out = parts == part
        others = [group for group, held in zip(groups, out.tolist(), strict=True) if not held]
        head = fit_head(first[~out], second[~out], labels[~out], groups=others, penalty=penalty, folds=folds, seed=seed)
        found[out] = (first[out].double() - second[out].double()) @ head.weight
    return found


def fold_of(groups: Sequence[Hashable], *, folds: int, seed: int = 0) -> torch.Tensor:
    """The part 0 .. folds - 1 of each item, (N,); items of one group share it. Errors: TrainingError for too few groups."""
    known = list(dict.fromkeys(groups))
    if folds < 2 or len(known) < folds:
        raise TrainingError(
            f"{len(known)} prompts cannot be divided into {folds} parts", "give more pairs, or a penalty, or 2 folds"
        )
    python_random(seed, "folds").shuffle(known)
    place = {group: index % folds for index, group in enumerate(known)}
    return torch.tensor([place[group] for group in groups])


def _held_out(differences: torch.Tensor, labels: torch.Tensor, parts: torch.Tensor, penalty: float) -> torch.Tensor:
    found = torch.zeros_like(labels)
    for part in range(int(parts.max()) + 1):
        out = parts == part
        found[out] = differences[out] @ logistic(differences[~out], labels[~out], penalty=penalty)
    return found


def logistic(differences: torch.Tensor, labels: torch.Tensor, *, penalty: float) -> torch.Tensor:
    """w (D,) float64 that minimises mean BT(w . d) + penalty |w|^2 / 2, for `differences` (N, D) and `labels` (N,).

    Errors: ConfigError for a penalty that is not positive: separable pairs would make w infinite.
    """
    if not 0 < penalty < math.inf:
        raise ConfigError(
            f"penalty={penalty:g}", "give a positive one: the weights of separable pairs are infinite without"
        )
    d, labels = differences.double(), labels.double()
    nothing = torch.zeros(len(d), dtype=torch.float64)

    def value(w: torch.Tensor) -> float:
        return float(bradley_terry(d @ w, nothing, labels).mean() + penalty / 2 * w @ w)

    w = torch.zeros(d.shape[1], dtype=torch.float64)
    for _ in range(100):
        p = torch.sigmoid(d @ w)
        gradient = d.T @ (p - labels) / len(d) + penalty * w
        curvature = d.T @ (d * (p * (1 - p)).unsqueeze(1)) / len(d)
        curvature.diagonal().add_(penalty)
        step = torch.linalg.solve(curvature, gradient)
        now, size = value(w), 1.0
        while value(w - size * step) > now - 1e-4 * size * float(gradient @ step) and size > 1e-6:
            size /= 2
        w = w - size * step
        if float(gradient @ step) < 1e-12:  # twice what is left to gain, and the step was made
            break
    return w
