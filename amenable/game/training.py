"""Training speakers and listeners: many seeds in one program, by the library's own loop.

    surrogate_s - c_t H(l_s)  summed over seeds s;   c_t = entropy * max(0, 1 - 2 t / steps)

    c   weight of the speaker's entropy bonus: falls linearly to 0 over the first half. Without it exact gradient descent
        sticks in codes that merge objects
    H   entropy of the message, nats, mean over objects

Adam (AdamW without decay), constant learning rate, no clipping: the sum over seeds and the optimiser act on each seed by
itself. Everything random is a function of (seed, step), so a killed run goes on to the same bits, and seed i of a batch is the
run that seed i is alone. A game is a `Method` of `method/loop.py`; its metrics and checkpoints are the loop's.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from amenable.errors import ConfigError
from amenable.game.agents import Listener, ListenerNetwork, Speaker, SpeakerNetwork
from amenable.game.estimators import Estimator, estimator
from amenable.game.runs import Runs, played
from amenable.game.signalling import Signalling
from amenable.method.loop import Optimisation
from amenable.method.loop import train as run_loop
from amenable.method.protocol import Loss
from amenable.sampling.proposal import State
from amenable.seeding import torch_generator

BLOCK = 1 << 18  # uniform numbers drawn at once for a seed


@dataclass(frozen=True)
class Pair:
    """The two sides of a game, as the loop's policy."""

    speaker: SpeakerNetwork
    listener: ListenerNetwork

    def trainable_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """All weights, by name."""
        return [("speaker", self.speaker.flat), ("listener", self.listener.flat)]


class Uniforms:
    """For each seed a stream of its own of uniform numbers, `shape` a step, whatever was asked before: (S, *shape)."""

    def __init__(self, seeds: range, shape: tuple[int, ...], device: Any) -> None:
        self.seeds, self.shape, self.device = seeds, shape, device
        self.steps = max(1, min(64, BLOCK // max(1, math.prod(shape))))
        self.block, self.numbers = -1, torch.zeros(0)

    def at(self, step: int) -> torch.Tensor:
        """The numbers of `step`, in [0, 1)."""
        if not math.prod(self.shape):
            return torch.zeros(len(self.seeds), *self.shape, device=self.device)
        block, place = divmod(step, self.steps)
        if block != self.block:
            streams = [torch_generator(seed, "game", "uniforms", block) for seed in self.seeds]
            numbers = [torch.rand(self.steps, *self.shape, generator=stream) for stream in streams]
            self.block, self.numbers = block, torch.stack(numbers, 1).to(self.device)
        return self.numbers[place]


class Playing:
    """A game as a method of the training loop. It remembers each seed's loss and entropy of every step."""

    def __init__(
        self,
        game: Signalling,
        how: Estimator,
        *,
        seeds: range,
        steps: int,
        entropy: float,
        batch: int | None,
        device: Any,
    ) -> None:
        self.game, self.how, self.steps, self.entropy, self.batch = game, how, steps, entropy, batch
        self.trained = game.world.trained.to(device)
        games = (len(self.trained) if batch is None else batch) * how.samples
        self.uniforms = Uniforms(seeds, (games, how.draws), device)
        self.picks = Uniforms(seeds, (0 if batch is None else batch, 1), device)
        self.history: list[torch.Tensor] = []
        told = (
            f"{game} {type(how).__name__} {how.samples} {seeds} {entropy} {batch} {getattr(how, 'temperature', None)}"
        )
        self.identity = hashlib.sha256(told.encode()).hexdigest()

    def losses(self, policy: Pair, step: int) -> Iterator[Loss]:
        play = self.how(policy.speaker, policy.listener, self._objects(step), self.uniforms.at(step))
        weight = self.entropy * max(0.0, 1 - 2 * step / self.steps)
        value = (play.surrogate - weight * play.entropy).sum() if weight else play.surrogate.sum()
        found = torch.stack([play.loss, play.entropy.detach()]).cpu()
        self.history.append(found)
        loss, entropy = found.mean(1).tolist()
        yield Loss(value, {"loss": loss, "entropy": entropy})

    def _objects(self, step: int) -> torch.Tensor:
        if self.batch is None:
            return self.trained
        return self.trained[(self.picks.at(step).squeeze(-1) * len(self.trained)).long()]

    def state(self) -> State:
        return State({"history": torch.stack(self.history)})

    def restore(self, policy: Pair, state: State) -> None:
        self.history = list(state.tensors["history"])


def train(
    game: Signalling,
    speaker: Speaker | SpeakerNetwork | None = None,
    listener: Listener | ListenerNetwork | None = None,
    *,
    seeds: int = 1,
    steps: int = 1500,
    seed: int = 0,
    gradient: Literal["exact", "gumbel", "reinforce"] = "exact",
    learning_rate: float = 3e-3,
    entropy: float = 1.0,
    batch: int | None = None,
    samples: int = 1,
    temperature: float = 1.0,
    device: str = "cpu",
    folder: Path | None = None,
    checkpoint_every: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Runs:
    """Train `seeds` pairs at once, those of seeds `seed`, `seed` + 1, ..; run i is what `train(seeds=1, seed=seed + i)` gives.

    speaker, listener  what to build (default: mlp), or networks of this many seeds, whose copies are trained further
    gradient           how (`estimators`); `samples` games an object and `temperature` belong to the sampled ones
    batch              objects a step, drawn uniformly; None: all of them, each step
    entropy            weight of the entropy bonus at the beginning, nats
    folder             where metrics and checkpoints go, and from which a killed run goes on; None: nowhere
    Errors: ConfigError for values that cannot be; TrainingError if a loss is not finite.
    """
    if seeds < 1 or steps < 1 or (batch is not None and batch < 1):
        raise ConfigError(f"seeds={seeds}, steps={steps}, batch={batch}: nothing to train", "use 1 or more of each")
    numbers = range(seed, seed + seeds)
    pair = Pair(
        _network(Speaker("mlp") if speaker is None else speaker, game, numbers, device),
        _network(Listener("mlp") if listener is None else listener, game, numbers, device),
    )
    how = estimator(game, gradient, samples=samples, temperature=temperature, device=device)
    method = Playing(game, how, seeds=numbers, steps=steps, entropy=entropy, batch=batch, device=device)
    optimisation = Optimisation(
        learning_rate=learning_rate, schedule="constant", warmup=0.0, clip_norm=math.inf, precision="float32"
    )
    with tempfile.TemporaryDirectory() as scratch:
        run_loop(
            pair,
            method,
            optimisation=optimisation,
            folder=folder or Path(scratch),
            checkpoint_every=checkpoint_every,
            progress=progress,
        )
    history = torch.stack(method.history)
    metrics = {"loss": history[:, 0], "entropy": history[:, 1]}
    return played(game, pair.speaker, pair.listener, seed=seed, metrics=metrics)


def _network(given: Any, game: Signalling, seeds: range, device: str) -> Any:
    """A network of one row a seed: built, or a copy of the given one."""
    if isinstance(given, (Speaker, Listener)):
        return given.build(game, seeds, device)
    if given.seeds != len(seeds):
        raise ConfigError(f"seeds={len(seeds)}, but the given network holds {given.seeds}", "ask for as many seeds")
    return given.copied()
