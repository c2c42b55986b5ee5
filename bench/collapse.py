"""Reward alone against reward with a KL penalty: entropy, J / beta against log Z, and the identity between them, step by step.

    python bench/collapse.py [target=compiles] [model=code-model] [steps=150] [samples=128] [beta=0.1] [seeds=3] [rate=5e-4]

    J = E_pi[r] - beta KL(pi || a) = beta (log Z - KL(pi || p)),    p = a exp(r / beta) / Z

log Z is estimated from samples of the prior, twice: the two sides of the identity do not share it.
Source: Korbak et al. 2022, "RL with KL penalties is better viewed as Bayesian inference", arXiv 2205.11275.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch

from amenable.evaluation.interval import over_seeds
from amenable.method.fdpg import FDPG
from amenable.method.loop import Optimisation, train
from amenable.objective.reward import ExpectedReward
from amenable.recipes.fdpg import FDPGSettings
from amenable.recipes.matching import problem
from amenable.seeding import derive
from amenable.target.posterior import Target
from amenable.target.potential import softened


def main() -> None:
    given = dict(item.split("=", 1) for item in sys.argv[1:])
    beta, seeds = float(given.get("beta", 0.1)), int(given.get("seeds", 3))
    steps, samples = int(given.get("steps", 150)), int(given.get("samples", 128))
    settings = FDPGSettings(target=given.get("target", "compiles"), model=given.get("model", "code-model"))
    found = problem(settings)
    soft = Target(found.target.prior, softened(found.target.potential, beta=beta))
    drawn = found.prior.sample(found.contexts, n=4096, decoding=found.decoding, seed=derive(0, "log z"))
    prompts = [context for context in found.contexts for _ in range(4096)]
    weights = soft.potential.log_values(prompts, drawn)
    log_z = float(weights.logsumexp(0)) - math.log(len(weights))
    print(f"{soft.potential.name}, prior {settings.model}: log Z {log_z:.3f} (n={len(weights)})")
    print(
        "| method | seed | share, first and last | entropy, first and last | J / beta | KL(pi, p) | beta (log Z - KL) / J |"
    )
    print("|---|---|---|---|---|---|---|")
    ends: dict[str, list[dict[str, float]]] = {}
    for seed in range(seeds):
        for name, penalty in (("reward alone", 0.0), (f"with the penalty, beta={beta:g}", beta)):
            policy: Any = found.prior.trainable_copy()
            method = FDPG(
                policy, found.target, ExpectedReward(beta=penalty), contexts=found.contexts, steps=steps,
                samples_per_context=samples, decoding=found.decoding, seed=seed,
            )  # fmt: skip
            folder = Path("runs") / "collapse" / f"{penalty:g}-{seed}"
            optimisation = Optimisation(
                learning_rate=float(given.get("rate", 5e-4)), schedule="constant", precision="float32"
            )
            train(policy, method, optimisation=optimisation, folder=folder, checkpoint_every=20)
            rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            first, last = rows[0], end(policy, soft, found, beta, derive(seed, "end"))
            ends.setdefault(name, []).append(last)
            identity = beta * (log_z - last["kl"]) / last["J"]
            print(
                f"| {name} | {seed} | {first['potential']:.3f} → {last['share']:.3f} | {first['entropy']:.1f} → "
                f"{last['entropy']:.1f} | {last['J'] / beta:.3f} | {last['kl']:.3f} | {identity:.3f} |"
            )
    print("\n| method | entropy at the end | J / beta - log Z |\n|---|---|---|")
    for name, several in ends.items():
        gap = over_seeds([last["J"] / beta - log_z for last in several])
        print(f"| {name} | {over_seeds([last['entropy'] for last in several]).text()} | {gap.text(signed=True)} |")


@torch.no_grad()
def end(policy: Any, soft: Target, found: Any, beta: float, seed: int) -> dict[str, float]:
    """The policy after training, from 1024 samples of its own: share, entropy, J, KL(pi, p)."""
    drawn = policy.sample(found.contexts, n=1024, decoding=found.decoding, seed=seed)
    prompts = [context for context in found.contexts for _ in range(1024)]
    log_policy = drawn.log_probs.double().sum(-1)
    scores = soft.scores(prompts, drawn)
    reward = beta * scores.log_potential
    away = log_policy - scores.log_prior
    prior = found.prior.sample(found.contexts, n=4096, decoding=found.decoding, seed=derive(1, "log z"))
    fresh = soft.potential.log_values([c for c in found.contexts for _ in range(4096)], prior)
    log_z = float(fresh.logsumexp(0)) - math.log(len(fresh))
    return {
        "share": float(reward.mean()),
        "entropy": float(-log_policy.mean()),
        "J": float(reward.mean() - beta * away.mean()),
        "kl": float((away - scores.log_potential).mean()) + log_z,
    }


if __name__ == "__main__":
    main()
