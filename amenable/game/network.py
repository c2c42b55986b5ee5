"""Networks for S seeds at once: every weight has a leading seeds axis, and no operation mixes two seeds.

    flat  (S, P)   all weights of seed i in row i, drawn from seed i's own random stream
    layer          y_s = x_s W_s + b_s, one batched matrix product for all seeds

P is rounded up to a multiple of 16, so that the optimiser's vector instructions meet every seed's weights in the same
places: seed i of 64 then gets the bits that it gets alone (CPU, float32, the same number of threads), where the processor
multiplies a matrix alone as it does in a batch. Intel's do; on an AMD, MKL does not, and one seed differs by rounding.
Weights and biases are drawn uniformly from +-1/sqrt(inputs of the layer), as torch.nn.Linear does.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Self

import torch

from amenable.seeding import torch_generator

LANE = 16


class Network(torch.nn.Module):
    """S networks of one architecture. `layers`: each weight's shape and number of inputs, which sets its size."""

    def __init__(
        self,
        layers: Sequence[tuple[tuple[int, ...], float]],
        seeds: Sequence[int],
        role: str,
        device: str | torch.device,
    ) -> None:
        super().__init__()
        self.shapes = [shape for shape, _ in layers]
        sizes = [math.prod(shape) for shape in self.shapes]
        self._sizes = [*sizes, -sum(sizes) % LANE]
        total = sum(self._sizes)
        bounds = [torch.full((size,), inputs**-0.5) for size, (_, inputs) in zip(sizes, layers, strict=True)]
        bound = torch.cat([*bounds, torch.zeros(self._sizes[-1])])
        rows = [torch.rand(total, generator=torch_generator(seed, "game", role)) for seed in seeds]
        self.flat = torch.nn.Parameter(((2 * torch.stack(rows) - 1) * bound).to(device))

    @property
    def seeds(self) -> int:
        """S."""
        return self.flat.shape[0]

    def weights(self) -> list[torch.Tensor]:
        """The weights as (S, *shape) views, in the order of `layers`."""
        parts = self.flat.split_with_sizes(self._sizes, 1)
        return [part.view(-1, *shape) for part, shape in zip(parts, self.shapes, strict=False)]

    def copied(self) -> Self:
        """A copy with weights of its own."""
        made = copy.copy(self)
        made._parameters = {"flat": torch.nn.Parameter(self.flat.detach().clone())}
        return made


def dense(inputs: int, outputs: int) -> list[tuple[tuple[int, ...], float]]:
    """The two weights of a linear layer, for `Network`."""
    return [((inputs, outputs), inputs), ((1, outputs), inputs)]


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """(S, B, inputs) or shared (B, inputs) -> (S, B, outputs)."""
    return torch.baddbmm(bias, x.expand(len(weight), *x.shape[-2:]), weight)


def one_hot(symbols: torch.Tensor, count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """(...) int64 -> (..., count), without the checks and the whole numbers of torch's own."""
    zeros = torch.zeros(*symbols.shape, count, dtype=dtype, device=symbols.device)
    return zeros.scatter_(-1, symbols.unsqueeze(-1), 1.0)


def draw_symbols(probabilities: torch.Tensor, uniforms: torch.Tensor | None) -> torch.Tensor:
    """Symbols (...) from probabilities (..., A) by inverse CDF; the most likely ones if `uniforms` (...) is None."""
    if uniforms is None:
        return probabilities.argmax(-1)
    return (probabilities.cumsum(-1)[..., :-1] <= uniforms.unsqueeze(-1)).sum(-1)
