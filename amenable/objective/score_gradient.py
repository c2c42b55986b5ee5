"""The one gradient of every f-divergence, and of every reward: the score function, off-policy, with a baseline.

    grad D_f(pi || p) = - E_{x~q}[ pi(x)/q(x) (R(x) - B) grad log pi(x) ]
    R(x)     -f'(t) with log t = log pi - log P + log Z (`divergence`), or a reward (`reward`)
    B        any number that does not depend on x; of a token, any that does not depend on what follows x_<t (`value`)

    letter   name          shape, unit
    pi       log_policy    (N,) float64 nats a sequence
    q        log_proposal  (N,) the law that x was really drawn from
    R        rewards       (N,) no unit; NaN where it is missing

Everything but the last log pi is held constant: `coefficients` are numbers, known before the forward pass that carries
gradient, and the loss is sum_i c_i log pi(x_i), or sum_it c_it log pi(x_it | x_i,<t). Source: Go et al. 2023, arXiv
2302.08215, eq. 7.
Changed from released codes: log pi inside R is detached (Korbak et al. 2022's code differentiates through it, which weights
each sample by 1 + |log pi|).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from amenable.errors import ConfigError

BASELINES = ("none", "constant", "leave-one-out", "target")


def coefficients(
    rewards: torch.Tensor,
    log_policy: torch.Tensor,
    log_proposal: torch.Tensor,
    *,
    baseline: str | torch.Tensor,
    constant: float = 0.0,
    at_target: float = 0.0,
    groups: Sequence[torch.Tensor] = (),
    normalised: bool = False,
) -> torch.Tensor:
    """c (N,): the loss is sum_i c_i log pi(x_i), its gradient the estimate. 0 where a reward is missing (NaN).

    (N, L), one a token, if B is.

    baseline  none           B = 0
              constant       B = `constant`, which must not depend on these samples
              leave-one-out  B_i = mean over the other samples j of the context of pi/q R_j: also unbiased (Kool et al. 2019)
              target         B = `at_target`, the reward at pi = p: for the forward KL this is the Z pi/q of GDC++ (Korbak et
                             al. 2022, arXiv 2206.00761), since there (pi/q) R = P / (Z q)
              a tensor       B itself, (N, L): of each token, made of nothing that follows x_<t (`value`)
    `groups`: the places of each context's samples, for leave-one-out.
    `normalised`: R - B in units of the standard deviation of the context's rewards (GRPO, Shao et al. 2024, arXiv 2402.03300):
    no longer the gradient, since every context counts alike, however little its rewards differ.
    """
    known = ~rewards.isnan()
    ratio = torch.where(known, log_policy - log_proposal, -torch.inf).exp()
    values = torch.where(known, rewards, 0.0)
    if isinstance(baseline, torch.Tensor):
        ratio, values, shift = ratio.unsqueeze(1), values.unsqueeze(1), baseline
    elif baseline not in BASELINES:
        raise ConfigError(f"baseline={baseline!r} is not known", f"use one of {', '.join(BASELINES)}")
    elif baseline == "leave-one-out":
        shift = leave_one_out(ratio * values, known, groups or [torch.arange(len(values))])
    else:
        shift = torch.full_like(values, {"constant": constant, "target": at_target}.get(baseline, 0.0))
    advantages = values - shift
    for chosen in groups if normalised else ():
        own = chosen[known[chosen]]
        spread = float(values[own].std()) if len(own) > 1 else 0.0
        advantages[chosen] /= spread if spread > 0 else 1.0
    return -ratio * advantages / max(1, int(known.sum()))


def leave_one_out(values: torch.Tensor, known: torch.Tensor, groups: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of the other known `values` (N,) of the same group, (N,); 0 where there is none. Unknown values must be 0."""
    shift = torch.zeros_like(values)
    for chosen in groups:
        others = known[chosen].sum() - known[chosen].long()
        shift[chosen] = torch.where(others > 0, (values[chosen].sum() - values[chosen]) / others.clamp(min=1), 0.0)
    return shift


def clipped_surrogate(
    log_policy: torch.Tensor, log_old: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor, *, clip: float
) -> torch.Tensor:
    """-sum min(r A, clip(r, 1 - clip, 1 + clip) A) over tokens: (N, L) log-probabilities a token, r = pi / old.

    Schulman et al. 2017 (PPO), arXiv 1707.06347, eq. 7; `advantages` (N,) or (N, L) are held constant. The sum is over tokens
    where `mask` is True; divide by what the mean is to be over.
    """
    ratio = (log_policy - log_old).masked_fill(~mask, 0.0).exp()
    gain = advantages if advantages.dim() == 2 else advantages.unsqueeze(1)
    kept = torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain)
    return -(kept * mask).sum()
