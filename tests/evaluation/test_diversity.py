"""Distinct n-grams and self-BLEU, by hand, against a plain implementation, and by the laws they obey."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.errors import ConfigError, DataError
from amenable.evaluation.diversity import Level, Per, corpus_distinct_n, distinct_n, self_bleu
from amenable.seeding import python_random

TEXTS = st.lists(st.text("ab c", max_size=12), max_size=6)
LEVELS: list[Level] = ["word", "char"]


def grams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def plain_bleu(text: Sequence[str], references: Sequence[Sequence[str]], n: int) -> float:
    """BLEU by its definition, n-gram by n-gram and reference by reference."""
    precisions = []
    for order in range(1, n + 1):
        own = grams(text, order)
        hits = sum(min(count, max(grams(one, order)[gram] for one in references)) for gram, count in own.items())
        if order == 1 and hits == 0:
            return 0.0
        precisions.append((hits or 0.1) / max(1, sum(own.values())))
    nearest = min((abs(len(one) - len(text)), len(one)) for one in references)[1]
    penalty = 1.0 if len(text) > nearest else math.exp(1 - nearest / len(text))
    return penalty * math.prod(precisions) ** (1 / n)


def plain_self_bleu(texts: Sequence[str], n: int, level: Level) -> list[float]:
    tokens = [text.split() if level == "word" else list(text) for text in texts]
    tokens = [one for one in tokens if one]
    return [plain_bleu(one, tokens[:i] + tokens[i + 1 :], n) for i, one in enumerate(tokens)] if len(tokens) > 1 else []


def sentences(count: int, words: int, seed: int = 0) -> list[str]:
    rng = python_random(seed, "sentences")
    known = ["".join(rng.choices("abcdefgh", k=rng.randint(1, 6))) for _ in range(300)]
    return [" ".join(known[int(300 * rng.random() ** 3)] for _ in range(words)) for _ in range(count)]


# distinct-n


def test_distinct_by_hand() -> None:
    # "a b a b": bigrams ab, ba, ab -> 2 of 3 (of 4 tokens); "a b c": 2 of 2 (of 3 tokens); "a" has none
    texts = ["a b a b", "a b c", "a"]
    assert distinct_n(texts, 2).value == pytest.approx((2 / 3 + 1) / 2)
    assert distinct_n(texts, 2, per="tokens").value == pytest.approx((2 / 4 + 2 / 3) / 2)
    assert distinct_n(texts, 1).value == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert distinct_n(["abab", "a"], 2, level="char").value == pytest.approx(2 / 3)
    assert distinct_n(["a b a b"], 2, level="char").value == pytest.approx(4 / 6)


def test_short_texts_are_missing_and_counted() -> None:
    pers: tuple[Per, ...] = ("ngrams", "tokens")
    for per in pers:
        found = distinct_n(["a b", "a", "", "a b c"], 2, per=per)
        assert found.n == 2
        assert "2 of 4 too short" in found.method
    assert distinct_n(["a"], 2).n == 0
    assert math.isnan(distinct_n([], 1).value)
    assert distinct_n(["a b", "c d"], 2).method.startswith("all values equal")
    assert distinct_n(["a b b", "c d"], 1).method == "bootstrap over texts"


def test_corpus_distinct_by_hand() -> None:
    # unigrams of all: a b a b | a b c | d -> {a b c d} of 8 tokens
    texts = ["a b a b", "a b c", "d"]
    assert corpus_distinct_n(texts, 1).value == pytest.approx(4 / 8)
    # bigrams: ab ba ab | ab bc -> {ab ba bc} of 5; over the tokens of the texts that have any: 7
    assert corpus_distinct_n(texts, 2).value == pytest.approx(3 / 5)
    assert corpus_distinct_n(texts, 2, per="tokens").value == pytest.approx(3 / 7)
    assert corpus_distinct_n(texts, 2).n == 2
    assert "1 of 3 too short" in corpus_distinct_n(texts, 2).method
    assert corpus_distinct_n(["a a"], 1).value == 0.5
    assert not corpus_distinct_n(["a a"], 1).has_interval
    assert corpus_distinct_n(["", ""], 1).n == 0


def test_the_corpus_interval_is_the_jackknife_by_hand() -> None:
    # leaving out each of "a b", "a c", "a a": 2/4 {a c}, 2/4 {a b}, 3/4 {a b c}; mean 7/12
    found = corpus_distinct_n(["a b", "a c", "a a"], 1)
    left = [2 / 4, 2 / 4, 3 / 4]
    error = math.sqrt(2 / 3 * sum((value - sum(left) / 3) ** 2 for value in left))
    assert found.value == 0.5
    assert found.high - found.value == pytest.approx(1.959964 * error, rel=1e-6)


def test_the_corpus_interval_covers() -> None:
    """Where a bootstrap never would: a sample's value lies above all of its resamples'."""
    truth = sum(corpus_distinct_n(sentences(60, 8, seed), 2).value for seed in range(100, 150)) / 50
    found = [corpus_distinct_n(sentences(60, 8, seed), 2) for seed in range(40)]
    assert sum(one.low <= truth <= one.high for one in found) >= 32


@settings(deadline=None)
@given(TEXTS, st.integers(1, 3), st.sampled_from(LEVELS))
def test_laws_of_distinct(texts: list[str], n: int, level: Level) -> None:
    found, corpus = distinct_n(texts, n, level=level), corpus_distinct_n(texts, n, level=level)
    assert found.n == corpus.n
    if found.n:
        assert 0 < found.value <= 1
        assert 0 < corpus.value <= 1
        assert found.value == pytest.approx(distinct_n(texts[::-1], n, level=level).value)
        assert corpus.value == corpus_distinct_n(texts[::-1], n, level=level).value
        assert distinct_n(texts * 2, n, level=level).value == pytest.approx(found.value)
        assert corpus_distinct_n(texts * 2, n, level=level).value == pytest.approx(corpus.value / 2)
        assert distinct_n(texts, n, level=level, per="tokens").value <= found.value


# self-BLEU


def test_self_bleu_by_hand() -> None:
    # t1 = a b c, t2 = a b d: p1 = 2/3, p2 = 1/2, lengths equal -> sqrt(1/3) each
    assert self_bleu(["a b c", "a b d"], 2).value == pytest.approx(math.sqrt(1 / 3))
    # p3 = 0 of 1 -> 0.1: (2/3 * 1/2 * 0.1)^(1/3)
    assert self_bleu(["a b c", "a b d"], 3).value == pytest.approx((2 / 3 * 1 / 2 * 0.1) ** (1 / 3))
    # "a" against "a b c": p1 = 1, brevity exp(1 - 3); back: p1 = 1/3, longer than the reference
    assert self_bleu(["a", "a b c"], 1).value == pytest.approx((math.exp(-2) + 1 / 3) / 2)
    # the words repeat more often than any one reference has them: "a a a" against "a b" and "a c" keeps one a
    assert self_bleu(["a a a", "a b", "a c"], 1).value == pytest.approx((1 / 3 + 1 / 2 + 1 / 2) / 3)
    assert self_bleu(["a b", "c d"], 2).value == 0.0


def test_characters_are_not_words() -> None:
    texts = ["ab cd", "ab ce"]
    assert self_bleu(texts, 1, level="word").value == pytest.approx(1 / 2)
    assert self_bleu(texts, 1, level="char").value == pytest.approx(4 / 5)


def test_the_nearest_length_is_the_shorter_of_two() -> None:
    # |t| = 2; references of 1 and 3 tokens are as near: the shorter one, so no penalty
    texts = ["a b", "a", "a b c"]
    expected = [plain_bleu(one, others, 1) for one, others in
                ((["a", "b"], [["a"], ["a", "b", "c"]]), (["a"], [["a", "b"], ["a", "b", "c"]]),
                 (["a", "b", "c"], [["a", "b"], ["a"]]))]  # fmt: skip
    assert expected == pytest.approx([1.0, math.exp(-1), 2 / 3])
    assert self_bleu(texts, 1).value == pytest.approx(sum(expected) / 3)


@settings(deadline=None)
@given(TEXTS, st.integers(1, 5), st.sampled_from(LEVELS))
def test_self_bleu_is_the_plain_one(texts: list[str], n: int, level: Level) -> None:
    scores = plain_self_bleu(texts, n, level)
    found = self_bleu(texts, n, level=level)
    assert found.n == len(scores)
    if scores:
        assert found.value == pytest.approx(sum(scores) / len(scores))
        assert self_bleu(texts[::-1], n, level=level).value == pytest.approx(found.value)


@settings(deadline=None)
@given(TEXTS, st.integers(1, 4))
def test_copies_are_alike(texts: list[str], n: int) -> None:
    kept = [text for text in texts if len(text) >= n]
    if kept:
        assert self_bleu(kept * 2, n, level="char").value == pytest.approx(1.0)


def test_fewer_references_are_drawn_by_the_seed_and_resemble_less() -> None:
    texts = sentences(60, 12)
    whole = self_bleu(texts, 3)
    some = [self_bleu(texts, 3, references=10, seed=seed).value for seed in range(5)]
    assert len(set(some)) == 5
    assert max(some) < whole.value
    assert self_bleu(texts, 3, references=10, seed=3) == self_bleu(texts, 3, references=10, seed=3)
    assert self_bleu(texts, 3, references=59) == whole
    assert "(10 a text)" in self_bleu(texts, 3, references=10).method


def test_with_fewer_references_each_text_has_as_many_and_never_itself() -> None:
    # of three texts of one word each, one reference: a text equals its only reference or it does not
    values = [self_bleu(["a", "a", "b"], 1, references=1, seed=seed).value for seed in range(20)]
    # pool {a, a}: 1 1 0; pool {a, b}: the two texts of the pool differ, and the third, an a, is held against a or b
    assert {round(3 * value) for value in values} == {0, 1, 2}
    assert all(3 * value == pytest.approx(round(3 * value)) for value in values)
    assert self_bleu(["a", "b", "c", "d"], 1, references=2).value == 0.0, "a text among its references would give 1"


def test_empty_texts_are_missing_and_counted() -> None:
    found = self_bleu(["a b", "", "a b", " "], 2)
    assert found.value == pytest.approx(1.0)
    assert found.n == 2
    assert "2 of 4 too short" in found.method
    assert self_bleu(["a", ""], 1).n == 0
    assert "no two texts" in self_bleu(["a", ""], 1).method
    assert self_bleu([], 1).n == 0


def test_clusters_are_drawn_whole() -> None:
    texts = sentences(20, 6)
    prompts = [index // 5 for index in range(20)]
    for found in (self_bleu(texts, 2, clusters=prompts), distinct_n(texts, 1, level="char", clusters=prompts)):
        assert found.n == 4
        assert "clusters" in found.method
    assert self_bleu(texts, 2, clusters=prompts).value == pytest.approx(self_bleu(texts, 2).value)
    with pytest.raises(DataError, match="20 texts but 1 cluster labels"):
        distinct_n(texts, 1, clusters=["a"])


def test_five_hundred_texts_take_no_time() -> None:
    texts = sentences(500, 40)
    start = time.perf_counter()
    found = self_bleu(texts, 5, level="char")
    assert time.perf_counter() - start < 5.0
    assert found.n == 500
    assert found.low < found.value < found.high


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"n": 0}, "n=0"),
        ({"level": "byte"}, "level='byte'"),
        ({"references": 0}, "references=0"),
        ({"references": 2}, "a text has 1 others"),
    ],
)
def test_wrong_settings(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        self_bleu(["a", "b"], **{"n": 2, **settings})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="per='word'"):
        distinct_n(["a"], 1, per="word")  # type: ignore[arg-type]
