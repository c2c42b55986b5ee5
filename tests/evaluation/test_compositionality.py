"""A zoo of hand-made codes with values worked by hand, invariances, the published metrics' traps, chance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from amenable.errors import ConfigError, DataError
from amenable.evaluation.compositionality import (
    METRICS,
    context_independence,
    null_distribution,
    topsim,
    topsim_edit,
    tre,
)
from amenable.evaluation.disentanglement import (
    assigned,
    bosdis,
    conflicts,
    conflicts_normalised,
    matched_disentanglement,
    perfect,
    posdis,
)
from amenable.evaluation.messages import Metric, distinct_messages, message_entropy

V = 3
OBJECTS = np.array(
    list(itertools.product(range(V), repeat=2))
)  # (a, b): 36 pairs, 18 differ in one feature, 18 in both
END, NOT, BOX = 0, 4, 5  # of the negation code, whose colours are 1, 2, 3
COLOURS = np.array(list(itertools.product(range(3), range(2))))
NEGATION = [[c + 1, NOT, BOX] if circle else [c + 1, BOX, END] for c, circle in COLOURS]  # "c not box" and "c box"


def code(name: Callable[[int, int], tuple[int, int]]) -> np.ndarray:
    return np.array([[name(int(a), int(b)) for a, b in OBJECTS]])


HOLISTIC = {
    (0, 0): (0, 0), (0, 1): (0, 1), (0, 2): (1, 2), (1, 0): (1, 0), (1, 1): (2, 2), (1, 2): (2, 1),
    (2, 0): (1, 1), (2, 1): (0, 2), (2, 2): (2, 0),
}  # fmt: skip
ZOO = {
    "compositional": code(lambda a, b: (a, b)),
    "two alphabets": code(lambda a, b: (a, 3 + b)),
    "holistic": code(lambda a, b: HOLISTIC[a, b]),
    "entangled": code(lambda a, b: (a, (a + b) % 3)),
    "rotated": code(lambda a, b: ((a + b) % 3, (a - b) % 3)),
    "diagonal": code(lambda a, b: (a - b + 2, a + b)),
    "context-sensitive": code(lambda a, b: (a, (1, 0, 2)[b] if a == 2 else b)),
    "constant": code(lambda a, b: (0, 0)),
    "dropping": code(lambda a, b: (a, a)),
}
L = math.log(2) / math.log(3)

# Each value is worked out below; nan: undefined.
VALUES: dict[str, dict[str, float]] = {
    # One position a feature, one symbol a value. Both positions share the symbols, so a count tells as much of a as of b.
    "compositional": {"topsim": 1, "conflicts": 0, "posdis": 1, "matched_disentanglement": 1, "tre": 0, "bosdis": 0,
                      "context_independence": 1},
    "two alphabets": {"topsim": 1, "conflicts": 0, "posdis": 1, "matched_disentanglement": 1, "tre": 0, "bosdis": 1,
                      "context_independence": 1},
    # topsim: of the 18 pairs one symbol apart 7 are one feature apart: covariance 7/36 - 1/4, variances 1/4: -2/9.
    # conflicts: (position, feature) costs are 4 and 3 at the first position, 6 and 4 at the second: 4 + 4.
    # Laws of a symbol given a value are (2,1,0)/3 or even, h = log 3 - 2/3 log 2 or log 3. First position: I(a) = 4/9 log 2,
    # I(b) = 2/3 log 2; second: 0 and 4/9 log 2. posdis = (2/9 + 4/9)/2 L, matched = (0 + 4/9)/2 L.
    # Context independence: five values have a word of three objects that shares two with them, 2/3 2/3; a = 2 none, 1/3 1/3.
    # tre: a law (2,1,0)/3 explains 2/9: (4/27 + 6/27) + (0 + 4/27) of 4/3, so 1 - 7/18 is left.
    "holistic": {"topsim": -2 / 9, "conflicts": 8, "posdis": L / 3, "matched_disentanglement": 2 * L / 9, "tre": 11 / 18,
                 "context_independence": 7 / 18},
    # topsim: of 18 pairs two features apart 9 are two symbols apart, as many as of the other 18: 0.
    # The first position is a's own; the second says nothing of either alone: 3 symbols, 3 objects each, 2 conflicts each.
    # Context independence: a's values have a word of their own, b's share the second position's evenly: (1 + 1/3 1/3)/2.
    "entangled": {"topsim": 0, "conflicts": 6, "posdis": 1 / 2, "matched_disentanglement": 1 / 2, "tre": 1 / 2,
                  "context_independence": 5 / 9},
    # Objects that differ in one feature differ in both symbols, in both features in one: topsim -1. No symbol says anything
    # of either feature: 3 symbols a position, 2 conflicts each: 12. Context independence: 1/3 1/3.
    "rotated": {"topsim": -1, "conflicts": 12, "posdis": 0, "matched_disentanglement": 0, "tre": 1,
                "context_independence": 1 / 9},
    # topsim: two features apart, two symbols apart: 8 pairs; two symbols apart: 26; covariance 8/36 - 13/36, variances 1/4
    # and 26 10/36^2. conflicts: diagonals of 1, 2, 3, 2, 1 objects with all values different: 4 a position.
    "diagonal": {"topsim": -10 / math.sqrt(260), "conflicts": 8, "posdis": 0, "matched_disentanglement": 0},
    # topsim: 18 pairs two symbols apart, 14 of them two features apart: (14/36 - 1/4) / (1/4). conflicts: symbols 0 and 1 of
    # the second position mean another b once. I(second; b) = log 3 - 2/3 (log 3 - 2/3 log 2). tre: 2 values of b leave 4/9.
    "context-sensitive": {"topsim": 5 / 9, "conflicts": 2, "posdis": (1 + 1 / 3 + 4 * L / 9) / 2,
                          "matched_disentanglement": (1 + 1 / 3 + 4 * L / 9) / 2, "tre": 2 / 9},
    # One message: nothing varies. Both symbols stand for 9 objects, 3 of each value: the 12 conflicts that can be.
    "constant": {"topsim": math.nan, "conflicts": 12, "posdis": math.nan, "matched_disentanglement": math.nan,
                 "tre": math.nan, "bosdis": math.nan, "context_independence": math.nan},
    # topsim: 27 pairs two symbols apart, 18 of them two features apart: (1/2 - 3/8) / sqrt(1/4 3/16) = 1/sqrt 3.
    # posdis and tre do not see that b is thrown away; matched gives b no position. conflicts: a 0, b 3 symbols with 2 each.
    # Context independence: 1 for a's values, 1/3 1/3 for b's.
    "dropping": {"topsim": 1 / math.sqrt(3), "conflicts": 6, "posdis": 1, "matched_disentanglement": 1 / 2, "tre": 0,
                 "bosdis": 1, "context_independence": (1 + 1 / 9) / 2},
}  # fmt: skip


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_has_the_values_worked_by_hand(name: str) -> None:
    for metric, expected in VALUES[name].items():
        found = METRICS[metric](ZOO[name], OBJECTS)
        assert found.defined.tolist() == [not math.isnan(expected)], metric
        assert found.values == pytest.approx([0.0 if math.isnan(expected) else expected], abs=1e-9), metric


def test_a_code_with_negation_and_messages_of_two_lengths() -> None:
    """Pairs: 3 differ in shape, 6 in colour, 6 in both. Hamming with `ended` as a symbol: 2, 1, 3 symbols; ranks of features
    -3 (9 pairs) and 4.5 (6), of messages -4.5 (6), 0 (3), 4.5 (6): 202.5 / sqrt(202.5 243) = sqrt(5/6). Edit: 1/3 (6), 1/2
    (3, two letters of "box" with another colour), 2/3 (6): the same ranks. Every value has a word of its own.
    """
    codes = np.array([NEGATION])
    for metric in (topsim, topsim_edit):
        assert metric(codes, COLOURS, eos=END).values == pytest.approx([math.sqrt(5 / 6)])
    for metric in (posdis, matched_disentanglement):
        assert metric(codes, COLOURS, eos=END).values == pytest.approx([1.0])
    assert conflicts(codes, COLOURS, eos=END).values == [0.0]  # three positions, two features
    assert context_independence(codes, COLOURS, eos=END).values == pytest.approx([1.0])
    assert tre(codes, COLOURS, eos=END).values == pytest.approx([0.0], abs=1e-9)


def test_what_follows_the_end_is_not_read() -> None:
    padded = np.array([NEGATION])
    rubbish = np.concatenate([padded, np.full((1, len(COLOURS), 1), END)], axis=2)
    other = rubbish.copy()
    other[0, 1::2, 3] = END  # circles end after their three symbols
    other[0, 0::2, 3] = [7, 8, 9]  # after a box has ended
    for name, metric in METRICS.items():
        assert metric(rubbish, COLOURS, eos=END).values == pytest.approx(metric(other, COLOURS, eos=END).values), name


def test_published_metrics_traps() -> None:
    """EGG's posdis gives 1 to a code without the second feature; a perfect code is context independent."""
    assert posdis(ZOO["dropping"], OBJECTS).values == pytest.approx([1.0])
    assert matched_disentanglement(ZOO["dropping"], OBJECTS).values[0] <= 0.5
    assert context_independence(ZOO["compositional"], OBJECTS).values == pytest.approx(
        [1.0], abs=1e-9
    )  # not 0.25, not 0.5
    own = np.array([[[n, n] for n in range(9)]])  # nine symbols, one for each object: no conflicts, and no composition
    assert conflicts(own, OBJECTS).values == [0.0]
    assert matched_disentanglement(own, OBJECTS).values == pytest.approx([0.0])
    assert not topsim(own, OBJECTS).defined[0]
    every_position = code(lambda a, b: (b, a))  # released code returned after the first position
    broken = every_position.copy()
    broken[0, :, 1] = 0
    assert posdis(every_position, OBJECTS).values == pytest.approx([1.0])
    assert matched_disentanglement(broken, OBJECTS).values == pytest.approx([0.5])


