"""Interventions and informations on laws made by hand, whose answers are known; and by plain loops on random ones."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from amenable.game.agents import Listener, Speaker
from amenable.game.channels import Flip
from amenable.game.influence import influence, information, meaning, swapped
from amenable.game.walk import Grid, Walk, Walks


def walks_of(walk: Walk, sent: torch.Tensor, moves: torch.Tensor) -> Walks:
    """Laws made by hand in place of trained ones; the networks are not asked."""
    speaker, listener = Speaker("table").build(walk.speaking, [0]), Listener("table").build(walk.reading, [0])
    return Walks(walk, speaker, listener, sent.double(), moves.double(), {})


def shortest(grid: Grid) -> torch.Tensor:
    """(goal, place): an action that leads closer."""
    return grid.distance[grid.next].argmin(1).T


def commanders() -> Walks:
    """The speaker says the action, the walker obeys."""
    walk = Walk(Grid(3), "goal+listener", "nothing", Flip(0.0), alphabet=4)
    sent = torch.nn.functional.one_hot(shortest(walk.grid), 4)
    return walks_of(walk, sent.unsqueeze(0), torch.eye(4)[None, None])


def namers(side: int = 2) -> Walks:
    """The speaker says the goal, the walker knows the way."""
    walk = Walk(Grid(side), "goal", "self", Flip(0.0), alphabet=side**2)
    moves = torch.nn.functional.one_hot(shortest(walk.grid).T, 4)  # place, message = goal
    return walks_of(walk, torch.eye(side**2)[None, :, None], moves.unsqueeze(0))


def test_information_of_laws_that_are_known() -> None:
    eye = torch.eye(4, dtype=torch.float64) / 4
    apart = torch.tensor([[0.3], [0.7], [0.0]], dtype=torch.float64) * torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert float(information(eye)) == pytest.approx(2)
    assert float(information(apart)) == pytest.approx(0, abs=1e-12)
    noisy = torch.tensor([[0.45, 0.05], [0.05, 0.45]], dtype=torch.float64)
    assert float(information(noisy)) == pytest.approx(1 + 0.9 * math.log2(0.9) + 0.1 * math.log2(0.1))


def test_commands() -> None:
    walks = commanders()
    found = influence(walks)
    actions = walks.walk.actions(walks.sent, walks.moves)
    share = (walks.walk.visits(actions).unsqueeze(-1) * actions).sum((0, 1, 2))
    entropy = float(-(share * share.log2()).sum())
    assert float(found.success) == pytest.approx(1)
    assert float(found.action_bits) == pytest.approx(entropy)  # the message is the action
    assert float(found.signalling_bits) == pytest.approx(entropy)  # and all of it is told by goal and place
    assert 0 < float(found.goal_bits) < entropy
    anywhere = torch.full((1, 9, 9, 4), 0.25, dtype=torch.float64)
    assert float(found.silenced) == pytest.approx(float(walks.walk.success(anywhere)))
    assert float(found.silenced_at[0, 0]) == pytest.approx(float(found.silenced))


def test_names() -> None:
    found, meant = influence(namers()), meaning(namers())
    assert float(found.success) == pytest.approx(1)
    assert float(found.goal_bits) == pytest.approx(2)  # four goals, visited alike
    assert float(found.signalling_bits) == pytest.approx(2)  # and of the walker's place it says nothing
    torch.testing.assert_close(meant.goals[0], torch.eye(4, dtype=torch.float64))
    on_three = influence(namers(3))
    assert float(on_three.listening_bits) > float(
        on_three.action_bits
    )  # it says what to do to one who knows where it is
    assert max(float(on_three.swapped), float(on_three.silenced), float(on_three.shuffled)) < 0.6


def test_swapped_is_success_at_one_goal_of_those_who_are_sent_to_another() -> None:
    walks = namers(3)
    walk, every = walks.walk, []
    for told, goal in product(range(9), repeat=2):
        if told != goal:
            sent = walks.sent.clone()
            sent[0, goal] = walks.sent[0, told]
            values = walk.values(walk.actions(sent, walks.moves))[0, goal]
            every.append(float((values.sum() - 1) / 8))
    expected = sum(every) / len(every) / walk.optimum
    assert float(swapped(walk, walk.actions(walks.sent, walks.moves))) == pytest.approx(expected)


def test_a_message_that_nobody_hears_changes_nothing() -> None:
    """The speaker says the goal aloud; the walker goes anywhere: signalling without listening."""
    walk = namers().walk
    found = influence(walks_of(walk, namers().sent, torch.full((1, 4, 4, 4), 0.25)))
    assert float(found.goal_bits) == pytest.approx(2)
    for number in (found.action_bits, found.listening_bits):
        assert float(number) == pytest.approx(0, abs=1e-12)
    for number in (found.silenced, found.shuffled, found.swapped):
        assert float(number) == pytest.approx(float(found.success))


def rows_and_columns() -> Walks:
    """Two symbols: the first says the goal's row, the second its column; a walker who is there stays, against the wall."""
    walk = Walk(Grid(2), "goal", "self", Flip(0.0), length=2, alphabet=2)
    moves = torch.zeros(1, 4, 4, 4)
    for place, (row, column) in product(range(4), product(range(2), repeat=2)):
        wrong = (place // 2 != row, place % 2 != column)
        action = (0, 2)[row] if wrong[0] or not wrong[1] else (3, 1)[column]
        moves[0, place, 2 * row + column, action] = 1
    return walks_of(walk, torch.eye(4)[None, :, None], moves)


def test_what_each_position_is_for() -> None:
    walks = rows_and_columns()
    meant, found = meaning(walks), influence(walks)
    torch.testing.assert_close(meant.ends[0], torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(meant.moved[0, :, 1:], torch.eye(2, dtype=torch.float64))  # first: row, second: column
    assert float(found.success) == pytest.approx(1)
    assert float(found.silenced) < float(found.silenced_at.min()) < 1


def test_a_position_that_is_not_read_can_go() -> None:
    walks = rows_and_columns()
    deaf = walks.moves.clone()
    deaf[:, :, 1], deaf[:, :, 3] = deaf[:, :, 0], deaf[:, :, 2]  # the second symbol reads as its first value
    found = influence(walks_of(walks.walk, walks.sent, deaf))
    assert float(found.silenced_at[0, 1]) == pytest.approx(float(found.success))
    assert float(found.silenced_at[0, 0]) == pytest.approx(float(found.silenced))


def test_informations_are_those_of_plain_loops() -> None:
    walk = Walk(Grid(2), "goal+listener", "self", Flip(0.2), alphabet=2)
    generator = torch.Generator().manual_seed(0)
    sent = torch.rand(1, 4, 4, 2, generator=generator, dtype=torch.float64).softmax(-1)
    moves = (3 * torch.rand(1, 4, 2, 4, generator=generator, dtype=torch.float64)).softmax(-1)
    visits = walk.visits(walk.actions(sent @ walk.noise, moves))[0]
    with_action: dict[tuple[int, int], float] = {}
    with_goal: dict[tuple[int, int], float] = {}
    for goal, place, m, heard, action in product(range(4), range(4), range(2), range(2), range(4)):
        p = float(visits[goal, place] * sent[0, goal, place, m] * walk.noise[m, heard] * moves[0, place, heard, action])
        with_action[heard, action] = with_action.get((heard, action), 0) + p
        with_goal[m, goal] = with_goal.get((m, goal), 0) + p
    found = influence(walks_of(walk, sent, moves))
    assert float(found.action_bits) == pytest.approx(bits(with_action))
    assert float(found.goal_bits) == pytest.approx(bits(with_goal))


def bits(joint: dict[tuple[int, int], float]) -> float:
    """Mutual information of a joint law."""
    total = 0.0
    for (a, b), p in joint.items():
        one = sum(q for (x, _), q in joint.items() if x == a)
        other = sum(q for (_, y), q in joint.items() if y == b)
        total += p * math.log2(p / one / other) if p else 0.0
    return total
