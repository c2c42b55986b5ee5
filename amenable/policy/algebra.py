"""A policy as the prior of a target: `prior * potential`, `prior.tilt(reward, beta)`, `prior.with_moments({...})`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch


class Prior:
    """What makes a policy a factor. Each result is an `amenable.target.posterior.Target`; its prior is this policy as it is.

    In float32: weights of whole sequences do not survive a mixture of precisions (`exact`).
    """

    def exact(self) -> Self:
        """The same law without gradient, in float32."""
        found: Self = self.frozen(torch.float32)  # type: ignore[attr-defined]
        return found

    def __mul__(self, potential: Any) -> Any:
        """p(x|c) proportional to a(x|c) phi(x, c)."""
        from amenable.target.posterior import Target

        return Target(self.exact(), potential)  # type: ignore[arg-type]

    def tilt(self, reward: Callable[..., Sequence[float | None]], *, beta: float) -> Any:
        """p(x|c) proportional to a(x|c) exp(reward(x, c) / beta): the optimum of reward - beta KL (Korbak et al. 2022)."""
        from amenable.target.potential import tilt

        return self * tilt(reward, beta=beta)

    def with_moments(self, moments: Mapping[Any, float], **settings: Any) -> Any:
        """The law closest to this one in KL in which each feature has the mean asked for (`target.moments.with_moments`)."""
        from amenable.target.moments import with_moments

        return with_moments(self, moments, **settings)  # type: ignore[arg-type]
