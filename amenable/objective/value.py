"""A learned value as the baseline: the reward to expect after a prefix, linear in what the policy knows of that prefix.

    V(c, x_<t) = b + w . h_t      B_it = V(c, x_<t) in `score_gradient`, one number a token
    w = argmin  sum_i k_i sum_t (R_i - V_it)^2 / n  +  penalty sum_d (s_d w_d)^2

    letter  name       shape    what it is
    h       features   (M, D)   what the policy's head reads where x_t is predicted; one row of a table. Held constant
    R       rewards    (M,)     the reward of the whole text (it stands at its end, no discount), at each of its tokens
    k       weights    (M,)     pi/q of the text, so that V is the policy's mean, whoever drew the texts
    s       deviation  (D,)     of each feature, so that one penalty fits all
    n                           sum of the weights

x_<t is drawn before x_t, so E[V grad log pi(x_t | x_<t)] = 0 whatever V is, as long as V was made without x: a batch's values
are read first (`predict`), and it counts afterwards (`note`, then `learn`). V cannot change the policy: it has no part in it.

Source: Williams 1992 (REINFORCE); as in RLAIF, Lee et al. 2023, arXiv 2309.00267 (reward at the last token, discount 1).
Changed from the paper: there V is a second language model, trained by Adafactor; here it is linear in the policy's last hidden
states and solved for exactly, in sums over the past that fade by `FADE` a batch, so there is no learning rate. The penalty is
the one whose values of later batches, read before they counted, were the best so far; an infinite one, which leaves the mean
of past rewards, is among them.
"""

from __future__ import annotations

import math
from typing import Any

import torch

FADE = 0.9  # a batch: as the rewards of long ago, whose policy was another one
PENALTIES = (math.inf, 10.0, 1.0, 0.1, 0.01, 0.001)
CONSTANT = 1e-12  # a feature's variance over its mean square, below which it is rounding


class LearnedValue:
    """What is known of rewards: sums over past batches, and a head (b, w) for each of `PENALTIES`."""

    def __init__(self) -> None:
        self.moments: torch.Tensor | None = None
        """sum of k z z' over the past, z = (1, h, R): (D + 2, D + 2) float64, on the features' device."""
        self.heads: torch.Tensor | None = None
        """(D + 1, P) float64: b and w for each penalty. None: nothing is known yet."""
        self.errors = [0.0] * len(PENALTIES)
        self._new: torch.Tensor | None = None
        self._new_errors = [0.0] * len(PENALTIES)

    @property
    def penalty(self) -> float:
        """The penalty whose values were the best so far; the largest of several."""
        return PENALTIES[self._best]

    def predict(self, features: torch.Tensor) -> torch.Tensor:
        """V (M,) float64 after the prefixes of `features` (M, D); 0 before anything is known."""
        if self.heads is None:
            return torch.zeros(len(features), dtype=torch.float64, device=features.device)
        return self._values(features.double(), self.heads[:, self._best])

    def note(self, features: torch.Tensor, rewards: torch.Tensor, weights: torch.Tensor) -> None:
        """Count (M, D) features, (M,) rewards and weights from the next `learn` on; NaN rewards are left out."""
        known = ~rewards.isnan()
        rows = features.double()[known.to(features.device)]
        rewards, weights = (part[known].to(rows) for part in (rewards, weights))
        if self.heads is not None:
            missed = rewards.unsqueeze(1) - self._values(rows, self.heads)
            found = (weights.unsqueeze(1) * missed.square()).sum(0).tolist()
            self._new_errors = [old + new for old, new in zip(self._new_errors, found, strict=True)]
        rows = torch.cat([torch.ones_like(rows[:, :1]), rows, rewards.unsqueeze(1)], 1)
        moments = (rows * weights.unsqueeze(1)).T @ rows
        self._new = moments if self._new is None else self._new + moments

    def learn(self) -> None:
        """What was noted becomes the past: from now on `predict` knows of it."""
        if self._new is None:
            return
        self.moments = self._new if self.moments is None else FADE * self.moments + self._new
        self.errors = [FADE * old + new for old, new in zip(self.errors, self._new_errors, strict=True)]
        self._new, self._new_errors = None, [0.0] * len(PENALTIES)
        if float(self.moments[0, 0]) > 0:
            self.heads = _solved(self.moments)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The sums and the heads, as tensors by name; and plain data."""
        tensors = {"moments": self.moments, "heads": self.heads}
        return {name: value.cpu() for name, value in tensors.items() if value is not None}, {"errors": self.errors}

    def restore(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any], device: Any = "cpu") -> None:
        """Put back what `state` said; `device` is that of the features to come."""
        self.moments, self.heads = (
            None if tensors.get(name) is None else tensors[name].to(device) for name in ("moments", "heads")
        )
        self.errors = list(facts["errors"])

    @property
    def _best(self) -> int:
        return min(range(len(PENALTIES)), key=lambda place: self.errors[place])

    @staticmethod
    def _values(features: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
        return features @ heads[1:] + heads[0]


def _solved(moments: torch.Tensor) -> torch.Tensor:
    """(D + 1, P): b and w of the least squares in `moments` (D + 2, D + 2), for each penalty."""
    means = moments[0, 1:] / moments[0, 0]
    squares = moments[1:, 1:] / moments[0, 0]
    covariance = squares - means.outer(means)
    variance = covariance.diagonal()[:-1]
    varies = variance > CONSTANT * squares.diagonal()[:-1]
    scale = torch.where(varies, variance.clamp(min=0).rsqrt(), 0.0)
    alike = covariance[:-1, :-1] * scale.outer(scale)
    wanted = (covariance[:-1, -1] * scale).unsqueeze(1)
    heads = []
    for penalty in PENALTIES:
        weight = torch.zeros_like(scale)
        if math.isfinite(penalty):
            factor = torch.linalg.cholesky(alike + penalty * torch.eye(len(scale)).to(alike))
            weight = torch.cholesky_solve(wanted, factor).squeeze(1) * scale
        heads.append(torch.cat([(means[-1] - means[:-1] @ weight).unsqueeze(0), weight]))
    return torch.stack(heads, 1)


def explained(rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor) -> float:
    """1 - sum (R - V)^2 / sum (R - mean R)^2 over the tokens in `mask` (N, L); NaN where rewards (N,) do not differ."""
    every = rewards.unsqueeze(1).expand(values.shape)
    chosen = mask & ~every.isnan()
    wanted, found = every[chosen], values[chosen]
    spread = float((wanted - wanted.mean()).square().sum()) if len(wanted) else 0.0
    return 1 - float((wanted - found).square().sum()) / spread if spread > 0 else float("nan")
