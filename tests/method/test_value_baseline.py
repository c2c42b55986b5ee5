"""The learned value as a method uses it: less variance, no part in the policy, never a text that it has learned from."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tables import count_b, exact_gradient, know, log_law, log_target, table
from tiny import tiny_policy, tiny_seq2seq

from amenable.errors import ConfigError
from amenable.method.fdpg import FDPG
from amenable.method.posterior import towards_posterior
from amenable.method.ppo import PPO
from amenable.objective.divergence import ForwardKL, ReverseKL
from amenable.policy.causal_lm import LoRA
from amenable.policy.tabular import TabularPolicy
from amenable.records import Decoding
from amenable.sampling.proposal import Corpus, Fixed, Replay
from amenable.seeding import derive


def estimates(baseline: str, count: int, policy: TabularPolicy, prior: TabularPolicy) -> torch.Tensor:
    """`count` estimates of one gradient (the policy stays where it is), 16 samples a context each, after 15 to learn from."""
    target = prior.tilt(count_b, beta=0.8)
    method = FDPG(policy, target, ReverseKL, contexts=prior.contexts, bootstrap=0, baseline=baseline, seed=5)
    know(method, target, prior)
    found = []
    for step in range(15 + count):
        (loss,) = method.losses(policy, step)
        if step >= 15:
            found.append(exact_gradient(policy, loss.value))
    return torch.stack(found)


def test_its_variance_is_below_leave_one_outs_and_that_below_none() -> None:
    prior, policy = table(seed=1), table(seed=2).trainable_copy()
    log_p, _ = log_target(prior.tilt(count_b, beta=0.8), prior)
    wanted = exact_gradient(policy, ReverseKL.value(log_law(policy), log_p).mean())
    errors = {
        name: (estimates(name, 60, policy, prior) - wanted).square().sum(-1)
        for name in ("none", "leave-one-out", "value")
    }
    for worse, better in (("none", "leave-one-out"), ("leave-one-out", "value"), ("none", "value")):
        gap = errors[worse] - errors[better]
        assert float(gap.mean()) > 3 * float(gap.std()) / math.sqrt(len(gap)), (worse, better)


def by_hand(method: FDPG, policy: Any, step: int) -> dict[str, torch.Tensor]:
    """The gradient of -mean (R - V) log pi, V numbers, with everything in one forward of plain log-probabilities."""
    seed = derive(method.seed, "step", step)
    batch = method.draw(policy, step, method._contexts(step), method.samples_per_context, seed)
    before = method.partition.state()
    method._count(batch)
    rewards, mask = method._rewards(batch), batch.samples.mask
    method.partition.restore(before)
    values = torch.zeros(mask.shape, dtype=torch.float64)
    assert method.value is not None
    values[mask] = method.value.known.predict(policy.prefix_features(batch.samples))
    c = -(rewards.unsqueeze(1) - values) / len(rewards)
    return gradients(policy, (c.float() * policy.log_prob(batch.samples)).sum())


def gradients(policy: Any, *losses: torch.Tensor) -> dict[str, torch.Tensor]:
    policy.model.zero_grad()
    for loss in losses:
        loss.backward()  # type: ignore[no-untyped-call]
    return {name: value.grad.clone() for name, value in policy.trainable_parameters()}


@pytest.mark.parametrize("adapter", [None, LoRA(rank=2)], ids=["full", "adapter"])
def test_the_body_learns_nothing_from_the_value(adapter: LoRA | None) -> None:
    """A causal model's gradient is that of -(R - V) log pi with V numbers; so it is in micro-batches of every length."""
    policy = tiny_policy().trainable_copy(adapter)
    method = FDPG(
        policy, policy.exact().tilt(count_b, beta=0.5), ReverseKL, contexts=["ab", "q: 1 "], samples_per_context=6,
        bootstrap=0, baseline="value", decoding=Decoding(max_tokens=9), positions=40, seed=2,
    )  # fmt: skip
    losses = list(method.losses(policy, 0))
    assert len(losses) > 1
    assert math.isnan(losses[0].sums["value_explained"])
    assert not policy.prefix_features(policy.sample(["ab"], n=2, decoding=Decoding(max_tokens=4))).requires_grad
    wanted = by_hand(method, policy, 1)
    before = method.state()
    losses = list(method.losses(policy, 1))
    assert math.isfinite(losses[0].sums["value_explained"])
    found = gradients(policy, *(loss.value for loss in losses))
    assert found
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5 * max(1e-3, float(value.abs().max())))
    # the step after teaches it; nothing of it hangs on the model
    assert method.value is not None
    assert method.value.known.moments is not None
    assert not method.value.known.moments.requires_grad
    assert not torch.equal(before.tensors["learned value: heads"], method.state().tensors["learned value: heads"])