def random_codes(seed: int = 0, *, count: int = 6, symbols: int = 4, length: int = 3) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    features = np.array(list(itertools.product(range(3), range(2), range(2))))
    return draw.integers(0, symbols, size=(count, len(features), length)), features


@pytest.mark.parametrize("name", METRICS)
def test_names_of_symbols_and_order_of_positions_and_features_do_not_matter(name: str) -> None:
    metric = METRICS[name]
    codes, features = random_codes()
    codes[0] = 0
    expected = metric(codes, features)
    assert np.isfinite(expected.values).all()
    renamed = np.array([11, 3, 7, 5])[codes]
    for changed, objects in (
        (renamed, features),
        (torch.tensor(codes[:, :, [2, 0, 1]] if name != "topsim_edit" else codes), torch.tensor(features)),
        (codes, features[:, [2, 0, 1]]),
        (codes, 9 - 2 * features),
        (codes[:, ::-1], features[::-1]),
    ):
        found = metric(changed, objects)
        assert found.values == pytest.approx(expected.values, abs=1e-7)
        assert (found.defined == expected.defined).all()
    alone = [metric(codes[i : i + 1], features).values[0] for i in range(len(codes))]
    assert alone == pytest.approx(expected.values, abs=1e-9)  # a batch is its parts


# --- the metrics again, slowly


