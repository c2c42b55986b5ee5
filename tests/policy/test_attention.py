"""Attention of our own for bfloat16 training on a CPU: torch's law and gradient, and left to torch where it is not plain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from amenable.policy import attention
from amenable.records import Decoding
from tests.tiny import tiny_policy


@pytest.mark.parametrize(("heads", "shared"), [(4, 4), (6, 2), (3, 1)])
def test_it_is_causal_attention(heads: int, shared: int) -> None:
    """In float64: the output and all three gradients are those of torch's own."""
    torch.manual_seed(heads)
    shapes = [(2, heads, 7, 8), (2, shared, 7, 8), (2, shared, 7, 8)]
    given = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    weights = torch.randn(2, 7, heads, 8, dtype=torch.float64)
    own = attention.causal(*given, 0.3)
    theirs = functional.scaled_dot_product_attention(*given, is_causal=True, scale=0.3, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(own, theirs, rtol=0, atol=1e-6)  # the softmax is in float32
    found = [torch.autograd.grad((weights * output).sum(), given) for output in (own, theirs)]
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)


def test_queries_may_be_the_last_and_heads_may_come_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, from transposed views as a model has them: the last 4 of 7 positions; blocks of one group and of two."""
    torch.manual_seed(0)
    shapes = [(3, 4, 4, 8), (3, 7, 2, 8), (3, 7, 2, 8)]
    given = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    query, key, value = (part.transpose(1, 2) for part in given)
    weights = torch.randn(3, 4, 4, 8, dtype=torch.float64)
    past = torch.ones(4, 7, dtype=torch.bool).tril(3)
    theirs = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=past, scale=2.0, enable_gqa=True
    ).transpose(1, 2)
    expected = torch.autograd.grad((weights * theirs).sum(), given)
    for block in (1, 2 * 2 * 4 * 7, attention.BLOCK):
        monkeypatch.setattr(attention, "BLOCK", block)
        own = attention.causal(query, key, value, 2.0)
        torch.testing.assert_close(own, theirs, rtol=0, atol=1e-6)
        for mine, other in zip(torch.autograd.grad((weights * own).sum(), given), expected, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_bfloat16_training_uses_it_and_has_the_same_gradient(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy(kind, scale=3.0)
    samples = policy.sample(["ab", "abc"], n=4, decoding=Decoding(max_tokens=8), seed=1)
    weights = torch.linspace(-1, 1, len(samples))
    calls: list[torch.Size] = []
    whole = attention.causal
    monkeypatch.setattr(attention, "causal", lambda q, *rest: (calls.append(q.shape), whole(q, *rest))[1])
    found = []
    for longest in (attention.LONGEST, 0):
        monkeypatch.setattr(attention, "LONGEST", longest)
        learner = policy.trainable_copy()
        with torch.autocast("cpu", torch.bfloat16):
            learner.weighted_log_prob(samples, weights)[0].backward()
        found.append(torch.cat([value.grad.flatten() for _, value in learner.trainable_parameters()]))
        assert bool(calls) == (longest > 0)
        calls.clear()
    assert (found[0] - found[1]).norm() < 0.02 * found[1].norm()


def test_float32_is_left_to_torch_and_nothing_of_it_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "causal", lambda *_: pytest.fail("used in float32"))
    policy = tiny_policy("llama")
    samples = policy.sample(["ab"], n=2, decoding=Decoding(max_tokens=4), seed=1)
    learner = policy.trainable_copy()
    assert learner.model.config._attn_implementation == attention.NAME
    learner.weighted_log_prob(samples, torch.ones(2))[0].backward()
    learner.save(tmp_path)
    assert attention.NAME not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
