"""Describe and guess: two language models play a text game, learn from its success, and is what they speak still English?

    prior  ->  speaker (listener's success, with and without KL to the prior)  <->  listener (learns, or stays the prior)
           ->  held-out combinations: success, and what became of the language, beside the prior

What is said of the language: how surprised the pretrained model is by a token of it; whether the pretrained model, as a
listener that was never trained, still understands it; whether it names the target's attributes; how varied it is.
Sources: those of `game.text`; the KL, Korbak et al. 2022, arXiv 2205.11275.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from amenable import durable
from amenable.errors import ConfigError
from amenable.game.text import LanguageListener, Players, Scene, TextGame, World, scenes_of, struck, success
from amenable.method import checkpoint
from amenable.method.loop import Optimisation, train
from amenable.method.text_game import BothPlay, speaking
from amenable.policy.language_model import LanguageModel, LoRA
from amenable.policy.loading import load_policy
from amenable.progress import bar
from amenable.recipes.environment import prepare
from amenable.recipes.settings import Recipe, setting
from amenable.recipes.text_game_report import Training, build_report
from amenable.records import Decoding
from amenable.report.html import write
from amenable.report.page import Report
from amenable.runs import Row, Run
from amenable.sampling.proposal import OnPolicy
from amenable.seeding import derive
from amenable.target.posterior import sequence_log_prob

LISTENERS = ("learned", "frozen")


@dataclass(frozen=True)
class TextGameSettings:
    """The game, the players, and how they are trained."""

    model: str = setting("smollm2-135m", "speaker and listener begin as this: folder, hub id, or named small model")
    listeners: tuple[str, ...] = setting(
        ("learned",), "learned: the listener is trained, too; frozen: it stays the prior", LISTENERS
    )
    betas: tuple[float, ...] = setting((0.0, 0.05), "success a nat of the speaker's KL to the prior; 0: success alone")
    seeds: int = setting(2, "trainings of each; they play the same scenes")
    measure: str = setting(
        "probability", "what the speaker is rewarded with: P(target), or its log", ("probability", "log")
    )
    taboo: bool = setting(False, "the objects' own words (red, small, star) never reach the listener")
    noise: float = setting(0.0, "probability that the channel puts another word in a word's place, in training")
    candidates: int = setting(3, "objects in a scene, the target among them")
    scenes: int = setting(200, "scenes to train on")
    held_out: float = setting(0.25, "share of the objects that no training scene has")
    evaluation: int = setting(96, "texts of every speaker that are measured, in all")
    evaluation_scenes: int = setting(24, "scenes of held-out objects that they are about")
    steps: int = setting(10, "optimiser steps")
    scenes_per_step: int = setting(4, "scenes a step")
    samples_per_scene: int = setting(8, "texts a scene and step")
    max_tokens: int = setting(8, "longest text in tokens; a line's end ends it, too")
    adapter: str = setting("lora", "lora trains a low-rank adapter of each player, none all weights", ("lora", "none"))
    learning_rate: float = setting(1e-3, "learning rate of AdamW, constant after a warm-up; 3e-5 for adapter=none")
    precision: str = setting("bfloat16", "arithmetic of training", ("float32", "bfloat16"))
    checkpoint_every: int = setting(5, "optimiser steps between checkpoints, 0 for none")
    on_full: str = setting(
        "continue", "where the disk has no room for a checkpoint: continue without it, or stop", ("continue", "stop")
    )
    rows: int = setting(128, "samples decoded at once")
    threads: int = setting(0, "CPU threads, 0 for all cores")
    seed: int = setting(0, "seed of the whole study")

    @property
    def lowered(self) -> torch.dtype | None:
        """The precision in which copies draw and read; None: the weights' own."""
        return torch.bfloat16 if self.precision == "bfloat16" else None

    @property
    def decoding(self) -> Decoding:
        return Decoding(max_tokens=self.max_tokens, stop=("\n",))


