"""From hidden states to log-probabilities of given tokens, without ever holding the logits of more than a chunk.

    l_i = W h_i + b      log pi_i = l_i[y_i] - log sum_v exp l_i[v]      loss = sum_i w_i log pi_i
    dloss/dl_i = w_i (onehot(y_i) - softmax(l_i))      dh_i = W' dl_i      dW = sum_i dl_i h_i'      db = sum_i dl_i

    letter  name      shape    what it is
    h       hidden    (M, D)   what the last layer hands to the head, at positions that predict a token
    y       targets   (M,)     the tokens
    W, b    head      (V, D)   the output layer, and its bias (V,) if it has one
    w       weights   (M,)     known before the forward, or the gradient that arrives later
    l                 (C, V)   logits of a chunk, made in one buffer and overwritten by softmax(l) - onehot(y)

Logits are the largest thing in a step: 50,000 numbers a token. Where the weights are known beforehand, as in every
score-function method and in imitation, the gradient is formed while a chunk's softmax is at hand: three products of (M, V, D)
in all, nothing kept. Otherwise softmax(l) - onehot is kept for the backward if it fits into `KEPT` bytes; else the backward
makes the logits again: four products.
Under autocast the products are in its precision; log-sum-exp and the sums over chunks stay float32.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

import torch
from torch.nn import functional

from amenable.policy import forward

CHUNK = 1024  # rows of logits at once: with fewer, reading and writing dW costs more than the products
KEPT = 1 << 28  # bytes of softmax(l) - onehot that a forward may leave to its backward
BLOCK = (
    1 << 17
)  # numbers of a chunk that are worked on at once on a CPU, so that the passes over them stay in its cache

_NOT_LAST: WeakSet[torch.nn.Module] = (
    WeakSet()
)  # heads whose model does something more to their output (soft-capping, scaling)


def plain_head(model: Any) -> torch.nn.Linear | None:
    """The output layer, if it is a plain linear layer and, as far as is known, the last thing the model does."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return head if type(head) is torch.nn.Linear and head not in _NOT_LAST else None


def hidden_states(model: Any, head: torch.nn.Linear, **inputs: Any) -> torch.Tensor | None:
    """What `head` would be given, (N, T, D). None if the model's logits are not simply what `head` says of it.

    Of token ids alone they are made by `forward`, for a model that it has written down. Else the head is made to hand through
    its input; if the model's answer is that very tensor, nothing comes after the head.
    """
    if {name for name, value in inputs.items() if value is not False} == {"input_ids"} and forward.written_down(model):
        return forward.hidden_states(model, inputs["input_ids"])
    seen: list[torch.Tensor] = []

    def through(hidden: torch.Tensor) -> torch.Tensor:
        seen.append(hidden)
        return hidden

    head.forward = through  # type: ignore[method-assign, assignment]
    try:
        logits: torch.Tensor = model(**inputs).logits
    finally:
        del head.forward
    if len(seen) == 1 and logits is seen[0]:
        return logits
    _NOT_LAST.add(head)
    return None


def log_probs(hidden: torch.Tensor, head: torch.nn.Linear, targets: torch.Tensor) -> torch.Tensor:
    """log pi (M,) float32 nats of `targets` (M,) after `hidden` (M, D); carries gradient, whatever weights come later."""
    found: torch.Tensor = _LogProbs.apply(hidden, head.weight, head.bias, targets, _precision(hidden))  # type: ignore[no-untyped-call]
    return found


