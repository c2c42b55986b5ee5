"""In bfloat16 a step has the float32 gradient but for rounding, and right weights; a mixture of precisions is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from amenable.errors import TrainingError
from amenable.method.fdpg import FDPG
from amenable.method.ppo import PPO
from amenable.objective.divergence import ForwardKL, JensenShannon
from amenable.objective.reward import ExpectedReward
from amenable.policy.causal_lm import CausalLM
from amenable.records import Decoding, Samples
from amenable.sampling.proposal import OnPolicy, Proposal
from amenable.target.posterior import Target, sequence_log_prob
from amenable.target.potential import tilt
from tests.tiny import tiny_policy

SHORT = Decoding(max_tokens=6)


def letters(prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float]:
    return [float(sum(c.isalpha() for c in text)) for text in completions]


def moved() -> tuple[CausalLM, Target]:
    """A policy some way from its prior."""
    prior = tiny_policy("llama", scale=3.0)
    policy = prior.trainable_copy()
    torch.manual_seed(5)
    with torch.no_grad():
        for _, value in policy.trainable_parameters():
            value.add_(0.02 * value.std() * torch.randn_like(value))
    return policy, Target(prior.exact(), tilt(letters, beta=2.0))


class Given(OnPolicy):
    """bfloat16 samples that were drawn before, with the law of their own time."""

    def __init__(self, samples: Samples) -> None:
        super().__init__(torch.bfloat16)
        self.samples = samples

    def draw(self, *_: Any, **__: Any) -> Samples:
        return self.samples


def gradient(method: FDPG, policy: CausalLM, *, half: bool = False) -> torch.Tensor:
    """One step's gradient, all parameters in one vector; the losses are computed as the training loop does."""
    policy.model.zero_grad()
    losses = method.losses(policy, 0)
    while True:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            loss = next(losses, None)
        if loss is None:
            break
        loss.value.backward()
    return torch.cat([value.grad.flatten() for _, value in policy.trainable_parameters() if value.grad is not None])


def method(policy: CausalLM, target: Target, proposal: Proposal, **settings: Any) -> FDPG:
    return FDPG(
        policy, target, settings.pop("objective", ForwardKL), contexts=["ab"], samples_per_context=24, decoding=SHORT,
        proposal=proposal, bootstrap=0, **settings,
    )  # fmt: skip


def test_one_forward_and_two_give_the_same_gradient() -> None:
    """A batch that fits keeps the graph of its scores; one that does not is scored first and then trained in groups."""
    policy, target = moved()
    whole = gradient(method(policy, target, OnPolicy(torch.bfloat16)), policy)
    groups = gradient(method(policy, target, OnPolicy(torch.bfloat16), positions=40), policy)
    torch.testing.assert_close(whole, groups, atol=1e-5 * float(whole.abs().max()), rtol=1e-3)


def test_the_weights_are_those_of_the_law_that_was_drawn_from() -> None:
    """log P and log pi in the trainer's arithmetic, log q as the bfloat16 sampler wrote it down: not the same numbers."""
    policy, target = moved()
    proposal = OnPolicy(torch.bfloat16)
    batch = method(policy, target, proposal).draw(policy, 0, ["ab"], 24, 3)
    torch.testing.assert_close(batch.log_policy, sequence_log_prob(policy, batch.samples))
    torch.testing.assert_close(batch.log_proposal, batch.samples.log_probs.double().sum(1))
    assert 0 < (batch.log_policy - batch.log_proposal).abs().max() < 1.0


def test_the_samplers_copy_follows_the_policy() -> None:
    policy, _ = moved()
    proposal = OnPolicy(torch.bfloat16)
    before = proposal.draw(0, policy, ["ab"], n=8, decoding=SHORT, seed=1)
    with torch.no_grad():
        for _, value in policy.trainable_parameters():
            value.mul_(0.5)
    after = proposal.draw(1, policy, ["ab"], n=8, decoding=SHORT, seed=1)
    afresh = OnPolicy(torch.bfloat16).draw(1, policy, ["ab"], n=8, decoding=SHORT, seed=1)
    assert not torch.equal(before.log_probs, after.log_probs)
    torch.testing.assert_close(after.log_probs, afresh.log_probs, atol=0, rtol=0)


@pytest.mark.parametrize("objective", [ForwardKL, JensenShannon], ids=lambda found: found.name)
def test_in_bfloat16_the_gradient_is_the_float32_one_but_for_rounding(objective: Any) -> None:
    """On the same samples: within a tenth in norm, where another batch's gradient is about as far away as it is long."""
    policy, target = moved()
    drawn = [OnPolicy(torch.bfloat16).draw(0, policy, ["ab"], n=24, decoding=SHORT, seed=seed) for seed in (1, 2)]
    make = lambda samples: method(policy, target, Given(samples), objective=objective)
    exact = gradient(make(drawn[0]), policy)
    half = gradient(make(drawn[0]), policy, half=True)
    other = gradient(make(drawn[1]), policy)
    assert (half - exact).norm() < 0.1 * exact.norm()
    assert (other - exact).norm() > 0.3 * exact.norm()


def test_a_mixture_of_precisions_is_refused() -> None:
    policy, target = moved()
    with pytest.raises(TrainingError, match=r"differ by .* nats a token"):
        gradient(method(policy, target, OnPolicy()), policy, half=True)
    gradient(method(policy, target, OnPolicy()), policy)


def test_ppo_refuses_it_too() -> None:
    policy, target = moved()
    own = PPO(policy, target, ExpectedReward(beta=0.1), contexts=["ab"], steps=2, samples_per_context=8, decoding=SHORT)
    with pytest.raises(TrainingError, match=r"differ by .* nats a token"):
        gradient(own, policy, half=True)
    gradient(own, policy)


def test_a_score_computes_in_its_own_precision_inside_a_bfloat16_step() -> None:
    """A reward model's matrix product is float32, though the training around it is not."""
    seen: list[torch.dtype] = []

    def by_a_product(prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float]:
        lengths = torch.tensor([[float(len(text))] for text in completions])
        seen.append((lengths @ torch.ones(1, 1)).dtype)
        return lengths[:, 0].tolist()

    prior = tiny_policy("llama", scale=3.0)
    method = FDPG(
        prior, Target(prior.exact(), tilt(by_a_product, beta=2.0)), JensenShannon, steps=1, samples_per_context=4,
        decoding=SHORT, bootstrap=0, proposal=OnPolicy(torch.bfloat16),
    )  # fmt: skip
    with torch.autocast("cpu", dtype=torch.bfloat16):
        next(iter(method.losses(prior.trainable_copy(), 0)))
    assert seen == [torch.float32]
