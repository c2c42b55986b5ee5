"""The forward that is written down, against transformers' own: values and gradients, float32 and bfloat16, shared prompts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from amenable.policy import forward
from amenable.policy.causal_lm import CausalLM, LoRA
from amenable.policy.layout import laid_out
from amenable.records import Decoding
from tests.tiny import tiny_policy

PREFIX = [5, 6, 7, 8, 9]


def moved(kind: str) -> CausalLM:
    """A policy whose norms and biases are not what they were made as: ones and zeros."""
    learner = tiny_policy(kind, scale=3.0).trainable_copy()
    with torch.no_grad():
        for seed, (name, value) in enumerate(learner.trainable_parameters()):
            if "norm" in name or "bias" in name:
                value.add_(0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(seed)))
    return learner


def gradients(model: Any, states: torch.Tensor) -> dict[str, torch.Tensor]:
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(1))
    model.zero_grad()
    (weights * states).sum().backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def both(model: Any, *, shared: bool, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, T, D) of some ids behind `PREFIX`: ours and transformers'."""
    ids = torch.randint(0, 255, (3, 7), generator=torch.Generator().manual_seed(seed))
    whole = torch.cat([torch.tensor(PREFIX).expand(3, -1), ids], 1)
    if shared:
        layout = laid_out([PREFIX] * 3, ids.tolist())
        assert layout.blocks[0].contexts == 1, "the prefix is read once"
        own = forward.states_at(model, layout, torch.arange(len(PREFIX), len(layout.ids))).view(*ids.shape, -1)
    else:
        own = forward.hidden_states(model, whole)[:, len(PREFIX) :]
    return own, model.model(whole).last_hidden_state[:, len(PREFIX) :]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_float32_values_and_gradients_are_those_of_transformers(kind: str, shared: bool) -> None:
    model = moved(kind).model
    own, theirs = both(model, shared=shared)
    torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-5)
    mine, other = gradients(model, own), gradients(model, theirs)
    assert mine.keys() == other.keys()
    for name, value in other.items():
        assert (mine[name] - value).norm() <= 1e-5 * value.norm(), name


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_bfloat16_is_as_near_to_float32_as_transformers_own(kind: str, shared: bool) -> None:
    """Errors of values and gradients against float32, over 12 batches: not larger by more than their scatter."""
    model = moved(kind).model
    errors = torch.zeros(2, 2)
    for seed in range(12):
        exact = both(model, shared=shared, seed=seed)[1]
        slope = torch.cat([part.flatten() for part in gradients(model, exact).values()])
        with torch.autocast("cpu", torch.bfloat16):
            found = both(model, shared=shared, seed=seed)
        for place, states in enumerate(found):
            made = torch.cat([part.flatten() for part in gradients(model, states).values()])
            values = (states - exact).detach().norm() / exact.detach().norm()
            errors[place] += torch.stack([values, (made - slope).norm() / slope.norm()])
    assert errors.min() > 0
    assert bool((errors[0] <= 1.1 * errors[1]).all()), errors / 12


CASES = {
    "prompts of one length": ["abcdef", "uvwxyz"],
    "prompts of other lengths that begin alike": ["abcd", "abcxyz", "abc"],
    "nothing in common": ["abcdef", "uvw", "q"],
}


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_ragged_samples_of_several_prompts(
    kind: str, case: str, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-probabilities and gradient: of the forward that is written down, and without it."""
    learner = moved(kind)
    samples = learner.sample(CASES[case], n=2, decoding=Decoding(max_tokens=9), seed=2)
    samples.lengths[:] = torch.tensor([9, 3, 1, 6, 8, 2])[: len(samples)].minimum(samples.lengths)
    found = []
    for used in (True, False):
        monkeypatch.setattr(forward, "written_down", (lambda model: True) if used else (lambda model: False))
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            loss, values = learner.weighted_log_prob(samples, torch.linspace(-1, 1, len(samples)))
        learner.model.zero_grad()
        loss.backward()
        found.append((values, torch.cat([value.grad.flatten() for _, value in learner.trainable_parameters()])))
    near = 1e-6 if precision == torch.float32 else 2e-2
    assert (found[0][0] - found[1][0]).norm() <= near * found[1][0].norm()
    assert (found[0][1] - found[1][1]).norm() <= near * found[1][1].norm()


def test_a_part_of_the_weights_can_be_trained_alone() -> None:
    model = moved("qwen2").model
    whole = gradients(model, both(model, shared=True)[0])
    chosen = {"model.layers.0.mlp.down_proj.weight", "model.layers.0.self_attn.k_proj.bias", "model.norm.weight"}
    for name, value in model.named_parameters():
        value.requires_grad_(name in chosen)
    part = gradients(model, both(model, shared=True)[0])
    assert part.keys() == chosen
    for name in chosen:
        torch.testing.assert_close(part[name], whole[name])


def test_it_is_left_to_transformers_where_it_is_another_forward() -> None:
    policy = tiny_policy("llama")
    assert forward.written_down(policy.model)
    others = [
        tiny_policy("gpt2").model,
        policy.frozen(torch.bfloat16).model,
        policy.trainable_copy(LoRA(rank=2)).model,
        policy.trainable_copy().model.train(),
    ]
    hooked = policy.trainable_copy().model
    hooked.model.norm.register_forward_hook(lambda *_: None)
    capped = policy.trainable_copy().model
    capped.forward = lambda **_: None
    assert not any(map(forward.written_down, [*others, hooked, capped]))


def test_scoring_reads_a_shared_prompt_once(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy("llama").exact()
    samples = policy.sample(["abcdef"], n=5, decoding=Decoding(max_tokens=6), seed=1)
    read: list[int] = []
    whole = forward._Gated.forward
    monkeypatch.setattr(
        forward._Gated, "forward", lambda ctx, hidden, *rest: (read.append(len(hidden)), whole(ctx, hidden, *rest))[1]
    )
    values = policy.log_prob(samples)
    assert set(read) == {6 + int((samples.lengths - 1).sum())}  # the prompt once; of each sample all but the last token
    monkeypatch.setattr(forward, "written_down", lambda model: False)
    torch.testing.assert_close(values, policy.log_prob(samples), rtol=1e-5, atol=1e-5)
