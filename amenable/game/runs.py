"""What training gave: the languages themselves, how well they work, and what to say of them.

clean  share of objects named right from the speaker's most likely message, nothing lost on the way
noisy  the same through the channel: exact where the messages can be enumerated, else the mean of `DRAWS` messages an object
z      (value - mean) / deviation of a metric over languages whose messages were dealt to other objects
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from amenable.errors import ConfigError, nearest
from amenable.game.agents import ListenerNetwork, SpeakerNetwork
from amenable.game.signalling import Signalling
from amenable.seeding import torch_generator

if TYPE_CHECKING:
    from amenable.evaluation.compositionality import Null
    from amenable.evaluation.interval import Estimate
    from amenable.evaluation.messages import Scores

DRAWS = 16  # noisy messages an object, where they cannot be enumerated
ROWS = 4096  # objects evaluated at once


@dataclass(frozen=True)
class Score:
    """A metric over the runs: its mean over seeds with an interval, and how far above chance it is, in deviations (z)."""

    name: str
    scores: Scores
    null: Null

    @property
    def estimate(self) -> Estimate:
        """Mean over the seeds whose language has a value, bootstrap interval."""
        return self.scores.estimate()

    @property
    def z(self) -> Estimate:
        """Mean z over seeds, against each language's own null distribution."""
        return self.null.z.estimate()

    def __str__(self) -> str:
        return f"{self.name:<24} {self.estimate.text():<34} z {self.z.text()}"


@dataclass(frozen=True)
class Runs:
    """S trained pairs. Shapes: S seeds, N objects, K features, L symbols.

    codes     (S, N, L) int64, the most likely message of each object     features  (N, K) int64
    clean     (S,) accuracy over the objects that training showed        noisy     (S,)
    held_out  (S,) clean accuracy over the others; None: there are none
    metrics   loss and entropy (nats) of every step, (steps, S) each
    """

    game: Signalling
    speaker: SpeakerNetwork
    listener: ListenerNetwork
    codes: torch.Tensor
    clean: torch.Tensor
    noisy: torch.Tensor
    held_out: torch.Tensor | None
    metrics: dict[str, torch.Tensor]
    seed: int = 0

    @property
    def features(self) -> torch.Tensor:
        return self.game.world.features

    @property
    def seeds(self) -> int:
        """S."""
        return len(self.codes)

    @property
    def entropy(self) -> torch.Tensor:
        """The speaker's entropy in the last step, nats a message, (S,)."""
        return self.metrics["entropy"][-1]

    @cached_property
    def distinct(self) -> torch.Tensor:
        """How many different messages each speaker uses, (S,) int64."""
        return torch.tensor([len(code.unique(dim=0)) for code in self.codes])

    def score(self, *names: str, permutations: int = 100) -> dict[str, Score]:
        """Metrics of `evaluation/compositionality` by name, such as "topsim", "conflicts", "posdis".

        `permutations`: languages dealt at random, for the null distribution of each. Errors: ConfigError for unknown names.
        """
        from amenable.evaluation.compositionality import METRICS, null_distribution

        found, eos = {}, 0 if self.game.eos else None
        for name in names:
            if name not in METRICS:
                raise ConfigError(f"metric={name!r} is not known", nearest(name, METRICS))
            codes, features, metric = self.codes.numpy(), self.features.numpy(), METRICS[name]
            null = null_distribution(metric, codes, features, permutations=permutations, seed=self.seed, eos=eos)
            found[name] = Score(name, metric(codes, features, eos=eos), null)
        return found

    def dictionary(self, seed: int = 0) -> str:
        """The language of run `seed` (0 .. S - 1) as text: a grid if there are two features, else a line an object."""
        words = [self.word(message) for message in self.codes[seed].tolist()]
        world = self.game.world
        names = [world.describe(number) for number in range(world.objects)]
        if len(world.values) != 2:
            width = max(map(len, names))
            return "\n".join(f"{name:<{width}}  {word}" for name, word in zip(names, words, strict=True))
        rows, columns = world.values
        across = [name.split()[world.across] for name in names[:columns]]
        down = [name.split()[1 - world.across] for name in names[::columns]]
        margin, width = max(map(len, down)), max(map(len, [*across, *words]))
        lines = [" " * margin + "".join(f"  {name:>{width}}" for name in across)]
        for row in range(rows):
            said = words[row * columns : (row + 1) * columns]
            lines.append(f"{down[row]:<{margin}}" + "".join(f"  {word:>{width}}" for word in said))
        return "\n".join(lines)

    def word(self, message: list[int]) -> str:
        """A message in letters, "." for the end symbol and after; in numbers if the alphabet is long."""
        if self.game.alphabet > 26:
            return "-".join(map(str, message))
        shift = 1 if self.game.eos else 0
        return "".join("." if symbol < shift else chr(65 + symbol - shift) for symbol in message)


