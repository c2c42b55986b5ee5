"""Train a copy of a policy, save it, and never train it twice: the stage that every training recipe shares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from amenable import durable
from amenable.method import checkpoint
from amenable.method.loop import Optimisation, train
from amenable.method.protocol import Method
from amenable.policy.causal_lm import LoRA
from amenable.policy.language_model import LanguageModel
from amenable.policy.loading import load_policy
from amenable.progress import bar
from amenable.runs import Run


def trained(
    prior: LanguageModel,
    method: Method,
    *,
    optimisation: Optimisation,
    adapter: str,
    folder: Path,
    record: Run,
    checkpoint_every: int,
    on_full: str,
) -> tuple[LanguageModel, list[dict[str, Any]]]:
    """The policy after training a copy of `prior`, frozen, and the metrics of every step.

    The model is saved in `folder`/model in the precision that it is evaluated in, so what is measured is what is kept.
    """
    name = f"{folder.name} training"
    if not record.has(name):
        try:
            policy = prior.trainable_copy(LoRA() if adapter == "lora" else None)
            with bar(name) as progress:
                train(
                    policy,
                    method,
                    optimisation=optimisation,
                    folder=folder,
                    checkpoint_every=checkpoint_every,
                    on_full=on_full,
                    progress=progress,
                )
            with durable.folder(folder / "model", {"steps": method.steps}) as work:
                policy.save(work, dtype=torch.bfloat16 if optimisation.precision == "bfloat16" else None)
        except Exception as error:
            trouble = durable.as_os_error(error)
            if trouble is None:
                raise
            raise durable.storage_error(folder, trouble) from error
        del policy
        record.stage(name, lambda: [{"steps": method.steps, "model": f"{folder.name}/model"}])
    checkpoint.drop_all(folder)
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    made = str(folder / "model")
    dtype = "auto" if optimisation.precision == "bfloat16" else "float32"
    policy = load_policy(made, dtype=dtype, rows=prior.rows, trust_remote_code=made if prior.brings_code else "")
    return policy, metrics
