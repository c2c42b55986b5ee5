"""Keys and values of a batch of rows, in buffers that are allocated once and rebuilt when the batch changes.

A row's tokens fill the columns from its `start` to `used`; columns before `start` belong to nobody and are masked.
Rotary keys carry their own position, so the column a token lies in does not matter, only which columns a row may see.
`rebuild` is the one operation behind compaction, refilling and growth: keep some rows, drop the columns that no kept
row uses, append the rows of a fresh prefill, and leave room for more columns.
"""

from __future__ import annotations

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


def rebuild(
    old: Cache | None, keep: torch.Tensor, drop: int, fresh: DynamicCache | None, copies: torch.Tensor, room: int
) -> Cache:
    """A new cache of the `keep` rows of `old` followed by rows `copies` of `fresh`, right-aligned, with `room` free columns.

    keep    (K,) int64, rows of `old` to keep; the first `drop` columns are left out
    copies  (C,) int64, rows of the prefill, repeated for the samples that share a prompt
    room    columns left free for tokens to come
    """
    layers = []
    old_layers = old.layers if old is not None else [None] * len(fresh.layers if fresh is not None else [])
    for index, layer in enumerate(old_layers):
        new = fresh.layers[index] if fresh is not None else None
        width_new = new.keys.shape[-2] if new is not None else 0
        used = max(layer.used - drop if layer is not None else 0, width_new)
        pair = []
        for name in ("keys", "values"):
            source = getattr(layer if layer is not None else new, name)
            rows = (len(keep) if layer is not None else 0) + (len(copies) if new is not None else 0)
            buffer = source.new_zeros(rows, source.shape[1], used + room, source.shape[3])
            if layer is not None:
                kept = getattr(layer, name)[:, :, drop : layer.used].index_select(0, keep)
                buffer[: len(keep), :, used - kept.shape[-2] : used] = kept
            if new is not None:
                buffer[rows - len(copies) :, :, used - width_new : used] = getattr(new, name).index_select(0, copies)
            pair.append(buffer)
        layers.append(Columns(pair[0], pair[1], used))
    return Cache(layers=layers)
