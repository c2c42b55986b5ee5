"""Attention for short sequences in bfloat16 on a CPU, where the gradient of torch's fused kernel is slow.

    s = q k' / sqrt(d)      p = softmax of s over the past, in float32      o = p v

    letter  shape               what it is
    q       (N, H, T, d)        queries of H heads
    k, v    (N, K, T, d)        keys and values; H / K heads share each, and their queries lie side by side: no key is copied

One layer of SmolLM2, 16 sequences of 79 tokens, forward and backward, one core with AMX: 44 ms fused, 15 ms so. In float32 the
two are alike, on a GPU and for long sequences the fused kernel is the better one: they are left to it.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "amenable"
LONGEST = 512  # tokens; the scores of all heads are kept


def attend(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any,
    **settings: Any,
) -> tuple[torch.Tensor, Any]:  # fmt: skip
    """(N, T, H, d), and no weights. What is not plain causal attention goes to torch's kernel."""
    plain = attention_mask is None and key.shape == value.shape and query.shape[2] == key.shape[2] <= LONGEST
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    slow = dtype == torch.bfloat16 and query.device.type == "cpu" and query.requires_grad
    usual = not settings.get("dropout") and settings.get("is_causal", True) and settings.get("position_bias") is None
    if not (plain and slow and usual and getattr(module, "is_causal", True)):
        found: tuple[torch.Tensor, Any] = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        return found
    scaling = settings.get("scaling")
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)  # rotary positions leave q and k in float32
    with torch.autocast("cpu", enabled=False):  # what is float32 there is meant to be
        return causal(query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling), None


def causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    """(N, T, H, d) from query (N, H, T, d), key and value (N, K, L, d); every position reads itself and what is before it.

    Queries are those of the last T of L positions.
    """
    n, heads, length, size = query.shape
    shared, whole = heads // key.shape[1], key.shape[2]
    rows = query.reshape(n, key.shape[1], shared * length, size)
    # in float32, as the fused kernel has them: rounded to bfloat16 they double the error of a sequence's log-probability
    scores = (rows.float() * scaling @ key.float().transpose(-1, -2)).view(n, -1, shared, length, whole)
    future = torch.ones(length, whole, dtype=torch.bool, device=query.device).triu(whole - length + 1)
    shares = scores.masked_fill(future, -torch.inf).softmax(-1).to(value.dtype)
    return (
        (shares.view(n, -1, shared * length, whole) @ value).view(n, heads, length, size).transpose(1, 2).contiguous()
    )


def use(model: Any) -> Any:
    """`model`, made to attend so if it attends by torch's kernel now and its class lets that be chosen."""
    if getattr(model.config, "_attn_implementation", "") == "sdpa" and getattr(
        model, "_supports_attention_backend", False
    ):
        model.set_attn_implementation(NAME)
    return model


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
