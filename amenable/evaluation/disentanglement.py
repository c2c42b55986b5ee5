"""Does each position carry one feature? Counted from how often a symbol stands at a position beside a feature's value.

    posdis     mean over positions that vary of (I1 - I2) / H(position)
    bosdis     mean over symbols whose count varies of (I1 - I2) / H(count of the symbol)
    matched    max over p of sum_k max(0, I(p(k); f_k) - max_{k' != k} I(p(k); f_k')) / H(f_k) / K
    conflicts  min over p of sum_k sum_a (objects with a at p(k) whose f_k is not the one most common beside a)

    I1, I2  a position's largest and second largest mutual information with a feature
    p       one position for each feature, no position twice         f_k  feature k

posdis and bosdis never ask whether every feature is told: m = (f_1, f_1), which throws f_2 away, has posdis 1. Matched
disentanglement asks for it (that code has 1/2, the share of features with a position of their own), and is 1 only if every
feature is. bosdis of a compositional code is 0 if both positions use one alphabet: a count does not say which position.
A conflict count is 0 for a compositional code, and also if
each message has symbols of its own, which needs more symbols than values.

Sources: Chaabouni et al. 2020, arXiv 2004.09124 (posdis, bosdis); Kucinski et al. 2020 (conflict count).
Changed from the papers: matched disentanglement is ours; conflicts allow more positions than features; `ended` is a symbol.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from amenable.evaluation.messages import Bools, Floats, Ints, Scores, entropy, joint_counts, read, scores


def posdis(codes: Any, features: Any, *, eos: int | None = None) -> Scores:
    """Positional disentanglement in [0, 1]; undefined for a constant code."""
    language = read(codes, features, eos)
    return _mean_gap(language.symbols, language.features)


def bosdis(codes: Any, features: Any, *, eos: int | None = None) -> Scores:
    """Bag-of-symbols disentanglement in [0, 1]; undefined where no symbol's count varies, as in a constant code."""
    language = read(codes, features, eos)
    counts = [((language.symbols == a) & language.said).sum(axis=2) for a in range(language.alphabet)]
    return _mean_gap(np.stack(counts, axis=2), language.features)


def _mean_gap(symbols: Ints, features: Ints) -> Scores:
    information, own, _ = _information(symbols, features)
    ordered = np.sort(information, axis=2)
    second = ordered[:, :, -2] if features.shape[1] > 1 else 0.0
    varies = own > 1e-12
    gaps = np.where(varies, (ordered[:, :, -1] - second) / np.where(varies, own, 1.0), 0.0)
    number = varies.sum(axis=1)
    return scores(gaps.sum(axis=1) / np.maximum(number, 1), number > 0)


def matched_disentanglement(codes: Any, features: Any, *, eos: int | None = None) -> Scores:
    """Share of the features that have a position of their own, in [0, 1]; undefined for a constant code.

    A feature that never varies is left out; a feature without a position, as where positions are few, counts 0.
    """
    language = read(codes, features, eos)
    information, _, of_features = _information(language.symbols, language.features)
    vary = of_features > 1e-12
    information, of_features = information[:, :, vary], of_features[vary]
    kinds = len(of_features)
    if kinds == 0:
        return scores(np.zeros(len(information)), False)
    others = np.stack([np.delete(information, k, axis=2).max(axis=2, initial=0.0) for k in range(kinds)], axis=2)
    gains = np.maximum(0.0, information - others) / of_features
    spare = np.zeros((len(gains), kinds, kinds))  # a place for features that have none
    best = -assigned(-np.concatenate([gains, spare], axis=1).transpose(0, 2, 1))
    return scores(best / kinds, ~language.constant)


def conflicts(codes: Any, features: Any, *, eos: int | None = None) -> Scores:
    """Conflict count, 0..K N (1 - 1/V), lower is better; undefined with fewer positions than features.

    A constant code has the most there can be: that is defined.
    """
    language = read(codes, features, eos)
    counts = joint_counts(language.symbols, language.features)
    costs = len(language.features) - counts.max(axis=4).sum(axis=3)  # (S, L, K)
    best = assigned(costs.transpose(0, 2, 1))
    return scores(best, language.features.shape[1] <= language.symbols.shape[2])


def conflicts_normalised(codes: Any, features: Any, *, eos: int | None = None) -> Scores:
    """Conflict count over what a constant code would have, sum_k (N - objects with the commonest value): 0..1."""
    raw, objects = conflicts(codes, features, eos=eos), read(codes, features, eos).features
    most = sum(len(objects) - np.bincount(column).max() for column in objects.T)
    return scores(raw.values / max(most, 1), raw.defined & (most > 0))


def _information(symbols: Ints, features: Ints) -> tuple[Floats, Floats, Floats]:
    """I(position; feature) (S, L, K), H(position) (S, L), H(feature) (K,), nats."""
    counts, objects = joint_counts(symbols, features), len(features)
    own = entropy(counts[:, :, 0].sum(axis=3), objects)
    of_features = entropy(counts[0, 0].sum(axis=1), objects)
    both = entropy(counts.reshape(*counts.shape[:3], -1), objects)
    return np.maximum(0.0, own[:, :, None] + of_features - both), own, of_features


def assigned(costs: Floats) -> Floats:
    """Least sum of costs (S, K, L) that gives every k an l of its own: (S,), inf where L < K.

    Position by position, the least cost of having served each subset of the features: 2^K of them, exact for any L.
    """
    codes, kinds, positions = costs.shape
    best = np.full((codes, 2**kinds), np.inf)
    best[:, 0] = 0.0
    for position in range(positions):
        before = best.copy()
        for served in range(1, 2**kinds):
            for k in range(kinds):
                if served >> k & 1:
                    one_more = before[:, served ^ (1 << k)] + costs[:, k, position]
                    best[:, served] = np.minimum(best[:, served], one_more)
    return best[:, -1]


def perfect(codes: Any, features: Any, *, eos: int | None = None) -> Bools:
    """(S,): whether the code is compositional, every feature having a position that says it and nothing else."""
    return matched_disentanglement(codes, features, eos=eos).values > 1 - 1e-9
