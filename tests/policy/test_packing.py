"""Packed weights give the same products, are dropped on exit, and never outlive a change of the weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

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


def test_layers_with_one_input_are_one_product_and_threads_do_not_mix() -> None:
    layer = tiny_policy().model.model.layers[0]
    names = ("q_proj", "k_proj", "v_proj")
    inputs = [torch.randn(2, 1, layer.self_attn.q_proj.in_features) for _ in range(40)]
    with torch.no_grad():
        plain = [[getattr(layer.self_attn, name)(x) for name in names] for x in inputs]
        with packed_linears(layer, 2), ThreadPoolExecutor(4) as pool:
            assert getattr(layer.self_attn.k_proj.forward, "func", None) is layer.self_attn.q_proj.forward.func
            found = list(pool.map(lambda x: [getattr(layer.self_attn, name)(x) for name in names], inputs))
            alone = layer.self_attn.v_proj(inputs[0])  # asked for without the first
    for one, other in zip(plain, found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone, plain[0][2], atol=1e-5, rtol=1e-5)


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
