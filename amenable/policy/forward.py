"""The forward of training and scoring for models of Llama's shape on a CPU, with its gradient written down.

    x = rms(h)   q, k, v = W x   q, k = rotate(q, k)   h += W attend(q, k, v)   x = rms(h)   h += W (silu(W x) * W x)

    letter  name     shape      what it is
    h       hidden   (M, D)     the stream between the layers, float32; M positions, laid side by side (`layout`): no padding,
                                and a prompt that samples share is read once

The law and the gradient are those of `transformers` to rounding. It is faster because there are few passes over
memory between two matrix products: `transformers` makes a tensor of each step of a norm, a rotation, a gate, and autograd keeps
most of them. Here h and what the products gave are kept, the rest is made again in the backward. Under autocast x is cast once
for all products that read it, their weights lie side by side as one matrix, and what autocast keeps in float32 (h, norms,
rotation) stays so.
A reward model's body is read so too; in bfloat16 its stream stays float32, which that of `transformers` does not.
Every other model, an adapter, a policy whose weights are not float32, another device: `transformers`' own forward.

Source of the architecture: Touvron et al. 2023, arXiv 2302.13971; grouped queries, Ainslie et al. 2023, arXiv 2305.13245.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from amenable.policy import attention
from amenable.policy.decoder import has_llamas_shape
from amenable.policy.layout import Block, Layout, laid_out


def written_down(model: Any, kinds: Sequence[torch.dtype] = (torch.float32,)) -> bool:
    """True if `states_at` is the forward of `model`: its shape, weights of one of `kinds` on a CPU, nothing hooked into it.

    A policy's are float32 only, since its law is that of `transformers`, whose stream has the precision of the weights.
    """
    if not has_llamas_shape(model) or model.device.type != "cpu" or model.training or "forward" in vars(model):
        return False
    if getattr(model.config, "mlp_bias", False) or model.config.hidden_act != "silu":
        return False
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        return False
    found = {value.dtype for value in model.base_model.parameters()}
    return len(found) == 1 and found <= set(kinds)


def hidden_states(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """What the head reads, (N, T, D) float32, of whole sequences `ids` (N, T)."""
    rows = ids.tolist()
    layout = laid_out([()] * len(rows), rows)
    return states_at(model, layout, torch.arange(ids.numel())).view(*ids.shape, -1)


def states_from(
    model: Any, contexts: Sequence[Sequence[int]], own: Sequence[Sequence[int]], starts: Sequence[int]
) -> list[torch.Tensor]:
    """Of each sequence `contexts[i] + own[i]` what the head reads from its place `starts[i]` on, (T, D) float32."""
    layout = laid_out(contexts, own)
    paths = [path[start:] for path, start in zip(layout.paths, starts, strict=True)]
    found = states_at(model, layout, torch.tensor([place for path in paths for place in path]))
    return list(torch.split(found, list(map(len, paths))))


def states_at(model: Any, layout: Layout, at: torch.Tensor) -> torch.Tensor:
    """What the head reads, (K, D) float32, at the positions `at` (K,) of `layout`.

    Products are computed in autocast's precision where it is on, else in that of the weights.
    """
    body = model.model
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else body.embed_tokens.weight.dtype
    with torch.autocast("cpu", enabled=False):
        hidden = body.embed_tokens(layout.ids).float()
        cosine, sine = (part[0] for part in body.rotary_emb(hidden, position_ids=layout.places.unsqueeze(0)))
        for layer in body.layers:
            reader = layer.self_attn
            projections = (reader.q_proj, reader.k_proj, reader.v_proj)
            heads = _Read.apply(  # type: ignore[no-untyped-call]
                hidden, layer.input_layernorm.weight, layer.input_layernorm.variance_epsilon, dtype, cosine, sine,
                *(module.weight for module in projections), *(module.bias for module in projections),
            )  # fmt: skip
            heads = [part.view(len(hidden), -1, reader.head_dim) for part in heads]
            mixed = _attend(heads, layout, reader.scaling)
            hidden = hidden + _product(mixed.flatten(1), reader.o_proj)
            norm, mlp = layer.post_attention_layernorm, layer.mlp
            hidden = _Gated.apply(  # type: ignore[no-untyped-call]
                hidden, norm.weight, norm.variance_epsilon, dtype,
                mlp.down_proj.weight, mlp.gate_proj.weight, mlp.up_proj.weight,
            )  # fmt: skip
        found: torch.Tensor = body.norm(hidden.index_select(0, at))
        return found


def _product(inputs: torch.Tensor, module: torch.nn.Linear) -> torch.Tensor:
    bias = None if module.bias is None else module.bias.to(inputs.dtype)
    return functional.linear(inputs, module.weight.to(inputs.dtype), bias)


def _attend(heads: Sequence[torch.Tensor], layout: Layout, scaling: float) -> torch.Tensor:
    """(M, H, d) from queries (M, H, d), keys and values (M, K, d)."""
    if layout.spread is not None:
        heads = [part.index_select(0, layout.spread) for part in heads]
    pieces = list(zip(*(torch.split(part, layout.sizes()) for part in heads), strict=True))
    found = []
    for block, contexts, rows in zip(layout.blocks, pieces[::2], pieces[1::2], strict=True):
        found += _attend_block(block, contexts, rows, scaling)
    mixed = torch.cat(found) if len(found) > 1 else found[0]
    return mixed if layout.slots is None else mixed.index_select(0, layout.slots)


def _attend_block(
    block: Block, contexts: Sequence[torch.Tensor], rows: Sequence[torch.Tensor], scaling: float
) -> list[torch.Tensor]:
    """Of the contexts (G P, H, d), and of the rows (R T, H, d), which read theirs and themselves."""
    found = []
    query, *read = (part.view(block.rows, block.length, *part.shape[1:]).transpose(1, 2) for part in rows)
    if block.before:
        first, *once = (part.view(block.contexts, block.before, *part.shape[1:]).transpose(1, 2) for part in contexts)
        found.append(_causal(first, once[0], once[1], scaling).flatten(0, 1))
        read = [torch.cat([part.index_select(0, block.context), own], 2) for part, own in zip(once, read, strict=True)]
    if block.length:
        found.append(_causal(query, read[0], read[1], scaling).flatten(0, 1))
    return found


def _causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    """(N, T, H, d); queries are the last T of the L positions that keys and values have. See `attention` for the choice."""
    length, whole = query.shape[2], key.shape[2]
    if query.dtype == torch.bfloat16 and query.requires_grad and whole <= attention.LONGEST:
        return attention.causal(query, key, value, scaling)
    mask = None
    if length < whole:
        mask = torch.full((length, whole), -torch.inf, dtype=query.dtype).triu(whole - length + 1)
    mixed = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=True
    )
    return mixed.transpose(1, 2)


class _Read(torch.autograd.Function):
    """Queries (M, H d), keys and values (M, K d) in `dtype`, rotated, from h (M, D); `parameters`: weights, then biases."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, scale: torch.Tensor, epsilon: float, dtype: torch.dtype,
        cosine: torch.Tensor, sine: torch.Tensor, *parameters: Any,
    ) -> tuple[torch.Tensor, ...]:  # fmt: skip
        inverse = _inverse_rms(hidden, epsilon)
        weights, biases = parameters[:3], parameters[3:]
        matrices = _side_by_side(weights, dtype)
        query, key, value = _products((hidden * inverse).mul_(scale).to(dtype), matrices, weights, biases)
        ctx.save_for_backward(hidden, inverse, scale, cosine, sine, *matrices)
        ctx.sizes = [len(weight) for weight in weights]
        return _rotated(query, cosine, sine), _rotated(key, cosine, sine), value.contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        hidden, inverse, scale, cosine, sine, *matrices = ctx.saved_tensors
        query, key, value = gradients
        slopes = [_rotated(query, cosine, -sine), _rotated(key, cosine, -sine), value]
        biases = [
            slope.sum(0, dtype=torch.float32) if wanted else None
            for slope, wanted in zip(slopes, ctx.needs_input_grad[9:], strict=True)
        ]
        unit = hidden * inverse
        d_hidden, d_scale, d_weights = _back(ctx, slopes, matrices, unit, inverse, scale, ctx.needs_input_grad[6:9])
        return d_hidden, d_scale, None, None, None, None, *d_weights, *biases