def check(settings: TextGameSettings) -> None:
    """Errors: ConfigError for settings that play no game."""
    if not settings.betas or not settings.listeners or settings.seeds < 1:
        raise ConfigError(
            f"betas={settings.betas}, listeners={settings.listeners}, seeds={settings.seeds}: nothing to train",
            "name one of each, and seeds >= 1",
        )
    wrong = [beta for beta in settings.betas if not 0 <= beta < math.inf]
    if wrong:
        raise ConfigError(f"betas has {wrong[0]:g}, which is no weight of a KL", "use 0 (success alone) or more")
    if settings.samples_per_scene < 2:
        raise ConfigError(
            "a text is compared with the others of its scene, and there is none", "use samples_per_scene >= 2"
        )


def plan(settings: TextGameSettings) -> list[str]:
    check(settings)
    trainings = len(settings.betas) * len(settings.listeners) * settings.seeds
    per_step = settings.scenes_per_step * settings.samples_per_scene
    return [
        f"two {settings.model}: one describes an object among {settings.candidates}, the other guesses which it is",
        f"1  the untrained pair on {settings.evaluation_scenes} scenes of held-out combinations; chance is 1 in "
        f"{settings.candidates}",
        f"2  {trainings} trainings of {settings.steps} steps, {per_step} texts each: β = "
        f"{', '.join(f'{beta:g}' for beta in settings.betas)}; listener {', '.join(settings.listeners)}",
        f"3  {settings.evaluation} texts of every speaker: understood? English?",
    ]


def run(settings: TextGameSettings, folder: Path) -> Report:
    """The study in `folder`. Run again, it goes on where it stopped; listeners, betas and seeds may be added."""
    check(settings)
    clock = prepare(settings.threads)
    world = World()
    known, held_out = world.split(settings.held_out, seed=settings.seed)
    make = partial(scenes_of, candidates=settings.candidates)
    played = make(known, settings.scenes, seed=derive(settings.seed, "training"))
    asked = make(held_out, settings.evaluation_scenes, seed=derive(settings.seed, "evaluation"))
    record = Run.of(folder, settings, free=("listeners", "betas", "seeds"))
    prior = load_policy(settings.model, dtype="float32", rows=settings.rows)
    clock.lap("prior")
    before = record.stage("prior", lambda: spoken(settings, prior, prior, prior, asked, derive(settings.seed, "prior")))
    clock.lap("texts of the prior")
    found: dict[str, list[Training]] = {}
    for seed in range(settings.seeds):
        for listener in settings.listeners:
            for beta in settings.betas:
                name = f"{listener} listener, β = {beta:g}"
                place = folder / f"{listener}-{beta:g}-{seed}"
                own = derive(settings.seed, listener, seed)  # the same for every beta
                rows, metrics = one(settings, prior, world, played, asked, listener, beta, own, place, record)
                found.setdefault(name, []).append(Training(listener, beta, rows, metrics))
                clock.lap(name)
    report = build_report(settings, before, found, len(played), clock.minutes())
    write(report, folder / "report.html")
    record.close()
    return report


def one(
    settings: TextGameSettings, prior: LanguageModel, world: World, played: Sequence[Scene], asked: Sequence[Scene],
    listener: str, beta: float, seed: int, folder: Path, record: Run,
) -> tuple[list[Row], list[dict[str, Any]]]:  # fmt: skip
    """One training, and what its players make of the held-out scenes."""

    def compute() -> list[Row]:
        players = load_players(settings, prior, listener == "learned", folder)
        return spoken(settings, prior, players.speaker, players.listener, asked, derive(seed, "evaluation"))

    if not record.has(folder.name):
        training(settings, prior, world, played, listener == "learned", beta, seed, folder, record)
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return record.stage(folder.name, compute), metrics


