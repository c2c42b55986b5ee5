"""A scored corpus as tokens: which token belongs to which segment, where control tokens stand, and rows of fixed length.

    stream    <eos> d1 <eos> d2 <eos> ...        one pass over the documents, in an order of its own
    d         c1 s1 c2 s2 ...                    segments; control tokens c in conditional training alone
    row r     tokens rT .. rT + T of the stream: T predictions, the first token is read and was predicted by the row before

A token belongs to the segment in which its last character lies. So no character of a segment stands before that segment's
control token, however the tokenizer's tokens reach over borders; a segment that lies wholly inside such a token has none, and
no control token either. The text is tokenised as a whole: every objective sees the same tokens. <eos> belongs to the last
segment of the document that it ends; a control token belongs to the segment behind it.

Rows have no padding, and attention sees the documents before in the same row, as in the paper.
Source: Korbak et al. 2023, arXiv 2302.08582.
Changed from the released code: segments are not tokenised one by one, so bits per byte can be compared between objectives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from amenable.errors import ConfigError, DataError
from amenable.seeding import derive

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Scored(Protocol):
    """A text in segments: `ends` in characters, one score a segment, None where there is none (`task.scored_corpus`)."""

    @property
    def text(self) -> str: ...
    @property
    def ends(self) -> tuple[int, ...]: ...
    @property
    def scores(self) -> tuple[float | None, ...]: ...


@dataclass(frozen=True)
class Tokens:
    """A corpus of D documents and K segments as S tokens, without <eos> and control tokens.

    ids       (S,) int32
    segments  (S,) int32, the segment of each token, counted over the whole corpus; it never falls
    starts    (D + 1,) int64, where each document's tokens begin; the last is S
    scores    (K,) float64, NaN where missing
    means     (D,) float64, mean of the known scores of each document's segments; NaN if there is none
    """

    ids: NDArray[np.int32]
    segments: NDArray[np.int32]
    starts: Ints
    scores: Floats
    means: Floats

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def documents(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all of it."""
        digest = hashlib.sha256()
        for part in (self.ids, self.segments, self.starts, self.scores, self.means):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Threshold:
    """A threshold and what it does: `below` is the share of the n known scores that are at most `value`."""

    value: float
    below: float
    n: int
    of: str


@dataclass(frozen=True)
class Stream:
    """One pass: `ids` (S,) int64, `scores` (S,) float64 of each token's segment, `control` (S,): it is a control token."""

    ids: Ints
    scores: Floats
    control: Flags

    def rows(self, length: int) -> int:
        """How many whole rows of `length` predictions there are."""
        return max(0, len(self.ids) - 1) // length


def segment_of(ends: Sequence[int], offsets: Sequence[tuple[int, int]]) -> Ints:
    """The segment (from 0) of each token from its (first, behind the last) characters: where its last character lies.

    Never falling: what a tokenizer says of white space that it trims does not bring a token back behind another.
    """
    last = np.array([max(0, end - 1) for _, end in offsets], dtype=np.int64)
    found = np.searchsorted(np.asarray(ends, dtype=np.int64), last, side="right")
    return np.maximum.accumulate(np.minimum(found, len(ends) - 1)) if len(found) else found


