"""What a code says: a table of messages, one for each object, read once for every metric of compositionality.

A *code* is the greedy language of one pair of agents: object n is called codes[s, n], L symbols of which those from the
first `eos` on are not said. Metrics take S codes at once and give a `Scores`: S values, and which of them are defined. A value
that is undefined is 0 with `defined` False, never nan.

    S  codes, such as one a seed      N  objects      L  positions      A  symbols that occur      K  features
    V  values of a feature            H, I  entropy and mutual information under uniform objects, nats

`distinct_messages` counts them; `message_entropy` is H(message) in bits, log2 N where every object has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from amenable.errors import DataError
from amenable.evaluation.interval import Estimate, bootstrap_mean

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Scores:
    """`values` (S,), 0 where `defined` (S,) is False."""

    values: Floats
    defined: Bools

    def estimate(self, *, seed: int = 0) -> Estimate:
        """The mean over those that are defined, bootstrap over codes; its n says how many they are."""
        return bootstrap_mean(self.values[self.defined], seed=seed)


class Metric(Protocol):
    """`codes` (S, N, L) whole numbers, `features` (N, K) whole numbers; `eos` ends a message."""

    def __call__(self, codes: Any, features: Any, *, eos: int | None = None) -> Scores: ...


@dataclass(frozen=True)
class Language:
    """`symbols` (S, N, L) in 0..A-1, what is not said being one symbol of its own; `said` (S, N, L); `features` (N, K)."""

    symbols: Ints
    said: Bools
    features: Ints

    @property
    def alphabet(self) -> int:
        """A: symbols that occur in any of the codes."""
        return int(self.symbols.max()) + 1

    @property
    def constant(self) -> Bools:
        """(S,): whether all objects have one message."""
        return np.asarray((self.symbols == self.symbols[:, :1]).all(axis=(1, 2)), dtype=np.bool_)


def read(codes: Any, features: Any, eos: int | None = None) -> Language:
    """Codes and features as numbers from 0. Errors: DataError for shapes that do not fit and for numbers that are not whole."""
    messages, objects = whole_numbers(codes, "codes"), whole_numbers(features, "features")
    if messages.ndim != 3 or objects.ndim != 2 or messages.shape[1] != len(objects) or 0 in messages.shape:
        raise DataError(
            f"codes have shape {messages.shape} and features {objects.shape}",
            "give codes (seeds, objects, positions), at least one of each, and features (the same objects, features)",
        )
    said = np.ones(messages.shape, dtype=np.bool_)
    if eos is not None:
        said = (messages == eos).cumsum(axis=2) == 0
        messages = np.where(said, messages, eos)
    _, symbols = np.unique(messages, return_inverse=True)
    columns = [np.unique(column, return_inverse=True)[1] for column in objects.T]
    return Language(symbols.reshape(messages.shape).astype(np.int64), said, np.stack(columns, axis=1).astype(np.int64))


def whole_numbers(values: Any, name: str) -> Ints:
    """An array or tensor of any shape as whole numbers. Errors: DataError for other numbers."""
    array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"{name} are of type {array.dtype}", "give whole numbers, one a symbol or value")
    return array.astype(np.int64)


def joint_counts(symbols: Ints, features: Ints) -> Floats:
    """Objects with symbol a at position l and value v of feature k: (S, L, K, A, V), V that of the richest feature."""
    codes, _, length = symbols.shape
    kinds, most, width = features.shape[1], int(features.max()) + 1, int(symbols.max()) + 1
    place = np.arange(codes)[:, None, None, None] * length + np.arange(length)[None, None, :, None]
    place = (place * kinds + np.arange(kinds)) * width + symbols[:, :, :, None]
    place = place * most + features[None, :, None, :]
    shape = (codes, length, kinds, width, most)
    return np.bincount(place.ravel(), minlength=int(np.prod(shape))).reshape(shape).astype(np.float64)


def entropy(counts: Floats, objects: int) -> Floats:
    """H of the law counts / objects along the last axis, nats."""
    shares = counts / objects
    terms = np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1.0)), 0.0)
    return np.asarray(-terms.sum(axis=-1), dtype=np.float64)


def chunked(total: int, cells: int) -> int:
    """How many of `total` codes, of `cells` numbers each, are worked on at once: some 32 MB of numbers."""
    return max(1, min(total, 4_000_000 // max(1, cells)))


def _names(language: Language) -> list[Ints]:
    """For every code the number of objects of each different message."""
    return [np.unique(code, axis=0, return_counts=True)[1].astype(np.int64) for code in language.symbols]


def distinct_messages(codes: Any, features: Any, *, eos: int | None = None) -> Scores:
    """How many different messages there are, 1..N: always defined."""
    return _always(lambda counts: float(len(counts)), read(codes, features, eos))


def message_entropy(codes: Any, features: Any, *, eos: int | None = None) -> Scores:
    """H(message) in bits when every object is equally likely, 0..log2 N: always defined."""
    return _always(
        lambda counts: float(entropy(counts.astype(np.float64), int(counts.sum()))) / np.log(2),
        read(codes, features, eos),
    )


def _always(number: Callable[[Ints], float], language: Language) -> Scores:
    values = np.array([number(counts) for counts in _names(language)], dtype=np.float64)
    return Scores(values, np.ones(len(values), dtype=np.bool_))


def scores(values: ArrayLike, defined: ArrayLike) -> Scores:
    """`values` with 0 wherever they are not `defined` or not finite."""
    numbers = np.asarray(values, dtype=np.float64)
    known = np.broadcast_to(np.asarray(defined, dtype=np.bool_), numbers.shape) & np.isfinite(numbers)
    return Scores(np.where(known, numbers, 0.0), known)
