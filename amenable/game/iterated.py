"""Iterated learning: a language that is handed on, because those who speak it are replaced one after the other.

    J = mean over speakers p and listeners q of  E cost(f, m'),  m ~ l_p(.|f),  m' ~ W(.|m),  cost by listener q
      = (1/N) sum_f sum_m' [ sum_m  mean_p l_p(m|f)  W(m'|m) ]  mean_q cost_q(f, m')

    letter  name           shape           what it is
    S       seeds                          independent populations in one program
    P, Q    speakers, listeners            members of each; row s P + p of a network is member p of population s
    T       generations                    codes (T, S, P, N, L): the languages at the end of each

Everybody plays with everybody, and the loss is linear in each side, so all P x Q pairs cost what P + Q agents cost: exact, and
nothing is sampled. In every generation but the first the oldest agent of one side is replaced by a new one: a speaker in
generations 1, 3, .., a listener in 2, 4, .. (`turnover="both"`), or always the same side. With one speaker and one listener
this is a chain: the new one learns from the old one's partner. What is hard to learn gets lost on the way (Kirby), and what is
hard depends on the architecture: to a free table, with a loss for whole objects, all codes are alike.
At the beginning of a generation the optimiser's moments are new and the entropy bonus is back, for everybody; it falls to 0
over the first half, as in `training`. Without turnover ("none") the same steps are trained with the same bonus: the control.
Source: Kirby 2001 (iterated learning); Li and Bowling 2019, arXiv 1906.02403 (new listeners); Ren et al. 2020, arXiv
2002.01365.
Changed from the papers: no imitation phase and no bottleneck; a new agent learns by playing, with exact gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from amenable.errors import ConfigError
from amenable.game.agents import Listener, ListenerNetwork, Speaker, SpeakerNetwork
from amenable.game.estimators import Play
from amenable.game.play import play
from amenable.game.signalling import Signalling
from amenable.game.training import Pair
from amenable.seeding import derive

Turnover = Literal["both", "speakers", "listeners", "none"]
TURNOVERS = ("both", "speakers", "listeners", "none")


class EveryPair:
    """The exact loss of P speakers and Q listeners of each population, as a game's `Estimator`; entropies are means over P."""

    draws = 0
    samples = 1

    def __init__(self, game: Signalling, populations: int) -> None:
        received, self.matrix = game.transition
        self.game, self.populations, self.read = game, populations, game.one_hot(received)

    def __call__(
        self, speaker: SpeakerNetwork, listener: ListenerNetwork, objects: torch.Tensor, uniforms: torch.Tensor
    ) -> Play:
        log_joint = speaker.log_joint(objects)
        joint = log_joint.exp()
        said = self._mean(joint) @ self.matrix
        costs = self._mean(self.game.costs(listener.logits(self.read), objects))
        loss = (said * costs.mT).sum((1, 2)) / len(objects)
        entropy = -self._mean(joint * log_joint).sum((1, 2)) / len(objects)
        return Play(loss, loss.detach(), entropy)

    def _mean(self, members: torch.Tensor) -> torch.Tensor:
        """Over the members of each population: (S P, ..) -> (S, ..)."""
        return members.reshape(self.populations, -1, *members.shape[1:]).mean(1)


@dataclass(frozen=True)
class Lineage:
    """What was handed on: `codes` (T, S, P, N, L) int64; `clean` (T, S), accuracy without noise, mean over all pairs."""

    game: Signalling
    codes: torch.Tensor
    clean: torch.Tensor