def slow_edit(one: list[int], other: list[int]) -> float:
    if not one or not other:
        return float(len(one) + len(other))
    rest = slow_edit(one[1:], other[1:]) + (one[0] != other[0])
    return min(rest, slow_edit(one[1:], other) + 1, slow_edit(one, other[1:]) + 1)


def slow_spearman(x: list[float], y: list[float]) -> float:
    def ranks(values: list[float]) -> np.ndarray:
        return np.array(
            [sum(o < v - 1e-9 for o in values) + sum(abs(o - v) <= 1e-9 for o in values) / 2 for v in values]
        )

    return float(np.corrcoef(ranks(x), ranks(y))[0, 1])


def slow_topsim(code: np.ndarray, features: np.ndarray, distance: Callable[[list[int], list[int]], float]) -> float:
    pairs = list(itertools.combinations(range(len(features)), 2))
    x = [float((features[i] != features[j]).sum()) for i, j in pairs]
    return slow_spearman(x, [distance(code[i].tolist(), code[j].tolist()) for i, j in pairs])


def slow_conflicts(code: np.ndarray, features: np.ndarray) -> float:
    def cost(k: int, position: int) -> int:
        total = 0
        for symbol in set(code[:, position]):
            values = features[code[:, position] == symbol, k].tolist()
            total += len(values) - max(values.count(v) for v in values)
        return total

    places = itertools.permutations(range(code.shape[1]), features.shape[1])
    return min(sum(cost(k, position) for k, position in enumerate(p)) for p in places)


