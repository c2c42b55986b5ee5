"""Packed weights give the same products, are dropped on exit, and never outlive a change of the weights."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_policy

from amenable.policy.packing import packed_linears
from amenable.records import Decoding


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_products(dtype: torch.dtype) -> None:
    model = tiny_policy().model.to(dtype)
    ids = torch.randint(0, 256, (3, 20))
    with torch.no_grad():
        plain = model(ids).logits
        with packed_linears(model, 3):
            packed = model(ids).logits
        assert "forward" not in vars(model.model.layers[0].mlp.up_proj)
    scale = float(plain.abs().max())
    assert float((plain - packed).abs().max()) < scale * (1e-5 if dtype == torch.float32 else 3e-2)


def test_a_policy_that_has_learned_is_sampled_with_its_new_weights() -> None:
    policy = tiny_policy().trainable_copy()
    policy.sample(["a"], n=2, decoding=Decoding(max_tokens=4))
    with torch.no_grad():
        for _, value in policy.trainable_parameters():
            value.mul_(1.3)
    samples = policy.sample(["a"], n=8, decoding=Decoding(max_tokens=12))
    assert (policy.log_prob(samples).detach() - samples.log_probs).abs().max() < 1e-4


def test_weights_are_restored_when_the_block_fails() -> None:
    model = tiny_policy().model

    def fail() -> None:
        with packed_linears(model, 3):
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert all("forward" not in vars(module) for module in model.modules())
