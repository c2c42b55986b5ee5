"""RL with a KL penalty as inference: what RLHF, RLAIF and direct-RLAIF have in common, which is everything but the score.

    p(x|c) proportional to a(x|c) exp(score(x, c) / beta)      FDPG(policy, prior.tilt(score, beta), ReverseKL)
    the same as                                                max E_pi[score] - beta KL(pi || a)

    target       the prior tilted by the score      proposal     the policy itself      divergence   reverse KL

The published algorithms are estimators of this one gradient:

    leave-one-out  the mean reward of the context's other samples as the baseline (RLOO; Ahmadian et al. 2024, arXiv 2402.14740)
    group          the same, in units of the context's standard deviation (GRPO; Shao et al. 2024, arXiv 2402.03300)
    none           REINFORCE (Williams 1992)
    value          REINFORCE with a learned value of every prefix (RLAIF; Lee et al. 2023, arXiv 2309.00267): `objective.value`
    ppo            clipped ratio, four steps a batch (Schulman et al. 2017, arXiv 1707.06347), leave-one-out
    ppo-value      the same with the learned value

Sources: Korbak et al. 2022, arXiv 2205.11275 (RL with KL penalties is inference); Ouyang et al. 2022, arXiv 2203.02155.
Changed from the papers: beta multiplies the KL of whole sequences (RLAIF's (1 - b) r - b KL is beta = b / (1 - b)); the KL
stands in the reward alone, never in the loss as well; a learned value is no second network; no whitening, samples have
temperature 1.
"""

from __future__ import annotations

from typing import Any

from amenable.errors import ConfigError
from amenable.feedback.kinds import Score
from amenable.method.fdpg import FDPG
from amenable.method.ppo import PPO
from amenable.objective.divergence import ReverseKL
from amenable.objective.reward import ExpectedReward

ESTIMATORS = ("leave-one-out", "group", "none", "value", "ppo", "ppo-value")


def towards_posterior(
    prior: Any, score: Score, *, beta: float = 0.1, estimator: str = "leave-one-out", **settings: Any
) -> FDPG:
    """The method that brings a copy of `prior` to its posterior under `score`; `settings` as of `FDPG`.

    beta: the score's units a nat of KL; `score` may leave a sample out (None). Errors: ConfigError.
    """
    if estimator not in ESTIMATORS:
        raise ConfigError(f"estimator={estimator!r} is not known", f"use one of {', '.join(ESTIMATORS)}")
    target = prior.tilt(score, beta=beta)
    if estimator in ("ppo", "ppo-value"):  # in nats: score / beta - log(pi / a)
        baseline = "leave-one-out" if estimator == "ppo" else "value"
        return PPO(prior, target, ExpectedReward(beta=1.0, of="log-potential"), baseline=baseline, **settings)
    settings.setdefault("bootstrap", 0)  # Z shifts all rewards of a context alike: the gradient does not need it
    baseline = estimator if estimator in ("none", "value") else "leave-one-out"
    return FDPG(prior, target, ReverseKL, baseline=baseline, normalised=estimator == "group", **settings)
