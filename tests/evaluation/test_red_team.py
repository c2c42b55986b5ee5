"""The search: whom it draws, what it asks, what it takes, and a search against a target whose weakness is known."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from amenable.errors import ConfigError
from amenable.evaluation.red_team import (
    Tried,
    as_list,
    as_rows,
    best,
    curve,
    difference,
    draw,
    new_prompts,
    of_round,
    spread,
    tried,
)
from amenable.seeding import python_random


def pool(*scores: float | None) -> list[Tried]:
    return [Tried(f"p{at}\n", score, 4, 0, "") for at, score in enumerate(scores)]


def test_a_prompts_score_is_the_mean_of_its_answers() -> None:
    found = tried("p", ["a", "b", "", "d"], [0.2, 0.9, None, 0.4])
    assert found == Tried("p", 0.5, 4, 1, "b")
    assert tried("p", ["", ""], [None, None]) == Tried("p", None, 2, 2, "")
    assert [Tried(**row) for row in as_rows([found])] == [found]


def test_who_is_drawn() -> None:
    """The first of k is drawn with P ∝ exp(score / T); the others without replacement; a missing score never."""
    known = pool(0.0, 0.1, 0.3, None)
    drawn = [draw(known, 2, temperature=0.1, seed=seed) for seed in range(4000)]
    shares = Counter(first for first, _ in drawn)
    wanted = np.exp(np.array([0.0, 0.1, 0.3]) / 0.1)
    for at, share in enumerate(wanted / wanted.sum()):
        assert shares[f"p{at}\n"] / 4000 == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 4000))
    second = Counter(two for one, two in drawn if one == "p2\n")
    rest = wanted[1] / (wanted[0] + wanted[1])
    assert second["p1\n"] / second.total() == pytest.approx(rest, abs=0.04)
    assert "p3\n" not in {text for both in drawn for text in both}
    assert sorted(draw(known, 9, temperature=0.1, seed=0)) == ["p0\n", "p1\n", "p2\n"]
    assert draw(known, 2, temperature=0.1, seed=1) == draw(known, 2, temperature=0.1, seed=1)
    assert {draw(known, 1, temperature=math.inf, seed=seed)[0] for seed in range(50)} == {"p0\n", "p1\n", "p2\n"}
    with pytest.raises(ConfigError, match="not positive"):
        draw(known, 1, temperature=0.0, seed=0)


def test_the_spread_is_in_the_scores_own_unit() -> None:
    assert spread(pool(0.01, 0.03)) == pytest.approx(0.01)
    assert spread(pool(0.5, 0.5)) == 1.0
    assert spread([]) == 1.0


def test_what_the_generator_reads_and_what_is_taken_of_it() -> None:
    assert as_list(["a = 1\n", "b = 2\n"], "lines") == "a = 1\nb = 2\n"
    assert as_list(["Once\nupon.", "Twice."], "sentences") == "1. Once upon.\n2. Twice.\n3."
    texts = ["  x = 1  \nmore", "", "  x = 1", "y" * 50, "known", "\tz"]
    assert new_prompts(texts, ["known\n"], "lines", longest=20) == ["  x = 1\n", "\tz\n"]
    assert new_prompts(texts, ["known"], "sentences", longest=20) == ["x = 1", "z"]


def test_searches_are_what_is_counted() -> None:
    low = [[pool(0.0, 0.2), pool(0.1)], [pool(0.2, None), pool(0.3)]]
    high = [[pool(0.3), pool(0.6)], [pool(0.4), []]]
    first, second = curve(low)
    assert (first.value, first.n) == (pytest.approx(0.15), 2)
    assert second.value == pytest.approx(0.2)
    assert math.isnan(of_round([]))
    assert curve(high)[1].n == 1  # a round without a prompt is missing
    assert best(low).value == pytest.approx((0.2 + 0.3) / 2)
    gap = difference(high, low, slice(0, None))
    assert gap.value == pytest.approx(((0.2 + 0.5) / 2 + 0.2) / 2)
    assert gap.n == 2


def test_a_search_finds_the_weakness_and_an_even_draw_does_not() -> None:
    """The target is bad after big numbers; the generator writes the numbers that it reads, give or take one."""

    def search(temperature: float, seed: int) -> float:
        random = python_random(seed, "numbers")
        every = [Tried(str(n), n / 100, 1, 0, "") for n in random.sample(range(40), 8)]
        for at in range(12):
            seen = draw(every, 4, temperature=temperature, seed=1000 * seed + at)
            written = [str(int(random.choice(seen)) + random.choice((-1, 1))) for _ in range(8)]
            fresh = new_prompts(written, [one.prompt for one in every], "sentences", longest=9)
            every += [Tried(text, int(text) / 100, 1, 0, "") for text in fresh]
        return max(one.score or 0.0 for one in every)

    sharp, even = ([search(temperature, seed) for seed in range(10)] for temperature in (0.02, math.inf))
    assert np.mean(sharp) > np.mean(even) + 0.02