def weighted_log_probs(
    hidden: torch.Tensor, head: torch.nn.Linear, targets: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """sum_i w_i log pi_i, a float32 scalar that carries gradient, made here and now; and log pi (M,), which carries none."""
    loss, values = _Weighted.apply(hidden, head.weight, head.bias, targets, weights.float(), _precision(hidden))  # type: ignore[no-untyped-call]
    return loss, values


def log_probs_of_logits(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """log pi (M,) float32 nats from logits (M, V): the way for models whose head is not plain."""
    return -functional.cross_entropy(logits.float(), targets, reduction="none")


def _precision(hidden: torch.Tensor) -> torch.dtype | None:
    """What autocast computes products in, None where it is off."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        precision: torch.dtype | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.precision = precision
        made = _Pass(hidden, weight, bias, precision)
        size = len(targets) * len(weight) * made.hidden.element_size()
        values = made.run(targets, None, keep=any(ctx.needs_input_grad[:3]) and size <= KEPT)
        ctx.slopes = made.slopes
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        made = _Pass(hidden, weight, bias, ctx.precision, wanted=ctx.needs_input_grad[:3])
        made.slopes, ctx.slopes = ctx.slopes, None  # a second backward makes them again
        made.run(targets, gradients[0])
        return made.d_hidden, made.d_weight, made.d_bias, None, None


class _Weighted(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        weights: torch.Tensor,
        precision: torch.dtype | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        made = _Pass(hidden, weight, bias, precision, wanted=ctx.needs_input_grad[:3])
        values = made.run(targets, weights)
        ctx.made = made.d_hidden, made.d_weight, made.d_bias
        ctx.mark_non_differentiable(values)
        return (weights * values).sum(), values

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        made, ctx.made = ctx.made, None  # a second backward is an error, as it is of any freed graph
        if made is None:
            raise RuntimeError("the gradient of these log-probabilities has been taken already")
        scale = gradients[0]
        for part in made if float(scale) != 1.0 else ():
            if part is not None:
                part.mul_(scale)
        return *made, None, None, None


class _Pass:
    """One pass over the chunks; `d_hidden`, `d_weight`, `d_bias` are there afterwards if they were `wanted`."""

    def __init__(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        precision: torch.dtype | None,
        wanted: tuple[bool, ...] = (False, False, False),
    ) -> None:
        dtype = precision or weight.dtype
        self.hidden, self.weight = hidden.detach().to(dtype), weight.detach().to(dtype)
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.d_hidden = torch.empty_like(hidden) if wanted[0] else None
        self.d_weight: torch.Tensor | None = None  # made by the first chunk
        self.d_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and wanted[2] else None
        self.dtype, self.wanted = weight.dtype, wanted
        self.slopes: torch.Tensor | None = None

    @torch.no_grad()
    def run(self, targets: torch.Tensor, weights: torch.Tensor | None, *, keep: bool = False) -> torch.Tensor:
        """log pi (M,); and the gradient of sum_i w_i log pi_i, if there are weights. `keep`: softmax - onehot in `slopes`."""
        values = torch.empty(len(targets), dtype=torch.float32, device=targets.device)
        rows = max(1, min(CHUNK, len(targets)))
        made = self.slopes is not None
        room = self.slopes if made else self.hidden.new_empty(len(targets) if keep else rows, len(self.weight))
        assert room is not None
        with torch.autocast(targets.device.type, enabled=False):
            for first in range(0, len(targets), rows):
                chunk = slice(first, min(first + rows, len(targets)))
                logits = room[chunk] if made or keep else room[: chunk.stop - first]
                if not made:
                    self._logits(self.hidden[chunk], logits)
                    values[chunk] = _normalised(logits, targets[chunk], keep or weights is not None)
                if weights is not None:
                    self._add(chunk, logits, -weights[chunk].unsqueeze(1))
        self.slopes = room if keep else None
        self.d_weight = None if self.d_weight is None else self.d_weight.to(self.dtype)
        self.d_bias = None if self.d_bias is None else self.d_bias.to(self.dtype)
        return values

    def _logits(self, hidden: torch.Tensor, out: torch.Tensor) -> None:
        if self.bias is None:
            torch.mm(hidden, self.weight.T, out=out)
        else:
            torch.addmm(self.bias, hidden, self.weight.T, out=out)

    def _add(self, chunk: slice, slopes: torch.Tensor, factor: torch.Tensor) -> None:
        """`slopes` (C, V) = softmax - onehot; `factor` (C, 1) = -w, put on the small side of each product."""
        if self.d_hidden is not None:
            self.d_hidden[chunk] = (slopes @ self.weight).float().mul_(factor)
        scaled = (self.hidden[chunk] * factor).to(slopes.dtype)
        if self.wanted[1]:
            if self.d_weight is None:
                self.d_weight = (slopes.T @ scaled).float()
            elif slopes.dtype == torch.float32:
                self.d_weight.addmm_(slopes.T, scaled)
            else:
                self.d_weight += slopes.T @ scaled
        if self.d_bias is not None:
            self.d_bias += (slopes.T @ factor.to(slopes.dtype)).squeeze(1)


def _normalised(logits: torch.Tensor, targets: torch.Tensor, gradient: bool) -> torch.Tensor:
    """log pi (C,) float32; `logits` (C, V) becomes softmax - onehot in place if `gradient` is asked for.

    At the target softmax - 1 is written as expm1(log pi), which is right where softmax is nearly 1.
    """
    size = logits.shape[1]
    rows = max(1, BLOCK // size) if logits.device.type == "cpu" else len(logits)
    values = []
    for block, target in zip(torch.split(logits, rows), torch.split(targets, rows), strict=True):
        place = target.unsqueeze(1)
        full = block.float()
        at_target = full.gather(1, place)
        top = full.amax(1, keepdim=True)
        if gradient:
            shares = torch.softmax(full, 1)
            value = at_target - top + shares.amax(1, keepdim=True).log()  # the largest share is 1 / sum exp(l - top)
            block.copy_(shares).scatter_(1, place, torch.expm1(value).to(block.dtype))
        else:
            value = at_target - full.logsumexp(1, keepdim=True)
        values.append(value.squeeze(1))
    return torch.cat(values)