def iterate(
    game: Signalling,
    speaker: Speaker | None = None,
    listener: Listener | None = None,
    *,
    seeds: int = 1,
    generations: int = 8,
    turnover: Turnover = "both",
    speakers: int = 1,
    listeners: int = 1,
    first_steps: int = 1500,
    steps: int = 500,
    seed: int = 0,
    learning_rate: float = 3e-3,
    entropy: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> Lineage:
    """Train `seeds` populations through generations 0 .. `generations`; population i is `iterate(seeds=1, seed=seed + i)`'s.

    first_steps, steps  of generation 0, and of each later one     progress  told after each generation
    The first generation of one speaker and one listener is what `train` makes of the same seeds.
    Errors: ConfigError for values that cannot be, or messages that cannot be enumerated; TrainingError if a loss is not finite.
    """
    if min(seeds, speakers, listeners, first_steps, steps) < 1 or generations < 0:
        raise ConfigError(
            f"seeds={seeds}, speakers={speakers}, listeners={listeners}, generations={generations}, steps={first_steps} and "
            f"{steps}: nobody is there, or nothing to do",
            "use 1 or more of each",
        )
    if turnover not in TURNOVERS:
        raise ConfigError(f"turnover={turnover!r} is not known", f"use {', '.join(TURNOVERS)}")
    numbers, makers = range(seed, seed + seeds), (speaker or Speaker("mlp"), listener or Listener("mlp"))

    def made(side: int, births: range) -> Any:
        """New agents of a side (0 speakers, 1 listeners), by their numbers among those ever born there."""
        return makers[side].build(game, [_stream(number, birth) for number in numbers for birth in births])

    pair = Pair(made(0, range(speakers)), made(1, range(listeners)))
    born = [speakers, listeners]
    codes, clean = [], []
    for generation in range(generations + 1):
        side = _replaced(turnover, generation)
        if side is not None:
            new = made(side, range(born[side], born[side] + 1))
            _renew((pair.speaker, pair.listener)[side], new, born[side])
            born[side] += 1
        play(
            pair, game, EveryPair(game, seeds), seeds=numbers, steps=steps if generation else first_steps,
            learning_rate=learning_rate, entropy=entropy,
        )  # fmt: skip
        found, right = _languages(game, pair, seeds)
        codes.append(found)
        clean.append(right)
        if progress is not None:
            progress(generation + 1, generations + 1)
    return Lineage(game, torch.stack(codes), torch.stack(clean))


def _stream(seed: int, birth: int) -> int:
    """The random stream of an agent; the first one's is the population's seed itself."""
    return derive(seed, "born", birth) if birth else seed


def _replaced(turnover: Turnover, generation: int) -> int | None:
    """The side that gets a new agent in this generation: 0 speakers, 1 listeners."""
    if turnover == "none" or generation == 0:
        return None
    return {"speakers": 0, "listeners": 1, "both": 1 - generation % 2}[turnover]


def _renew(network: SpeakerNetwork | ListenerNetwork, new: SpeakerNetwork | ListenerNetwork, birth: int) -> None:
    """Put the new agents, one a population, in the places of the oldest: members take turns."""
    with torch.no_grad():
        members = network.flat.view(new.seeds, -1, network.flat.shape[1])
        members[:, birth % members.shape[1]] = new.flat


def _languages(game: Signalling, pair: Pair, seeds: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (S, P, N, L), and the share of objects that listeners name right without noise, mean over all pairs, (S,)."""
    with torch.no_grad():
        codes = pair.speaker.speak(torch.arange(game.world.objects)).messages
        codes = codes.reshape(seeds, -1, *codes.shape[1:])
        said, right = game.one_hot(codes.flatten(1, 2)), []
        for q in range(pair.listener.seeds // seeds):
            named = game.guess(_member(pair.listener, seeds, q).logits(said)).reshape(*codes.shape[:3], -1)
            right.append((named == game.world.features).all(-1)[..., game.world.trained].float().mean((1, 2)))
    return codes, torch.stack(right).mean(0)


def _member(network: ListenerNetwork, seeds: int, member: int) -> ListenerNetwork:
    """Listener `member` of every population, a network of S rows."""
    alone = network.copied()
    alone.flat = torch.nn.Parameter(network.flat.view(seeds, -1, network.flat.shape[1])[:, member].clone())
    return alone
