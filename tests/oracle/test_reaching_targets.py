"""The real loop brings a policy to its target: every divergence, from every proposal's samples, with every baseline.

A table of 7 sequences, a tilted prior as the target, a start that is more than a nat away from it; KL(p || pi) is exact.

Gradients are clipped to a small norm: AdamW's mean of squares (0.999 a step) otherwise remembers the first, largest ones for
the whole of a run of 60 steps. Settings that differ, and why:
- total variation: its gradient does not become smaller near the target (f' = +-1/2), so that the schedule alone brings it to
  rest: more steps. With a norm as small as the others' it overshoots first.
- no baseline, and a reward at the target that is not 0 (the KLs): there the gradient is noise of size 1/sqrt(N): a larger N.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tables import EVERY, count_b, exact_gradient, has_b, kl, log_law, log_target

from amenable.method.fdpg import FDPG
from amenable.method.loop import Optimisation, train
from amenable.method.ppo import PPO
from amenable.objective.divergence import (
    DIVERGENCES,
    ChiSquaredForward,
    Divergence,
    ForwardKL,
    JensenShannon,
    ReverseKL,
    TotalVariation,
)
from amenable.objective.reward import ExpectedReward, Objective
from amenable.objective.score_gradient import BASELINES, coefficients
from amenable.policy.tabular import TabularPolicy
from amenable.sampling.defensive import Defensive
from amenable.sampling.proposal import Adaptive, Corpus, Fixed, OnPolicy, Proposal, Replay
from amenable.seeding import derive
from amenable.target.posterior import Target
from amenable.target.potential import constraint

PRIOR = TabularPolicy.random("ab", 2, scale=0.3, seed=1)
START = TabularPolicy.random("ab", 2, scale=0.7, seed=45)
TARGET: Target = PRIOR.tilt(count_b, beta=0.7)


@functools.cache
def corpus() -> Proposal:
    return Corpus([""] * 40_000, PRIOR.sample([""], n=40_000, seed=9))


PROPOSALS: dict[str, Callable[[], Proposal]] = {
    "policy": lambda: OnPolicy(),
    "fixed": lambda: Fixed(PRIOR),
    "adaptive by kl": lambda: Adaptive(every=10),
    "adaptive by tv": lambda: Adaptive(every=10, by="tv"),
    "replay": lambda: Replay(0.5, 4),
    "corpus": corpus,
}


def trained(
    objective: Objective,
    folder: Path,
    *,
    target: Target = TARGET,
    start: TabularPolicy = START,
    steps: int = 60,
    samples: int = 400,
    rate: float = 0.25,
    norm: float = 0.02,
    proposal: Proposal | None = None,
    baseline: str = "leave-one-out",
    contexts_per_step: int = 0,
    one_z: bool = False,
    seed: int = 1,
) -> TabularPolicy:
    policy = start.trainable_copy()
    method = FDPG(
        policy, target, objective, contexts=start.contexts, steps=steps, samples_per_context=samples, proposal=proposal,
        baseline=baseline, contexts_per_step=contexts_per_step, one_z=one_z, positions=10**6, seed=seed,
    )  # fmt: skip
    settings = Optimisation(learning_rate=rate, precision="float32", clip_norm=norm)
    train(policy, method, optimisation=settings, folder=folder)
    return policy


def distance(policy: TabularPolicy, target: Target = TARGET) -> float:
    """KL(p || pi), exact."""
    return kl(log_target(target, policy.frozen())[0], log_law(policy).detach())


def test_the_start_is_far_away() -> None:
    assert distance(START) > 1


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("proposal", PROPOSALS)
@pytest.mark.parametrize("divergence", DIVERGENCES, ids=lambda d: d.name)
def test_the_target_is_reached(divergence: Divergence, proposal: str, baseline: str, tmp_path: Path) -> None:
    drawn = PROPOSALS[proposal]()
    if divergence is TotalVariation:
        policy = trained(
            divergence, tmp_path, proposal=drawn, baseline=baseline, steps=150, samples=250, rate=0.2, norm=0.05
        )
    else:
        noisy = baseline == "none" and divergence in (ForwardKL, ReverseKL)
        policy = trained(divergence, tmp_path, proposal=drawn, baseline=baseline, samples=2500 if noisy else 400)
    assert distance(policy) <= 1e-3


@pytest.mark.parametrize("divergence", [one for one in EVERY if one not in DIVERGENCES], ids=lambda d: d.name)
def test_so_do_the_alpha_family_and_a_users_own(divergence: Divergence, tmp_path: Path) -> None:
    assert distance(trained(divergence, tmp_path / "on")) <= 1e-3
    half = Defensive(Fixed(PRIOR))
    assert distance(trained(divergence, tmp_path / "off", proposal=half)) <= 1e-3


@pytest.mark.parametrize(
    "divergence", [ForwardKL, JensenShannon, TotalVariation, ChiSquaredForward], ids=lambda d: d.name
)
def test_a_hard_constraint_is_approached(divergence: Divergence, tmp_path: Path) -> None:
    """Probability 0 is at the end of a logit's line: what is left on the forbidden falls, and the rest is the prior's."""
    target: Target = PRIOR * constraint(has_b)
    policy = trained(divergence, tmp_path, target=target, steps=150, rate=0.4, norm=0.02)
    assert distance(policy, target) <= 2e-3


# --- contexts
def test_what_one_z_for_all_contexts_changes(tmp_path: Path) -> None:
    """A factor C on Z makes f(C t) of f(t): smooth ones still have their minimum at pi = p, if the policy can be p everywhere.

    Total variation has none there: sign(log t + log C) does not change until |log t| is |log C|. It needs each context's own Z.
    """
    contexts = ("left", "right")
    prior = TabularPolicy.random("ab", 2, contexts=contexts, scale=0.3, seed=1)
    prior.logits[1, :, 1] -= 2  # b is rare in one context
    start = TabularPolicy.random("ab", 2, contexts=contexts, scale=0.7, seed=6)
    target: Target = prior.tilt(count_b, beta=0.7)
    log_z = log_target(target, prior)[1]
    assert float(log_z[0] - log_z[1]) > 0.9
    reached = {}
    for divergence in (ForwardKL, JensenShannon, TotalVariation):
        for one_z in (False, True):
            settings = {"rate": 0.2, "norm": 0.05} if divergence is TotalVariation else {}
            policy = trained(
                divergence, tmp_path / f"{divergence.name} {one_z}", target=target, start=start, one_z=one_z,
                contexts_per_step=1, steps=200, samples=200, **settings,  # type: ignore[arg-type]
            )  # fmt: skip
            reached[divergence.name, one_z] = distance(policy, target)
    assert reached["tv", True] > 0.02
    assert max(value for key, value in reached.items() if key != ("tv", True)) <= 1e-3, reached


# --- rewards
def test_reinforce_ends_in_one_text(tmp_path: Path) -> None:
    """Nothing but the reward: the best text alone is left (Korbak et al. 2022, arXiv 2205.11275)."""
    policy = trained(ExpectedReward(of="log-potential", scale=0.7), tmp_path, steps=100, rate=0.5, norm=0.1)
    law = log_law(policy).detach()[0]
    entropy = -float((law.exp() * law).sum())
    assert entropy < 0.02
    assert policy.frozen().sample([""], n=1).texts == ["bb"]
    assert -float((log_law(START).exp() * log_law(START)).sum()) > 1


@pytest.mark.parametrize("proposal", ["policy", "adaptive by kl"])
def test_with_a_kl_penalty_the_evidence_is_reached(proposal: str, tmp_path: Path) -> None:
    """J / beta -> log Z, from below: the gap is KL(pi || p)."""
    beta = 0.7
    policy = trained(
        ExpectedReward(beta=beta, of="log-potential", scale=beta), tmp_path, proposal=PROPOSALS[proposal]()
    )
    log_p, log_z = log_target(TARGET, PRIOR)
    log_pi, log_a = log_law(policy).detach(), log_law(PRIOR)
    reward = torch.tensor(count_b([], PRIOR.everything().texts), dtype=torch.float64)
    j = float((log_pi.exp() * (reward - beta * (log_pi - log_a))).sum())
    gap = float(log_z) - j / beta
    assert gap == pytest.approx(kl(log_pi, log_p), abs=1e-9)
    assert 0 <= gap <= 1e-3


def test_so_it_is_by_ppo(tmp_path: Path) -> None:
    """Several clipped steps a batch: the first is the score-function step, the optimum the same posterior."""
    beta = 0.7
    policy = START.trainable_copy()
    objective = ExpectedReward(beta=beta, of="log-potential", scale=beta)
    method = PPO(policy, TARGET, objective, steps=120, samples_per_context=400, epochs=3, positions=10**6, seed=1)
    train(
        policy, method, folder=tmp_path,
        optimisation=Optimisation(learning_rate=0.15, precision="float32", clip_norm=0.02),
    )  # fmt: skip
    assert distance(policy) <= 1e-3


def test_the_first_step_of_ppo_is_the_score_functions() -> None:
    policy = START.trainable_copy()
    objective = ExpectedReward(beta=0.7, of="log-potential", scale=0.7)
    method = PPO(policy, TARGET, objective, samples_per_context=64, epochs=2)
    (loss,) = method.losses(policy, 0)
    batch = method.draw(policy, 0, [""], 64, derive(method.seed, "turn", 0))
    scores = batch.scores
    rewards = objective.rewards(batch.log_policy, scores.log_prior, scores.log_potential, torch.zeros(64).double())
    c = coefficients(rewards, batch.log_policy, batch.log_proposal, baseline="leave-one-out")
    own = (c * policy.log_prob(batch.samples).sum(-1)).sum() * 64 / float(batch.samples.lengths.sum())
    torch.testing.assert_close(exact_gradient(policy, loss.value), exact_gradient(policy, own))


# --- what is logged
@pytest.mark.parametrize("where", ["on policy", "off policy"])
@pytest.mark.parametrize("hard", [False, True])
def test_what_is_logged_is_what_is(where: str, hard: bool) -> None:
    """Means over 30 steps with a policy that rests, against enumeration: within 4 of their own standard errors."""
    contexts = ("left", "right")
    prior = TabularPolicy.random("ab", 2, contexts=contexts, scale=0.3, seed=1)
    policy = TabularPolicy.random("ab", 2, contexts=contexts, scale=0.4, seed=2).trainable_copy()
    other = TabularPolicy.random("ab", 2, contexts=contexts, scale=0.4, seed=3)
    target: Target = prior.tilt(count_b, beta=2.0) * constraint(has_b) if hard else prior.tilt(count_b, beta=2.0)
    method = FDPG(
        policy, target, JensenShannon, contexts=contexts, samples_per_context=2000, bootstrap=20_000,
        proposal=OnPolicy() if where == "on policy" else Fixed(other), positions=10**6,
    )  # fmt: skip
    rows = [next(iter(method.losses(policy, step))).sums for step in range(30)]
    log_p, log_z = log_target(target, prior)
    log_pi, log_a = log_law(policy).detach(), log_law(prior)
    pi, log_q = log_pi.exp(), log_law(prior if where == "on policy" else other)
    prompts = [context for context in contexts for _ in range(7)]
    samples = prior.everything(contexts)
    log_phi = target.scores(prompts, samples).log_potential.view(2, 7)
    reward = -JensenShannon.derivative(log_pi - log_p)
    allowed = log_phi.isfinite()
    weight = (log_p - (log_pi if where == "on policy" else log_q)).exp()
    expected = {
        "reward": (pi * reward).sum(-1).mean(),
        "potential": (pi * log_phi.exp()).sum(-1).mean(),
        "log_potential": (pi * torch.where(allowed, log_phi, 0.0)).sum() / (pi * allowed).sum(),
        "kl_policy_prior": (pi * (log_pi - log_a)).sum(-1).mean(),
        "kl_target_policy": torch.tensor(kl(log_p, log_pi)),
        "entropy": -(pi * log_pi).sum(-1).mean(),
        "length": (log_q if where == "off policy" else log_pi).exp().mul(samples.lengths.view(2, 7)).sum(-1).mean(),
        "ratio": torch.tensor(1.0),
    }
    for name, value in expected.items():
        found = torch.tensor([row[name] for row in rows], dtype=torch.float64)
        error = float(found.std()) / math.sqrt(len(rows)) + 1e-12
        assert abs(float(found.mean()) - float(value)) < 4 * error, (name, float(found.mean()), float(value), error)
    assert rows[-1]["log_z"] == pytest.approx(float(log_z.mean()), abs=0.02)
    law = (log_pi if where == "on policy" else log_q).exp()
    share = float((law * weight).sum()) ** 2 / (2 * float((law * weight**2).sum()))
    assert rows[-1]["ess"] == pytest.approx(share, rel=0.1)
    assert {row["missing"] for row in rows} == {0.0}
    assert {row["samples"] for row in rows} == {4000.0}


def test_the_log_of_a_training_says_how_close_it_came(tmp_path: Path) -> None:
    policy = trained(ForwardKL, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(60))
    assert rows[0]["kl_target_policy"] == pytest.approx(distance(START), abs=0.15)
    assert rows[-1]["kl_target_policy"] == pytest.approx(distance(policy), abs=0.02)
    assert rows[-1]["log_z"] == pytest.approx(float(log_target(TARGET, PRIOR)[1]), abs=0.02)
    assert rows[-1]["ess"] > 0.98


def test_the_target_is_where_the_exact_gradient_is_0() -> None:
    """Every divergence has its minimum at p, and nowhere else on the way there."""
    log_p, _ = log_target(TARGET, PRIOR)
    policy = START.trainable_copy()
    for divergence in EVERY:
        assert float(exact_gradient(policy, divergence.value(log_law(policy), log_p).sum()).norm()) > 1e-3
