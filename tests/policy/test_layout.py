"""Where the positions of several sequences stand: each once, and every sequence can be found again."""

from __future__ import annotations

import random

import torch

from amenable.policy.layout import laid_out


def test_two_prompts_of_two_samples_each() -> None:
    layout = laid_out([[1, 2], [1, 2], [3, 4], [3, 4]], [[5, 6], [7, 8], [5, 6], [9, 9]])
    assert layout.ids.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 5, 6, 9, 9]
    assert layout.places.tolist() == [0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3]
    assert layout.paths == [[0, 1, 4, 5], [0, 1, 6, 7], [2, 3, 8, 9], [2, 3, 10, 11]]
    assert layout.spread is None, "equally long: as they lie they are rows already"
    assert layout.blocks[0].context.tolist() == [0, 0, 1, 1]
    assert layout.sizes() == [4, 8]


def test_what_two_contexts_begin_with_is_read_once() -> None:
    layout = laid_out([[1, 2, 3], [1, 2], [1, 2, 4]], [[7], [8, 9], []])
    assert sorted(layout.ids.tolist()) == [1, 2, 3, 4, 7, 8, 9]
    assert layout.paths[0][:2] == layout.paths[1][:2] == layout.paths[2][:2]


def test_without_anything_in_common_sequences_stay_whole() -> None:
    layout = laid_out([[1, 2], [3]], [[4], [5, 6, 7]])
    assert layout.ids.tolist() == [1, 2, 4, 3, 5, 6, 7]
    assert [(block.before, block.rows, block.length) for block in layout.blocks] == [(0, 2, 4)]


def test_every_position_is_spread_to_where_it_comes_back_from() -> None:
    draw = random.Random(0)
    for _ in range(50):
        contexts = [[draw.randrange(2) for _ in range(draw.randrange(1, 5))] for _ in range(draw.randrange(1, 8))]
        own = [[draw.randrange(9) for _ in range(draw.randrange(0, 4))] for _ in contexts]
        layout = laid_out(contexts, own)
        for path, context, then in zip(layout.paths, contexts, own, strict=True):
            assert layout.ids[path].tolist() == [*context, *then]
            assert layout.places[path].tolist() == list(range(len(path)))
        if layout.spread is not None and layout.slots is not None:
            assert layout.spread[layout.slots].equal(torch.arange(len(layout.ids)))
            assert len(layout.spread) == sum(layout.sizes())
