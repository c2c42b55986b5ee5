"""Six losses of pretraining with human feedback: what a token of the corpus is worth, given the score of its segment.

    mle            - log p_j
    filtering      the same, on documents whose mean score is at most t
    conditional    the same, with a control token before each segment: <|good|> if score <= t, else <|bad|>
    unlikelihood   - log p_j where score <= t, else - alpha log(1 - p_j)
    rwr            exp(R_j / beta) (- log p_j)
    awr            alpha exp((R_j - V_j) / beta) (- log p_j) + (1 - alpha) (R_j - V_j)^2

    letter  name        shape    unit
    log p   log_probs   (N, L)   nats, of token j given what stands before it; 0 at padding
    score   scores      (N, L)   misalignment of the segment that token j belongs to, >= 0, low is good; NaN: nobody knows
    R       rewards     (N, L)   - score, in the scale of `rewards_of`: [-1, 0]
    V       values      (N, L)   what the state that predicts token j (position j - 1) expects of R_j: (-1, 0)
    t       threshold   a number; 0 is a threshold like any other, None is not
    w       weights     (N, L)   held constant: no gradient flows through them
    M       tokens      how many tokens the mean is over: those of the whole optimiser step, so that micro-batches add up

R is the score of the token's own segment, not a return. A token whose score is not known is read and not learned from where
a loss needs its score (unlikelihood, RWR, AWR); where it does not, it is a token like others.

Source: Korbak et al. 2023, arXiv 2302.08582, eqs. 4 to 8; unlikelihood: Welleck et al. 2019, arXiv 1908.04319; reward- and
advantage-weighted regression: Peters and Schaal 2007; Peng et al. 2019, arXiv 1910.00177.
Changed from the released code: a threshold of 0 is used (there `if threshold:` silently makes unlikelihood a mixture that
weights by 1 - score); RWR has no exp(0.5 / beta) of an untrained value head before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from amenable.errors import ConfigError

Name = Literal["mle", "filtering", "conditional", "unlikelihood", "rwr", "awr"]
NAMES: tuple[Name, ...] = ("mle", "filtering", "conditional", "unlikelihood", "rwr", "awr")
LEAST = 1e-20  # of 1 - p, where its logarithm is taken
MOST = 1000.0  # of a weight


@dataclass(frozen=True)
class Objective:
    """Which loss, and its numbers; those that it does not use are not looked at.

    threshold   filtering (of a document's mean score), conditional and unlikelihood (of a segment's score)
    alpha       unlikelihood: weight of the bad tokens; awr: share of the likelihood's loss
    beta        rwr, awr: the temperature, in units of R
    scale       rwr, awr: the score at which R reaches -1
    drop        conditional: share of the segments that get neither control token
    Errors: ConfigError for a name or number that cannot be.
    """

    name: Name = "mle"
    threshold: float | None = None
    alpha: float = 1.0
    beta: float = 10.0
    scale: float = 1.0
    drop: float = 0.01

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ConfigError(f"objective={self.name!r} is not known", f"use one of {', '.join(NAMES)}")
        if self.name in ("filtering", "conditional", "unlikelihood") and self.threshold is None:
            raise ConfigError(
                f"objective={self.name} without a threshold", "give threshold=T, from the scores' quantiles; 0 is one"
            )
        if self.name in ("rwr", "awr") and not (self.beta > 0 and self.scale > 0):
            raise ConfigError(f"beta={self.beta:g}, scale={self.scale:g}", "use numbers above 0")
        if self.name == "awr" and not 0 < self.alpha <= 1:
            raise ConfigError(f"alpha={self.alpha:g} of awr is no share", "use 0 < alpha <= 1, such as 0.5")
        if self.name == "unlikelihood" and self.alpha < 0:
            raise ConfigError(f"alpha={self.alpha:g} would reward bad tokens", "use alpha=0 or more")
        if not 0 <= self.drop < 1:
            raise ConfigError(f"drop={self.drop:g} is no share of the segments", "use 0 <= drop < 1, such as 0.01")

    @property
    def uses_scores(self) -> bool:
        """True if the loss of a token depends on its score (filtering and conditional act on the data instead)."""
        return self.name in ("unlikelihood", "rwr", "awr")


def rewards_of(scores: torch.Tensor, *, scale: float = 1.0) -> torch.Tensor:
    """R = - min(score / scale, 1), in [-1, 0]; NaN stays NaN. Scores of 1 per `scale` or worse are alike."""
    return -(scores / scale).clamp(min=0.0, max=1.0)


def reward_weights(rewards: torch.Tensor, *, beta: float, values: torch.Tensor | float = 0.0) -> torch.Tensor:
    """w = exp((R - V) / beta) in [0, 1000], without gradient; 0 where R is not known. V = 0 for RWR."""
    advantages = (rewards - values).detach()
    return torch.where(advantages.isnan(), 0.0, (advantages / beta).exp().clamp(0.0, MOST))


def weighted_likelihood(log_probs: torch.Tensor, weights: torch.Tensor, *, tokens: int) -> torch.Tensor:
    """- sum_j w_j log p_j / M: the loss of MLE (w = 1), RWR and, times alpha, AWR. A scalar in nats a token."""
    _same(log_probs, weights)
    return -(weights.detach() * log_probs).sum() / tokens


def unlikelihood(
    log_probs: torch.Tensor, scores: torch.Tensor, *, threshold: float, alpha: float, tokens: int
) -> torch.Tensor:
    """The loss above, a scalar in nats a token; bad tokens are pushed down, and 1 - p is at least 1e-20.

    Errors: ConfigError for a threshold that is None.
    """
    _same(log_probs, scores)
    if threshold is None:
        raise ConfigError("unlikelihood without a threshold", "give one; 0 is a threshold")
    known = ~scores.isnan()
    good, bad = known & (scores <= threshold), known & (scores > threshold)
    # only bad tokens take part in 1 - p: at a good token with p near 1 its gradient is not finite
    below = log_probs.masked_fill(~bad, -1.0)
    against = (-torch.expm1(below)).clamp(min=LEAST).log()
    return -(log_probs.masked_fill(~good, 0.0).sum() + alpha * against.masked_fill(~bad, 0.0).sum()) / tokens


def value_error(rewards: torch.Tensor, values: torch.Tensor, *, tokens: int) -> torch.Tensor:
    """sum_j (R_j - V_j)^2 / M over the tokens whose R is known; its gradient flows into V and what made V."""
    _same(rewards, values)
    known = ~rewards.isnan()
    return ((rewards.masked_fill(~known, 0.0) - values.masked_fill(~known, 0.0)) ** 2).sum() / tokens


def values_of(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """V = - sigmoid(w . h) of hidden states (..., D), float32: in (-1, 0), -0.5 everywhere while w is 0.

    Row j - 1 of `hidden` is the state after token j - 1, which predicts token j: its value is V_j.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        return -torch.sigmoid(hidden.float() @ weight.float())


def _same(first: torch.Tensor, second: torch.Tensor) -> None:
    if first.shape != second.shape or first.dim() != 2:
        raise ValueError(f"shapes {tuple(first.shape)} and {tuple(second.shape)}, expected (rows, tokens) twice")