def test_mixed_precision_keeps_the_value_in_double() -> None:
    policy = tiny_policy().trainable_copy()
    method = FDPG(
        policy, policy.exact().tilt(count_b, beta=0.5), ForwardKL, contexts=["ab"], samples_per_context=8,
        baseline="value", decoding=Decoding(max_tokens=6), proposal=Fixed(policy), seed=2,
    )  # fmt: skip
    for step in (0, 1):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = list(method.losses(policy, step))
        gradients(policy, *(loss.value for loss in losses))
        assert math.isfinite(
            losses[0].sums["value_explained"]
        )  # the bootstrap's samples taught it before the first step
    assert method.value is not None
    assert method.value.known.heads is not None
    assert method.value.known.heads.dtype == torch.float64


def test_an_encoder_decoder_has_it_too() -> None:
    policy = tiny_seq2seq().trainable_copy()
    method = towards_posterior(
        policy, count_b, beta=0.5, estimator="value", steps=2, contexts=["ab", "c"], samples_per_context=4,
        decoding=Decoding(max_tokens=5),
    )  # fmt: skip
    for step in (0, 1):
        losses = list(method.losses(policy, step))
    assert math.isfinite(losses[0].sums["value_explained"])
    gradients(policy, *(loss.value for loss in losses))


@pytest.mark.parametrize("estimator", ["value", "ppo-value"])
def test_at_first_it_is_leave_one_out(estimator: str) -> None:
    """Nothing is known at the first batch; at the next there is one coefficient a token."""
    prior = table(max_tokens=3)
    policy = prior.trainable_copy()
    settings: dict[str, Any] = {"beta": 0.5, "contexts": prior.contexts, "samples_per_context": 8, "seed": 3}
    other = "ppo" if estimator.startswith("ppo") else "leave-one-out"
    found, wanted = (
        towards_posterior(prior, count_b, estimator=name, **settings, **({"epochs": 1} if "ppo" in name else {}))
        for name in (estimator, other)
    )
    same = []
    for step in (0, 1):
        pair = [
            exact_gradient(policy, sum(loss.value for loss in method.losses(policy, step)))  # type: ignore[arg-type]
            for method in (found, wanted)
        ]
        same.append(torch.allclose(*pair, rtol=1e-9, atol=1e-12))
    assert same == [True, False]


def test_texts_that_come_again_are_refused() -> None:
    prior = table()
    target = prior.tilt(count_b, beta=1.0)
    corpus = Corpus(["left", "right"], prior.sample(["left", "right"]))
    for proposal in (Replay(0.5, 2), corpus):
        with pytest.raises(ConfigError, match="texts come again after V has learned") as caught:
            FDPG(prior, target, ForwardKL, contexts=prior.contexts, baseline="value", proposal=proposal)
        assert "leave-one-out" in caught.value.fix
    with pytest.raises(ConfigError, match="PPO with baseline='none'"):
        PPO(prior, target, ReverseKL, contexts=prior.contexts, baseline="none")
