"""A sweep over noise: its arms are the trainings they name, and its comparison finds what was planted."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

from amenable.errors import ConfigError
from amenable.evaluation.permutation import permutation_test
from amenable.game import Attributes, Erase, Flip, Listener, Signalling, Speaker, train
from amenable.game.sweep import Arm, Sweep, arm_of, compare, sweep, with_noise

GAME = Signalling(Attributes(values=(3, 3)), channel=Flip(0.1), length=2, alphabet=3)
OBJECTS = list(itertools.product(range(3), repeat=2))
COMPOSITIONAL = [[a, b] for a, b in OBJECTS]
ROTATED = [[(a + b) % 3, (a - b) % 3] for a, b in OBJECTS]
SWAPPED = [*COMPOSITIONAL[1:2], *COMPOSITIONAL[:1], *COMPOSITIONAL[2:]]  # two messages of one row exchanged
CONSTANT = [[0, 0] for _ in OBJECTS]


def arm(noise: float, codes: list[list[list[int]]]) -> Arm:
    ones = np.ones(len(codes))
    return Arm(f"{noise:g}", noise, with_noise(GAME, noise), np.array(codes), ones, ones, None, ("",) * len(codes))


def test_arms_are_the_trainings_they_name() -> None:
    found = sweep(GAME, Speaker("table"), Listener("mlp", hidden=8), noise=[0, 0.2, 0.2], seeds=3, steps=20, seed=5)
    assert [one.noise for one in found.arms] == [0, 0.2]
    alone = train(with_noise(GAME, 0.2), Speaker("table"), Listener("mlp", hidden=8), seeds=3, steps=20, seed=5)
    assert (found.arms[1].codes == alone.codes.numpy()).all()
    assert found.arms[1].noisy == pytest.approx(alone.noisy.numpy())
    assert found.arms[1].words[2] == alone.dictionary(2)
    assert found.arms[1].game.channel == Flip(0.2)


def test_an_arm_survives_being_written_down() -> None:
    game = Signalling(Attributes(values=(3, 3), held_out=(4,)), channel=Erase(0.1), length=2, alphabet=3, eos=True)
    before = arm_of(game, Speaker("mlp", 8), Listener("mlp", 8), name="it", seeds=2, steps=5)
    after = Arm.of_rows("it", 0.1, game, json.loads(json.dumps(before.rows())))
    assert (after.codes == before.codes).all()
    assert after.held_out is not None
    assert before.held_out is not None
    for one, other in ((after.clean, before.clean), (after.noisy, before.noisy), (after.held_out, before.held_out)):
        assert one == pytest.approx(other)
    assert (after.words, after.noise, after.name) == (before.words, 0.1, "it")
    assert after.score("topsim").values == pytest.approx(before.score("topsim").values)


def test_a_planted_difference_is_found_and_an_equal_arm_is_not() -> None:
    noise_free = arm(0, [ROTATED] * 3 + [SWAPPED] * 3)
    arms = (noise_free, arm(0.1, [COMPOSITIONAL] * 6), arm(0.2, [ROTATED] * 3 + [SWAPPED] * 3))
    found = Sweep(arms).compare()
    assert len(found) == 2
    assert [one.arm.noise for one in found] == [0.1, 0.2]
    own = noise_free.score("topsim").values
    assert found[0].difference.value == pytest.approx(1 - own.mean())
    assert found[0].p == pytest.approx(permutation_test(np.ones(6), own))
    assert found[0].p == pytest.approx(1 / math.comb(12, 6))
    assert found[0].adjusted == pytest.approx(2 / math.comb(12, 6))
    assert found[1].difference.value == 0
    assert found[1].p is not None
    assert found[1].p > 0.5


def test_fewer_conflicts_are_better() -> None:
    (better,) = Sweep((arm(0, [ROTATED] * 4), arm(0.1, [COMPOSITIONAL] * 4))).compare("conflicts")
    assert better.difference.value == -12
    assert better.p == pytest.approx(1 / math.comb(8, 4))
    (worse,) = Sweep((arm(0, [ROTATED] * 4), arm(0.1, [COMPOSITIONAL] * 4))).compare("conflicts", to=0.1)
    assert worse.p == 1.0


def test_runs_without_a_value_are_left_out_of_the_test() -> None:
    reference = arm(0, [ROTATED, ROTATED, CONSTANT])
    some, none = arm(0.1, [COMPOSITIONAL, CONSTANT, COMPOSITIONAL]), arm(0.4, [CONSTANT] * 3)
    first, second = compare([(some, reference), (none, reference)])
    assert first.difference.value == pytest.approx(2.0)  # 1 - (-1), not a 0 in it
    assert first.difference.n == 4
    assert first.p == first.adjusted == pytest.approx(1 / math.comb(4, 2))
    assert (second.p, second.adjusted) == (None, None)
    assert math.isnan(second.difference.value)
    assert math.isnan(second.smallest)


def test_what_chance_gives_an_arm() -> None:
    z = arm(0, [COMPOSITIONAL, CONSTANT]).null("topsim", permutations=50).z
    assert z.values[0] > 3
    assert z.defined.tolist() == [True, False]


def test_what_cannot_be_swept_is_refused() -> None:
    with pytest.raises(ConfigError, match="no arm has noise 0"):
        Sweep((arm(0.1, [ROTATED]),)).compare()
    with pytest.raises(ConfigError, match="'topsin'"):
        arm(0.1, [ROTATED]).score("topsin")
    with pytest.raises(ConfigError, match="several probabilities"):
        with_noise(Signalling(channel=Flip(0.1) @ Erase(0.1)), 0.2)
    with pytest.raises(ConfigError, match="probability"):
        sweep(GAME, noise=[1.5], seeds=1, steps=1)