def slow_information(x: list[int], y: list[int]) -> float:
    n = len(x)
    joint = {pair: list(zip(x, y, strict=True)).count(pair) / n for pair in set(zip(x, y, strict=True))}
    return sum(p * math.log(p / (x.count(a) / n * y.count(b) / n)) for (a, b), p in joint.items())


def slow_dis(columns: list[list[int]], features: np.ndarray) -> float:
    gaps = []
    for column in columns:
        if len(set(column)) > 1:
            found = sorted(slow_information(column, features[:, k].tolist()) for k in range(features.shape[1]))
            gaps.append((found[-1] - found[-2]) / slow_information(column, column))
    return sum(gaps) / len(gaps)


def slow_matched(code: np.ndarray, features: np.ndarray) -> float:
    kinds = range(features.shape[1])

    def gain(k: int, position: int) -> float:
        told = [slow_information(code[:, position].tolist(), features[:, j].tolist()) for j in kinds]
        own = slow_information(features[:, k].tolist(), features[:, k].tolist())
        return max(0.0, told[k] - max(told[j] for j in kinds if j != k)) / own

    places = itertools.permutations(range(code.shape[1]), features.shape[1])
    return max(sum(gain(k, position) for k, position in enumerate(p)) for p in places) / features.shape[1]


def slow_context_independence(code: np.ndarray, features: np.ndarray) -> float:
    objects, products = range(len(code)), []
    for k, value in {(k, int(v)) for row in features for k, v in enumerate(row)}:
        have = {n for n in objects if features[n, k] == value}
        found = []
        for position, symbol in {(i, int(s)) for row in code for i, s in enumerate(row)}:
            called = {n for n in objects if code[n, position] == symbol}
            found.append((len(have & called) / len(called), len(have & called) / len(have)))
        concept_given, word_given = max(found)
        products.append(concept_given * word_given)
    return sum(products) / len(products)


def slow_tre(code: np.ndarray, features: np.ndarray) -> float:
    x = np.array([[float(row[k] == v) for k in range(features.shape[1]) for v in range(3)] for row in features])
    y = np.array([[float(row[i] == a) for i in range(code.shape[1]) for a in range(4)] for row in code])
    fitted = x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return float(((y - fitted) ** 2).sum() / ((y - y.mean(axis=0)) ** 2).sum())


SLOW: list[tuple[Metric, Callable[[np.ndarray, np.ndarray], float]]] = [
    (topsim, lambda c, f: slow_topsim(c, f, lambda x, y: sum(a != b for a, b in zip(x, y, strict=True)))),
    (topsim_edit, lambda c, f: slow_topsim(c, f, lambda x, y: slow_edit(x, y) / max(len(x), len(y)))),
    (conflicts, slow_conflicts),
    (conflicts_normalised, lambda c, f: slow_conflicts(c, f) / (12 * (2 / 3 + 1 / 2 + 1 / 2))),
    (posdis, lambda c, f: slow_dis(c.T.tolist(), f)),
    (bosdis, lambda c, f: slow_dis([(c == a).sum(axis=1).tolist() for a in range(4)], f)),
    (matched_disentanglement, slow_matched),
    (context_independence, slow_context_independence),
    (tre, slow_tre),
    (distinct_messages, lambda c, f: float(len({tuple(m) for m in c.tolist()}))),
    (message_entropy, lambda c, f: slow_information(ids := [hash(tuple(m)) for m in c.tolist()], ids) / math.log(2)),
]


@pytest.mark.parametrize(("metric", "slow"), SLOW)
def test_the_batched_forms_agree_with_plain_loops(
    metric: Metric, slow: Callable[[np.ndarray, np.ndarray], float]
) -> None:
    codes, features = random_codes(1)
    assert metric(codes, features).values == pytest.approx([slow(one, features) for one in codes], abs=1e-9)


def test_the_holistic_code_by_loops_too() -> None:
    holistic = ZOO["holistic"]
    assert context_independence(holistic, OBJECTS).values == pytest.approx(
        [slow_context_independence(holistic[0], OBJECTS)]
    )