class _Gated(torch.autograd.Function):
    """h + W_down (silu(W_gate x) * W_up x), x = rms(h)."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, scale: torch.Tensor, epsilon: float, dtype: torch.dtype,
        down: torch.Tensor, *weights: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        inverse = _inverse_rms(hidden, epsilon)
        down, matrices = down.to(dtype), _side_by_side(weights, dtype)
        gate, up = _products((hidden * inverse).mul_(scale).to(dtype), matrices, weights)
        ctx.save_for_backward(hidden, inverse, scale, gate, up, down, *matrices)
        ctx.sizes = [len(weight) for weight in weights]
        found: torch.Tensor = (functional.silu(gate).mul_(up) @ down.T).float().add_(hidden)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        hidden, inverse, scale, gate, up, down, *matrices = ctx.saved_tensors
        onward = gradients[0]
        slope = onward.to(down.dtype)
        active = functional.silu(gate)
        d_down = (slope.T @ (active * up)).float() if ctx.needs_input_grad[4] else None
        d_product = slope @ down
        slopes = [torch.ops.aten.silu_backward(d_product * up, gate), d_product.mul_(active)]
        unit = hidden * inverse
        d_hidden, d_scale, d_weights = _back(ctx, slopes, matrices, unit, inverse, scale, ctx.needs_input_grad[5:])
        return d_hidden.add_(onward), d_scale, None, None, d_down, *d_weights


def _inverse_rms(hidden: torch.Tensor, epsilon: float) -> torch.Tensor:
    """1 / sqrt(mean of squares + epsilon) of each row, (M, 1)."""
    squares: torch.Tensor = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True).square_()
    return squares.div_(hidden.shape[-1]).add_(epsilon).rsqrt_()


def _side_by_side(weights: Sequence[torch.Tensor], dtype: torch.dtype) -> Sequence[torch.Tensor]:
    """The matrices of one input: as they are, or cast into one, which costs no more than the casts."""
    if dtype == weights[0].dtype:
        return weights
    joined = torch.empty(sum(map(len, weights)), weights[0].shape[1], dtype=dtype)
    for part, weight in zip(torch.split(joined, [len(weight) for weight in weights]), weights, strict=True):
        part.copy_(weight)
    return [joined]


def _products(
    inputs: torch.Tensor, matrices: Sequence[torch.Tensor], weights: Sequence[torch.Tensor],
    biases: Sequence[torch.Tensor | None] = (),
) -> Sequence[torch.Tensor]:  # fmt: skip
    """`inputs` times each of `weights`, by their `matrices`; `biases` of all or of none."""
    given = [bias.to(inputs.dtype) for bias in biases if bias is not None]
    joined = len(matrices) < len(weights)
    if given:
        added = [torch.cat(given)] if joined else given
        found = [torch.addmm(bias, inputs, matrix.T) for bias, matrix in zip(added, matrices, strict=True)]
    else:
        found = [inputs @ matrix.T for matrix in matrices]
    return torch.split(found[0], [len(weight) for weight in weights], -1) if joined else found


def _rotated(states: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Each head (M, d) of `states` (M, H d) turned by its position's angle; with -sine, turned back."""
    heads = states.view(len(states), -1, cosine.shape[-1])
    half = cosine.shape[-1] // 2
    turned = heads * cosine.unsqueeze(1)  # float32
    first, second, sine = heads[..., :half], heads[..., half:], sine[:, None, :half]
    turned[..., :half].addcmul_(second.float(), sine, value=-1)
    turned[..., half:].addcmul_(first.float(), sine)
    return turned.to(states.dtype).flatten(1)


