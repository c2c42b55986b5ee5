"""Which one-to-one languages are best under noise? All of them, enumerated.

    J(l) = E over f uniform, m' ~ channel(. | l(f))  of  d(l^-1(m'), f)

    f  objects of K features with V values         l  one-to-one: objects -> messages of K symbols out of A = V
    d  features that arrive wrong (Hamming), or 1 if any does (all-or-nothing)
    channel  each symbol becomes one of the other A - 1 with probability `noise`, independently

A message at Hamming distance h from the one sent arrives with probability (1 - noise)^(K-h) (noise / (A-1))^h, so J needs of a
language only S_h, the mean over objects of d summed over the messages at distance h: whole numbers over N, counted once for
every language and good for every noise. *Compositional* is a language in which each position tells one feature by a
bijection: V!^K K! of them, with J = K noise exactly. Theorem 2: they, and they alone, minimise J while noise < (A-1)/A.

Why, for K = 2: S_1 + S_2 is the same for all languages, so J = noise/(A-1) (1 - noise A/(A-1)) S_1 + the same for all. S_1 is
smallest where one changed symbol changes one feature; past the threshold its factor is negative. With all-or-nothing every
language ties: a wrong message is a wrong object.

Source: Kucinski, Korbak, Kolodziej, Milos 2021, arXiv 2111.06464, theorem 2.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amenable.errors import ConfigError

MOST = 400_000  # languages that are listed


@dataclass(frozen=True)
class Languages:
    """All one-to-one languages: `codes` (B, N) numbers of messages, `sums` (B, K + 1) = N S_h, whole numbers."""

    features: int
    values: int
    codes: NDArray[np.int8]
    sums: NDArray[np.int64]
    compositional: NDArray[np.bool_]

    def objective(self, noise: float) -> NDArray[np.float64]:
        """J of every language, features (or, all-or-nothing, probability): (B,). Errors: ConfigError unless 0 <= noise <= 1."""
        if not 0 <= noise <= 1:
            raise ConfigError(f"noise={noise:g} is not a probability", "use 0 <= noise <= 1")
        wrong = np.arange(self.features + 1)
        law = (1 - noise) ** (self.features - wrong) * (noise / (self.values - 1)) ** wrong
        return np.asarray(self.sums @ law / self.codes.shape[1], dtype=np.float64)


def enumerate_languages(features: int = 2, values: int = 3, *, all_or_nothing: bool = False) -> Languages:
    """Every one-to-one language of `features` with `values` each. Errors: ConfigError where they are too many to list."""
    objects = np.array(list(itertools.product(range(values), repeat=features)))  # and messages: the same strings
    count = len(objects)
    if features < 1 or values < 2 or math.factorial(min(count, 20)) > MOST:
        raise ConfigError(
            f"{features} features of {values} values have {count}! languages",
            "use features=2 with values=2 or 3, features=3 with values=2, or features=1",
        )
    codes = np.array(list(itertools.permutations(range(count))), dtype=np.int8)
    apart = (objects[:, None] != objects[None]).sum(axis=2)
    wrong = np.minimum(apart, 1) if all_or_nothing else apart
    sums = np.zeros((len(codes), features + 1), dtype=np.int64)
    for first, second in itertools.permutations(range(count), 2):
        distance = apart[codes[:, first], codes[:, second]]  # of the two objects' messages
        for h in range(1, features + 1):
            sums[:, h] += np.where(distance == h, wrong[first, second], 0)
    return Languages(features, values, codes, sums, _compositional(codes, objects))


def _compositional(codes: NDArray[np.int8], objects: NDArray[np.int64]) -> NDArray[np.bool_]:
    """By the definition: some order of the features in which each position's symbol depends on its feature alone.

    A one-to-one language with that property has a bijection at each position.
    """
    kinds = objects.shape[1]
    told = np.ones((len(codes), kinds, kinds), dtype=np.bool_)  # position i depends on feature k alone
    for position, k in itertools.product(range(kinds), repeat=2):
        symbols = objects[codes, position]  # (B, N)
        for value in range(int(objects.max()) + 1):
            same = symbols[:, objects[:, k] == value]
            told[:, position, k] &= (same == same[:, :1]).all(axis=1)
    orders = [told[:, range(kinds), order].all(axis=1) for order in itertools.permutations(range(kinds))]
    return np.asarray(np.any(orders, axis=0), dtype=np.bool_)
