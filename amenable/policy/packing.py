"""Linear layers with weights laid out once for the matrix units, for as long as a batch is being sampled.

oneDNN reorders a weight matrix on every call unless it is handed one in its own layout. Decoding calls the same matrices
thousands of times, so they are reordered once on entry: 1.3 to 1.7 times faster products at 64 to 128 rows here
(`bench/sampling.py`). Layers that are given the same input one after the other (`TOGETHER`) are one product: the first
computes for all, the others hand out their part. The weights themselves are not touched; the copies are dropped on exit,
so a policy that learns between two batches is never sampled with old weights. On other devices, or a PyTorch without the
operator: no change.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

Product = Callable[[torch.Tensor], torch.Tensor]
TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


@contextmanager
def packed_linears(model: Any, rows: int) -> Iterator[Callable[..., Product]]:
    """Within the block, the CPU linear layers of `model` use weights packed for inputs of about `rows` rows.

    Gives a function from linear layers to their product side by side: one product where they were packed together.
    """
    swapped: list[torch.nn.Linear] = []
    products: dict[tuple[int, ...], Product] = {}
    try:
        if _available():
            for group in _groups(model):
                whole, parts = _packed(group, rows)
                products[tuple(map(id, group))] = whole
                for module, forward in zip(group, parts, strict=True):
                    module.forward = forward  # type: ignore[method-assign]
                    swapped.append(module)
        yield lambda *modules: products.get(tuple(map(id, modules))) or partial(_side_by_side, modules)
    finally:
        for module in swapped:
            del module.forward


def _side_by_side(modules: Sequence[torch.nn.Linear], inputs: torch.Tensor) -> torch.Tensor:
    return torch.cat([module(inputs) for module in modules], -1) if len(modules) > 1 else modules[0](inputs)


def _groups(model: Any) -> list[list[torch.nn.Linear]]:
    """The plain CPU linear layers, those that go together as one list."""
    together = [[getattr(parent, name, None) for name in names] for parent in model.modules() for names in TOGETHER]
    groups = [group for group in together if all(map(_plain, group)) and len({_kind(module) for module in group}) == 1]
    grouped = {id(module) for group in groups for module in group}
    return groups + [[module] for module in model.modules() if _plain(module) and id(module) not in grouped]


def _plain(module: Any) -> bool:
    return type(module) is torch.nn.Linear and module.weight.device.type == "cpu"


def _kind(module: Any) -> tuple[int, torch.dtype, bool]:
    return module.in_features, module.weight.dtype, module.bias is None


def _available() -> bool:
    return hasattr(torch.ops.mkldnn, "_reorder_linear_weight") and torch._C._has_mkldnn


def _packed(group: list[torch.nn.Linear], rows: int) -> tuple[Product, list[Any]]:
    """The product of a group, and the forward of each of its layers.

    What the first layer has computed for the others is kept for its thread.
    """
    operators: Any = torch.ops.mkldnn
    weights = torch.cat([module.weight.detach() for module in group]) if len(group) > 1 else group[0].weight.detach()
    weight = operators._reorder_linear_weight(weights, rows)
    bias = None if group[0].bias is None else torch.cat([module.bias.detach() for module in group])

    def product(inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = operators._linear_pointwise(inputs, weight, bias, "none", [], "")
        return found

    if len(group) == 1:
        return product, [product]
    sizes = [module.out_features for module in group]
    held = threading.local()

    def part(index: int, inputs: torch.Tensor) -> torch.Tensor:
        if index == 0 or getattr(held, "inputs", None) is not inputs:
            held.inputs, held.parts = inputs, torch.split(product(inputs), sizes, -1)
        found: torch.Tensor = held.parts[index]
        if index == len(sizes) - 1:
            del held.inputs, held.parts
        return found

    return product, [partial(part, index) for index in range(len(sizes))]
