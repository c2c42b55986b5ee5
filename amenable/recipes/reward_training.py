"""What is costly about a reward model, done once: the features of its body, and its training."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from amenable import durable
from amenable.cache import cache_folder
from amenable.feedback.reward_model import RewardModel, load_reward_model
from amenable.feedback.reward_reading import Encoded
from amenable.method import checkpoint
from amenable.method.loop import Optimisation, train
from amenable.method.preference import RewardModelling
from amenable.policy.causal_lm import LoRA
from amenable.progress import bar, say
from amenable.recipes.pairs import texts_of
from amenable.runs import Run
from amenable.task.preferences import Comparison

PART = 64  # pairs whose features are kept together


def trained_reward_model(
    model: RewardModel,
    method: RewardModelling,
    *,
    optimisation: Optimisation,
    adapter: str,
    folder: Path,
    record: Run,
    checkpoint_every: int,
    on_full: str,
    centre_on: Sequence[Comparison] = (),
    dtype: str = "float32",
) -> tuple[RewardModel, list[dict[str, Any]]]:
    """The model after training a copy of it, centred and frozen, and the metrics of every step; never trained twice.

    It is saved in `folder`/model, in the precision that it is read in afterwards.
    """
    name = "training"
    if not record.has(name):
        try:
            policy = model.trainable_copy(LoRA() if adapter == "lora" else None)
            with bar(name) as progress:
                train(
                    policy, method, optimisation=optimisation, folder=folder, checkpoint_every=checkpoint_every,
                    on_full=on_full, progress=progress,
                )  # fmt: skip
            done = policy.frozen(model.model.base_model.dtype)
            save_whole(done.centred_on(*texts_of(centre_on)), folder / "model", steps=method.steps)
        except Exception as error:
            trouble = durable.as_os_error(error)
            if trouble is None:
                raise
            raise durable.storage_error(folder, trouble) from error
        record.stage(name, lambda: [{"steps": method.steps, "model": "model"}])
    checkpoint.drop_all(folder)
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return load_reward_model(folder / "model", dtype=dtype), metrics


def cached_features(model: RewardModel, pairs: Sequence[Comparison]) -> torch.Tensor:
    """h of both answers of every pair, (pairs, 2, D) float32.

    Kept in the cache, `PART` pairs a file, under a hash of body and texts: what was computed before an interruption stays.
    """
    prompts, answers = texts_of(pairs)
    texts = [model.encode(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    body = model.fingerprint()
    found = []
    with bar("features") as progress:
        for start in range(0, len(texts), 2 * PART):
            part = texts[start : start + 2 * PART]
            tell = lambda done, _, start=start: progress(start + done, len(texts))
            found.append(_part(model, body, part, tell))
            progress(start + len(part), len(texts))
    return torch.cat(found).view(len(pairs), 2, -1)


def _part(model: RewardModel, body: str, texts: list[Encoded], progress: Callable[[int, int], None]) -> torch.Tensor:
    key = hashlib.sha256(json.dumps([body, [[text.ids, text.start] for text in texts]]).encode()).hexdigest()
    path = cache_folder() / "features" / f"{key[:32]}.safetensors"
    if path.is_file():
        kept: torch.Tensor = load_file(path)["features"]
        return kept
    found = model.features(texts, progress)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"features": found}, path.with_suffix(f".{os.getpid()}"))
        os.replace(path.with_suffix(f".{os.getpid()}"), path)
    except Exception as error:
        trouble = durable.as_os_error(error)
        if trouble is None:
            raise
        say(f"features are not kept in {path.parent}: {trouble.strerror}")
    return found


def save_whole(model: RewardModel, folder: Path, **facts: Any) -> None:
    """Write the model's folder, whole or not at all, with a manifest of `facts`."""
    with durable.folder(folder, facts) as work:
        model.save(work)
