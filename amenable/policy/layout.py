"""Sequences laid side by side without padding; what they have in common stands there once.

    positions   of the different contexts, a beginning that two of them share counted once; then what is each row's own
    blocks      rows whose contexts are equally long: attention needs no mask for them but the causal one

N samples of each of C prompts are read as C prompts and N C answers: every product of a forward has so many rows, and no more.
Only attention knows of rows. For it the positions are spread out block by block, a shared beginning once a context, a row's
end filled up to its block's longest; what it finds goes back. Where nothing is shared or filled up, spreading changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

LEAST = 1 / 32  # of all positions: what contexts must have in common to be read by themselves


@dataclass(frozen=True)
class Block:
    """R rows that continue G contexts of the same length P with at most T tokens of their own."""

    contexts: int
    before: int
    rows: int
    length: int
    context: torch.Tensor
    """(R,) int64: which of the contexts a row continues."""


@dataclass(frozen=True)
class Layout:
    """M positions: their tokens and places in their sequences (M,); how they are spread out for attention."""

    ids: torch.Tensor
    places: torch.Tensor
    paths: list[list[int]]
    """Of each sequence, the positions that it is read at, in order."""
    blocks: list[Block]
    spread: torch.Tensor | None
    """(S,) int64, the positions block by block: G x P of the contexts, R x T of the rows. None if that is how they lie."""
    slots: torch.Tensor | None
    """(M,) int64: where among the S each position is."""

    def sizes(self) -> list[int]:
        """Of each block in turn, how many of the S are contexts' and how many rows'."""
        return [size for b in self.blocks for size in (b.contexts * b.before, b.rows * b.length)]


def laid_out(contexts: Sequence[Sequence[int]], own: Sequence[Sequence[int]]) -> Layout:
    """Sequences `contexts[i] + own[i]`, contexts read once if that saves something."""
    total = sum(map(len, contexts)) + sum(map(len, own))
    shared = _laid(contexts, own)
    if total - len(shared.ids) >= LEAST * total:
        return shared
    return _laid([()] * len(own), [[*first, *then] for first, then in zip(contexts, own, strict=True)])


def _laid(contexts: Sequence[Sequence[int]], own: Sequence[Sequence[int]]) -> Layout:
    ids: list[int] = []
    places: list[int] = []
    spread: list[int] = []
    slots: list[int] = []
    paths: list[list[int]] = [[] for _ in own]
    blocks = []

    def read(token: int, place: int) -> int:
        ids.append(token)
        places.append(place)
        slots.append(len(spread))
        spread.append(len(ids) - 1)
        return len(ids) - 1

    following: dict[tuple[int, int], int] = {}  # (a position, a token) -> the position of that token behind it
    for before in sorted(set(map(len, contexts))):
        rows = [row for row, context in enumerate(contexts) if len(context) == before]
        ways: dict[tuple[int, ...], list[int]] = {}  # the different contexts, and where each is read
        for context in dict.fromkeys(tuple(contexts[row]) for row in rows):
            way: list[int] = []
            for place, token in enumerate(context):
                step = (way[-1] if way else -1, token)
                if step in following:
                    spread.append(following[step])
                else:
                    following[step] = read(token, place)
                way.append(following[step])
            ways[context] = way
        length = max(len(own[row]) for row in rows)
        for row in rows:
            mine = [read(token, before + place) for place, token in enumerate(own[row])]
            spread += [0] * (length - len(mine))  # behind the end, where nothing that counts can see it
            paths[row] = ways[tuple(contexts[row])] + mine
        index = {context: number for number, context in enumerate(ways)}
        chosen = torch.tensor([index[tuple(contexts[row])] for row in rows])
        blocks.append(Block(len(ways), before, len(rows), length, chosen))
    as_it_is = spread == list(range(len(ids)))
    return Layout(
        torch.tensor(ids, dtype=torch.int64), torch.tensor(places, dtype=torch.int64), paths, blocks,
        None if as_it_is else torch.tensor(spread), None if as_it_is else torch.tensor(slots),
    )  # fmt: skip
