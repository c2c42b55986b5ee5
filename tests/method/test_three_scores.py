"""RLHF, RLAIF and direct-RLAIF on a table: one method that reaches the posterior of whatever score it is given."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tables import count_b, kl, log_law, log_target

from amenable.errors import ConfigError
from amenable.method.direct_rlaif import direct_rlaif
from amenable.method.loop import Optimisation, train
from amenable.method.posterior import ESTIMATORS, towards_posterior
from amenable.method.ppo import PPO
from amenable.method.rlaif import rlaif
from amenable.method.rlhf import rlhf
from amenable.objective.score_gradient import coefficients
from amenable.policy.tabular import TabularPolicy

PRIOR = TabularPolicy.random("ab", 2, scale=0.3, seed=1)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_goes_to_the_posterior(estimator: str, tmp_path: Path) -> None:
    """KL(p || pi) from above 0.5 nats to (nearly) 0; in units of the deviation the steps do not become smaller."""
    beta = 0.5
    method = towards_posterior(
        PRIOR, count_b, beta=beta, estimator=estimator, steps=240 if estimator.startswith("ppo") else 80,
        samples_per_context=400, seed=3,
    )  # fmt: skip
    policy = PRIOR.trainable_copy()
    settings = Optimisation(learning_rate=0.2, warmup=0.0, clip_norm=0.02, precision="float32")
    train(policy, method, optimisation=settings, folder=tmp_path)
    log_p = log_target(PRIOR.tilt(count_b, beta=beta), PRIOR)[0]
    assert kl(log_p, log_law(PRIOR)) > 0.5
    assert kl(log_p, log_law(policy, PRIOR)) < (0.03 if estimator in ("group", "none") else 3e-3)


def test_the_three_methods_differ_in_one_argument() -> None:
    """Same score, same samples, same weights: what the score is called is all that differs."""
    made = [method(PRIOR, count_b, beta=0.5, steps=2, seed=1) for method in (rlhf, rlaif, direct_rlaif)]
    assert len({method.identity for method in made}) == 1
    losses = [next(iter(method.losses(PRIOR.trainable_copy(), 0))).value for method in made]
    assert losses[0] == losses[1] == losses[2]
    sources = [inspect.getsource(method).replace(name, "SCORE").split('"""')[-1] for method, name in
               ((rlhf, "peoples_reward_model"), (rlaif, "judges_reward_model"), (direct_rlaif, "judges_rating"))]  # fmt: skip
    assert len(set(sources)) == 1
    assert isinstance(towards_posterior(PRIOR, count_b, estimator="ppo", steps=2), PPO)


def test_a_sample_without_a_score_counts_for_nothing() -> None:
    def some(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float | None]:
        return [None if text.startswith("b") else float(len(text)) for text in completions]

    method = rlhf(PRIOR, some, beta=0.5, steps=2, samples_per_context=50, seed=1)
    loss = next(iter(method.losses(PRIOR.trainable_copy(), 0)))
    assert 0 < loss.sums["missing"] < 50
    assert torch.isfinite(loss.value)


def test_group_normalised_rewards_have_one_spread_in_every_context() -> None:
    """By hand: rewards 1, 2, 3 and 10, 20, 30 of two contexts give the same weights; equal ones none; a missing one none."""
    rewards = torch.tensor([1.0, 2, 3, 10, 20, 30, 5, 5, float("nan")], dtype=torch.float64)
    zero = torch.zeros_like(rewards)
    groups = [torch.arange(0, 3), torch.arange(3, 6), torch.arange(6, 9)]
    found = coefficients(rewards, zero, zero, baseline="leave-one-out", groups=groups, normalised=True)
    expected = torch.tensor([1.5, 0, -1.5, 1.5, 0, -1.5, 0, 0, 0], dtype=torch.float64) / 8
    torch.testing.assert_close(found, expected)


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ConfigError, match="estimator='grpo'"):
        towards_posterior(PRIOR, count_b, estimator="grpo")
