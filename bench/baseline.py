"""How much a baseline saves: the variance of the gradient of DPG with and without one, at several batch sizes.

    python bench/baseline.py [target=compiles] [model=code-model] [samples=256] [steps=0,40] [seeds=3]
    python bench/baseline.py target=TARGET policies=RUN/policy/model,RUN/policy/model      # trained by `amenable run fdpg`

    variance of a batch's gradient = (mean_i |g_i|^2 - |mean_i g_i|^2) / N,   g_i = c_i grad log pi(x_i) of one sample

Per-sample gradients of the forward KL on the policy's own samples, after `steps` optimiser steps of DPG with the baseline, or
of policies that are trained already: the gain grows as the policy nears the target.
Source: Korbak et al. 2022 (GDC++), arXiv 2206.00761, section 4.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from amenable.evaluation.interval import over_seeds
from amenable.method.fdpg import FDPG
from amenable.method.loop import Optimisation, train
from amenable.objective.divergence import ForwardKL
from amenable.objective.score_gradient import coefficients
from amenable.policy.loading import load_policy
from amenable.recipes.fdpg import FDPGSettings
from amenable.recipes.matching import Problem, problem
from amenable.sampling.batches import subset
from amenable.seeding import derive

BASELINES = ("none", "target", "leave-one-out")


def variances(policy: Any, method: FDPG, samples: int, seed: int) -> dict[str, float]:
    """Trace of the covariance of one sample's gradient, by baseline; the batch's is this over N."""
    batch = method.draw(policy, 0, method.contexts, samples, seed)
    method.partition.add(batch.prompts, batch.log_weights)
    log_z = method.partition.log_z(batch.prompts)
    scores = batch.scores
    rewards = ForwardKL.rewards(batch.log_policy, scores.log_prior, scores.log_potential, log_z)
    shares = {
        name: coefficients(rewards, batch.log_policy, batch.log_proposal, baseline=name, at_target=1.0) * len(rewards)
        for name in BASELINES
    }
    parameters = [value for _, value in policy.trainable_parameters()]
    squares = dict.fromkeys(BASELINES, 0.0)
    sums = {name: [torch.zeros_like(value) for value in parameters] for name in BASELINES}
    for place in range(len(rewards)):
        gradients = torch.autograd.grad(policy.log_prob(subset(batch.samples, [place])).sum(), parameters)
        norm = sum(float((part.double() ** 2).sum()) for part in gradients)
        for name in BASELINES:
            share = float(shares[name][place])
            squares[name] += share**2 * norm / len(rewards)
            for total, part in zip(sums[name], gradients, strict=True):
                total += share / len(rewards) * part
    return {name: squares[name] - sum(float((t.double() ** 2).sum()) for t in sums[name]) for name in BASELINES}


def trained(found: Problem, steps: int, seed: int) -> tuple[Any, FDPG]:
    """The prior after `steps` of DPG with the baseline, and the method, which knows Z."""
    policy = found.prior.trainable_copy()
    method = FDPG(
        policy, found.target, ForwardKL, contexts=found.contexts, steps=steps, samples_per_context=128, baseline="target",
        decoding=found.decoding, seed=seed,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        optimisation = Optimisation(learning_rate=5e-4, schedule="constant", precision="float32")
        train(policy, method, optimisation=optimisation, folder=Path(folder))
    return policy, method


def loaded(found: Problem, folder: str) -> tuple[Any, FDPG]:
    """A policy that was trained before."""
    policy = load_policy(folder, dtype="float32").trainable_copy()
    return policy, FDPG(policy, found.target, ForwardKL, contexts=found.contexts, decoding=found.decoding)


def main() -> None:
    given = dict(item.split("=", 1) for item in sys.argv[1:])
    samples, seeds = int(given.get("samples", 256)), int(given.get("seeds", 3))
    steps = [int(text) for text in given.get("steps", "0,40").split(",")]
    settings = FDPGSettings(
        task="compiles", target=given.get("target", "compiles"), model=given.get("model", "code-model")
    )
    found = problem(settings)
    makers: list[tuple[str, Callable[[int], tuple[Any, FDPG]]]]
    if "policies" in given:
        folders = given["policies"].split(",")
        seeds, makers = len(folders), [("trained", lambda seed: loaded(found, folders[seed]))]
    else:
        makers = [(str(count), partial(trained, found, count)) for count in steps]
    rows: dict[tuple[str, str], list[float]] = {}
    for seed in range(seeds):
        for label, make in makers:
            for name, value in variances(*make(seed), samples, derive(seed, "variance")).items():
                rows.setdefault((label, name), []).append(value)
    print(f"{found.target.potential.name}, prior {settings.model}, {samples} samples, {seeds} seeds")
    print("| steps of training | baseline | variance of one sample's gradient | of none's |\n|---|---|---|---|")
    for (label, name), values in rows.items():
        ratio = over_seeds([own / none for own, none in zip(values, rows[label, "none"], strict=True)])
        print(f"| {label} | {name} | {over_seeds(values).text()} | {ratio.text()} |")


if __name__ == "__main__":
    main()
