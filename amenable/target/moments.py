"""Distributional constraints: the law closest to the prior in which features have given means.

    p(x|c) proportional to a(x|c) exp(sum_k l_k f_k(x))   such that   E_c E_{p(.|c)}[f_k] = m_k
    l  minimises the convex  L(l) = mean_c log sum_i w_i exp(l . f(x_i)) - l . m          over samples x_i ~ q(.|c), w = a/q

    letter  name          shape     unit
    f       values        (N, K)    that of the feature; a share for a binary one
    m       moments       (K,)      the same
    l       coefficients  (K,)      nats per unit of the feature

Newton's method with a line search: gradient E[f] - m, Hessian the covariance of f under the weights. A binary feature asked to
be always (1) or never (0) true is a hard constraint, a factor of its own, since its l would be infinite. What cannot be reached
is said: a feature that never varies, a mean outside its range, means that contradict each other (L then has no minimum), a
feature too rare for its l to mean anything. The means are checked on fresh samples, because l was fitted to the others.

Source: Khalifa et al. 2021 (GDC), arXiv 2012.11635, who take gradient steps; an information projection (Csiszar 1975).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from amenable.errors import ConfigError, FeedbackError
from amenable.policy.protocol import Policy
from amenable.records import Decoding, Samples
from amenable.seeding import derive
from amenable.target.partition import effective_sample_size, groups
from amenable.target.posterior import Target, recorded_log_prob, sequence_log_prob
from amenable.target.potential import Potential, constraint, features, score_name, scores_of

RARE = 20  # samples with the rarer value of a binary feature, below which its coefficient is noise
TOLERANCE = 1e-9
STEPS = 200


@dataclass(frozen=True)
class Moment:
    """One feature: the mean asked for, what the fit reached, what fresh samples show (with standard error), its coefficient."""

    name: str
    asked: float
    prior: float
    fitted: float
    fresh: float
    standard_error: float
    coefficient: float


@dataclass(frozen=True)
class Fit:
    """Coefficients (K,), the fitted means (K,), the effective sample size of the fitted weights, Newton steps."""

    coefficients: torch.Tensor
    means: torch.Tensor
    ess: float
    steps: int


class MomentTarget(Target):
    """A target with its `moments`: one line a feature, and the effective sample size `ess` of `n` fresh samples."""

    def __init__(self, prior: Policy, potential: Potential, moments: Sequence[Moment], ess: float, n: int) -> None:
        super().__init__(prior, potential)
        self.moments, self.ess, self.n = list(moments), ess, n


def fit(
    values: torch.Tensor,
    moments: torch.Tensor,
    *,
    log_weights: torch.Tensor | None = None,
    places: Sequence[torch.Tensor] = (),
    names: Sequence[str] = (),
) -> Fit:
    """Coefficients of `values` (N, K) whose means are `moments` (K,). `places`: the samples of each context (default: one).

    Errors: ConfigError if a mean cannot be reached; it names the feature.
    """
    labels = list(names) or [f"feature {k}" for k in range(values.shape[1])]
    weights = torch.zeros(len(values), dtype=torch.float64) if log_weights is None else log_weights.double()
    usable = weights > -torch.inf
    _check_range(values[usable], moments, labels)
    chosen = [place for place in (places or [torch.arange(len(values))]) if bool(usable[place].any())]
    scale = values[usable].std(0)  # steps in units of each feature's spread
    centred = (values.double() - moments) / scale
    found = torch.zeros(values.shape[1], dtype=torch.float64)
    loss, gradient, hessian = _dual(found, centred, weights, chosen)
    for step in range(STEPS):
        if float(gradient.abs().max()) < TOLERANCE:
            coefficients = found / scale
            tilted = weights + values.double() @ coefficients
            return Fit(coefficients, moments + gradient * scale, effective_sample_size(tilted), step)
        eye = torch.eye(len(found), dtype=torch.float64)
        ridge = 1e-10 * (1 + float(hessian.diagonal().max()))
        direction = -torch.linalg.solve(hessian + ridge * eye, gradient)
        direction = direction * min(1.0, 10.0 / float(direction.norm()))
        size, slope = 1.0, float(gradient @ direction)
        while (tried := _dual(found + size * direction, centred, weights, chosen))[0] > loss + 1e-4 * size * slope:
            size /= 2
            if size < 1e-8:
                break
        if size < 1e-8 and float(gradient.abs().max()) < 1e-6:  # as far as float64 goes
            tried = loss, torch.zeros_like(gradient), hessian
        elif size < 1e-8 or float(found.abs().max()) > 1e3:
            break
        else:
            found = found + size * direction
        loss, gradient, hessian = tried
    worst = int((gradient * scale).abs().argmax())
    raise ConfigError(
        f"the means asked for contradict each other: no weighting of the samples has them all; {labels[worst]} stays at "
        f"{float(moments[worst] + gradient[worst] * scale[worst]):.3g} where {float(moments[worst]):g} was asked",
        "ask for means that some distribution has, or draw more samples if such texts are rare",
    )


def with_moments(
    prior: Policy,
    moments: Mapping[Any, float],
    *,
    contexts: Sequence[str] = ("",),
    samples: int = 4096,
    decoding: Decoding = Decoding(max_tokens=64),  # noqa: B008 (frozen; as FDPG's)
    proposal: Policy | None = None,
    seed: int = 0,
) -> MomentTarget:
    """The target with the means of `moments` {score: mean}; from `samples` draws of `proposal` (the prior) and as many fresh.

    `contexts` share the draws; `decoding` must say the same `max_tokens` that training will use.
    Errors: ConfigError for means that cannot be reached; FeedbackError for scores that fail.
    """
    if not moments:
        raise ConfigError("no moments are given", "give {score: mean}, such as {contains('amazing'): 0.5}")
    a = prior.exact()
    law = a if proposal is None else proposal.exact()
    each = max(1, samples // len(contexts))
    prompts = [context for context in contexts for _ in range(each)]

    def drawn(stage: str) -> Samples:
        return law.sample(contexts, n=each, seed=derive(seed, "moments", stage), decoding=decoding)

    def weighed(batch: Samples) -> tuple[torch.Tensor, torch.Tensor]:
        weights = torch.zeros(len(batch), dtype=torch.float64)
        if law is not a:
            weights = sequence_log_prob(a, batch) - recorded_log_prob(batch)
        for factor in hard:
            weights = weights + factor.log_values(prompts, batch)
        found = [scores_of(score, prompts, batch) for score in soft]
        values = torch.stack(found, 1) if found else torch.zeros(len(batch), 0, dtype=torch.float64)
        weights = weights.masked_fill(values.isnan().any(1) | weights.isnan(), -torch.inf)
        if not bool((weights > -torch.inf).any()):
            asked_for = (
                "satisfies " + " and ".join(factor.name for factor in hard) if hard else "has an answer of its scores"
            )
            raise ConfigError(
                f"none of {len(weights)} samples of {'the prior' if proposal is None else 'the proposal'} {asked_for}",
                "draw more samples, give a proposal that does, or ask for a share below 1 of something less rare",
            )
        return weights, values.nan_to_num(nan=0.0)

    first = drawn("fit")
    hard, soft = _split(moments, prompts, first)
    weights, values = weighed(first)
    names = [score_name(score) for score in soft]
    asked = torch.tensor(list(soft.values()), dtype=torch.float64)
    _check_rare(values[weights > -torch.inf], names)
    places = list(groups(prompts).values())
    found = fit(values, asked, log_weights=weights, places=places, names=names) if soft else None
    coefficients = torch.zeros(0, dtype=torch.float64) if found is None else found.coefficients
    fresh_weights, fresh = weighed(drawn("check"))
    before = _means(values, weights, places)
    after, error = _means_with_error(fresh, fresh_weights + fresh @ coefficients, places)
    potential = _product([*hard, *([features(list(soft), coefficients.tolist())] if soft else [])])
    lines = [
        Moment(
            name, float(asked[k]), float(before[k]), float(found.means[k]), float(after[k]), float(error[k]), float(c)
        )
        for k, (name, c) in enumerate(zip(names, coefficients, strict=True))
        if found is not None
    ]
    return MomentTarget(a, potential, lines, effective_sample_size(fresh_weights + fresh @ coefficients), len(fresh))


def _split(
    moments: Mapping[Any, float], prompts: Sequence[str], samples: Samples
) -> tuple[list[Potential], dict[Any, float]]:
    """Hard constraints (a binary feature always or never true), and the features whose coefficients are fitted."""
    hard: list[Potential] = []
    soft: dict[Any, float] = {}
    for score, mean in moments.items():
        if not math.isfinite(mean):
            raise ConfigError(f"{score_name(score)} is asked to have the mean {mean}", "give a finite number")
        if mean not in (0.0, 1.0) or not _is_binary(score, prompts, samples):
            soft[score] = float(mean)
        elif mean == 1.0:
            hard.append(constraint(score))
        else:
            hard.append(constraint(_never(score), name=f"not {score_name(score)}"))
    return hard, soft


def _is_binary(score: Any, prompts: Sequence[str], samples: Samples) -> bool:
    """What the score says of itself; a plain function is binary if every sample has 0 or 1."""
    declared = getattr(score, "binary", None)
    if declared is not None:
        return bool(declared)
    values = scores_of(score, prompts, samples)
    return bool(((values == 0) | (values == 1) | values.isnan()).all())


def _never(score: Any) -> Any:
    def inverse(**columns: Any) -> list[float | None]:
        return [None if value is None else 1.0 - float(value) for value in score(**columns)]

    return inverse


def _product(factors: Sequence[Potential]) -> Potential:
    whole = factors[0]
    for factor in factors[1:]:
        whole = whole * factor
    return whole


def _dual(
    coefficients: torch.Tensor, centred: torch.Tensor, weights: torch.Tensor, places: Sequence[torch.Tensor]
) -> tuple[float, torch.Tensor, torch.Tensor]:
    """L, its gradient and its Hessian, averaged over contexts; `centred` (N, K) are features minus their asked means."""
    tilted = weights + centred @ coefficients
    loss, gradient, hessian = 0.0, torch.zeros_like(coefficients), torch.zeros(len(coefficients), len(coefficients))
    hessian = hessian.double()
    for chosen in places:
        share = tilted[chosen].softmax(0)
        loss += float(tilted[chosen].logsumexp(0) - weights[chosen].logsumexp(0))
        mean = share @ centred[chosen]
        gradient += mean
        hessian += (centred[chosen] * share[:, None]).T @ centred[chosen] - torch.outer(mean, mean)
    return loss / len(places), gradient / len(places), hessian / len(places)


def _means(values: torch.Tensor, log_weights: torch.Tensor, places: Sequence[torch.Tensor]) -> torch.Tensor:
    shares = [chosen for chosen in places if bool((log_weights[chosen] > -torch.inf).any())]
    return torch.stack([log_weights[chosen].softmax(0) @ values[chosen] for chosen in shares]).mean(0)


def _means_with_error(
    values: torch.Tensor, log_weights: torch.Tensor, places: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Self-normalised means (K,) over contexts, and their standard errors by the delta method."""
    kept = [chosen for chosen in places if bool((log_weights[chosen] > -torch.inf).any())]
    mean = _means(values, log_weights, kept)
    variance = torch.zeros_like(mean)
    for chosen in kept:
        share = log_weights[chosen].softmax(0)
        own = share @ values[chosen]
        variance += ((share[:, None] * (values[chosen] - own)) ** 2).sum(0)
    return mean, variance.sqrt() / len(kept)


def _check_range(values: torch.Tensor, moments: torch.Tensor, names: Sequence[str]) -> None:
    for k, name in enumerate(names):
        low, high, asked = float(values[:, k].min()), float(values[:, k].max()), float(moments[k])
        if not low < asked < high:
            what = f"is {low:g} in every one" if low == high else f"lies between {low:g} and {high:g} in all"
            raise ConfigError(
                f"{name} cannot have the mean {asked:g}: it {what} of {len(values)} samples",
                "ask for a mean strictly between them, or draw more samples; a binary feature at 1 or 0 is a hard constraint",
            )


def _check_rare(values: torch.Tensor, names: Sequence[str]) -> None:
    """Errors: FeedbackError for a binary feature whose rarer value hardly occurs."""
    for k, name in enumerate(names):
        if bool(((values[:, k] == 0) | (values[:, k] == 1)).all()):
            hits = int(min(values[:, k].sum(), (1 - values[:, k]).sum()))
            if 0 < hits < RARE:
                raise FeedbackError(
                    f"{name} has its rarer value in {hits} of {len(values)} samples: its coefficient would be noise",
                    f"draw about {math.ceil(RARE / hits) * len(values):,} samples, or give a proposal in which it is less rare",
                )
