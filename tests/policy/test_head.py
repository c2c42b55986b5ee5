"""The head's own gradient is autograd's, for every kind of output layer, and no logits but a chunk's are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from amenable.policy import head as heads
from amenable.policy import scoring
from amenable.policy.causal_lm import CausalLM, LoRA
from amenable.records import Decoding, Samples
from tests.tiny import tiny_policy

CASES: dict[str, Callable[[], CausalLM]] = {
    "tied": lambda: tiny_policy("llama").trainable_copy(),
    "untied": lambda: untied(tiny_policy("qwen2").trainable_copy()),
    "bias": lambda: with_bias(tiny_policy("gpt2").trainable_copy()),
    "adapter": lambda: with_moved_adapter(tiny_policy("llama").trainable_copy(LoRA(rank=2))),
    "soft-capped": lambda: soft_capped(tiny_policy("llama").trainable_copy()),
}


def untied(policy: CausalLM) -> CausalLM:
    policy.model.lm_head.weight = torch.nn.Parameter(policy.model.lm_head.weight.detach().flip(0).clone())
    return policy


def with_bias(policy: CausalLM) -> CausalLM:
    policy.model.lm_head.bias = torch.nn.Parameter(torch.randn(policy.model.lm_head.out_features))
    return policy


def with_moved_adapter(policy: CausalLM) -> CausalLM:
    with torch.no_grad():
        for _, value in policy.trainable_parameters():
            value.add_(0.05 * torch.randn_like(value))
    return policy


def soft_capped(policy: CausalLM) -> CausalLM:
    """A model that does something to its logits after the head, as Gemma 2 does."""
    forward = policy.model.forward

    def capped(**inputs: Any) -> Any:
        out = forward(**inputs)
        out.logits = 5.0 * torch.tanh(out.logits / 5.0)
        return out

    policy.model.forward = capped
    return policy


def drawn(policy: CausalLM, contexts: list[str]) -> Samples:
    torch.manual_seed(0)
    return tiny_policy("llama").sample(contexts, n=3, decoding=Decoding(max_tokens=9), seed=4)


def by_hand(policy: CausalLM, samples: Samples) -> torch.Tensor:
    """(N, L): one sequence at a time, whole logits, log_softmax."""
    rows = []
    for index, context in enumerate(samples.context_ids):
        own = samples.ids(index)
        logits = policy.model(input_ids=torch.tensor([[*context, *own]])).logits[0, len(context) - 1 : -1].float()
        values = logits.log_softmax(-1).gather(-1, torch.tensor(own)[:, None])[:, 0]
        rows.append(torch.nn.functional.pad(values, (0, samples.tokens.shape[1] - len(own))))
    return torch.stack(rows)


def gradients(policy: CausalLM, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    policy.model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in policy.trainable_parameters() if value.grad is not None}


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_autograds(case: str, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "CHUNK", 7)  # several chunks, the last one short
    monkeypatch.setattr(heads, "BLOCK", 600)
    monkeypatch.setattr(scoring, "SHARED", 0.0 if shared else 2.0)
    policy = CASES[case]()
    samples = drawn(policy, ["abcdefgh", "abcdef", "abcdefxyz"] if shared else ["a", "abcdef"])
    weights = torch.linspace(-1.0, 2.0, len(samples), dtype=torch.float64)
    wanted_values = by_hand(policy, samples)
    wanted = gradients(policy, (weights.float()[:, None] * wanted_values).sum())
    assert wanted
    loss, values = policy.weighted_log_prob(samples, weights)
    assert not values.requires_grad
    torch.testing.assert_close(values, wanted_values.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss.detach().double(), (weights * values.double().sum(1)).sum(), atol=1e-3, rtol=1e-5)
    by_token = weights[:, None].expand(samples.tokens.shape)
    later = policy.log_prob(samples)
    for found in (
        gradients(policy, loss),
        gradients(policy, policy.weighted_log_prob(samples, by_token)[0]),
        gradients(policy, (weights.float()[:, None] * later).sum()),
        {name: 2 * g for name, g in gradients(policy, policy.weighted_log_prob(samples, weights)[0] / 2).items()},
    ):
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, atol=1e-5 * float(value.abs().max()), rtol=1e-5, msg=name)


def test_a_frozen_head_is_given_no_gradient() -> None:
    policy = CASES["adapter"]()
    samples = drawn(policy, ["ab"])
    gradients(policy, policy.weighted_log_prob(samples, torch.ones(len(samples)))[0])
    assert policy.model.get_output_embeddings().weight.grad is None


def test_a_head_that_is_not_the_last_thing_is_seen_and_left_as_it_was() -> None:
    plain, capped = tiny_policy("llama"), soft_capped(tiny_policy("llama"))
    samples = drawn(plain, ["ab"])
    assert (plain.log_prob(samples) - capped.log_prob(samples)).abs().max() > 1e-2
    assert heads.plain_head(plain.model) is plain.model.lm_head
    assert heads.plain_head(capped.model) is None
    for policy in (plain, capped):
        assert "forward" not in vars(policy.model.lm_head)


def test_no_more_logits_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "CHUNK", 8)
    policy, sizes = tiny_policy("llama").trainable_copy(), []
    normalised = heads._normalised

    def watched(logits: torch.Tensor, *arguments: Any) -> torch.Tensor:
        sizes.append((logits.shape[0], logits.data_ptr()))
        return normalised(logits, *arguments)

    monkeypatch.setattr(heads, "_normalised", watched)
    samples = drawn(policy, ["ab", "cd"])
    policy.weighted_log_prob(samples, torch.ones(len(samples)))[0].backward()
    assert sum(rows for rows, _ in sizes) == int(samples.lengths.sum())
    assert max(rows for rows, _ in sizes) == 8
    assert len({place for _, place in sizes}) == 1  # one buffer


def test_where_one_token_is_nearly_certain_the_gradient_keeps_its_digits() -> None:
    """1 - softmax is about e-9 there: lost in float32 if it is computed as a difference."""
    hidden = torch.tensor([[1.0, 0.0]], requires_grad=True)
    head = torch.nn.Linear(2, 3, bias=False)
    head.weight.data = torch.tensor([[20.0, 1.0], [0.0, 2.0], [0.0, 0.0]])
    loss, _ = heads.weighted_log_probs(hidden, head, torch.tensor([0]), torch.ones(1))
    loss.backward()
    exact = (hidden.detach().double() @ head.weight.detach().double().T).log_softmax(-1)[0]
    slope = torch.tensor([1.0, 0, 0], dtype=torch.float64) - exact.exp()
    slope[0] = -torch.expm1(exact[0])
    assert head.weight.grad is not None
    torch.testing.assert_close(head.weight.grad[1:, 0].double(), slope[1:], rtol=1e-4, atol=0)


def test_under_autocast_it_is_the_float32_gradient_but_for_bfloat16s_rounding() -> None:
    policy = CASES["tied"]()
    samples = drawn(policy, ["ab", "abc"])
    weights = torch.linspace(-1.0, 1.0, len(samples))
    exact = gradients(policy, policy.weighted_log_prob(samples, weights)[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = policy.weighted_log_prob(samples, weights)
        later = (weights[:, None] * policy.log_prob(samples)).sum()
        plain = (weights[:, None] * by_hand(policy, samples)).sum()
    assert loss.dtype == torch.float32

    def distance(found: dict[str, torch.Tensor]) -> float:
        return float(
            sum((found[n] - exact[n]).square().sum() for n in exact) / sum(v.square().sum() for v in exact.values())
        )

    own, recomputed, autograd = (distance(gradients(policy, value)) for value in (loss, later, plain))
    assert max(own, recomputed) < 1.5 * autograd + 1e-4