def played(
    game: Signalling, speaker: SpeakerNetwork, listener: ListenerNetwork, *, seed: int, metrics: dict[str, torch.Tensor]
) -> Runs:
    """Let the pairs play once on every object, and write down what they say and understand."""
    with torch.no_grad():
        every = torch.arange(game.world.objects, device=speaker.flat.device)
        codes = torch.cat([speaker.speak(part).messages for part in torch.split(every, ROWS)], 1)
        empty = game.alphabet + 1  # where a channel may make strings longer
        clean = torch.nn.functional.pad(codes, (0, game.received_length - game.length), value=empty)
        right = _understood(game, listener, clean, every)
        noisy = _through_noise(game, listener, codes, every, seed=seed)
    seen = game.world.trained
    hidden = list(game.world.held_out)
    return Runs(
        game,
        speaker,
        listener,
        codes.cpu(),
        right[:, seen].mean(1),
        noisy[:, seen].mean(1),
        right[:, hidden].mean(1) if hidden else None,
        metrics,
        seed,
    )


def _understood(
    game: Signalling, listener: ListenerNetwork, received: torch.Tensor, objects: torch.Tensor
) -> torch.Tensor:
    """1 where the listener names the object right from (S, N, L') strings, else 0: (S, N) float32 on the CPU."""
    features = game.world.features.to(objects.device)[objects]
    found = []
    for strings, own in zip(torch.split(received, ROWS, 1), torch.split(features, ROWS), strict=True):
        found.append((game.guess(listener.logits(game.one_hot(strings))) == own).all(-1))
    return torch.cat(found, 1).float().cpu()


def _through_noise(
    game: Signalling, listener: ListenerNetwork, codes: torch.Tensor, objects: torch.Tensor, *, seed: int
) -> torch.Tensor:
    """The probability that each object is named right through the channel, (S, N) on the CPU."""
    if game.enumerable:
        received, matrix = (part.to(codes.device) for part in game.transition)
        named = game.guess(listener.logits(game.one_hot(received)))  # (S, R, K)
        features = game.world.features.to(codes.device)
        right = (named.unsqueeze(2) == features).all(-1).float()  # (S, R, N)
        places = game.alphabet ** torch.arange(game.length - 1, -1, -1, device=codes.device)
        known = (game.messages.to(codes.device) * places).sum(-1)
        law = matrix[torch.searchsorted(known, (codes * places).sum(-1))]  # (S, N, R)
        return (law * right.mT).sum(-1).cpu()
    total = torch.zeros(codes.shape[:2])
    shape = (codes.shape[1], game.channel.draws(game.length))
    streams = [torch_generator(seed + place, "game", "evaluation") for place in range(len(codes))]
    for _ in range(DRAWS):
        uniforms = torch.stack([torch.rand(shape, generator=stream) for stream in streams]).to(codes.device)
        received = game.channel.corrupt(codes, game.alphabet, uniforms)
        total += _understood(game, listener, received, objects)
    return total / DRAWS
