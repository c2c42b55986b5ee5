"""Two players in one training: both learn, or the speaker alone; a training that was cut short goes on to the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_policy

from amenable.errors import ConfigError
from amenable.game.text import LanguageListener, Players, Scene, TextGame
from amenable.method.loop import Optimisation, train
from amenable.method.text_game import BothPlay, speaking
from amenable.policy.causal_lm import LoRA
from amenable.policy.tabular import TabularPolicy
from amenable.records import Decoding

SCENES = [Scene("ox", ("ay",)), Scene("ay", ("ox",))]
SHORT = "{message}="
RATE = Optimisation(learning_rate=3e-3, schedule="constant", precision="float32")


def setting(
    steps: int = 3, learns: bool = True, noise: float = 0.0, seed: int = 0
) -> tuple[Players, BothPlay, TextGame]:
    """A table speaks, a small model over bytes listens."""
    model = tiny_policy(scale=1.0)
    game = TextGame(SCENES, LanguageListener(model, SHORT), noise=noise, words=["a", "b"], seed=seed)
    prior = TabularPolicy.random("ab", 2, contexts=game.prompts, scale=1.0, seed=1)
    method = speaking(
        prior, game, beta=0.01, steps=steps, samples_per_context=16, decoding=Decoding(max_tokens=2), seed=seed
    )
    listener = model.trainable_copy() if learns else model
    return (
        Players(prior.trainable_copy(), listener, learns=learns),
        BothPlay(method, game, template=SHORT, seed=seed),
        game,
    )


def weights(policy: Any) -> list[torch.Tensor]:
    return [value.detach().clone() for value in policy.model.parameters()]


def told(players: Players, game: TextGame) -> float:
    """Success of fresh texts, by the listener as it is now."""
    drawn = players.speaker.sample(game.prompts, n=200, decoding=Decoding(max_tokens=2), seed=99)
    game.listener, game.noise = LanguageListener(players.listener, SHORT), 0.0
    scores = game([prompt for prompt in game.prompts for _ in range(200)], drawn.texts)
    return sum(score for score in scores if score is not None) / len(scores)


def test_they_come_to_understand_each_other(tmp_path: Path) -> None:
    players, method, game = setting(steps=120)
    before = told(players, game)
    train(players, method, optimisation=Optimisation(learning_rate=3e-2, precision="float32"), folder=tmp_path)
    assert 0.3 < before < 0.7
    assert told(players, game) > 0.85


@pytest.mark.parametrize("learns", [True, False])
def test_a_frozen_listener_stays_as_it_is_and_the_names_say_whose_the_weights_are(learns: bool, tmp_path: Path) -> None:
    players, method, _ = setting(learns=learns)
    before, table = weights(players.listener), players.speaker.logits.detach().clone()
    train(players, method, optimisation=RATE, folder=tmp_path)
    assert not torch.equal(table, players.speaker.logits)
    after = weights(players.listener)
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True)) == learns
    owners = {name.split(".")[0] for name, _ in players.trainable_parameters()}
    assert owners == ({"speaker", "listener"} if learns else {"speaker"})


def test_the_listener_learns_what_it_heard_and_not_what_was_said(tmp_path: Path) -> None:
    """Behind a channel that changes every word, the lesson is about the changed text."""
    players, method, game = setting(steps=1, noise=1.0)
    drawn: list[Sequence[str]] = []
    given = TextGame.__call__

    class Listening(TextGame):
        def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: object) -> list[float | None]:
            drawn.append(list(completions))
            return given(self, prompts, completions, **columns)

    game.__class__ = Listening
    train(players, method, optimisation=RATE, folder=tmp_path)
    for said, heard in zip(drawn[0], game.heard, strict=True):
        assert (said == "") == (heard.message == "")
        assert said != heard.message or not said


def test_a_training_that_was_cut_short_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    class Cut(Exception):
        pass

    def stop(done: int, of: int) -> None:
        if done == 5:
            raise Cut

    ends = []
    for name, ways in (("whole", [None]), ("cut", [stop, None])):
        for way in ways:
            players, method, _ = setting(steps=8, noise=0.3)
            try:
                train(players, method, optimisation=RATE, folder=tmp_path / name, checkpoint_every=3, progress=way)
            except Cut:
                continue
        ends.append([*weights(players.listener), players.speaker.logits.detach().clone()])
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut")]
    assert lines[0] == lines[1]
    assert lines[0].count("listener_loss") == 8


def test_two_language_models_with_adapters_in_bfloat16(tmp_path: Path) -> None:
    """As the recipe trains them: the listener reads as a merged copy, and it is the trained one."""
    prior = tiny_policy(scale=1.0)
    game = TextGame(SCENES, LanguageListener(prior), template="{target}{others}:")
    method = speaking(prior, game, beta=0.05, steps=2, samples_per_context=4, decoding=Decoding(max_tokens=4))
    method.proposal.dtype, method.proposal.on_policy = torch.bfloat16, False  # type: ignore[attr-defined,misc]
    players = Players(prior.trainable_copy(LoRA(rank=2)), prior.trainable_copy(LoRA(rank=2)))
    both = BothPlay(method, game, template=SHORT, lowered=torch.bfloat16)
    train(players, both, optimisation=Optimisation(learning_rate=1e-2, precision="bfloat16"), folder=tmp_path)
    moved = [name for name, value in players.trainable_parameters() if "lora_B" in name and bool(value.any())]
    assert {name.split(".")[0] for name in moved} == {"speaker", "listener"}
    assert isinstance(game.listener, LanguageListener)
    assert game.listener.policy.model.dtype == torch.bfloat16


def test_a_beta_that_is_none_is_refused() -> None:
    game = TextGame(SCENES, LanguageListener(None))
    prior = TabularPolicy.random("ab", 2, contexts=game.prompts)
    with pytest.raises(ConfigError, match="beta=-1 is no weight"):
        speaking(prior, game, beta=-1)
