"""The six losses of pretraining with feedback against numbers worked by hand, and the traps of the released code."""

from __future__ import annotations

import math

import pytest
import torch

from amenable.errors import ConfigError
from amenable.objective.pretraining import (
    LEAST,
    NAMES,
    Objective,
    reward_weights,
    rewards_of,
    unlikelihood,
    value_error,
    values_of,
    weighted_likelihood,
)

NAN = math.nan
# p = 1/2, 1/4, 3/4; padding
LOG_PROBS = torch.tensor([[0.5, 0.25, 0.75, 1.0]], dtype=torch.float64).log()


def test_mle_by_hand() -> None:
    loss = weighted_likelihood(LOG_PROBS, torch.ones(1, 4), tokens=3)
    assert float(loss) == pytest.approx((math.log(2) + math.log(4) + math.log(4 / 3)) / 3)


def test_rwr_by_hand() -> None:
    rewards = rewards_of(torch.tensor([[0.0, 0.5, 1.0, NAN]], dtype=torch.float64))
    assert rewards[0, :3].tolist() == [0.0, -0.5, -1.0]
    weights = reward_weights(rewards, beta=0.5)
    assert weights.tolist() == [[1.0, pytest.approx(math.exp(-1)), pytest.approx(math.exp(-2)), 0.0]]
    loss = weighted_likelihood(LOG_PROBS, weights, tokens=3)
    expected = (math.log(2) + math.exp(-1) * math.log(4) + math.exp(-2) * math.log(4 / 3)) / 3
    assert float(loss) == pytest.approx(expected)


def test_rwr_at_the_papers_beta_is_nearly_mle() -> None:
    weights = reward_weights(rewards_of(torch.linspace(0, 1, 101).unsqueeze(0)), beta=10.0)
    assert float(weights.max()) == 1.0
    assert float(weights.min()) == pytest.approx(math.exp(-0.1))  # 0.905: no token counts less than that


def test_unlikelihood_by_hand() -> None:
    scores = torch.tensor([[0.0, 0.3, 0.9, NAN]], dtype=torch.float64)
    loss = unlikelihood(LOG_PROBS, scores, threshold=0.3, alpha=0.5, tokens=3)
    # p = 3/4 is bad, and so - 0.5 log(1/4); what is unknown is not learned from
    assert float(loss) == pytest.approx((math.log(2) + math.log(4) + 0.5 * math.log(4)) / 3)


def test_a_threshold_of_0_is_a_threshold() -> None:
    """The released code asks `if threshold:`, and at 0 weights by 1 - score instead: a bad token would be learned."""
    log_probs = torch.tensor([[0.5, 0.5]]).log().requires_grad_(True)
    scores = torch.tensor([[0.0, 0.001]], dtype=torch.float64)
    unlikelihood(log_probs, scores, threshold=0.0, alpha=1.0, tokens=1).backward()
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == [[-1.0, pytest.approx(1.0)]]  # up, and down: p / (1 - p) = 1
    assert Objective("unlikelihood", threshold=0.0).threshold == 0.0
    for name in ("filtering", "conditional", "unlikelihood"):
        with pytest.raises(ConfigError, match="without a threshold"):
            Objective(name)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="0 is a threshold"):
        unlikelihood(log_probs, scores, threshold=None, alpha=1.0, tokens=1)  # type: ignore[arg-type]


def test_a_token_that_is_certain_stays_finite() -> None:
    """1 - p is clamped where p is 1, and a good token with p = 1 gets no part of that gradient."""
    log_probs = torch.tensor([[0.0, 0.0, -1e-9]]).requires_grad_(True)
    scores = torch.tensor([[0.0, 1.0, 1.0]], dtype=torch.float64)
    loss = unlikelihood(log_probs, scores, threshold=0.0, alpha=1.0, tokens=1)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-math.log(LEAST) - math.log(1e-9), rel=1e-4)
    assert log_probs.grad is not None
    assert bool(log_probs.grad.isfinite().all())


def test_weights_are_clamped_and_carry_no_gradient() -> None:
    values = torch.tensor([[-1.0, -1.0, -0.5]], requires_grad=True)
    weights = reward_weights(torch.tensor([[0.0, -1.0, NAN]]), beta=0.01, values=values)
    assert weights.tolist() == [[1000.0, 1.0, 0.0]]
    assert not weights.requires_grad
    with_gradient = torch.ones(1, 3, requires_grad=True)
    assert not weighted_likelihood(torch.zeros(1, 3), with_gradient, tokens=1).requires_grad


def test_awr_by_hand() -> None:
    rewards = torch.tensor([[0.0, -1.0, NAN, -0.25]])
    values = torch.tensor([[-0.5, -0.5, -0.5, -0.25]], requires_grad=True)
    weights = reward_weights(rewards, beta=0.5, values=values)
    assert weights.tolist() == [[pytest.approx(math.e), pytest.approx(1 / math.e), 0.0, 1.0]]
    error = value_error(rewards, values, tokens=4)
    assert float(error.detach()) == pytest.approx((0.25 + 0.25) / 4)
    error.backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[pytest.approx(-0.25), pytest.approx(0.25), 0.0, 0.0]]  # 2 (V - R) / 4


def test_values_begin_at_a_half_and_stay_between_minus_1_and_0() -> None:
    hidden = torch.randn(2, 3, 4, requires_grad=True)
    weight = torch.zeros(4, requires_grad=True)
    assert values_of(hidden, weight).tolist() == [[-0.5] * 3] * 2
    values = values_of(hidden, torch.full((4,), 3.0))
    assert bool(((values > -1) & (values < 0)).all())
    values.sum().backward()
    assert hidden.grad is not None  # the gradient flows into what made the values
    assert bool(hidden.grad.abs().sum() > 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert values_of(hidden.bfloat16(), weight).dtype == torch.float32


def test_rewards_in_units_of_a_scale() -> None:
    scores = torch.tensor([[0.0, 0.01, 0.02, 0.5, NAN]])
    assert rewards_of(scores, scale=0.02)[0, :4].tolist() == [0.0, pytest.approx(-0.5), -1.0, -1.0]
    assert bool(rewards_of(scores, scale=0.02)[0, 4].isnan())


def test_micro_batches_add_up() -> None:
    torch.manual_seed(0)
    log_probs, scores = -torch.rand(4, 5), torch.rand(4, 5)
    settings = {"threshold": 0.4, "alpha": 0.3, "tokens": 20}
    whole = unlikelihood(log_probs, scores, **settings)  # type: ignore[arg-type]
    parts = [unlikelihood(log_probs[i : i + 2], scores[i : i + 2], **settings) for i in (0, 2)]  # type: ignore[arg-type]
    torch.testing.assert_close(whole, sum(parts))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "ppo"}, "use one of mle"),
        ({"name": "rwr", "beta": 0.0}, "beta=0"),
        ({"name": "awr", "scale": 0.0}, "scale=0"),
        ({"name": "awr", "alpha": 0.0}, "no share"),
        ({"name": "unlikelihood", "threshold": 0.0, "alpha": -1.0}, "reward bad tokens"),
        ({"name": "conditional", "threshold": 0.0, "drop": 1.0}, "no share"),
    ],
)
def test_objectives_that_cannot_be(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Objective(**settings)  # type: ignore[arg-type]
    assert len(NAMES) == 6


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="expected"):
        weighted_likelihood(torch.zeros(2, 3), torch.ones(2), tokens=1)
