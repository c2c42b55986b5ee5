"""The ways of getting close to a target that studies compare, by name: divergence or reward, proposal and baseline.

    kl, rkl, js, tv, chi2      f-DPG on the policy's own samples; rkl softens a hard constraint into exp(b / 0.1)
    kl-one-z, tv-one-z         with one Z for all contexts: DPG as it was before CDPG
    gdc, gdc++                 forward KL, the best policy so far as the only proposal, without a baseline and with Z pi/q
    reinforce                  the expected reward alone                 rl    with a KL penalty
    ppo                        the same with a clipped ratio, 4 steps a batch
    filtered                   imitation of the prior's samples, each with the weight phi, as many as the other arms draw
    best-of-n                  no training: the best of n samples of the prior

All draw the same number of samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from amenable.errors import ConfigError
from amenable.method.fdpg import FDPG
from amenable.method.imitation import Example, Imitation
from amenable.method.ppo import PPO
from amenable.method.protocol import Method
from amenable.objective.divergence import divergence_named
from amenable.objective.reward import ExpectedReward
from amenable.recipes.matching import Problem
from amenable.sampling.defensive import Defensive
from amenable.sampling.proposal import Adaptive, Fixed, OnPolicy, Proposal, Replay
from amenable.seeding import derive
from amenable.target.posterior import Target
from amenable.target.potential import softened

SOFT = 0.1  # beta of a softened constraint, and of the KL penalty for one
PROPOSALS = ("policy", "adaptive", "adaptive-tv", "best-so-far", "replay", "prior")


@dataclass(frozen=True)
class Arm:
    """What is minimised (a divergence, or reinforce, rl, ppo), whose samples, which baseline, one Z for all contexts or not."""

    objective: str
    proposal: str = "policy"
    baseline: str = "leave-one-out"
    one_z: bool = False


ARMS = {
    "kl": Arm("forward-kl"),
    "rkl": Arm("reverse-kl"),
    "js": Arm("js"),
    "tv": Arm("tv"),
    "chi2": Arm("chi2-forward"),
    "kl-one-z": Arm("forward-kl", one_z=True),
    "tv-one-z": Arm("tv", one_z=True),
    "gdc": Arm("forward-kl", "best-so-far", "none"),
    "gdc++": Arm("forward-kl", "best-so-far", "target"),
    "reinforce": Arm("reinforce"),
    "rl": Arm("rl"),
    "ppo": Arm("ppo"),
    "filtered": Arm("filtered"),
    "best-of-n": Arm("best-of-n"),
}


@dataclass(frozen=True)
class Budget:
    """How much is drawn and learned: `steps` of `contexts_per_step` (0: all) contexts with `samples_per_context` each."""

    steps: int
    samples_per_context: int
    contexts_per_step: int = 0
    precision: str = "float32"

    def samples(self, contexts: int) -> int:
        """Samples drawn in the whole training."""
        return self.steps * self.samples_per_context * min(self.contexts_per_step or contexts, contexts)


def build(arm: Arm, problem: Problem, budget: Budget, *, seed: int) -> Method:
    """The method of an arm. Errors: ConfigError for names that are not known."""
    settings: dict[str, Any] = {
        "contexts": problem.contexts, "samples_per_context": budget.samples_per_context,
        "contexts_per_step": budget.contexts_per_step, "decoding": problem.decoding, "seed": seed,
        "one_z": arm.one_z,
    }  # fmt: skip
    if arm.objective == "filtered":
        return filtered(problem, budget, seed=seed)
    settings |= {"steps": budget.steps, "proposal": proposal(arm.proposal, problem, budget), "baseline": arm.baseline}
    if arm.objective in ("reinforce", "rl", "ppo"):
        reward = reward_of(problem, penalty=arm.objective != "reinforce")
        if arm.objective == "ppo":
            return PPO(problem.prior, problem.target, reward, **settings)
        return FDPG(problem.prior, problem.target, reward, **settings)
    divergence = divergence_named(arm.objective)
    return FDPG(problem.prior, target_for(arm, problem), divergence, **settings)


def target_for(arm: Arm, problem: Problem) -> Target:
    """The problem's target, softened where it is a hard constraint and the divergence would be infinite."""
    potential = problem.target.potential
    matching = arm.objective not in ("reinforce", "rl", "ppo", "filtered", "best-of-n")
    if potential.hard and matching and divergence_named(arm.objective).limit == math.inf:
        return Target(problem.target.prior, softened(potential, beta=SOFT))
    return problem.target


def reward_of(problem: Problem, *, penalty: bool) -> ExpectedReward:
    """A constraint: its share, with a penalty of 0.1 nats; else log phi, whose penalty of 1 makes it the reverse KL to p."""
    if problem.target.potential.hard:
        return ExpectedReward(beta=SOFT if penalty else 0.0, of="potential")
    return ExpectedReward(beta=1.0 if penalty else 0.0, of="log-potential")


def proposal(name: str, problem: Problem, budget: Budget) -> Proposal:
    """A proposal by its name."""
    samples = max(64, budget.samples_per_context)
    made: dict[str, Any] = {
        "policy": lambda: OnPolicy(torch.bfloat16 if budget.precision == "bfloat16" else None),
        "adaptive": lambda: Defensive(Adaptive(every=10, by="kl", samples=samples)),
        "adaptive-tv": lambda: Defensive(Adaptive(every=10, by="tv", samples=samples)),
        "best-so-far": lambda: Adaptive(every=10, by="kl", samples=samples),
        "replay": Replay,
        "prior": lambda: Fixed(problem.prior),
    }
    if name not in made:
        raise ConfigError(f"proposal={name!r} is not known", f"use one of {', '.join(PROPOSALS)}")
    found: Proposal = made[name]()
    return found


def filtered(problem: Problem, budget: Budget, *, seed: int) -> Imitation:
    """Imitation of the prior's samples, weighted by phi: those of weight 0 are left out."""
    total = budget.samples(len(problem.contexts))
    each = max(1, total // len(problem.contexts))
    drawn = problem.prior.sample(problem.contexts, n=each, decoding=problem.decoding, seed=derive(seed, "filtered"))
    prompts = [context for context in problem.contexts for _ in range(each)]
    log_phi = problem.target.scores(prompts, drawn).log_potential.nan_to_num(nan=-math.inf, neginf=-math.inf)
    kept = log_phi > -math.inf
    weights = torch.where(
        kept, log_phi - log_phi[kept].logsumexp(0) + math.log(max(1, int(kept.sum()))), -math.inf
    ).exp()
    examples = [
        Example(prompt, text, weight=weight, eos=ended == "eos")
        for prompt, text, ended, weight in zip(prompts, drawn.texts, drawn.ended, weights.tolist(), strict=True)
        if weight > 0
    ]
    size = max(1, round(len(examples) / budget.steps))
    return Imitation(examples, epochs=1, batch_size=size, seed=seed)
