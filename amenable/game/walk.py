"""A walk on a grid: the speaker knows the goal, the listener walks, one noisy message a step.

    V_g(p) = gamma sum_p' T_g(p'|p) V_g(p'),   V_g(g) = 1
    T_g(p'|p) = sum over m, m', a with move(p, a) = p' of  l(m|g, p) W(m'|m) r(a|m', p)
    success = mean of V_g(p) over g != p  /  mean of gamma^distance(p, g)

    letter  name      shape      what it is
    g, p    places    (P,)       goal and walker's place, P = side^2, every pair of different places equally likely
    m, m'   messages  (M,) (R,)  sent and received strings; W (M, R) the channel's law, noise is drawn anew at each step
    a       actions   (4,)       up, right, down, left; a step into the wall stays
    l       sent      (S, P, P or 1, M)   the speaker's law; goal, then place (1: it does not see the walker)
    r       moves     (S, P or 1, R, 4)   the walker's law; place (1: it does not see itself)
    V       values    (S, P, P)           discounted chance to arrive; goal, then start
    d       visits    (S, P, P)           sum_t gamma^t P(g, p at t, not yet there), normalised: where messages are used

A speaker and a listener make a Markov chain, so V is a linear solve, and the gradient of success is exact: no sampling.
Success is a share of the optimum's discounted value: 1 for a pair that always takes a shortest path, about .32 at gamma = .9
on a 4 x 4 grid for a walker who goes anywhere. The walker keeps its stochastic law; nothing is made greedy afterwards.
What messages mean is asked by intervention, in `influence`.
Source: the road of Zubek, Korbak, Raczaszek-Leonardi 2023, arXiv 2303.04544 (symbols grounded in action); the game is ours.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch

from amenable.errors import ConfigError
from amenable.game.agents import Listener, ListenerNetwork, Speaker, SpeakerNetwork
from amenable.game.channels import Channel, Flip
from amenable.game.estimators import Play
from amenable.game.play import play
from amenable.game.signalling import Signalling
from amenable.game.training import Pair
from amenable.game.worlds import Attributes

if TYPE_CHECKING:
    from amenable.game.influence import Influence

ACTIONS = ("up", "right", "down", "left")
STEPS = ((-1, 0), (0, 1), (1, 0), (0, -1))


@dataclass(frozen=True)
class Grid:
    """`side` x `side` places, numbered row by row; a walker goes up, right, down or left, and stays where a wall is."""

    side: int = 4

    def __post_init__(self) -> None:
        if self.side < 2:
            raise ConfigError(f"Grid({self.side}) has nowhere to go", "use Grid(4) or so")

    @property
    def places(self) -> int:
        """P."""
        return self.side**2

    @cached_property
    def next(self) -> torch.Tensor:
        """(P, 4) int64: where each action leads from each place."""
        last = self.side - 1
        rows = [
            [min(max(r + down, 0), last) * self.side + min(max(c + right, 0), last) for down, right in STEPS]
            for r, c in itertools.product(range(self.side), repeat=2)
        ]
        return torch.tensor(rows)

    @cached_property
    def distance(self) -> torch.Tensor:
        """(P, P) int64: the fewest steps from place to place."""
        row, column = torch.arange(self.places) // self.side, torch.arange(self.places) % self.side
        return (row[:, None] - row).abs() + (column[:, None] - column).abs()


@dataclass(frozen=True)
class Reading(Signalling):
    """What a walker reads: the received string and, where it sees itself, its row and column as two more symbols."""

    side: int = 0
    """Of the grid; 0: the walker does not see itself."""

    @property
    def received_length(self) -> int:
        return super().received_length + (2 if self.side else 0)

    @property
    def received_symbols(self) -> int:
        return max(super().received_symbols, self.side)

    @cached_property
    def transition(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Strings (R P, L' + 2) with every place beneath each received string; the place is uniform and not of the message."""
        received, matrix = self.channel.transition(self.messages, self.alphabet)
        if not self.side:
            return received, matrix.float()
        places = torch.cartesian_prod(torch.arange(self.side), torch.arange(self.side))
        count = len(places)
        strings = torch.cat([received.repeat_interleave(count, 0), places.repeat(len(received), 1)], 1)
        return strings, matrix.repeat_interleave(count, 1).float() / count