def tokenised(
    documents: Sequence[Scored], tokenizer: Any, *, progress: Callable[[int, int], None] | None = None
) -> Tokens:
    """`documents` as tokens of a fast tokenizer. What stands in a text is never taken for a special token.

    Errors: ConfigError for a tokenizer without offsets; DataError for special tokens that a text was nonetheless made into.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(
            f"{type(tokenizer).__name__} does not say which characters a token stands for",
            "use a model with a fast tokenizer (tokenizer.json)",
        )
    special = {int(token) for token in tokenizer.all_special_ids}
    ids: list[NDArray[np.int32]] = []
    segments: list[NDArray[np.int32]] = []
    starts, scores, means, known_segments = [0], [], [], 0
    for at, document in enumerate(documents):
        made = tokenizer(
            document.text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True,
            verbose=False,
        )  # fmt: skip
        if document.ends and not special.isdisjoint(made["input_ids"]):
            raise DataError(
                f"document {at} holds a special token of the tokenizer as text", "leave that document out of the corpus"
            )
        own = np.array(made["input_ids"] if document.ends else [], dtype=np.int32)
        ids.append(own)
        place = segment_of(document.ends, made["offset_mapping"]) if len(own) else own
        segments.append((place + known_segments).astype(np.int32))
        known = [score for score in document.scores if score is not None]
        means.append(sum(known) / len(known) if known else np.nan)
        scores += [np.nan if score is None else score for score in document.scores]
        known_segments += len(document.ends)
        starts.append(starts[-1] + len(own))
        if progress is not None:
            progress(at + 1, len(documents))
    empty = [np.zeros(0, dtype=np.int32)]
    return Tokens(
        np.concatenate(ids or empty), np.concatenate(segments or empty), np.array(starts, dtype=np.int64),
        np.array(scores, dtype=np.float64), np.array(means, dtype=np.float64),
    )  # fmt: skip


def threshold_at(scores: Floats, *, quantile: float, of: str = "segments") -> Threshold:
    """The threshold at a `quantile` of the known scores: the lowest of them that at least that share is at most.

    Where more than that share has the lowest score, it is that score, such as 0.
    Errors: those of `checked`; DataError if no score is known.
    """
    if not 0 < quantile < 1:
        raise ConfigError(f"quantile={quantile:g} leaves one side empty", "use 0 < quantile < 1, such as 0.5")
    known = scores[~np.isnan(scores)]
    if not len(known):
        raise DataError(f"no score is known of {len(scores)} {of}", "score the corpus first: amenable score CORPUS")
    return checked(float(np.quantile(known, quantile, method="inverted_cdf")), scores, of=of)


def checked(value: float, scores: Floats, *, of: str) -> Threshold:
    """A given threshold, and the share of the `scores` that it calls good. Errors: DataError if that is none or all."""
    known = scores[~np.isnan(scores)]
    below = float((known <= value).mean()) if len(known) else 0.0
    if below in (0.0, 1.0):
        which = "every one" if below else "none"
        lowest, highest = (float(known.min()), float(known.max())) if len(known) else (np.nan, np.nan)
        raise DataError(
            f"threshold {value:g}: {which} of the {len(known)} scores of {of} is at most that: nothing to tell apart",
            f"give a threshold from {lowest:g} to below {highest:g}, or another quantile",
        )
    return Threshold(value, below, len(known), of)


def order_of(tokens: Tokens, *, seed: int, epoch: int, at_most: float | None = None) -> Ints:
    """The documents in the order of pass `epoch`; `at_most`: only those whose mean score is known and at most that.

    Those that are left out leave the order of the others as it is.
    """
    generator = np.random.default_rng(derive(seed, "epoch", epoch))
    order = np.argsort(generator.random(tokens.documents), kind="stable")
    if at_most is not None:
        order = order[tokens.means[order] <= at_most]  # NaN is not
    return order


def stream_of(
    tokens: Tokens,
    order: Ints,
    *,
    eos: int,
    opening: Sequence[int] = (),
    controls: tuple[int, int] | None = None,
    threshold: float = 0.0,
    drop: float = 0.0,
    seed: int = 0,
) -> Stream:
    """The stream of the documents in `order`.

    opening   what begins every document instead of the <eos> of the one before (a <bos>); its tokens have no score
    controls  (good, bad): one stands before each segment, good where its score is at most `threshold`; none where the score
              is missing, and where the segment was among the share `drop`, which `seed` decides
    """
    plain = not opening or list(opening) == [eos]
    before = np.array([] if plain else list(opening), dtype=np.int64)
    ids = [np.array([eos] if plain else [], dtype=np.int64)]
    segments = [np.full(len(ids[0]), -1, dtype=np.int64)]
    for document in order.tolist():
        part = slice(int(tokens.starts[document]), int(tokens.starts[document + 1]))
        own = tokens.segments[part].astype(np.int64)
        ids += [before, tokens.ids[part].astype(np.int64), np.array([eos])]
        segments += [np.full(len(before), -1), own, own[-1:] if len(own) else np.array([-1])]
    all_ids, all_segments = np.concatenate(ids), np.concatenate(segments)
    scores = np.append(tokens.scores, np.nan)[all_segments]  # -1 is the last: not known
    control = np.zeros(len(all_ids), dtype=bool)
    if controls is not None:
        dropped = np.random.default_rng(derive(seed, "drop")).random(len(tokens.scores)) < drop
        starts = np.flatnonzero(np.diff(all_segments, prepend=-1) != 0)
        starts = starts[all_segments[starts] >= 0]
        starts = starts[~np.isnan(scores[starts]) & ~dropped[all_segments[starts]]]
        which = np.where(scores[starts] <= threshold, controls[0], controls[1])
        all_ids = np.insert(all_ids, starts, which)
        scores, control = np.insert(scores, starts, scores[starts]), np.insert(control, starts, True)
    return Stream(all_ids, scores, control)