def test_edit_distance_of_messages_that_end() -> None:
    draw = np.random.default_rng(3)
    codes, features = draw.integers(0, 3, size=(4, 12, 4)), random_codes()[1]

    def said(message: list[int]) -> list[int]:
        return message[: message.index(0)] if 0 in message else message

    def distance(one: list[int], other: list[int]) -> float:
        x, y = said(one), said(other)
        return slow_edit(x, y) / max(len(x), len(y), 1)

    expected = [slow_topsim(one, features, distance) for one in codes]
    assert topsim_edit(codes, features, eos=0).values == pytest.approx(expected, abs=1e-9)


def test_assignment_against_all_assignments() -> None:
    costs = np.random.default_rng(2).normal(size=(5, 3, 5))
    every = [[sum(c[k, p[k]] for k in range(3)) for p in itertools.permutations(range(5), 3)] for c in costs]
    assert assigned(costs) == pytest.approx([min(sums) for sums in every])


def test_fewer_positions_than_features() -> None:
    short = ZOO["compositional"][:, :, :1]
    assert not conflicts(short, OBJECTS).defined[0]
    assert conflicts(short, OBJECTS).values[0] == 0.0
    assert matched_disentanglement(short, OBJECTS).values == pytest.approx([0.5])


def test_counts_of_messages_and_perfect_codes() -> None:
    codes = np.concatenate([ZOO["compositional"], ZOO["dropping"], ZOO["constant"], ZOO["rotated"]])
    assert distinct_messages(codes, OBJECTS).values.tolist() == [9, 3, 1, 9]
    assert message_entropy(codes, OBJECTS).values == pytest.approx([math.log2(9), math.log2(3), 0, math.log2(9)])
    assert perfect(codes, OBJECTS).tolist() == [True, False, False, False]
    assert conflicts_normalised(codes, OBJECTS).values == pytest.approx([0, 0.5, 1, 1])


def test_an_undefined_value_is_told_and_left_out_of_the_mean() -> None:
    codes = np.concatenate([ZOO["compositional"], ZOO["constant"], ZOO["entangled"]])
    found = topsim(codes, OBJECTS)
    assert found.defined.tolist() == [True, False, True]
    assert found.estimate().value == pytest.approx(0.5)
    assert found.estimate().n == 2
    one_object = topsim(codes[:, :1], OBJECTS[:1])
    assert not one_object.defined.any()


def test_chance_has_no_structure_and_a_compositional_code_has() -> None:
    codes = np.concatenate([ZOO["compositional"], ZOO["rotated"], ZOO["constant"]])
    found = null_distribution(topsim, codes, OBJECTS, permutations=400)
    # Dealt anew, the 18 pairs one symbol apart fall on pairs one feature apart by chance: 9 on average, so topsim 0.
    assert found.mean[:2] == pytest.approx([0, 0], abs=0.03)
    assert found.z.defined.tolist() == [True, True, False]
    assert found.z.values[0] == pytest.approx(-found.z.values[1], rel=0.3)
    assert found.z.values[0] > 4
    assert null_distribution(conflicts, codes, OBJECTS).z.values[0] < -4
    assert not null_distribution(distinct_messages, codes, OBJECTS).z.defined.any()  # dealing changes nothing
    again = null_distribution(topsim, codes, OBJECTS, permutations=400)
    assert (again.z.values == found.z.values).all()


@pytest.mark.parametrize("metric", [topsim, conflicts, posdis, context_independence, tre, matched_disentanglement])
def test_z_of_random_codes_is_standard(metric: Metric) -> None:
    """Codes that are themselves dealt at random: z has mean 0 and spread 1."""
    draw = np.random.default_rng(5)
    codes = np.stack([draw.permutation(ZOO["compositional"][0]) for _ in range(400)])
    z = null_distribution(metric, codes, OBJECTS, permutations=100).z
    assert abs(z.values.mean()) < 4 / math.sqrt(400)
    assert 0.8 < z.values.std() < 1.25


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(DataError, match="features"):
        topsim(ZOO["compositional"], OBJECTS[:-1])
    with pytest.raises(DataError, match="whole"):
        topsim(ZOO["compositional"] + 0.5, OBJECTS)
    with pytest.raises(ConfigError, match="permutations=1"):
        null_distribution(topsim, ZOO["compositional"], OBJECTS, permutations=1)
