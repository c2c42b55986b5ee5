"""How compositional a code is, each number beside what chance would give.

    topsim   Spearman's correlation, over pairs of objects, of the distance of their features and of their messages
    context independence   mean over concepts c of p(w_c | c) p(c | w_c),   w_c = argmax_w p(c | w)
    tre      || M - X B ||^2 / || M - mean ||^2,   B = least squares: the share of the messages that no sum of parts explains

    distance   Hamming (of messages: with `ended` as a symbol), or edit distance over the longer message's length
    c, w       a concept is a value of a feature; a word is a symbol at its position, but not `ended`
    p(w | c)   among the words of w's position, in the objects that have c
    p(c | w)   among the values of c's feature, in the objects that are called with w
    M, X       (N, L A) messages and (N, sum V) features, one-hot      B  a vector for every value of every feature

A code that is compositional has topsim 1, context independence 1 and TRE 0. TRE 0 alone says that messages are sums of parts,
not that they say everything: m = (f_1, f_1) has it. With addition as the composition TRE does not see codes whose parts
combine otherwise (rotated, entangled): for them it is large, as every number here says little of them.

z: how many standard deviations a value lies above the mean of the same code with its messages dealt anew to the objects.
TRE and conflicts are better the lower they are: a compositional code's z is negative there.

Sources: Brighton and Kirby 2006 (topsim); Bogin et al. 2018, arXiv 1809.00549 (context independence); Andreas 2019,
arXiv 1902.07181 (TRE).
Changed from the papers: context independence aligns words and concepts by position and feature in place of IBM model 1, whose
EM has not come to rest after 40 steps where a code leaves the alignment open; with raw co-occurrence a perfect code of two
slots has 0.25 or 0.5, here 1. Of words with equal p(c | w) the one with the largest p(w | c) counts. TRE is fitted exactly,
by least squares, to one-hot messages, and divided by what a constant would leave.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from amenable.errors import ConfigError
from amenable.evaluation.disentanglement import (
    bosdis,
    conflicts,
    conflicts_normalised,
    matched_disentanglement,
    posdis,
)
from amenable.evaluation.messages import (
    Bools,
    Floats,
    Ints,
    Language,
    Metric,
    Scores,
    chunked,
    distinct_messages,
    joint_counts,
    message_entropy,
    read,
    scores,
    whole_numbers,
)
from amenable.seeding import derive


def topsim(codes: Any, features: Any, *, eos: int | None = None) -> Scores:
    """Topographic similarity with Hamming distances, in [-1, 1]; undefined where all distances are equal (constant codes)."""
    language = read(codes, features, eos)
    return _correlation(language, _hamming)


def topsim_edit(codes: Any, features: Any, *, eos: int | None = None) -> Scores:
    """Topographic similarity with normalised edit distances of messages, in [-1, 1]; undefined as `topsim`."""
    language = read(codes, features, eos)
    return _correlation(language, _edit)


def _correlation(language: Language, distance: Any) -> Scores:
    first, second = np.triu_indices(len(language.features), k=1)
    if len(first) == 0:
        return scores(np.zeros(len(language.symbols)), False)
    kinds = (language.features[first] != language.features[second]).sum(axis=1)[None, :].astype(np.float64)
    x = _centred_ranks(kinds)
    values, known = [], []
    step = chunked(len(language.symbols), 8 * len(first) * language.symbols.shape[2])
    for start in range(0, len(language.symbols), step):
        part = slice(start, start + step)
        y = _centred_ranks(distance(language.symbols[part], language.said[part], first, second))
        scale = np.sqrt((x * x).sum() * (y * y).sum(axis=1))
        values.append((x * y).sum(axis=1) / np.where(scale > 0, scale, 1.0))
        known.append(scale > 0)
    return scores(np.concatenate(values), np.concatenate(known))


def _hamming(symbols: Ints, said: Bools, first: Ints, second: Ints) -> Floats:
    return np.asarray((symbols[:, first] != symbols[:, second]).sum(axis=2), dtype=np.float64)


def _edit(symbols: Ints, said: Bools, first: Ints, second: Ints) -> Floats:
    """Levenshtein distance (S, pairs) over the longer length, 0 for two empty messages: all pairs, row by row at once."""
    one, other = symbols[:, first], symbols[:, second]
    lengths = said.sum(axis=2)
    rows, columns = lengths[:, first], lengths[:, second]
    width = symbols.shape[2]
    before = np.broadcast_to(np.arange(width + 1.0), (*rows.shape, width + 1)).copy()
    found = np.take_along_axis(before, columns[..., None], axis=2)[..., 0]  # where the first message is empty
    for i in range(width):
        now = np.empty_like(before)
        now[..., 0] = i + 1
        for j in range(width):
            replaced = before[..., j] + (one[..., i] != other[..., j])
            now[..., j + 1] = np.minimum(replaced, np.minimum(before[..., j + 1], now[..., j]) + 1)
        found = np.where(rows == i + 1, np.take_along_axis(now, columns[..., None], axis=2)[..., 0], found)
        before = now
    return np.asarray(found / np.maximum(np.maximum(rows, columns), 1), dtype=np.float64)


def _centred_ranks(values: Floats) -> Floats:
    """Ranks along the last axis of (S, P), ties sharing their mean rank, less the mean of all ranks."""
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    begins = np.diff(ordered, axis=1, prepend=-np.inf) > 1e-12
    group = begins.cumsum(axis=1) - 1 + np.arange(len(values))[:, None] * values.shape[1]
    size = np.bincount(group.ravel(), minlength=values.size)
    places = np.broadcast_to(np.arange(values.shape[1], dtype=np.float64), values.shape)
    total = np.bincount(group.ravel(), weights=places.ravel(), minlength=values.size)
    ranks = np.empty_like(values)
    np.put_along_axis(ranks, order, (total / np.maximum(size, 1))[group], axis=1)
    return np.asarray(ranks - (values.shape[1] - 1) / 2, dtype=np.float64)


def context_independence(codes: Any, features: Any, *, eos: int | None = None) -> Scores:
    """Context independence in [0, 1], words knowing their position; undefined for a constant code."""
    language = read(codes, features, eos)
    counts = joint_counts(language.symbols, language.features)  # (S, L, K, A, V)
    ended = language.symbols[~language.said]
    if len(ended):
        counts[:, :, :, ended[0]] = 0.0
    with_word, with_concept = counts.sum(axis=4, keepdims=True), joint_counts(language.symbols[:1], language.features)
    concepts = with_concept[0, 0].sum(axis=1)  # (K, V): objects that have it
    word_given = counts / np.maximum(concepts, 1)[:, None, :]
    concept_given = counts / np.maximum(with_word, 1)
    word_given, concept_given = (_words_last(table) for table in (word_given, concept_given))
    most = concept_given.max(axis=3, keepdims=True)
    best = np.where(concept_given >= most - 1e-9, word_given, 0.0).max(axis=3) * most[..., 0]  # (S, K, V)
    return scores(best[:, concepts > 0].mean(axis=1), ~language.constant)


def _words_last(table: Floats) -> Floats:
    """(S, L, K, A, V) as (S, K, V, words)."""
    return np.moveaxis(table, (2, 4), (1, 2)).reshape(len(table), table.shape[2], table.shape[4], -1)


def tre(codes: Any, features: Any, *, eos: int | None = None) -> Scores:
    """Tree reconstruction error, additive composition by least squares, in [0, 1], 0 best; undefined for a constant code."""
    language = read(codes, features, eos)
    design = np.concatenate([column[:, None] == np.arange(column.max() + 1) for column in language.features.T], axis=1)
    left, strength, _ = np.linalg.svd(design.astype(np.float64), full_matrices=False)
    basis = left[:, strength > 1e-9]
    explained, total = np.zeros(len(language.symbols)), np.zeros(len(language.symbols))
    for a in range(language.alphabet):
        one_hot = (language.symbols == a).astype(np.float64)  # (S, N, L)
        one_hot -= one_hot.mean(axis=1, keepdims=True)
        total += (one_hot**2).sum(axis=(1, 2))
        explained += (np.einsum("nr,snl->srl", basis, one_hot) ** 2).sum(axis=(1, 2))
    varies = total > 1e-12
    return scores(np.maximum(0.0, 1 - explained / np.where(varies, total, 1.0)), varies)


METRICS: dict[str, Metric] = {
    "topsim": topsim,
    "topsim_edit": topsim_edit,
    "conflicts": conflicts,
    "conflicts_normalised": conflicts_normalised,
    "context_independence": context_independence,
    "posdis": posdis,
    "bosdis": bosdis,
    "matched_disentanglement": matched_disentanglement,
    "tre": tre,
    "distinct_messages": distinct_messages,
    "message_entropy": message_entropy,
}

LOWER_IS_BETTER = frozenset({"conflicts", "conflicts_normalised", "tre"})


@dataclass(frozen=True)
class Null:
    """What chance gives a metric: `mean`, `sd` (S,) over codes whose messages were dealt anew; `z` of the code itself.

    `z` is undefined where the code's own value is, or where every dealing gives the same.
    """

    mean: Floats
    sd: Floats
    z: Scores


def null_distribution(
    metric: Metric, codes: Any, features: Any, *, permutations: int = 100, seed: int = 0, eos: int | None = None
) -> Null:
    """The metric of `codes` beside that of `permutations` codes with the same messages, dealt to the objects at random.

    Everything that depends only on which messages there are (how many, how long) is the same in both. Errors: ConfigError for
    fewer than two permutations.
    """
    if permutations < 2:
        raise ConfigError(f"permutations={permutations} has no spread", "use at least 2, such as 100")
    own = metric(codes, features, eos=eos)
    messages, kinds = whole_numbers(codes, "codes"), whole_numbers(features, "features").shape[1]
    count, objects, _ = messages.shape
    generator = np.random.default_rng(derive(seed, "null"))
    number, first, second = np.zeros(count), np.zeros(count), np.zeros(count)
    step = chunked(permutations, messages.size * kinds)
    for start in range(0, permutations, step):
        times = min(step, permutations - start)
        deal = generator.random((times, count, objects)).argsort(axis=2)[..., None]
        dealt = np.take_along_axis(np.broadcast_to(messages, (times, *messages.shape)), deal, axis=2)
        chance = metric(dealt.reshape(times * count, objects, -1), features, eos=eos)
        values, known = chance.values.reshape(times, count), chance.defined.reshape(times, count)
        number += known.sum(axis=0)
        first += values.sum(axis=0)
        second += (values**2).sum(axis=0)
    mean = first / np.maximum(number, 1)
    sd = np.sqrt(np.maximum(0.0, second - number * mean**2) / np.maximum(number - 1, 1))
    varies = sd > 1e-7
    return Null(mean, sd, scores((own.values - mean) / np.where(varies, sd, 1.0), own.defined & varies))