@dataclass(frozen=True)
class Walk:
    """The game: who sees what, the channel, messages of `length` symbols out of `alphabet`, `discount` gamma a step."""

    grid: Grid = field(default_factory=Grid)
    speaker_sees: Literal["goal", "goal+listener"] = "goal"
    listener_sees: Literal["self", "nothing"] = "self"
    channel: Channel = field(default_factory=lambda: Flip(0.1))
    length: int = 1
    alphabet: int = 4
    discount: float = 0.9

    def __post_init__(self) -> None:
        if self.speaker_sees not in ("goal", "goal+listener"):
            raise ConfigError(f"speaker_sees={self.speaker_sees!r} is not known", "use goal or goal+listener")
        if self.listener_sees not in ("self", "nothing"):
            raise ConfigError(f"listener_sees={self.listener_sees!r} is not known", "use self or nothing")
        if not 0 < self.discount < 1:
            raise ConfigError(f"discount={self.discount:g}: no value or no end", "use 0 < discount < 1, such as 0.9")

    @cached_property
    def speaking(self) -> Signalling:
        """The game as a speaker has it: its objects are what it sees."""
        seen = 2 if self.speaker_sees == "goal" else 4
        return Signalling(Attributes((self.grid.side,) * seen), self.channel, self.length, self.alphabet)

    @cached_property
    def reading(self) -> Reading:
        """The game as a listener has it: what it names is one of four actions."""
        side = self.grid.side if self.listener_sees == "self" else 0
        return Reading(Attributes((len(ACTIONS),)), self.channel, self.length, self.alphabet, side=side)

    @cached_property
    def noise(self) -> torch.Tensor:
        """W (M, R), float64."""
        return self.channel.transition(self.speaking.messages, self.alphabet)[1]

    @cached_property
    def received(self) -> torch.Tensor:
        """(R, L') int64, the strings that can arrive."""
        return self.channel.transition(self.speaking.messages, self.alphabet)[0]

    @cached_property
    def leads(self) -> torch.Tensor:
        """(P, 4, P): 1 where an action leads from place to place, float64."""
        return torch.nn.functional.one_hot(self.grid.next, self.grid.places).double()

    @cached_property
    def away(self) -> torch.Tensor:
        """(P, P): 1 where goal and place differ, float64."""
        return 1 - torch.eye(self.grid.places, dtype=torch.float64)

    @cached_property
    def optimum(self) -> float:
        """Mean of gamma^distance over pairs of different places."""
        best = self.discount ** self.grid.distance.double()
        return float((best * self.away).sum() / self.away.sum())

    def log_sent(self, speaker: SpeakerNetwork) -> torch.Tensor:
        """log l(m|g, p), nats: (S, P, P or 1, M)."""
        objects = torch.arange(self.speaking.world.objects, device=speaker.flat.device)
        said = speaker.log_joint(objects)
        return said.view(len(said), self.grid.places, -1, said.shape[-1])

    def log_moves(self, listener: ListenerNetwork) -> torch.Tensor:
        """log r(a|m', p), nats: (S, P or 1, R, 4)."""
        read = self.reading.one_hot(self.reading.transition[0]).to(listener.flat.device)
        done = listener.logits(read).log_softmax(-1)
        return done.view(len(done), len(self.received), -1, len(ACTIONS)).transpose(1, 2)

    def actions(self, heard: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
        """The law of the next action: heard (S, P, P or 1, R), moves (S, P or 1, R, 4) -> (S, P, P, 4)."""
        seeds, places = len(heard), self.grid.places
        heard = heard.expand(seeds, places, places, heard.shape[-1]).transpose(1, 2)
        return (heard @ moves.expand(seeds, places, *moves.shape[-2:])).transpose(1, 2)

    def chain(self, actions: torch.Tensor) -> torch.Tensor:
        """T_g(p'|p): (S, P, P, 4) -> (S, P, P, P)."""
        leads = self.leads.to(actions)
        return (actions.unsqueeze(-2) @ leads).squeeze(-2)

    def values(self, actions: torch.Tensor) -> torch.Tensor:
        """V_g(p), (S, P, P) of goal and start: (1 - gamma T_g restricted to p != g) V = [p = g]."""
        away = self.away.to(actions)
        one = torch.eye(len(away)).to(actions)
        left = one - self.discount * away.unsqueeze(-1) * self.chain(actions)
        values: torch.Tensor = torch.linalg.solve(left, one.expand(len(actions), *one.shape).unsqueeze(-1))
        return values.squeeze(-1)

    def success(self, actions: torch.Tensor) -> torch.Tensor:
        """Share of the optimum's discounted value, (S,)."""
        away = self.away.to(actions)
        return (self.values(actions) * away).sum((1, 2)) / (away.sum() * self.optimum)

    def visits(self, actions: torch.Tensor) -> torch.Tensor:
        """d(g, p), (S, P, P), which sums to 1: the adjoint of `values`, from a uniform start away from the goal."""
        away = self.away.to(actions)
        one = torch.eye(len(away)).to(actions)
        left = (one - self.discount * away.unsqueeze(-1) * self.chain(actions)).transpose(-1, -2)
        visits: torch.Tensor = torch.linalg.solve(left, away.expand(len(actions), *away.shape).unsqueeze(-1))
        visits = visits.squeeze(-1) * away
        return visits / visits.sum((1, 2), keepdim=True)


class Solve:
    """The exact gradient of success, as a game's `Estimator`; `entropy` is that of the speaker and of the walker together."""

    draws = 0
    samples = 1

    def __init__(self, walk: Walk) -> None:
        self.walk, self.noise = walk, walk.noise.float()

    def __call__(
        self, speaker: SpeakerNetwork, listener: ListenerNetwork, objects: torch.Tensor, uniforms: torch.Tensor
    ) -> Play:
        sent, moves = self.walk.log_sent(speaker), self.walk.log_moves(listener)
        success = self.walk.success(self.walk.actions(sent.exp() @ self.noise, moves.exp()))
        entropy = _entropy(sent) + _entropy(moves)
        return Play(-success, 1 - success.detach(), entropy)


def _entropy(log_law: torch.Tensor) -> torch.Tensor:
    """Entropy of the last axis in nats, mean over the others but the first: (S,)."""
    return -(log_law.exp() * log_law).sum(-1).mean((1, 2))


@dataclass(frozen=True)
class Walks:
    """S trained pairs: laws `sent` and `moves` as in the table above, float64; `metrics` of every step, (steps, S) each."""

    walk: Walk
    speaker: SpeakerNetwork
    listener: ListenerNetwork
    sent: torch.Tensor
    moves: torch.Tensor
    metrics: dict[str, torch.Tensor]

    @property
    def success(self) -> torch.Tensor:
        """(S,), a share of the optimum."""
        return self.walk.success(self.walk.actions(self.sent @ self.walk.noise, self.moves))

    def influence(self) -> Influence:
        """What silencing, shuffling and swapping messages does, and what they carry (`game.influence`)."""
        from amenable.game.influence import influence

        return influence(self)


def train_walk(
    walk: Walk,
    speaker: Speaker | None = None,
    listener: Listener | None = None,
    *,
    seeds: int = 1,
    steps: int = 600,
    seed: int = 0,
    learning_rate: float = 5e-3,
    entropy: float = 0.2,
    progress: Callable[[int, int], None] | None = None,
) -> Walks:
    """Train `seeds` pairs at once by exact gradients; run i is what `train_walk(seeds=1, seed=seed + i)` gives.

    speaker, listener  what to build (default: mlp)
    entropy            weight of both entropies at the beginning, falling to 0 over the first half. With half of it for the
                       speaker one pair of 16 gave four actions three symbols, and stayed so
    Errors: ConfigError for values that cannot be; TrainingError if a loss is not finite.
    """
    if seeds < 1 or steps < 1:
        raise ConfigError(f"seeds={seeds}, steps={steps}: nothing to train", "use 1 or more of each")
    numbers = range(seed, seed + seeds)
    pair = Pair(
        (speaker or Speaker("mlp")).build(walk.speaking, numbers),
        (listener or Listener("mlp")).build(walk.reading, numbers),
    )
    history = play(
        pair, walk.speaking, Solve(walk), seeds=numbers, steps=steps, learning_rate=learning_rate, entropy=entropy,
        progress=progress,
    )  # fmt: skip
    with torch.no_grad():
        sent, moves = walk.log_sent(pair.speaker).double(), walk.log_moves(pair.listener).double()
        laws = [law.log_softmax(-1).exp() for law in (sent, moves)]
    return Walks(walk, pair.speaker, pair.listener, laws[0], laws[1], {"loss": history[:, 0], "entropy": history[:, 1]})
