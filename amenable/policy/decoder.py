"""The next token's logits for every row of a batch, for models of Llama's shape: their own law, with little Python in between.

    x = rms(h)   q, k, v = W x   q, k = rotate(q, k)   h += W softmax(q k' / sqrt(d)) v   x = rms(h)   h += W (silu(gate) up)

While decoding, a layer's products take microseconds, and so does the Python that `transformers` puts around them: without it a
token is drawn 1.3 times as fast (`bench/sampling.py`). Every other model is decoded by its own forward.

Source of the architecture: Touvron et al. 2023, arXiv 2302.13971; grouped queries, Ainslie et al. 2023, arXiv 2305.13245.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from transformers import (
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
    Qwen2ForTokenClassification,
)
from transformers.cache_utils import Cache

Decoder = Callable[[torch.Tensor, torch.Tensor, Cache, torch.Tensor | None], torch.Tensor]
"""(last tokens (R,), their positions (R,), cache, which columns each row may see (R, used + 1) or None) -> logits (R, V)."""

Product = Callable[[torch.Tensor], torch.Tensor]

FAMILIES = (
    LlamaForCausalLM, LlamaForSequenceClassification, LlamaForTokenClassification,
    Qwen2ForCausalLM, Qwen2ForSequenceClassification, Qwen2ForTokenClassification,
)  # fmt: skip


def decoder(model: Any, product: Callable[..., Product]) -> Decoder:
    """How `model` is decoded. `product(*modules)` multiplies by linear layers side by side (`packing`)."""
    if not has_llamas_shape(model):
        return lambda *inputs: _own_forward(model, *inputs)
    body = model.model
    layers = [Layer(layer, product) for layer in body.layers]
    head = product(model.lm_head)
    half = layers[0].head_size // 2 if layers else 0
    sign = torch.ones(2 * half, dtype=model.dtype, device=model.device)
    sign[:half] = -1

    def step(last: torch.Tensor, position: torch.Tensor, cache: Cache, visible: torch.Tensor | None) -> torch.Tensor:
        hidden = body.embed_tokens(last)
        cosine, sine = body.rotary_emb(hidden, position_ids=position.unsqueeze(1))
        sine = sine * sign
        mask = None if visible is None else visible.unsqueeze(1)
        for layer, columns in zip(layers, cache.layers, strict=True):
            hidden = layer(hidden, cosine, sine, columns, mask)
        return head(_normed(body.norm, hidden))

    return step


class Layer:
    """One layer, its weights looked up once."""

    def __init__(self, layer: Any, product: Callable[..., Product]) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.before, self.between, self.activation = layer.input_layernorm, layer.post_attention_layernorm, mlp.act_fn
        self.read = product(attention.q_proj, attention.k_proj, attention.v_proj)
        self.out, self.gate_up = product(attention.o_proj), product(mlp.gate_proj, mlp.up_proj)
        self.down = product(mlp.down_proj)
        self.head_size, self.scale = int(attention.head_dim), float(attention.scaling)
        self.queries = attention.q_proj.out_features // self.head_size
        self.keys = attention.k_proj.out_features // self.head_size

    def __call__(
        self, hidden: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, columns: Any, mask: torch.Tensor | None
    ) -> torch.Tensor:
        heads = self.read(_normed(self.before, hidden)).view(len(hidden), -1, self.head_size)
        values = heads[:, self.queries + self.keys :]
        rotated = heads[:, : self.queries + self.keys]
        rotated = torch.addcmul(rotated * cosine, rotated.roll(self.head_size // 2, -1), sine)
        keys, values = columns.update(rotated[:, self.queries :, None], values[:, :, None])
        hidden = hidden + self.out(attend(rotated[:, : self.queries], keys, values, mask, self.scale))
        gate, up = self.gate_up(_normed(self.between, hidden)).chunk(2, -1)
        return hidden + self.down(self.activation(gate) * up)


def attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, visible: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """(R, H d): one query a row, (R, H, d), of the T columns of K heads, (R, K, T, d), of which `visible` (R, 1, T) count.

    On a CPU as two products a head, keys first: PyTorch's kernel is made for many queries (`bench/attention.py`).
    """
    rows, heads, size = query.shape
    if query.device.type != "cpu":
        mask = None if visible is None else visible.unsqueeze(1)
        mixed = functional.scaled_dot_product_attention(
            query.unsqueeze(2), keys, values, attn_mask=mask, scale=scale, enable_gqa=True
        )
        return mixed.reshape(rows, -1)
    groups = query.reshape(rows * keys.shape[1], -1, size)
    scores = torch.bmm(keys.flatten(0, 1), groups.transpose(1, 2)).transpose(1, 2)
    scores = scores.to(torch.float32, memory_format=torch.contiguous_format).mul_(scale)
    if visible is not None:
        scores = scores.reshape(rows, heads, -1).masked_fill_(~visible, -torch.inf).view(scores.shape)
    return torch.bmm(scores.softmax(-1).to(values.dtype), values.flatten(0, 1)).reshape(rows, -1)


def _normed(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(hidden, (hidden.shape[-1],), norm.weight, norm.variance_epsilon)


def has_llamas_shape(model: Any) -> bool:
    """True for the two families this file was written after, as they come: no adapter, no window, whole float weights."""
    if type(model) not in FAMILIES:
        return False
    linear = (module for module in model.modules() if hasattr(module, "in_features"))
    kinds = getattr(model.config, "layer_types", None) or []
    return all(kind == "full_attention" for kind in kinds) and all(type(module) is torch.nn.Linear for module in linear)


def _own_forward(
    model: Any, last: torch.Tensor, position: torch.Tensor, cache: Cache, visible: torch.Tensor | None
) -> torch.Tensor:
    out = model(
        input_ids=last.unsqueeze(1),
        attention_mask=visible,
        position_ids=position.unsqueeze(1),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits: torch.Tensor = out.logits[:, -1]
    return logits
