"""Parts and sums of batches of samples, and batches as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch.nn import functional

from amenable.records import Decoding, Samples


def subset(samples: Samples, places: Sequence[int]) -> Samples:
    """The samples at `places`, in that order; a place may come twice."""
    chosen = torch.tensor(list(places), dtype=torch.int64)
    lengths = samples.lengths[chosen]
    width = max(1, int(lengths.max())) if len(chosen) else 1
    return Samples(
        context_ids=[samples.context_ids[place] for place in places],
        tokens=samples.tokens[chosen, :width],
        lengths=lengths,
        log_probs=samples.log_probs[chosen, :width],
        texts=[samples.texts[place] for place in places],
        ended=[samples.ended[place] for place in places],
        decoding=samples.decoding,
    )


def concatenated(batches: Sequence[Samples]) -> Samples:
    """Batches one after the other, padded to the widest; they share one decoding."""
    width = max(batch.tokens.shape[1] for batch in batches)

    def padded(values: torch.Tensor) -> torch.Tensor:
        return functional.pad(values, (0, width - values.shape[1]))

    return Samples(
        context_ids=[ids for batch in batches for ids in batch.context_ids],
        tokens=torch.cat([padded(batch.tokens) for batch in batches]),
        lengths=torch.cat([batch.lengths for batch in batches]),
        log_probs=torch.cat([padded(batch.log_probs) for batch in batches]),
        texts=[text for batch in batches for text in batch.texts],
        ended=[why for batch in batches for why in batch.ended],
        decoding=batches[0].decoding,
    )


def as_plain(samples: Samples) -> dict[str, Any]:
    """Data that JSON keeps exactly; `from_plain` is its inverse."""
    return {
        "context_ids": [list(ids) for ids in samples.context_ids],
        "tokens": samples.tokens.tolist(),
        "lengths": samples.lengths.tolist(),
        "log_probs": samples.log_probs.tolist(),
        "dtype": str(samples.log_probs.dtype).removeprefix("torch."),
        "texts": list(samples.texts),
        "ended": list(samples.ended),
        "decoding": asdict(samples.decoding),
    }


def from_plain(plain: dict[str, Any]) -> Samples:
    """The samples that `as_plain` wrote down."""
    return Samples(
        context_ids=plain["context_ids"],
        tokens=torch.tensor(plain["tokens"], dtype=torch.int64),
        lengths=torch.tensor(plain["lengths"], dtype=torch.int64),
        log_probs=torch.tensor(plain["log_probs"], dtype=getattr(torch, plain["dtype"])),
        texts=plain["texts"],
        ended=plain["ended"],
        decoding=Decoding(**{**plain["decoding"], "stop": tuple(plain["decoding"]["stop"])}),
    )
