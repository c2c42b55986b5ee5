"""The tables of a self-test, every proposal on them, and an objective's gradient by enumeration and by FDPG itself.

expected   relative error of the estimator's mean over every batch of two draws a context, with the exact Z
sampled    `method.fdpg.FDPG.losses` as a run calls it: its mean gradient as a multiple of the exact one, and the largest
           z-score along the gradient and random directions; Z is given, since an estimated one is right only in the limit
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from amenable.evaluation import oracle
from amenable.method.fdpg import FDPG
from amenable.method.loop import Optimisation, train
from amenable.objective.divergence import Divergence
from amenable.objective.reward import Objective
from amenable.policy.tabular import TabularPolicy
from amenable.records import Decoding
from amenable.sampling.proposal import Adaptive, Corpus, Fixed, OnPolicy, Proposal, Replay
from amenable.seeding import derive
from amenable.selftest.check import Check, attempt
from amenable.target.posterior import Target
from amenable.target.potential import constraint, tilt

EXACT = 1e-9  # relative error of an expectation, which has rounding errors alone
LARGEST_Z = 6.0
BATCHES, EACH = 20, 64  # of FDPG: steps, and samples of each context a step
CONSTANT = 0.3  # some baseline that depends on nothing
MANY = 10**12


def liked(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    """A reward that differs between texts and between contexts."""
    return [
        text.count("a") - 0.5 * text.count("b") + (prompt == "y") * text.endswith("b")
        for prompt, text in zip(prompts, completions, strict=True)
    ]


def has_a(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[bool]:
    """A constraint that some texts break."""
    return ["a" in text for text in completions]


@dataclass(frozen=True)
class Bench:
    """A policy that learns, another one to draw from, and two targets of one prior: a tilt, and a hard constraint (or None)."""

    policy: TabularPolicy
    other: TabularPolicy
    target: Target
    hard: Target | None

    @property
    def prior(self) -> TabularPolicy:
        return self.target.prior  # type: ignore[return-value]


def bench(seed: int) -> Bench:
    """Seven sequences of two letters in two contexts."""
    policy, other, prior = tables("ab", 2, seed)
    return Bench(policy, other, prior * tilt(liked, beta=1.0), prior * constraint(has_a))


def tables(alphabet: Any, max_tokens: int, seed: int, contexts: Sequence[str] = ("x", "y")) -> list[TabularPolicy]:
    """A policy, another one, and a prior, at random. `alphabet`: letters, or a tuple of texts."""
    shape: dict[str, Any] = {"contexts": contexts, "scale": 0.5}
    return [TabularPolicy.random(alphabet, max_tokens, seed=1000 * seed + place, **shape) for place in range(3)]


@dataclass(frozen=True)
class Draws:
    """A proposal on a bench: the laws (C, X) of a context's two draws, and how it is made for FDPG.

    `make` gives the proposal and what is called before every step, so that steps are independent of each other.
    """

    name: str
    log_laws: list[torch.Tensor]
    make: Callable[[], tuple[Proposal, Callable[[int], None]]]


def every_proposal(on: Bench) -> list[Draws]:
    """Each of `sampling.proposal`; those with memory remember `on.other`."""
    contexts, decoding = on.policy.contexts, Decoding(max_tokens=on.policy.max_tokens)
    policy = oracle.laws(on.policy, on.target).log_policy
    other = oracle.laws(on.other, on.target).log_policy

    def nothing(step: int) -> None:
        pass

    def adaptive() -> tuple[Proposal, Callable[[int], None]]:
        proposal = Adaptive(every=MANY)
        proposal.prepare(0, on.other, on.target, contexts, decoding, 0)
        return proposal, nothing

    def replay() -> tuple[Proposal, Callable[[int], None]]:
        proposal = Replay(0.5, 1)

        def remember(step: int) -> None:
            proposal.draw(0, on.other, contexts, n=EACH, decoding=decoding, seed=MANY + step)

        return proposal, remember

    def corpus() -> tuple[Proposal, Callable[[int], None]]:
        texts = on.policy.everything(contexts)
        log_probs = torch.zeros_like(texts.log_probs)
        log_probs[:, 0] = -math.log(policy.shape[1])
        prompts = [context for context in contexts for _ in range(policy.shape[1])]
        return Corpus(prompts, replace(texts, log_probs=log_probs)), nothing

    return [
        Draws("policy", [policy, policy], lambda: (OnPolicy(), nothing)),
        Draws("fixed", [other, other], lambda: (Fixed(on.other), nothing)),
        Draws("adaptive", [other, other], adaptive),
        Draws("replay", [policy, other], replay),
        Draws("corpus", [torch.full_like(policy, -math.log(policy.shape[1]))] * 2, corpus),
    ]


def gradient_check(
    name: str, objective: Objective, on: Bench, draws: Draws, baseline: str, *, target: Target | None = None, seed: int
) -> Check:
    """The package's gradient of `objective`, expected and sampled, against the exact one."""

    def work() -> Check:
        aim = target or on.target
        exact = oracle.gradient(objective, on.policy, aim)
        expected = oracle.expected_gradient(
            objective, on.policy, aim, log_laws=draws.log_laws, baseline=baseline, constant=CONSTANT
        )
        error = relative(expected.mean, exact)
        drawn = sampled_gradients(objective, on, aim, draws, baseline, seed=derive(seed, "selftest", draws.name))
        sampled = oracle.compare(drawn, exact, seed=seed)
        found = f"expected {error:.0e} off, sampled {sampled.slope:.2f} ± {sampled.slope_error:.2f} of it, z {sampled.z:.1f}"
        if not error < EXACT:
            return Check(name, found, False, f"on average the estimator is {error:.1%} away from the exact gradient")
        if not sampled.z < LARGEST_Z:
            return Check(name, found, False, "the gradients that FDPG draws do not scatter around the exact one")
        return Check(name, found)

    return attempt(name, work)


def relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    """|found - exact| / |exact|; the difference itself where the exact one is 0."""
    size = float(exact.norm())
    return float((found - exact).norm()) / (size if size > 1e-12 else 1.0)


def sampled_gradients(
    objective: Objective, on: Bench, target: Target, draws: Draws, baseline: str, *, seed: int
) -> torch.Tensor:
    """(BATCHES, P): the gradients of FDPG's steps of a policy that stands still, with the exact Z."""
    learner = on.policy.trainable_copy()
    proposal, before = draws.make()
    method = FDPG(
        learner,
        target,
        objective,
        contexts=on.policy.contexts,
        steps=BATCHES + 1,
        samples_per_context=EACH,
        proposal=proposal,
        baseline=baseline,
        decoding=Decoding(max_tokens=on.policy.max_tokens),
        bootstrap=0,
        seed=seed,
    )
    log_z = oracle.laws(on.policy, target).log_z.tolist()
    known = {
        c: [[MANY, z + math.log(MANY), 2 * z + math.log(MANY)]] for c, z in zip(learner.contexts, log_z, strict=True)
    }
    method.partition.restore(known)
    gradients = []
    for step in range(1, BATCHES + 1):
        before(step)
        parts = [torch.autograd.grad(loss.value, learner.logits)[0] for loss in method.losses(learner, step)]
        gradients.append(torch.stack(parts).sum(0).flatten())
    return torch.stack(gradients)


def training_check(name: str, divergence: Divergence, on: Bench, *, steps: int = 120, seed: int) -> Check:
    """A whole training on the table, Z estimated on the way: KL(p || pi) and the divergence itself, exact, before and after."""

    def distances(policy: TabularPolicy) -> tuple[float, float]:
        table = oracle.laws(policy.frozen(), on.target)
        kl = float(oracle.kl(table.log_target, table.log_policy).mean())
        return kl, float(divergence.value(table.log_policy, table.log_target).mean())

    def work() -> Check:
        learner = on.policy.trainable_copy()
        method = FDPG(
            learner,
            on.target,
            divergence,
            contexts=on.policy.contexts,
            steps=steps,
            samples_per_context=EACH,
            decoding=Decoding(max_tokens=on.policy.max_tokens),
            seed=seed,
        )
        before = distances(learner)
        with tempfile.TemporaryDirectory() as folder:
            optimisation = Optimisation(learning_rate=0.05, warmup=0.0, clip_norm=math.inf, precision="float32")
            train(learner, method, optimisation=optimisation, folder=Path(folder))
        after = distances(learner)
        found = f"KL(p||pi) {before[0]:.3f} -> {after[0]:.4f}, D {before[1]:.3f} -> {after[1]:.4f}, {steps} steps"
        if after[0] < 0.2 * before[0] and after[1] < before[1]:
            return Check(name, found)
        way = "away from" if after[0] > before[0] else "hardly towards"
        return Check(name, found, False, f"training led {way} the target")

    return attempt(name, work)


def gradient_checks(
    objective: Objective, on: Bench, *, baselines: Sequence[str], only: Sequence[str] = (), seed: int
) -> Iterator[Check]:
    """One for each proposal (of `only`) and baseline."""
    for draws in every_proposal(on):
        if not only or draws.name in only:
            for baseline in baselines:
                name = f"{objective.name}, q {draws.name}, B {baseline}"
                yield gradient_check(name, objective, on, draws, baseline, seed=seed)
