"""The learned value: least squares with a penalty, chosen by what it said of later batches; nothing counts before it may."""

from __future__ import annotations

import math

import pytest
import torch

from amenable.objective.value import FADE, PENALTIES, LearnedValue, explained


def numbers(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features of three very different sizes and a constant one, rewards that depend on them, weights."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, 4, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 100.0, 0.01, 0.0])
    features += torch.tensor([0.0, 3000.0, 0.0, 7.0])
    noise = torch.randn(n, generator=generator, dtype=torch.float64)
    rewards = 2 + features[:, 0] - 0.03 * (features[:, 1] - 3000) + 0.5 * noise
    return features, rewards, torch.rand(n, generator=generator, dtype=torch.float64)


def taught(*batches: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> LearnedValue:
    value = LearnedValue()
    for batch in batches:
        value.note(*batch)
        value.learn()
    return value


def by_hand(batches: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], penalty: float) -> torch.Tensor:
    """b and w of the minimum, from the normal equations written out, older batches weighing less."""
    share = [FADE ** (len(batches) - 1 - place) for place in range(len(batches))]
    h, r = torch.cat([batch[0] for batch in batches]), torch.cat([batch[1] for batch in batches])
    k = torch.cat([f * batch[2] for f, batch in zip(share, batches, strict=True)])
    k = k / k.sum()
    mean = k @ h
    s = (k @ (h - mean).square()).sqrt()
    left = (h - mean).T @ (k[:, None] * (h - mean)) + penalty * torch.diag(s.square()) + torch.diag((s < 1e-6).double())
    w = torch.linalg.solve(left, (h - mean).T @ (k * (r - k @ r)))
    return torch.cat([(k @ r - mean @ w).unsqueeze(0), w])


def test_it_is_the_minimum_of_the_penalised_squares() -> None:
    batches = [numbers(40, seed) for seed in (1, 2, 3)]
    value = taught(*batches)
    assert value.heads is not None
    for place, penalty in enumerate(PENALTIES):
        found = value.heads[:, place]
        if math.isinf(penalty):
            weights = torch.cat([FADE**age * batches[2 - age][2] for age in (0, 1, 2)])
            rewards = torch.cat([batches[2 - age][1] for age in (0, 1, 2)])
            torch.testing.assert_close(found[0], weights @ rewards / weights.sum())
            assert not found[1:].any()
        else:
            wanted = by_hand(batches, penalty)
            torch.testing.assert_close(found[:4], wanted[:4], rtol=1e-6, atol=1e-6)
            assert found[4] == 0  # the constant feature


def test_a_batch_counts_for_nothing_before_it_is_learned() -> None:
    features, rewards, weights = numbers(30)
    value = LearnedValue()
    value.note(features, rewards, weights)
    assert not value.predict(features).any()
    value.learn()
    before = value.predict(features)
    assert before.any()
    value.note(features, rewards + 100, weights)
    assert torch.equal(value.predict(features), before)
    value.learn()
    assert float((value.predict(features) - before).mean()) > 30


def test_missing_rewards_are_left_out() -> None:
    features, rewards, weights = numbers(30)
    gone = rewards.clone()
    gone[::3] = torch.nan
    known = ~gone.isnan()
    few = taught((features[known], rewards[known], weights[known])).predict(features)
    torch.testing.assert_close(taught((features, gone, weights)).predict(features), few)
    nothing = taught((features, torch.full_like(rewards, torch.nan), weights))
    assert nothing.heads is None
    assert not nothing.predict(features).any()


@pytest.mark.parametrize(("signal", "strong"), [(1.0, False), (0.0, True)])
def test_the_penalty_is_chosen_by_later_batches(signal: float, strong: bool) -> None:
    """50 features of which one tells something, or none; 60 numbers a batch: least squares alone would overfit them."""
    generator = torch.Generator().manual_seed(4)
    value = LearnedValue()
    for _ in range(12):
        features = torch.randn(60, 50, generator=generator, dtype=torch.float64)
        rewards = signal * 3 * features[:, 0] + torch.randn(60, generator=generator, dtype=torch.float64)
        value.note(features, rewards, torch.ones(60))
        value.learn()
    assert (value.penalty >= 10) == strong
    fresh = torch.randn(500, 50, generator=generator, dtype=torch.float64)
    wanted = signal * 3 * fresh[:, 0]
    assert float((value.predict(fresh) - wanted).square().mean()) < 0.3


def test_what_it_knows_can_be_put_back() -> None:
    first, second, third = (numbers(30, seed) for seed in (1, 2, 3))
    value, again = taught(first, second), LearnedValue()
    tensors, facts = value.state()
    again.restore({name: tensor.clone() for name, tensor in tensors.items()}, facts)
    for one in (value, again):
        one.note(*third)
        one.learn()
    assert torch.equal(value.predict(third[0]), again.predict(third[0]))
    assert value.errors == again.errors
    fresh = LearnedValue()
    fresh.restore(*LearnedValue().state())
    assert fresh.heads is None


def test_the_share_explained_by_hand() -> None:
    rewards = torch.tensor([1.0, 3.0, float("nan")], dtype=torch.float64)
    values = torch.tensor([[2.0, 1.0], [3.0, 9.0], [5.0, 5.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    mean = (1 + 1 + 3) / 3
    spread = 2 * (1 - mean) ** 2 + (3 - mean) ** 2
    assert explained(rewards, values, mask) == pytest.approx(1 - (1.0 + 0.0 + 0.0) / spread)
    assert math.isnan(explained(rewards[:1], values[:1], mask[:1]))
