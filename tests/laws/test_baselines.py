"""Every baseline leaves the expected gradient where it was, whatever the rewards; and what each is for."""

from __future__ import annotations

import itertools

import pytest
import torch
from tables import count_b, kl, know, log_law, log_target, rewards_of, table, with_law

from amenable.errors import ConfigError
from amenable.method.fdpg import FDPG
from amenable.objective.divergence import ForwardKL
from amenable.objective.score_gradient import BASELINES, clipped_surrogate, coefficients
from amenable.sampling.proposal import Fixed
from amenable.seeding import derive

X = 4  # outcomes


def setting(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of pi, log pi, log q, and rewards of X outcomes."""
    generator = torch.Generator().manual_seed(seed)
    logits, other, rewards = torch.randn(3, X, generator=generator, dtype=torch.float64)
    return logits, logits.log_softmax(-1), other.log_softmax(-1), 5 * rewards + 2


def estimate(batch: torch.Tensor, log_pi: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """sum_i c_i grad log pi(x_i), with respect to the logits."""
    return (c[:, None] * (torch.eye(X, dtype=torch.float64)[batch] - log_pi.exp())).sum(0)


@pytest.mark.parametrize("on_policy", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("baseline", BASELINES)
def test_it_is_unbiased_over_all_batches(baseline: str, size: int, on_policy: bool) -> None:
    """All X^size batches, each with its chance: exact."""
    _, log_pi, log_q, rewards = setting(1)
    log_q = log_pi if on_policy else log_q
    wanted = -(log_pi.exp() * rewards) @ (torch.eye(X, dtype=torch.float64) - log_pi.exp())
    found = torch.zeros(X, dtype=torch.float64)
    for places in itertools.product(range(X), repeat=size):
        batch = torch.tensor(places)
        c = coefficients(
            rewards[batch], log_pi[batch], log_q[batch], baseline=baseline, constant=1.7, at_target=-0.4,
            groups=[torch.arange(size)],
        )  # fmt: skip
        found += log_q[batch].sum().exp() * estimate(batch, log_pi, c)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("baseline", BASELINES)
def test_missing_rewards_are_left_out_and_not_0(baseline: str) -> None:
    """The coefficients are those of the batch without them, whatever stands in their place."""
    _, log_pi, log_q, rewards = setting(2)
    batch = torch.tensor([0, 3, 1, 2, 0, 1, 3])
    known = torch.tensor([0, 2, 4, 5, 6])
    gone = rewards[batch].clone()
    gone[[1, 3]] = torch.nan
    settings = {"baseline": baseline, "constant": 1.7, "at_target": -0.4}
    both = [torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5, 6])]
    found = coefficients(gone, log_pi[batch], log_q[batch], groups=both, **settings)  # type: ignore[arg-type]
    fewer = coefficients(
        gone[known], log_pi[batch][known], log_q[batch][known],
        groups=[torch.tensor([0, 1]), torch.tensor([2, 3, 4])], **settings,  # type: ignore[arg-type]
    )  # fmt: skip
    assert found[[1, 3]].tolist() == [0, 0]
    torch.testing.assert_close(found[known], fewer)
    nothing = torch.full((3,), torch.nan, dtype=torch.float64)
    assert coefficients(nothing, log_pi[:3], log_q[:3], baseline=baseline, groups=[torch.arange(3)]).tolist() == [0] * 3


def test_leave_one_out_by_hand() -> None:
    """pi/q = 2, 1, 1/2 and R = 1, 4, 6 in one context; a context with a single sample has no baseline."""
    ratio, rewards = torch.tensor([2.0, 1.0, 0.5, 3.0]).double(), torch.tensor([1.0, 4.0, 6.0, 7.0]).double()
    zeros = torch.zeros(4, dtype=torch.float64)
    c = coefficients(
        rewards, ratio.log(), zeros, baseline="leave-one-out", groups=[torch.tensor([0, 1, 2]), torch.tensor([3])]
    )
    others = torch.tensor([(4 + 3) / 2, (2 + 3) / 2, (2 + 4) / 2, 0.0]).double()
    torch.testing.assert_close(c, -ratio * (rewards - others) / 4)


def test_at_the_target_the_target_baseline_leaves_no_noise() -> None:
    """Forward KL, pi = p: every pseudo-reward is 1, on and off policy; without a baseline the gradient is pure noise."""
    prior = table(max_tokens=3)
    target = prior.tilt(count_b, beta=1.0)
    log_p, _ = log_target(target, prior)
    reached = with_law(log_p, prior)
    assert kl(log_p, log_law(reached)) < 1e-14
    policy = reached.trainable_copy()
    sizes = {}
    for baseline in BASELINES:
        method = FDPG(
            policy, target, ForwardKL, contexts=prior.contexts, samples_per_context=64, bootstrap=0, baseline=baseline
        )
        know(method, target, prior)
        (loss,) = list(method.losses(policy, 0))
        (gradient,) = torch.autograd.grad(loss.value, policy.logits)
        sizes[baseline] = float(gradient.norm())
    assert sizes["target"] < 1e-12
    assert sizes["leave-one-out"] < 1e-12
    assert sizes["none"] > 0.05


def test_the_gdc_baseline_is_z_times_pi_over_q() -> None:
    """Forward KL with baseline "target" is GDC++: c = -(P/(Z q) - pi/q) / N."""
    prior, policy, other = table(seed=1), table(seed=2), table(seed=3)
    target = prior.tilt(count_b, beta=1.0)
    method = FDPG(
        policy, target, ForwardKL, contexts=prior.contexts, baseline="target", proposal=Fixed(other), bootstrap=0
    )
    know(method, target, prior)
    batch = method.draw(policy, 0, prior.contexts, 16, 1)
    log_z = method.partition.log_z(batch.prompts)
    c = coefficients(
        ForwardKL.rewards(batch.log_policy, batch.scores.log_prior, batch.scores.log_potential, log_z),
        batch.log_policy, batch.log_proposal, baseline="target", at_target=ForwardKL.at_target,
    )  # fmt: skip
    p_over_q = (batch.log_weights - log_z).exp()
    torch.testing.assert_close(c, -(p_over_q - (batch.log_policy - batch.log_proposal).exp()) / len(c))


def test_the_constant_is_of_the_past_and_fades() -> None:
    """A batch's own rewards in its baseline would bias it; rewards of long ago, of another size, would be noise."""
    prior, policy = table(seed=1), table(seed=2).trainable_copy()
    method = FDPG(
        policy, prior.tilt(count_b, beta=1.0), ForwardKL, contexts=prior.contexts, baseline="constant", bootstrap=0
    )
    know(method, method.target, prior)
    past: list[torch.Tensor] = []
    for step in range(4):
        (loss,) = method.losses(policy, step)
        (found,) = torch.autograd.grad(loss.value, policy.logits)
        batch = method.draw(policy, step, method._contexts(step), 16, derive(method.seed, "step", step))
        rewards = rewards_of(method, batch)
        share = [0.9 ** (step - 1 - then) * len(one) for then, one in enumerate(past)]
        mean = sum(w * float(one.mean()) for w, one in zip(share, past, strict=True)) / max(1, sum(share))
        c = -(rewards - mean) / len(rewards)
        (wanted,) = torch.autograd.grad((c * policy.log_prob(batch.samples).sum(-1)).sum(), policy.logits)
        torch.testing.assert_close(found, wanted)
        past.append(rewards)


def test_unknown_baselines_are_refused_and_the_known_named() -> None:
    numbers = torch.zeros(2, dtype=torch.float64)
    with pytest.raises(ConfigError, match="use one of none, constant, leave-one-out, target"):
        coefficients(numbers, numbers, numbers, baseline="mean")
    prior = table()
    with pytest.raises(ConfigError, match="baseline='mean'"):
        FDPG(prior, prior.tilt(count_b, beta=1), ForwardKL, contexts=prior.contexts, baseline="mean")
    with pytest.raises(ConfigError, match="samples_per_context >= 2"):
        FDPG(prior, prior.tilt(count_b, beta=1), ForwardKL, contexts=prior.contexts, samples_per_context=1)


def test_the_clipped_surrogate_by_hand() -> None:
    """At pi = old its gradient is that of A log pi; beyond the clip there is none where it would gain."""
    old = torch.zeros(2, 2, dtype=torch.float64)
    mask = torch.tensor([[True, True], [True, False]])
    now = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    value = clipped_surrogate(now, old, torch.tensor([2.0, -1.0]).double(), mask, clip=0.2)
    (gradient,) = torch.autograd.grad(value, now)
    assert gradient.tolist() == [[-2.0, -2.0], [1.0, 0.0]]
    now = torch.tensor([[0.5, -0.5], [0.5, 0.0]], dtype=torch.float64, requires_grad=True)
    value = clipped_surrogate(now, old, torch.tensor([2.0, -1.0]).double(), mask, clip=0.2)
    (gradient,) = torch.autograd.grad(value, now)
    up, down = torch.tensor([0.5, -0.5]).double().exp().tolist()
    assert float(value.detach()) == pytest.approx(-(2 * 1.2 + 2 * down - up))
    torch.testing.assert_close(gradient, torch.tensor([[0.0, -2 * down], [up, 0.0]]).double())
