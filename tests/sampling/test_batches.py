"""Parts and sums of batches keep every sample as it was drawn."""

from __future__ import annotations

import torch
from listed import policy

from amenable.sampling.batches import as_plain, concatenated, from_plain, subset

LAW = policy(0)
DRAWN = LAW.sample(["", "!"], n=6, seed=0)


def test_parts_keep_ids_scores_and_contexts() -> None:
    places = [7, 0, 7]
    part = subset(DRAWN, places)
    assert [part.ids(i) for i in range(3)] == [DRAWN.ids(place) for place in places]
    assert part.context_ids == [DRAWN.context_ids[place] for place in places]
    assert torch.allclose(LAW.log_prob(part).sum(-1), DRAWN.log_probs.sum(-1)[places])
    assert len(subset(DRAWN, [])) == 0


def test_sums_are_padded_and_undo_parts() -> None:
    short = [place for place in range(12) if int(DRAWN.lengths[place]) == 1]
    rest = [place for place in range(12) if place not in short]
    whole = concatenated([subset(DRAWN, short), subset(DRAWN, rest)])
    assert short
    assert whole.texts == [DRAWN.texts[place] for place in short + rest]
    assert torch.equal(whole.log_probs.sum(-1), DRAWN.log_probs.sum(-1)[short + rest])
    assert torch.allclose(LAW.log_prob(whole), whole.log_probs)


def test_plain_data_gives_the_same_bits_back() -> None:
    again = from_plain(as_plain(DRAWN))
    assert torch.equal(again.tokens, DRAWN.tokens)
    assert torch.equal(again.log_probs, DRAWN.log_probs)
    assert (again.texts, again.ended, again.decoding) == (DRAWN.texts, DRAWN.ended, DRAWN.decoding)
