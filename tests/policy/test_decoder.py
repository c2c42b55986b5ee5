"""Decoding without transformers' forward gives the same logits as with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import tiny_policy
from transformers.cache_utils import Cache, DynamicCache

from amenable.policy import decoder as module
from amenable.policy.cache import rebuild
from amenable.policy.causal_lm import LoRA
from amenable.policy.decoder import Layer, decoder
from amenable.policy.packing import packed_linears
from amenable.records import Decoding


def read(model: Any, rows: int = 3, width: int = 7) -> Cache:
    """A cache that holds `width` random tokens a row."""
    ids = torch.randint(0, 256, (rows, width), generator=torch.Generator().manual_seed(0))
    cache = DynamicCache()
    model(input_ids=ids, past_key_values=cache, use_cache=True)
    return rebuild(None, torch.zeros(0, dtype=torch.int64), 0, [(cache, torch.arange(rows))], room=8)


@torch.inference_mode()
def logits_of(model: Any, *, own: bool, packed: bool, masked: bool) -> torch.Tensor:
    cache, last, position = read(model), torch.tensor([1, 2, 3]), torch.tensor([7, 5, 6])
    visible = torch.ones(3, 11, dtype=torch.bool)
    visible[1, :2], visible[2, 0] = False, False
    found = []
    with packed_linears(model, 3) as product:
        step = decoder(model, product if packed else lambda *modules: lambda x: torch.cat([m(x) for m in modules], -1))
        for at in range(3):
            mask = visible[:, : 8 + at] if masked else None
            if own:
                logits = module._own_forward(model, last, position + at, cache, mask)
            else:
                logits = step(last, position + at, cache, mask)
            found.append(logits)
            last = logits.argmax(-1)
    return torch.stack(found)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_it_is_the_models_own_law(kind: str, masked: bool, packed: bool) -> None:
    model = tiny_policy(kind).model
    with torch.no_grad():
        for name, value in model.named_parameters():  # biases and norms start at 0 and 1: nothing would be tested
            if value.dim() == 1:
                value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))))
    mine = logits_of(model, own=False, packed=packed, masked=masked)
    theirs = logits_of(model, own=True, packed=False, masked=masked)
    assert float((mine - theirs).abs().max()) < 1e-4 * float(theirs.abs().max())
    assert theirs.std() > 0.3


def test_what_has_another_shape_is_decoded_by_its_own_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Layer, "__call__", lambda *_: pytest.fail("decoded as if it were a plain Llama"))
    with pytest.raises(BaseException, match="decoded as if"):
        tiny_policy().sample(["ab"], n=2, decoding=Decoding(max_tokens=8))
    for policy in (tiny_policy("gpt2"), tiny_policy().trainable_copy(LoRA(rank=2))):
        assert len(policy.sample(["ab"], n=2, decoding=Decoding(max_tokens=8))) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "kept"), [(6, 2), (4, 4), (4, 1)])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_of_one_query_is_that_of_the_formula(dtype: torch.dtype, heads: int, kept: int, masked: bool) -> None:
    """softmax(q k' / sqrt(d)) v in float64, of buffers with room behind the columns that are filled."""
    generator = torch.Generator().manual_seed(0)
    rows, columns, size = 5, 11, 8
    query = torch.randn(rows, heads, size, generator=generator).to(dtype)
    keys, values = (torch.randn(rows, kept, 32, size, generator=generator).to(dtype)[:, :, :columns] for _ in range(2))
    visible = torch.arange(columns) >= torch.tensor([0, 3, 10, 1, 2]).view(-1, 1, 1) if masked else None
    each = [part.double().repeat_interleave(heads // kept, 1) for part in (keys, values)]
    scores = torch.einsum("rhd,rhtd->rht", query.double(), each[0]) / size**0.5
    if visible is not None:
        scores = scores.masked_fill(~visible, -torch.inf)
    expected = torch.einsum("rht,rhtd->rhd", scores.softmax(-1), each[1]).flatten(1)
    found = module.attend(query, keys, values, visible, size**-0.5)
    assert found.dtype == dtype
    near = 1e-6 if dtype == torch.float32 else 1e-2
    assert float((found.double() - expected).norm() / expected.norm()) < near
