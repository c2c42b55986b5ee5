"""Draw one token a row from softmax(logits), and say its log-probability: inverse CDF in two levels.

    p_v = exp(l_v / T - max)      S_b = sum of p over block b of 256      r = u * sum_b S_b
    block = first b with S_0 + .. + S_b > r;   token = first v of the block whose running sum passes the rest of r
    log-probability = l_v / T - max - log sum_b S_b                                              (nats, float32)

    letter  name             shape    unit
    l       logits           (R, V)   nats
    u       uniforms         (R,)     one number in [0, 1) a row, float64
    T       temperature      scalar   0 means the most likely token

`torch.multinomial` makes V exponentials a row, serially on a CPU: for 64 x 49,152 logits 85 to 105 ms against about 4 ms
here. One uniform a row also makes a sample independent of the batch it was drawn in: its uniforms are its own.
Nucleus and top-k restrict the law before the draw (Holtzman et al. 2019, arXiv 1904.09751); the log-probability is then
that of the restricted law.
"""

from __future__ import annotations

import torch

from amenable.records import Decoding

BLOCK = 256
CHUNK = 1 << 20  # numbers handled at once on a CPU, so that the passes over them stay in its cache
BELOW_ONE = 1.0 - 2.0**-50


def draw(logits: torch.Tensor, uniforms: torch.Tensor, decoding: Decoding) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (R,) int64 and their log-probabilities (R,) float32 in nats, under the law that `decoding` names."""
    if decoding.temperature == 0:
        return logits.argmax(-1), torch.zeros(logits.shape[0], dtype=torch.float32, device=logits.device)
    rows = max(1, CHUNK // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    if rows < len(logits):
        pieces = zip(torch.split(logits, rows), torch.split(uniforms, rows), strict=True)
        tokens, log_probs = zip(*(_draw(part, numbers, decoding) for part, numbers in pieces), strict=True)
        return torch.cat(tokens), torch.cat(log_probs)
    return _draw(logits, uniforms, decoding)


def _draw(logits: torch.Tensor, uniforms: torch.Tensor, decoding: Decoding) -> tuple[torch.Tensor, torch.Tensor]:
    scaled = logits.float()
    if decoding.temperature != 1:
        scaled = scaled / decoding.temperature
    if decoding.top_k or decoding.top_p < 1:
        scaled = restrict(scaled, decoding.top_k, decoding.top_p)
    return invert(scaled, uniforms)


def restrict(logits: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """Set all but the `top_k` likeliest tokens (0: all), then all but the smallest set of mass `top_p`, to -inf."""
    values, order = logits.sort(dim=-1, descending=True)
    if top_k:
        values[..., top_k:] = -torch.inf
    probabilities = values.softmax(-1)
    outside = probabilities.cumsum(-1) - probabilities >= top_p  # the token that crosses top_p stays in
    values[outside] = -torch.inf
    return torch.empty_like(logits).scatter_(-1, order, values)


def invert(scaled: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Inverse-CDF draw from softmax(`scaled`) (R, V) at `uniforms` (R,); a token of probability 0 is never returned."""
    rows, size = scaled.shape
    blocks = -(-size // BLOCK)
    top = scaled.amax(-1, keepdim=True)
    mass = scaled.new_empty(rows, blocks * BLOCK)
    mass[:, size:] = 0
    torch.sub(scaled, top, out=mass[:, :size])
    mass[:, :size].exp_()
    mass = mass.view(rows, blocks, BLOCK)
    running = mass.sum(-1).double().cumsum(-1)
    total = running[:, -1]
    target = (uniforms.double() * total).minimum(total * BELOW_ONE)
    block = torch.searchsorted(running, target.unsqueeze(-1), right=True).squeeze(-1)
    before = torch.where(block > 0, running.gather(-1, (block - 1).clamp(min=0).unsqueeze(-1)).squeeze(-1), 0.0)
    inside = mass[torch.arange(rows, device=mass.device), block].double().cumsum(-1)
    rest = (target - before).clamp(min=0).minimum(inside[:, -1] * BELOW_ONE)
    offset = torch.searchsorted(inside, rest.unsqueeze(-1), right=True).squeeze(-1)
    tokens = block * BLOCK + offset
    log_probs = scaled.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - top.squeeze(-1) - total.log().float()
    return tokens, log_probs
