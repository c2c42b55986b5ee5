"""Potentials: what feedback says about a text, as a factor phi(x, c) >= 0 of a target. They multiply.

    constraint(b)       phi = b(x, c)                 b in {0, 1}: what breaks it has probability 0
    tilt(r, beta)       phi = exp(r(x, c) / beta)     r a score, in units of beta nats
    weight(s)           phi = s(x, c)                 s >= 0, such as a classifier's probability
    features(f, l)      phi = exp(sum_k l_k f_k(x))   an exponential family; `moments` fits l

    log phi             (N,) float64 nats; -inf: forbidden; NaN: missing (the score gave no answer)

A score has TRL's signature f(prompts, completions, **columns) -> [float | None]; the columns are what a sample's record says:
`ended` (N of "eos" | "stop" | "length") and `lengths` (N,) tokens.
Source: Khalifa et al. 2021 (GDC), arXiv 2012.11635; Korbak et al. 2022, arXiv 2205.11275.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from amenable.errors import ConfigError, FeedbackError
from amenable.policy.protocol import own_precision
from amenable.records import Samples

Score = Callable[..., Sequence[float | None]]


class Potential:
    """`log_values(prompts, samples)` is log phi; `name` says what it is in reports; `hard` if it can be 0."""

    hard = False

    def __init__(self, name: str, log_values: Callable[[Sequence[str], Samples], torch.Tensor]) -> None:
        self.name, self._log_values = name, log_values

    def log_values(self, prompts: Sequence[str], samples: Samples) -> torch.Tensor:
        """log phi (N,) float64 nats of samples and the prompts they continue."""
        return self._log_values(prompts, samples)

    def __mul__(self, other: Potential) -> Potential:
        """The product: both hold."""
        if not isinstance(other, Potential):
            return NotImplemented
        product = Potential(
            f"{self.name} * {other.name}",
            lambda prompts, samples: _both(self.log_values(prompts, samples), other.log_values(prompts, samples)),
        )
        product.hard = self.hard or other.hard
        return product


def _both(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Sums of logs; what one factor forbids is forbidden, whatever the other says, even nothing."""
    forbidden = torch.isneginf(first) | torch.isneginf(second)
    return torch.where(forbidden, -torch.inf, first + second)


def constraint(score: Score, *, name: str = "") -> Potential:
    """phi = 1 where `score` is 1 or True, 0 where it is 0. Errors: FeedbackError for any other value."""
    label = name or score_name(score)

    def log_values(prompts: Sequence[str], samples: Samples) -> torch.Tensor:
        values = scores_of(score, prompts, samples)
        strange = ~((values == 0) | (values == 1) | values.isnan())
        if bool(strange.any()):
            place = int(strange.nonzero()[0])
            raise FeedbackError(
                f"constraint {label} is {float(values[place]):g} for sample {place}, which is neither 0 nor 1",
                "use tilt(score, beta=...) or weight(score) for feedback that is a matter of degree",
            )
        return values.log()

    made = Potential(label, log_values)
    made.hard = True
    return made


def tilt(reward: Score, *, beta: float, name: str = "") -> Potential:
    """phi = exp(reward / beta). Errors: ConfigError unless beta > 0."""
    if not (beta > 0 and math.isfinite(beta)):
        raise ConfigError(
            f"beta={beta} is not a positive number", "use beta > 0; without a prior (beta=0) maximise the reward itself"
        )
    label = name or f"exp({score_name(reward)} / {beta:g})"
    return Potential(label, lambda prompts, samples: scores_of(reward, prompts, samples) / beta)


def weight(score: Score, *, name: str = "") -> Potential:
    """phi = score. Errors: FeedbackError for a negative value."""
    label = name or score_name(score)

    def log_values(prompts: Sequence[str], samples: Samples) -> torch.Tensor:
        values = scores_of(score, prompts, samples)
        if bool((values < 0).any()):
            place = int((values < 0).nonzero()[0])
            raise FeedbackError(f"weight {label} is {float(values[place]):g} for sample {place}", "weights are >= 0")
        return values.log()

    made = Potential(label, log_values)
    made.hard = True
    return made


def features(scores: Sequence[Score], coefficients: Sequence[float]) -> Potential:
    """phi = exp(sum_k coefficients[k] * scores[k])."""
    names = " + ".join(f"{value:.3g} {score_name(score)}" for score, value in zip(scores, coefficients, strict=True))

    def log_values(prompts: Sequence[str], samples: Samples) -> torch.Tensor:
        values = torch.stack([scores_of(score, prompts, samples) for score in scores], 1)
        return values @ torch.tensor(coefficients, dtype=torch.float64)

    return Potential(f"exp({names})", log_values)


def softened(potential: Potential, *, beta: float) -> Potential:
    """exp(phi / beta) for a constraint phi in {0, 1}: what breaks it is exp(1 / beta) times less likely, and not impossible."""
    return Potential(
        f"exp({potential.name} / {beta:g})",
        lambda prompts, samples: potential.log_values(prompts, samples).exp() / beta,
    )


def score_name(score: Any) -> str:
    """What a score is called."""
    return str(getattr(score, "name", "") or getattr(score, "__name__", type(score).__name__))


def scores_of(score: Score, prompts: Sequence[str], samples: Samples) -> torch.Tensor:
    """A score of every sample, (N,) float64, NaN where it gave no answer; in its own precision, not the training's.

    Errors: FeedbackError that names the sample if the score raises, or returns what is no number. With
    `feedback.function.FunctionScore` around it, what failed is missing instead.
    """
    columns = {"ended": list(samples.ended), "lengths": samples.lengths.tolist()}
    completions = list(samples.texts)
    try:
        with own_precision():
            found = list(score(prompts=list(prompts), completions=completions, **columns))
    except Exception as error:
        place = _first_failing(score, prompts, completions, columns)
        where = "" if place is None else f" for sample {place}: {completions[place][:80]!r}"
        raise FeedbackError(
            f"{score_name(score)} raised {type(error).__name__}: {str(error)[:200]}{where}",
            f"mend {score_name(score)}, or wrap it in FunctionScore(..., on_missing='drop') to go on without such samples",
        ) from error
    if len(found) != len(completions):
        raise FeedbackError(
            f"{score_name(score)} returned {len(found)} values for {len(completions)} samples", "return one a sample"
        )
    values = torch.tensor([_number(score, place, value) for place, value in enumerate(found)], dtype=torch.float64)
    return values


def _number(score: Score, place: int, value: Any) -> float:
    if value is None:
        return math.nan
    try:
        number = math.inf if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if not math.isfinite(number):
        raise FeedbackError(
            f"{score_name(score)} returned {value!r} for sample {place}",
            "return a finite number, or None if there is none",
        )
    return number


def _first_failing(score: Score, prompts: Sequence[str], completions: list[str], columns: dict[str, Any]) -> int | None:
    for place, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        try:
            score(
                prompts=[prompt],
                completions=[completion],
                **{name: [values[place]] for name, values in columns.items()},
            )
        except Exception:
            return place
    return None
