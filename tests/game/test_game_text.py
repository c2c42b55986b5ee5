"""Describe and guess: the score is the listener's law, by hand; the speaker's gradient is the exact one; failures are named."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tables import batch_of, everything, exact_gradient, kl, know, log_law, rewards_of
from tiny import tiny_policy

from amenable.errors import ConfigError, FeedbackError
from amenable.game.text import LanguageListener, Scene, TextGame, World, noisy, scenes_of, struck, success
from amenable.method.fdpg import FDPG
from amenable.method.loop import Optimisation, train
from amenable.method.text_game import speaking
from amenable.objective.divergence import ReverseKL
from amenable.objective.score_gradient import coefficients
from amenable.policy.tabular import TabularPolicy
from amenable.records import Decoding

SCENES = [Scene("ox", ("ax", "oy")), Scene("ay", ("oy", "ax"))]
NAMES = ("ox", "oy", "ax", "ay")


def by_letters(messages: Sequence[str], candidates: Sequence[Sequence[str]]) -> torch.Tensor:
    """A listener to enumerate: "b" speaks for o, "c" for y, each as often as it comes."""
    scores = [
        [text.count("b") * ("o" in name) + 0.5 * text.count("c") * ("y" in name) for name in own]
        for text, own in zip(messages, candidates, strict=True)
    ]
    return torch.tensor(scores, dtype=torch.float64).log_softmax(-1)


def speaker(seed: int = 1) -> tuple[TabularPolicy, TextGame]:
    game = TextGame(SCENES, by_letters)
    return TabularPolicy.random("abc", 3, contexts=game.prompts, scale=0.7, seed=seed), game


# --- objects and scenes
def test_every_value_of_a_held_out_object_was_seen() -> None:
    world = World()
    known, held_out = world.split(0.25, seed=3)
    assert len(held_out) == 12
    assert sorted(known + held_out) == sorted(world.objects)
    assert {word for name in held_out for word in name.split()} <= {word for name in known for word in name.split()}


def test_scenes_differ_and_take_all_targets_in_turn() -> None:
    found = scenes_of(World().objects, 60, candidates=3, seed=0)
    assert len(set(found)) == 60
    assert len({scene.target for scene in found}) == 48
    assert all(len(set(scene.candidates)) == 3 for scene in found)
    assert found == scenes_of(World().objects, 60, candidates=3, seed=0)
    with pytest.raises(ConfigError, match="5 candidates cannot be made of 4 objects"):
        scenes_of(NAMES, 3, candidates=5, seed=0)
    with pytest.raises(ConfigError, match="different scenes"):
        scenes_of(["a", "b"], 3, candidates=2, seed=0)


# --- the listener
def test_the_score_is_what_a_hand_enumeration_says() -> None:
    policy = tiny_policy()
    listener = LanguageListener(policy, template="say:{message}=")
    scenes = [Scene("ox", ("a", "oyy")), Scene("a", ("oyy", "ox"))]
    game = TextGame(scenes, listener)
    messages = ["up", "down", ""]
    prompts = [game.prompts[0], game.prompts[1], game.prompts[0]]
    by_hand = []
    for message, scene in zip(messages, [scenes[0], scenes[1], scenes[0]], strict=True):
        whole = {}
        for name in scene.candidates:  # names of 2 to 4 bytes, one forward a byte
            ids = [*policy.tokenizer(f"say:{message}=")["input_ids"]]
            whole[name] = 0.0
            for token in policy.tokenizer(f" {name}")["input_ids"]:
                logits = policy.model(torch.tensor([ids])).logits[0, -1].double()
                whole[name] += logits.log_softmax(-1)[token].item()
                ids.append(token)
        by_hand.append(math.exp(whole[scene.target]) / sum(map(math.exp, whole.values())))
    assert max(by_hand) - min(by_hand) > 0.01
    found = game(prompts, messages)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(by_hand), rtol=1e-4, atol=1e-6)
    logs = TextGame(scenes, listener, measure="log")(prompts, messages)
    torch.testing.assert_close(torch.tensor(logs), torch.tensor(by_hand).log(), rtol=1e-4, atol=1e-5)
    assert [one.message for one in game.heard] == messages


def test_a_listener_that_fails_names_the_sample() -> None:
    def moody(messages: Sequence[str], candidates: Sequence[Sequence[str]]) -> torch.Tensor:
        if any("cc" in text for text in messages):
            raise RuntimeError("I do not listen to that")
        return by_letters(messages, candidates)

    prior, game = speaker()
    game.listener = moody
    target = prior.tilt(game, beta=1.0)
    prompts, samples = everything(prior)
    first = next(place for place, text in enumerate(samples.texts) if "cc" in text)
    with pytest.raises(FeedbackError, match=f"I do not listen to that for sample {first}: '{samples.texts[first]}'"):
        target.scores(prompts, samples)


def test_what_is_no_law_or_no_scene_is_refused() -> None:
    def unsure(messages: Sequence[str], candidates: Sequence[Sequence[str]]) -> torch.Tensor:
        return by_letters(messages, candidates) - torch.tensor([float(text == "b") for text in messages]).unsqueeze(1)

    wanted = [SCENES[0].candidates] * 2
    assert success(by_letters, ["b", "c"], wanted)[0] == pytest.approx(math.log(math.e / (2 * math.e + 1)))
    with pytest.raises(FeedbackError, match=r"sum to 0.36\d+ for text 1: 'b'"):
        success(unsure, ["c", "b"], wanted)
    with pytest.raises(FeedbackError, match=r"gave \(2, 1\) numbers for \(2, 3\)"):
        success(lambda texts, own: by_letters(texts, own)[:, :1], ["c", "b"], wanted)
    _, game = speaker()
    with pytest.raises(FeedbackError, match="prompt of no scene"):
        game(["elsewhere"], ["b"])


# --- the channel
def test_noise_replaces_so_many_words_by_other_ones() -> None:
    words = World().words
    text = " ".join(words * 100)
    assert noisy(text, 0.0, words, random.Random(0)) == text
    heard = noisy(text, 0.3, words, random.Random(0)).split()
    changed = sum(old != new for old, new in zip(text.split(), heard, strict=True))
    assert abs(changed / len(heard) - 0.3) < 4 * math.sqrt(0.21 / len(heard))
    assert all(
        old != new for old, new in zip(words * 100, noisy(text, 1.0, words, random.Random(0)).split(), strict=True)
    )
    with pytest.raises(ConfigError, match=r"noise=0\.2 with 1 words"):
        TextGame(SCENES, by_letters, noise=0.2, words=["a"])


def test_what_is_taboo_does_not_arrive_however_it_ends() -> None:
    assert struck(" a Red, reddish star; hundred stars", ["red", "star"]) == " a ,  ; hundred "
    assert struck("red", []) == "red"
    game = TextGame(SCENES, by_letters, taboo=["b"])
    free = TextGame(SCENES, by_letters)
    assert game(game.prompts[:1], ["bc c"]) == free(game.prompts[:1], [" c"]) != free(game.prompts[:1], ["bc c"])
    assert game.heard[0].message == " c"


def test_the_same_stream_has_the_same_noise_and_another_one_other() -> None:
    game = TextGame(SCENES, by_letters, noise=0.5, words=["b", "c", "a"])
    prompts, texts = [game.prompts[0]] * 40, ["b c a b"] * 40
    heard = []
    for stream in (0, 0, 1):
        game.stream = stream
        game(prompts, texts)
        heard.append([one.message for one in game.heard])
    assert heard[0] == heard[1] != heard[2]
    assert len(set(heard[0])) > 10  # every text of a batch has its own


# --- the speaker's gradient
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_the_expected_step_is_the_gradient_of_success_less_beta_kl(beta: float) -> None:
    prior, game = speaker()
    policy = speaker(seed=2)[0].trainable_copy()
    method = speaking(prior, game, beta=beta)
    prompts, samples = everything(prior)
    worth = torch.tensor(game(prompts, samples.texts), dtype=torch.float64).view(2, -1)
    law, log_prior = log_law(policy), log_law(prior)
    wanted = exact_gradient(policy, -((law.exp() * (worth - beta * (law - log_prior))).sum(-1)).mean())
    samples.log_probs.copy_(policy.log_prob(samples).detach())
    batch = batch_of(method.target, policy, prompts, samples)
    c = coefficients(rewards_of(method, batch), batch.log_policy, batch.log_proposal, baseline="constant", constant=0.4)
    weight = batch.log_proposal.exp() / 2 * len(prompts) * c  # c is divided by the samples of both scenes
    expected = exact_gradient(policy, (weight * log_law(policy).flatten()).sum())
    torch.testing.assert_close(expected, wanted, rtol=1e-8, atol=1e-10)
    if beta:  # the library's RLHF: beta times the reverse KL to the prior tilted by the game
        rlhf = FDPG(prior, prior.tilt(game, beta=beta), ReverseKL, contexts=prior.contexts)
        know(rlhf, rlhf.target, prior)
        batch = batch_of(rlhf.target, policy, prompts, samples)
        c = coefficients(rewards_of(rlhf, batch), batch.log_policy, batch.log_proposal, baseline="none")
        theirs = exact_gradient(
            policy, (batch.log_proposal.exp() / 2 * len(prompts) * c * log_law(policy).flatten()).sum()
        )
        torch.testing.assert_close(beta * theirs, wanted, rtol=1e-8, atol=1e-10)


def test_the_loop_reaches_the_optimum_that_beta_asks_for(tmp_path: Path) -> None:
    """beta = 0: as much success as there is. beta = 0.1: the tilted prior, whose KL to the prior is known by enumeration."""
    prior, game = speaker()
    prompts, samples = everything(prior)
    worth = torch.tensor(game(prompts, samples.texts), dtype=torch.float64).view(2, -1)
    log_prior = log_law(prior).detach()
    tilted = (log_prior + worth / 0.1).log_softmax(-1)
    reached = {}
    for beta in (0.0, 0.1):
        policy = prior.trainable_copy()
        method = speaking(prior, game, beta=beta, steps=200, samples_per_context=64, decoding=Decoding(max_tokens=3))
        optimisation = Optimisation(learning_rate=0.1, schedule="linear", precision="float32")
        train(policy, method, optimisation=optimisation, folder=tmp_path / f"{beta}")
        reached[beta] = log_law(policy).detach()
    gained = (reached[0.0].exp() * worth).sum(-1)
    assert bool((gained > worth.max(-1).values - 0.05).all())
    assert kl(reached[0.1], tilted) < 0.02 < 0.15 < kl(log_prior, tilted)
    assert kl(reached[0.1], log_prior) < 0.8 * kl(reached[0.0], log_prior)


def test_the_prompt_holds_target_and_others_and_the_listeners_only_the_text() -> None:
    scene = Scene("small red circle", ("large blue star", "small green square"))
    assert scene.prompt().endswith(
        "Object: small red circle. Others: large blue star, small green square. Description:"
    )
    asked = LanguageListener(None).prompt(" the {round} one")
    assert asked.endswith("Description: the {round} one. Object:")
    assert not any(name in asked for name in itertools.chain(scene.candidates))


def test_a_pair_of_text_and_name_is_scored_once() -> None:
    policy = tiny_policy()
    asked = []
    real = policy.log_prob
    policy.log_prob = lambda samples: asked.append(len(samples)) or real(samples)  # type: ignore[func-returns-value,method-assign]
    law = LanguageListener(policy, "{message}=")(["up", "up"], [NAMES[:2], NAMES[1:3]])
    assert asked == [3]
    assert law.shape == (2, 2)
