"""What REINFORCE and KL-penalised RL maximise, as rewards of the same score-function gradient.

    J = E_pi[r] - beta KL(pi || a)       R(x) = r(x) - beta (log pi(x) - log a(x)), held constant (E_pi[grad log pi] = 0)
      = beta (log Z - KL(pi || p)),      p proportional to a exp(r / beta)     (Korbak et al. 2022, arXiv 2205.11275, eq. 7)

beta multiplies the KL of whole sequences, in nats. With beta = 0 there is no target but the best text: REINFORCE (Williams
1992), whose optimum has no entropy left. With beta > 0 this is the reverse KL to `prior.tilt(r, beta)`, in units of r.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from amenable.errors import TrainingError


class Objective(Protocol):
    """What a score-function method follows: a divergence to the target, or an expected reward."""

    @property
    def name(self) -> str: ...

    @property
    def at_target(self) -> float:
        """A baseline known beforehand: the reward everywhere at the optimum."""
        ...

    def rewards(
        self, log_policy: torch.Tensor, log_prior: torch.Tensor, log_potential: torch.Tensor, log_z: torch.Tensor
    ) -> torch.Tensor:
        """R (N,) from log pi, log a, log phi and log Z of each sample, (N,) float64 nats; NaN where it is missing."""
        ...


@dataclass(frozen=True)
class ExpectedReward:
    """E_pi[r] - beta KL(pi || a); r is the target's potential phi (for a constraint), or `scale` log phi (for a tilt)."""

    beta: float = 0.0
    of: Literal["potential", "log-potential"] = "potential"
    scale: float = 1.0

    @property
    def name(self) -> str:
        what = "reward" if self.of == "potential" else f"{self.scale:g} log-potential"
        return f"{what}, beta={self.beta:g}" if self.beta else what

    @property
    def at_target(self) -> float:
        return 0.0

    def rewards(
        self, log_policy: torch.Tensor, log_prior: torch.Tensor, log_potential: torch.Tensor, log_z: torch.Tensor
    ) -> torch.Tensor:
        """r - beta (log pi - log a), (N,). Errors: TrainingError if r = log phi is -inf: the target forbids a sample."""
        forbidden = torch.isneginf(log_potential)
        if self.of == "log-potential" and bool(forbidden.any()):
            raise TrainingError(
                f"the mean of log phi is -inf here: the target forbids {float(forbidden.double().mean()):.0%} of the samples",
                "use ExpectedReward(of='potential'), the share that is allowed, or soften the constraint into a tilt",
            )
        reward = log_potential.exp() if self.of == "potential" else self.scale * log_potential
        return reward - self.beta * (log_policy - log_prior) if self.beta else reward