def _back(
    ctx: Any, slopes: list[torch.Tensor], matrices: Sequence[torch.Tensor],
    unit: torch.Tensor, inverse: torch.Tensor, scale: torch.Tensor, wanted: Sequence[bool],
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor | None]]:  # fmt: skip
    """From d/d products to d/dh, d/d scale and d/dW of x = unit * scale, unit = h * inverse; `unit` is written over.

    dx = sum W' d      dh = inverse (scale dx - unit mean(unit scale dx))
    """
    if len(matrices) < len(slopes):
        slopes = [torch.cat(slopes, -1)]
    inputs = (unit * scale).to(slopes[0].dtype)
    d_weights: list[torch.Tensor | None] = [None] * len(wanted)
    if any(wanted):
        made = [slope.T @ inputs for slope in slopes]
        d_weights = list(made) if len(made) > 1 else [part.float() for part in torch.split(made[0], ctx.sizes)]
    d_inputs = slopes[0] @ matrices[0]
    for slope, matrix in zip(slopes[1:], matrices[1:], strict=True):
        d_inputs.addmm_(slope, matrix)
    d_inputs = d_inputs.float()
    along = d_inputs * unit
    mean = (along @ scale).div_(len(scale)).unsqueeze(1)
    d_hidden = d_inputs.mul_(scale).sub_(unit.mul_(mean)).mul_(inverse)
    return d_hidden, along.sum(0), [value if want else None for value, want in zip(d_weights, wanted, strict=True)]
