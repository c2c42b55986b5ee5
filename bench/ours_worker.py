"""Our side of the workers: the policy to train, and its timed steps.

given   folder, n (samples a step, of all prompts), tokens, steps, seed, precision ("float32" | "bfloat16")
        ends      samples may end before `tokens` (default: they may not, the work is fixed)
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from clock import Clock

from amenable.method.fdpg import FDPG
from amenable.method.loop import Optimisation, train
from amenable.policy.language_model import LanguageModel
from amenable.policy.loading import load_policy
from amenable.sampling.proposal import OnPolicy


def learner_of(given: dict[str, Any]) -> LanguageModel:
    """A trainable copy of the policy in the folder, float32 weights."""
    learner = load_policy(given["folder"], dtype="float32", rows=given["n"]).trainable_copy()
    if not given.get("ends"):
        learner.eos_ids = []
    return learner


def proposal_of(given: dict[str, Any]) -> OnPolicy:
    """The policy itself, or in the bfloat16 mode its copy in bfloat16."""
    return OnPolicy(torch.bfloat16) if given["precision"] == "bfloat16" else OnPolicy()


def watch(method: FDPG, learner: LanguageModel, clock: Clock) -> None:
    """The phases of our step; the clock starts."""
    clock.watch(method.proposal, "draw", "sample")
    clock.watch(method.target.potential, "log_values", "reward")
    clock.watch(method.target.prior, "log_prob", "reference")
    clock.watch(learner, "log_prob", "train")
    clock.watch(learner, "weighted_log_prob", "train")
    clock.watch(torch.Tensor, "backward", "train")
    clock.watch_optimiser(torch.optim.AdamW)
    clock.start()


def timed(method: FDPG, learner: LanguageModel, given: dict[str, Any], clock: Clock) -> None:
    """The training, its steps timed."""
    settings = Optimisation(learning_rate=1e-5, schedule="constant", warmup=0.0, precision=given["precision"])
    with tempfile.TemporaryDirectory() as folder:
        watch(method, learner, clock)
        train(learner, method, optimisation=settings, folder=Path(folder))
