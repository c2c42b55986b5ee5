"""The walk: the linear solve against a recursion and against walkers who walk; the gradient; and what training makes of it."""

from __future__ import annotations

import pytest
import torch
from products import tolerance

from amenable.errors import ConfigError
from amenable.game.agents import Listener, Speaker
from amenable.game.channels import Erase, Flip
from amenable.game.influence import influence
from amenable.game.walk import Grid, Solve, Walk, train_walk
from amenable.seeding import torch_generator

SEES = [("goal", "self"), ("goal+listener", "nothing"), ("goal", "nothing"), ("goal+listener", "self")]


def laws(walk: Walk, seeds: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Random laws of a speaker and a walker, in the shapes that the game gives them."""
    generator, places = torch_generator(1, "laws"), walk.grid.places
    seen = 1 if walk.speaker_sees == "goal" else places
    known = places if walk.listener_sees == "self" else 1
    sent = torch.rand(seeds, places, seen, len(walk.noise), generator=generator, dtype=torch.float64)
    moves = torch.rand(seeds, known, len(walk.received), 4, generator=generator, dtype=torch.float64) ** 3
    return sent / sent.sum(-1, keepdim=True), moves / moves.sum(-1, keepdim=True)


def next_law(walk: Walk, sent: torch.Tensor, moves: torch.Tensor, goal: int, place: int) -> list[float]:
    """Where a walker of the first pair goes next, with plain loops over messages, strings and actions."""
    found = [0.0] * walk.grid.places
    said = sent[0, goal, place if sent.shape[2] > 1 else 0]
    does = moves[0, place if moves.shape[1] > 1 else 0]
    for m, told in enumerate(said.tolist()):
        for heard, arrives in enumerate(walk.noise[m].tolist()):
            for action in range(4):
                row, column = divmod(place, walk.grid.side)
                row += {0: -1, 2: 1}.get(action, 0)
                column += {1: 1, 3: -1}.get(action, 0)
                inside = 0 <= row < walk.grid.side and 0 <= column < walk.grid.side
                there = row * walk.grid.side + column if inside else place
                found[there] += told * arrives * float(does[heard, action])
    return found


@pytest.mark.parametrize(("speaker", "listener"), SEES)
def test_values_are_those_of_the_slow_recursion(speaker: str, listener: str) -> None:
    walk = Walk(Grid(3), speaker, listener, Flip(0.1), length=2, alphabet=2)  # type: ignore[arg-type]
    sent, moves = laws(walk)
    values = walk.values(walk.actions(sent @ walk.noise, moves))[0]
    for goal in (0, 4):
        chain = [next_law(walk, sent, moves, goal, place) for place in range(9)]
        slow = [float(place == goal) for place in range(9)]
        for _ in range(400):  # 0.9^400 = 5e-19
            slow = [
                1.0 if place == goal else 0.9 * sum(p * v for p, v in zip(chain[place], slow, strict=True))
                for place in range(9)
            ]
        torch.testing.assert_close(values[goal], torch.tensor(slow, dtype=torch.float64), atol=1e-12, rtol=0)


def test_values_and_visits_are_those_of_walkers_who_walk() -> None:
    walk = Walk(Grid(3), "goal", "self", Erase(0.2), length=1, alphabet=3)
    sent, moves = laws(walk)
    actions = walk.actions(sent @ walk.noise, moves)
    generator, count = torch_generator(0, "walkers"), 40_000
    goal = torch.randint(9, (count,), generator=generator)
    place = (goal + torch.randint(1, 9, (count,), generator=generator)) % 9
    worth, visits, there = torch.zeros(count, dtype=torch.float64), torch.zeros(9, 9, dtype=torch.float64), goal < 0
    for step in range(120):
        worth[(place == goal) & ~there] = 0.9**step
        there |= place == goal
        visits.index_put_((goal[~there], place[~there]), torch.tensor(0.9**step, dtype=torch.float64), accumulate=True)
        law = actions[0, goal, place].cumsum(-1)
        drawn = torch.rand(count, 1, generator=generator, dtype=torch.float64)
        place = walk.grid.next[place, (law < drawn).sum(-1).clamp(max=3)]
    away = walk.away.bool()
    expected = walk.values(actions)[0][away].mean()
    assert abs(float(worth.mean() - expected)) < 4 * float(worth.std()) / count**0.5
    torch.testing.assert_close(visits / visits.sum(), walk.visits(actions)[0], atol=1.5e-3, rtol=0)
    assert float(walk.visits(actions)[0].sum()) == pytest.approx(1, abs=1e-12)


def test_success_of_the_best_walker_is_1_and_of_one_who_goes_anywhere_032() -> None:
    walk = Walk(Grid(4), "goal+listener", "nothing", Flip(0.0), alphabet=4)
    anywhere = torch.full((1, 16, 16, 4), 0.25, dtype=torch.float64)
    assert float(walk.success(anywhere)) == pytest.approx(0.31994735, abs=1e-8)
    closer = walk.grid.distance[walk.grid.next]  # (place, action, goal)
    best = torch.nn.functional.one_hot(closer.argmin(1).T, 4).double()  # (goal, place, action)
    assert float(walk.success(best.unsqueeze(0))) == pytest.approx(1, abs=1e-12)
    two = Walk(Grid(2))
    assert two.optimum == pytest.approx((2 * 0.9 + 0.81) / 3)  # two neighbours and one place across


@pytest.mark.parametrize(("speaker", "listener"), SEES)
def test_the_gradient_is_that_of_finite_differences(speaker: str, listener: str) -> None:
    walk = Walk(Grid(2), speaker, listener, Flip(0.15), length=1, alphabet=2)  # type: ignore[arg-type]
    sent, moves = (law.log().requires_grad_() for law in laws(walk))

    def success(sent: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
        return walk.success(walk.actions(sent.softmax(-1) @ walk.noise, moves.softmax(-1)))

    assert torch.autograd.gradcheck(success, (sent, moves), eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("channel", [Flip(0.1), Erase(0.1)])
def test_a_walker_reads_the_string_and_its_own_place(channel: Flip | Erase) -> None:
    walk = Walk(Grid(3), "goal", "self", channel, length=1, alphabet=2)
    strings = walk.reading.transition[0].tolist()
    assert strings == sorted(strings)
    assert strings == [[*heard, r, c] for heard in walk.received.tolist() for r in range(3) for c in range(3)]
    listener = Listener("table").build(walk.reading, range(2))
    moves = walk.log_moves(listener)
    for number, (heard, row, column) in enumerate(strings):
        alone = listener.logits(walk.reading.one_hot(torch.tensor([[heard, row, column]]))).log_softmax(-1)
        torch.testing.assert_close(moves[:, row * 3 + column, number // 9], alone[:, 0])


def test_what_is_trained_is_the_success_of_the_agents() -> None:
    walk = Walk(Grid(3), "goal+listener", "self", Flip(0.1), length=1, alphabet=3)
    speaker, listener = (
        Speaker("mlp").build(walk.speaking, range(3)),
        Listener("mlp").build(walk.reading, range(3)),
    )
    found = Solve(walk)(speaker, listener, walk.speaking.world.trained, torch.zeros(0))
    sent, moves = walk.log_sent(speaker).double().exp(), walk.log_moves(listener).double().exp()
    assert sent.shape == (3, 9, 9, 3)
    torch.testing.assert_close(
        -found.surrogate.double(), walk.success(walk.actions(sent @ walk.noise, moves)), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("kind", ["mlp", "table"])
@pytest.mark.parametrize(("speaker", "listener"), SEES[:2])
def test_a_seed_alone_has_the_bits_it_has_in_a_batch(kind: str, speaker: str, listener: str) -> None:
    walk = Walk(Grid(3), speaker, listener, Flip(0.1), length=2, alphabet=3)  # type: ignore[arg-type]
    agents = Speaker(kind), Listener(kind)  # type: ignore[arg-type]
    batch, alone = train_walk(walk, *agents, seeds=4, steps=15), train_walk(walk, *agents, seed=2, steps=15)
    """Where products have."""
    for one, other in (
        (batch.sent[2], alone.sent[0]),
        (batch.moves[2], alone.moves[0]),
        (batch.metrics["loss"][:, 2], alone.metrics["loss"][:, 0]),
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance())


def test_commands_or_names() -> None:
    """On a small grid, as the page has it on the larger one: who sees what decides what symbols mean."""
    commands = influence(train_walk(Walk(Grid(3), "goal+listener", "nothing", Flip(0.0)), seeds=2, steps=500))
    names = influence(train_walk(Walk(Grid(3), "goal", "self", Flip(0.0), length=2, alphabet=3), seeds=2, steps=400))
    assert float(commands.success.mean()) > 0.99
    assert float(commands.action_bits.mean()) > 1.9
    assert float(commands.goal_bits.mean()) < 1
    assert float(names.success.mean()) > 0.98
    assert float(names.goal_bits.mean()) > 2
    assert float(names.action_bits.mean()) < 1
    for effects in (commands, names):
        for without in (effects.silenced, effects.shuffled, effects.swapped):
            assert float(without.max()) < 0.6


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        Grid(1)
    with pytest.raises(ConfigError, match="speaker_sees"):
        Walk(speaker_sees="everything")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="listener_sees"):
        Walk(listener_sees="goal")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="discount"):
        Walk(discount=1.0)
    with pytest.raises(ConfigError, match="nothing to train"):
        train_walk(Walk(Grid(2)), steps=0)
