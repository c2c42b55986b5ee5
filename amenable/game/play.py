"""A game trained in memory: what a walk and a lineage share with `train`, which also keeps checkpoints."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from amenable.game.estimators import Estimator
from amenable.game.signalling import Signalling
from amenable.game.training import Pair, Playing
from amenable.method.loop import Optimisation
from amenable.method.loop import train as run_loop


def play(
    pair: Pair,
    game: Signalling,
    how: Estimator,
    *,
    seeds: range,
    steps: int,
    learning_rate: float,
    entropy: float,
    progress: Callable[[int, int], None] | None = None,
) -> torch.Tensor:
    """Train `pair` in place by `how`, all objects in each step: loss and entropy (nats) of each step, (steps, 2, S).

    The optimiser's moments are new and the entropy bonus falls from `entropy` to 0 over the first half, as `training` has it.
    """
    method = Playing(game, how, seeds=seeds, steps=steps, entropy=entropy, batch=None, device="cpu")
    optimisation = Optimisation(
        learning_rate=learning_rate, schedule="constant", warmup=0.0, clip_norm=math.inf, precision="float32"
    )
    with tempfile.TemporaryDirectory() as scratch:
        run_loop(pair, method, optimisation=optimisation, folder=Path(scratch), progress=progress)
    return torch.stack(method.history)
