"""Attention for short sequences in bfloat16 on a CPU, where the gradient of torch's fused kernel is slow.

    s = q k' / sqrt(d)      p = exp(s - z), z = log sum exp of s over the past, in float32      o = p v
    dv = p' do      ds = p (do v' - sum(p do v'))      dq = ds k / sqrt(d)      dk = ds' q / sqrt(d)

    letter  shape               what it is
    q, o    (N, H, T, d)        queries of H heads, and what they read
    k, v    (N, K, T, d)        keys and values; H / K heads share each
    z       (N, H, T)           kept from the forward, and p is made again from it

The forward is torch's fused kernel. The backward goes over a few heads at a time, so that p and ds stay in the cache; nothing
of the size T x T is kept. Forward and backward on one core with AMX: a layer of SmolLM2, 16 sequences of 79 tokens, 43 ms
fused, 15 ms so; 16 sequences of 256 tokens and 4 heads of 64, 40 ms and 35 ms. In float32 the two are alike, on a GPU and for
long sequences the fused kernel is the better one: they are left to it.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "amenable"
LONGEST = 512  # tokens
BLOCK = 1 << 18  # numbers of p that are worked on at once, so that the passes over them stay in a core's cache


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
    found: torch.Tensor = _Causal.apply(query, key, value, scaling)  # type: ignore[no-untyped-call]
    return found


class _Causal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        length, whole, shared = query.shape[2], key.shape[2], query.shape[1] // key.shape[1]
        mask = None
        if length < whole:
            mask = torch.full((length, whole), -torch.inf, dtype=query.dtype).triu(whole - length + 1)
        keys, values = (part.repeat_interleave(shared, 1) if shared > 1 else part for part in (key, value))
        out, normaliser = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, keys, values, 0.0, mask is None, attn_mask=mask, scale=scaling
        )
        ctx.save_for_backward(query, key, value, normaliser)
        ctx.scaling = scaling
        mixed: torch.Tensor = out.transpose(1, 2)
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        query, key, value, normaliser = ctx.saved_tensors
        length, whole, groups = query.shape[2], key.shape[2], key.shape[0] * key.shape[1]
        # heads that share a key lie side by side as its queries: no key is copied
        given = (query, gradients[0].transpose(1, 2), normaliser.unsqueeze(-1), key, value)
        q, do, z, k, v = (part.reshape(groups, -1, part.shape[-1]) for part in given)
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        step = max(1, BLOCK // (q.shape[1] * whole))
        for first in range(0, groups, step):
            at = slice(first, first + step)
            # s in float32, as the fused kernel has it
            shares = torch.bmm(q[at].float().mul_(ctx.scaling), k[at].float().transpose(1, 2)).sub_(z[at]).exp_()
            shares.view(-1, length, whole).tril_(whole - length)
            slopes = torch.bmm(do[at], v[at].transpose(1, 2)).float()
            # sum(do o) would do, but for o that was rounded
            along = torch.linalg.vecdot(slopes, shares).unsqueeze(-1)
            slopes.sub_(along).mul_(shares).mul_(ctx.scaling)
            slopes = slopes.to(q.dtype)
            dv[at] = torch.bmm(shares.to(q.dtype).transpose(1, 2), do[at])
            dq[at] = torch.bmm(slopes, k[at])
            dk[at] = torch.bmm(slopes.transpose(1, 2), q[at])
        return dq.reshape(query.shape), dk.reshape(key.shape), dv.reshape(value.shape), None


def use(model: Any) -> Any:
    """`model`, made to attend so if it attends by torch's kernel now and its class lets that be chosen."""
    if getattr(model.config, "_attn_implementation", "") == "sdpa" and getattr(
        model, "_supports_attention_backend", False
    ):
        model.set_attn_implementation(NAME)
    return model


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
