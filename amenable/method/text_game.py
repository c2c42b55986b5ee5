"""Two language models learn a text game together: the speaker from the listener's success, the listener from the target.

    speaker    max E_pi[ success ] - beta KL(pi || a)         score-function gradient (`FDPG`, `ExpectedReward`), one score more
    listener   max E_pi[ log p(target's name | text) ]        `Imitation` of the target, given the texts of this very step

With beta > 0 the first is beta times the reverse KL to `prior.tilt(game, beta=beta)`: RLHF, whose reward model is the listener,
and it learns. With beta = 0 no prior is left but the starting point. Both losses are of one step of the one loop, so that
checkpoints, clipping and precision are those of every training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import torch

from amenable.errors import ConfigError
from amenable.game.text import LISTENER, LanguageListener, Players, TextGame, said
from amenable.method.fdpg import FDPG
from amenable.method.imitation import Example, Imitation
from amenable.method.protocol import Loss
from amenable.objective.reward import ExpectedReward
from amenable.sampling.proposal import State


def speaking(prior: Any, game: TextGame, *, beta: float, **settings: Any) -> FDPG:
    """The method that trains a speaker, a copy of `prior`, alone; `settings` as of `FDPG`.

    beta: success a nat of KL(pi, a); 0: reward only. Errors: ConfigError.
    """
    if not 0 <= beta < float("inf"):
        raise ConfigError(f"beta={beta:g} is no weight of a KL", "use beta >= 0; 0 is the reward alone")
    settings = {"contexts": game.prompts, "bootstrap": 0, **settings}  # no Z is needed
    return FDPG(prior, prior.tilt(game, beta=1.0), ExpectedReward(beta=beta, of="log-potential"), **settings)


class BothPlay:
    """Train `Players` with it. `template`: what the listener reads; `lowered`: the precision in which its copy does, or None.

    A listener that does not learn is copied once, one that does at every step.
    """

    def __init__(
        self,
        speaking: FDPG,
        game: TextGame,
        *,
        template: str = LISTENER,
        lowered: torch.dtype | None = None,
        seed: int = 0,
    ) -> None:
        self.speaking, self.game, self.template, self.lowered, self.seed = speaking, game, template, lowered, seed
        self.steps = speaking.steps
        what = [
            "text game",
            speaking.identity,
            game.noise,
            game.words,
            game.taboo,
            game.measure,
            game.seed,
            template,
            seed,
        ]
        self.identity = hashlib.sha256(json.dumps(what).encode()).hexdigest()
        self._reader: LanguageListener | None = None

    def losses(self, players: Players, step: int) -> Iterator[Loss]:
        """The speaker's, then the listener's: it learns from texts that were worth what it made of them before."""
        if players.learns or self._reader is None:
            law = players.listener if self.lowered is None else players.listener.frozen(self.lowered)
            self._reader = LanguageListener(law, self.template)
        self.game.listener, self.game.stream = self._reader, step
        yield from self.speaking.losses(players.speaker, step)
        if players.learns:
            examples = [
                Example(self._reader.prompt(one.message), said(one.scene.target), eos=False) for one in self.game.heard
            ]
            lesson = Imitation(examples, epochs=1, batch_size=len(examples), seed=self.seed)
            for loss in lesson.losses(players.listener, 0):
                yield Loss(loss.value, {"listener_loss": loss.sums["loss"]})

    def state(self) -> State:
        """What the speaker's method remembers; the listener's has nothing."""
        return self.speaking.state()

    def restore(self, players: Players, state: State) -> None:
        """Put back what `state` said."""
        self.speaking.restore(players.speaker, state)