def training(
    settings: TextGameSettings, prior: LanguageModel, world: World, played: Sequence[Scene], learns: bool, beta: float,
    seed: int, folder: Path, record: Run,
) -> None:  # fmt: skip
    """Train the players and save them in `folder`/model, once; a training that was cut short goes on."""
    name = f"{folder.name} training"
    if record.has(name):
        return
    game = TextGame(
        played, LanguageListener(prior), noise=settings.noise, words=world.words, taboo=world.words if settings.taboo else (),
        measure=settings.measure, seed=derive(seed, "channel"),  # type: ignore[arg-type]
    )  # fmt: skip
    speaker = speaking(
        prior, game, beta=beta, steps=settings.steps, contexts_per_step=settings.scenes_per_step,
        samples_per_context=settings.samples_per_scene, decoding=settings.decoding, proposal=OnPolicy(settings.lowered),
        positions=8192, seed=derive(seed, "speaker"),
    )  # fmt: skip
    method = BothPlay(speaker, game, lowered=settings.lowered, seed=derive(seed, "listener"))
    adapter = LoRA() if settings.adapter == "lora" else None
    torch.manual_seed(derive(seed, "adapter"))  # peft draws the adapter's first weights from torch's own stream
    players = Players(prior.trainable_copy(adapter), prior.trainable_copy(adapter) if learns else prior, learns=learns)
    optimisation = Optimisation(
        learning_rate=settings.learning_rate, schedule="constant", precision=settings.precision  # type: ignore[arg-type]
    )  # fmt: skip
    try:
        with bar(name) as progress:
            train(
                players, method, optimisation=optimisation, folder=folder, progress=progress,
                checkpoint_every=settings.checkpoint_every, on_full=settings.on_full,
            )  # fmt: skip
        with durable.folder(folder / "model", {"steps": method.steps}) as work:
            players.speaker.save(work / "speaker", dtype=settings.lowered)
            if learns:
                players.listener.save(work / "listener", dtype=settings.lowered)
    except Exception as error:
        trouble = durable.as_os_error(error)
        if trouble is None:
            raise
        raise durable.storage_error(folder, trouble) from error
    record.stage(name, lambda: [{"steps": method.steps, "model": f"{folder.name}/model"}])
    checkpoint.drop_all(folder)


def load_players(settings: TextGameSettings, prior: LanguageModel, learned: bool, folder: Path) -> Players:
    """The players that a training saved, frozen, in float32."""
    made = {
        who: load_policy(str(folder / "model" / who), dtype="float32", rows=settings.rows)
        for who in ("speaker", *(["listener"] if learned else []))
    }
    return Players(made["speaker"], made.get("listener", prior), learns=False)


def spoken(
    settings: TextGameSettings, prior: LanguageModel, speaker: LanguageModel, listener: LanguageModel,
    scenes: Sequence[Scene], seed: int,
) -> list[Row]:  # fmt: skip
    """Texts of a speaker about scenes, scene by scene, and P(target) by four readers of them.

    success    the listener                                   outsider   the prior, which no training touched
    elsewhere  the listener, as if it were of the next scene   noisy      the listener, behind the channel
    """
    each, prompts = max(1, settings.evaluation // len(scenes)), [scene.prompt() for scene in scenes]
    drawn = speaker.sample(prompts, n=each, decoding=settings.decoding, seed=seed)
    log_policy, log_prior = (sequence_log_prob(law, drawn).tolist() for law in (speaker, prior))
    texts, about = list(drawn.texts), [scene for scene in scenes for _ in range(each)]
    own, outsider = (LanguageListener(law.frozen(settings.lowered or torch.float32)) for law in (listener, prior))
    candidates, taboo = [scene.candidates for scene in about], World().words if settings.taboo else []
    heard = [struck(text, taboo) for text in texts]
    readings = {
        "success": success(own, heard, candidates),
        "outsider": success(outsider, heard, candidates),
        "elsewhere": success(own, heard, candidates[each:] + candidates[:each]),
    }
    if settings.noise:
        channel = TextGame(
            scenes, own, noise=settings.noise, words=World().words, taboo=taboo, measure="log", seed=seed
        )
        readings["noisy"] = [
            float(value) for value in channel([p for p in prompts for _ in range(each)], texts) if value is not None
        ]
    return [
        {
            "scene": place // each, "target": scene.target, "others": list(scene.others), "text": texts[place],
            "ended": drawn.ended[place], "tokens": int(drawn.lengths[place]), "log_policy": log_policy[place],
            "log_prior": log_prior[place], **{name: math.exp(values[place]) for name, values in readings.items()},
        }
        for place, scene in enumerate(about)
    ]  # fmt: skip


RECIPE = Recipe(
    "text-game",
    "two language models describe and guess, with and without KL to the prior: does the code stay English?",
    TextGameSettings,
    plan,
    run,
)
