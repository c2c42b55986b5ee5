"""Keys and values of a batch of rows, in buffers that are allocated once and rebuilt when the batch changes.

A row's tokens fill the columns from its `start` to `used`; columns before `start` belong to nobody and are masked.
Rotary keys carry their own position, so the column a token lies in does not matter, only which columns a row may see.
`rebuild` is the one operation behind compaction, refilling and growth: keep some rows, drop the columns that no kept
row uses, append the rows of a fresh prefill, and leave room for more columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache


class Columns(CacheLayerMixin):  # type: ignore[misc]
    """One layer: keys and values in buffers (R, heads, capacity, head size), the first `used` columns filled."""

    is_sliding = False
    is_croppable = False

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, used: int) -> None:
        super().__init__()
        self.keys, self.values, self.used = keys, values, used
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: the buffers are given."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new columns in place and return all that are filled, without a copy."""
        end = self.used + key_states.shape[-2]
        self.keys[:, :, self.used : end] = key_states
        self.values[:, :, self.used : end] = value_states
        self.used = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.used + query_length, 0

    def get_seq_length(self) -> int:
        return self.used

    def get_max_length(self) -> int:
        return int(self.keys.shape[-2])


Prefill = tuple[DynamicCache, torch.Tensor]
"""What was read of some prompts, and for each sample that continues one, its row there: (C,) int64."""


def rebuild(old: Cache | None, keep: torch.Tensor, drop: int, fresh: Sequence[Prefill], room: int) -> Cache:
    """A new cache of the `keep` rows of `old` and then the rows of `fresh`, right-aligned, with `room` free columns.

    keep (K,) int64, rows of `old`; the first `drop` columns of `old` are left out.
    """
    layers = []
    for index in range(len((old or fresh[0][0]).layers)):
        pair = []
        for name in ("keys", "values"):
            parts = [getattr(cache.layers[index], name).index_select(0, copies) for cache, copies in fresh]
            if old is not None:
                layer = old.layers[index]
                parts.insert(0, getattr(layer, name)[:, :, drop : layer.used].index_select(0, keep))
            used = max(part.shape[2] for part in parts)
            rows = sum(part.shape[0] for part in parts)
            buffer = parts[0].new_zeros(rows, parts[0].shape[1], used + room, parts[0].shape[3])
            row = 0
            for part in parts:
                buffer[row : row + part.shape[0], :, used - part.shape[2] : used] = part
                row += part.shape[0]
            pair.append(buffer)
        layers.append(Columns(pair[0], pair[1], used))
    return Cache(layers=layers)
