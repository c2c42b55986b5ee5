"""Signalling games: language itself is learned from feedback, which is the listener's success.

world = Attributes(values=(5, 5))
game = Signalling(world, channel=Flip(0.1), length=2, alphabet=5, loss="factored")
runs = train(game, Speaker("mlp"), Listener("mlp"), seeds=64)
"""

from typing import Any, overload

from amenable.game.agents import Listener, ListenerNetwork, Speaker, SpeakerNetwork
from amenable.game.channels import Burst, Channel, Delete, Erase, Flip, Insert, Permute
from amenable.game.iterated import Lineage, iterate
from amenable.game.runs import Runs
from amenable.game.signalling import Signalling
from amenable.game.sweep import Sweep, sweep
from amenable.game.training import train as train_signalling
from amenable.game.walk import Grid, Walk, Walks, train_walk
from amenable.game.worlds import Attributes, Shapes


@overload
def train(game: Signalling, *agents: Any, **how: Any) -> Runs: ...
@overload
def train(game: Walk, *agents: Any, **how: Any) -> Walks: ...
def train(game: Signalling | Walk, *agents: Any, **how: Any) -> Runs | Walks:
    """Train speakers and listeners on a game: keywords are those of `training.train`, for a walk of `walk.train_walk`."""
    if isinstance(game, Walk):
        return train_walk(game, *agents, **how)
    return train_signalling(game, *agents, **how)


__all__ = [
    "Attributes", "Burst", "Channel", "Delete", "Erase", "Flip", "Grid", "Insert", "Lineage", "Listener",
    "ListenerNetwork", "Permute", "Runs", "Shapes", "Signalling", "Speaker", "SpeakerNetwork", "Sweep", "Walk",
    "Walks", "iterate", "sweep", "train", "train_walk",
]  # fmt: skip
