"""Which tokens of a text a reward model reads.

    h(x) = 1/|R| sum over t in R of h_t        h_t  (D,) the body's hidden state at token t of prompt + answer + end
                                               R    the tokens that are read: all from `start` on

    reads="last"      R = the last token, which is the end
    reads="answer"    R = the answer's tokens and the end, so that an empty answer has one token too

A token is the answer's if it ends behind the prompt: one that holds the prompt's last character and the answer's first counts.
A linear head on a mean of states is the mean of a number a token, w . h(x) = mean of w . h_t: so a text's reward is the mean
of what each token is worth, and a token classifier of one label holds the whole model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

Reads = Literal["last", "answer"]
READS: tuple[Reads, ...] = ("last", "answer")


@dataclass(frozen=True)
class Encoded:
    """A whole text, its end included, as token ids; it is read from token `start` on."""

    ids: list[int]
    start: int

    def __len__(self) -> int:
        return len(self.ids)


def encode(tokenizer: Any, prompt: str, completion: str, *, end: int | None, reads: Reads) -> Encoded:
    """prompt + completion as one text, and token `end` behind it, unless it stands there already (None: nothing).

    reads="answer" needs a tokenizer that knows where in the text its tokens stand (a fast one).
    """
    placed = reads == "answer"
    found = tokenizer(prompt + completion, verbose=False, return_offsets_mapping=placed)
    ids = list(found["input_ids"])
    start = len(ids)
    if placed:
        ends = [last for _, last in found["offset_mapping"]]
        start = next((place for place, last in enumerate(ends) if last > len(prompt)), len(ids))
    if end is not None and ids[-1:] != [end]:
        ids.append(end)
    return Encoded(ids, start if placed and start < len(ids) else max(0, len(ids) - 1))


def mean_states(hidden: torch.Tensor, texts: Sequence[Encoded]) -> torch.Tensor:
    """h (N, D) float32 of `hidden` (N, T, D), whose rows may be longer than their texts."""
    read = [row[text.start : len(text)].float().mean(0) for row, text in zip(hidden, texts, strict=True)]
    return torch.stack(read)
