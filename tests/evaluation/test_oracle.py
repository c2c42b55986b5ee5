"""The oracle itself, against sums written out by hand, finite differences and estimators whose bias is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from amenable.errors import ConfigError
from amenable.evaluation import oracle
from amenable.objective.divergence import DIVERGENCES, Divergence, ForwardKL, JensenShannon, ReverseKL, alpha_divergence
from amenable.objective.reward import ExpectedReward
from amenable.objective.score_gradient import BASELINES
from amenable.policy.tabular import TabularPolicy
from amenable.target.posterior import Target
from amenable.target.potential import constraint

CONTEXTS = ("x", "y")
OBJECTIVES = [*DIVERGENCES, alpha_divergence(0.5), ExpectedReward(), ExpectedReward(0.5, "log-potential", 0.5)]


def table(seed: int, max_tokens: int = 2) -> TabularPolicy:
    return TabularPolicy.random("ab", max_tokens, contexts=CONTEXTS, scale=0.7, seed=seed)


def liked(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    return [t.count("a") - 0.5 * t.count("b") + (p == "y") for p, t in zip(prompts, completions, strict=True)]


def has_a(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[bool]:
    return ["a" in text for text in completions]


def not_of_b(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float | None]:
    return [None if text.startswith("b") else float(len(text)) for text in completions]


PRIOR, POLICY, OTHER = table(1), table(2), table(3)
SOFT, HARD, MISSING = PRIOR.tilt(liked, beta=0.8), PRIOR * constraint(has_a), PRIOR.tilt(not_of_b, beta=1.0)


def log_law(policy: TabularPolicy) -> torch.Tensor:
    return oracle.laws(policy, SOFT).log_policy


def off(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


# --- laws


def test_laws_are_those_of_a_sum_written_out() -> None:
    found = oracle.laws(POLICY, SOFT)
    for c, context in enumerate(CONTEXTS):
        chances, liking = [], []
        for text in [
            "",
            "a",
            "b",
            "aa",
            "ab",
            "ba",
            "bb",
        ]:  # a sequence of two letters is cut, so it has no end to pay for
            chance, prefix = 1.0, 0
            for letter in [*text, *([] if len(text) == 2 else ["end"])]:
                token = {"a": 0, "b": 1, "end": 2}[letter]
                chance *= float(PRIOR.logits[c, prefix].softmax(0)[token])
                prefix = prefix * 2 + 1 + token
            chances.append(chance)
            liking.append(math.exp(liked([context], [text])[0] / 0.8))
        z = sum(a * phi for a, phi in zip(chances, liking, strict=True))
        assert sum(chances) == pytest.approx(1)
        assert found.samples.texts[7 * c : 7 * c + 7] == ["", "a", "b", "aa", "ab", "ba", "bb"]
        assert found.log_prior[c].exp().tolist() == pytest.approx(chances)
        assert float(found.log_z[c]) == pytest.approx(math.log(z))
        p = [a * phi / z for a, phi in zip(chances, liking, strict=True)]
        assert found.log_target[c].exp().tolist() == pytest.approx(p)


def test_what_is_forbidden_or_missing_is_left_out_of_the_target() -> None:
    for target, out in ((HARD, ["", "b", "bb"]), (MISSING, ["b", "ba", "bb"])):
        found = oracle.laws(POLICY, target)
        law = found.log_target.exp()
        assert law.sum(1).tolist() == pytest.approx([1, 1])
        texts = list(found.samples.texts)
        assert {texts[place] for place in (law.flatten() == 0).nonzero().flatten().tolist()} == set(out)


def test_expectation_entropy_and_kl() -> None:
    half, sure = torch.tensor([0.5, 0.5]).double().log(), torch.tensor([1.0, 0.0]).double().log()
    values = torch.tensor([3.0, math.inf]).double()
    assert float(oracle.expectation(sure, values)) == 3
    assert float(oracle.expectation(half, torch.tensor([3.0, 5.0]))) == pytest.approx(4)
    assert float(oracle.entropy(half)) == pytest.approx(math.log(2))
    assert float(oracle.entropy(sure)) == 0
    assert float(oracle.kl(sure, half)) == pytest.approx(math.log(2))
    assert float(oracle.kl(half, sure)) == math.inf


# --- gradients


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.name)
def test_the_exact_gradient_is_that_of_finite_differences(objective: Any) -> None:
    exact = oracle.gradient(objective, POLICY, SOFT)
    direction = torch.randn(POLICY.logits.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = 1e-5
    up, down = (
        oracle.loss(objective, TabularPolicy("ab", 2, CONTEXTS, POLICY.logits + sign * step * direction), SOFT)
        for sign in (1, -1)
    )
    assert float((up - down) / (2 * step)) == pytest.approx(float(exact @ direction.flatten()), rel=1e-6)


def test_the_score_function_is_zero_on_average_and_that_of_autograd() -> None:
    scores = oracle.score_function(POLICY)
    assert scores.shape == (2, 7, POLICY.logits.numel())
    mean = (log_law(POLICY).exp()[:, :, None] * scores).sum(1)
    assert float(mean.abs().max()) < 1e-15
    one = oracle.laws(copy := POLICY.trainable_copy(), SOFT).log_policy[1, 4]
    assert torch.equal(torch.autograd.grad(one, copy.logits)[0].flatten(), scores[1, 4])


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.name)
@pytest.mark.parametrize("target", [SOFT, HARD], ids=["tilt", "constraint"])
def test_the_estimator_is_the_exact_gradient_on_average(objective: Any, target: Target) -> None:
    if target is HARD and (not isinstance(objective, Divergence) or math.isinf(objective.limit)):
        pytest.skip("infinite")
    exact = oracle.gradient(objective, POLICY, target)
    pi, q = log_law(POLICY), log_law(OTHER)
    for baseline, laws in itertools.product(BASELINES, ([pi, pi], [q, q], [pi, q], [q])):
        found = oracle.expected_gradient(
            objective, POLICY, target, log_laws=laws, baseline=baseline, constant=0.3, jointly=len(laws) == 1
        )
        assert off(found.mean, exact) < 1e-13, (baseline, len(laws))


# --- estimators whose mean and variance are known


def batch_mean(rewards: torch.Tensor, ratio: torch.Tensor, groups: list[torch.Tensor]) -> torch.Tensor:
    return rewards.mean().expand_as(rewards)


@pytest.mark.parametrize("n", [2, 3])
def test_the_mean_of_a_batch_shrinks_the_gradient(n: int) -> None:
    exact = oracle.gradient(JensenShannon, POLICY, SOFT)
    found = oracle.expected_gradient(JensenShannon, POLICY, SOFT, log_laws=[log_law(OTHER)] * n, baseline=batch_mean)
    assert off(found.mean, (n - 1) / n * exact) < 1e-13


def test_z_as_a_baseline_of_dpg_is_right_on_policy_alone() -> None:
    exact = oracle.gradient(ForwardKL, POLICY, SOFT)
    for law, low, high in ((log_law(POLICY), 0, 1e-13), (log_law(OTHER), 0.2, 3)):
        found = oracle.expected_gradient(
            ForwardKL, POLICY, SOFT, log_laws=[law], baseline=lambda rewards, ratio, groups: 1 / ratio
        )
        assert low <= off(found.mean, exact) < high


def test_the_variance_falls_with_the_number_of_draws() -> None:
    one, two = (
        oracle.expected_gradient(ReverseKL, POLICY, SOFT, log_laws=[log_law(OTHER)] * n, baseline="none").variance
        for n in (1, 2)
    )
    assert one == pytest.approx(2 * two)
    assert one > 0


def test_batches_of_all_contexts_together_have_the_same_mean_and_variance() -> None:
    apart, together = (
        oracle.expected_gradient(ForwardKL, POLICY, SOFT, log_laws=[log_law(OTHER)] * 2, jointly=jointly)
        for jointly in (False, True)
    )
    assert off(together.mean, apart.mean) < 1e-13
    assert together.variance == pytest.approx(apart.variance)


def test_a_baseline_is_given_known_rewards_alone_and_the_places_of_each_context() -> None:
    seen = set()

    def baseline(rewards: torch.Tensor, ratio: torch.Tensor, groups: list[torch.Tensor]) -> torch.Tensor:
        assert bool(rewards.isfinite().all())
        assert len(ratio) == len(rewards)
        seen.add(tuple(tuple(chosen.tolist()) for chosen in groups))
        return torch.zeros_like(rewards)

    found, plain = (
        oracle.expected_gradient(
            JensenShannon, POLICY, MISSING, log_laws=[log_law(OTHER)] * 2, baseline=b, jointly=True
        )
        for b in (baseline, "none")
    )
    assert torch.equal(found.mean, plain.mean)
    assert seen == {((0, 1), (2, 3)), ((0,), (1, 2)), ((0, 1), (2,)), ((0, 1),), ((0,), (1,)), ((0,),)}


def test_missing_rewards_leave_the_mean_over_what_is_known() -> None:
    """K of n are known: their mean, or 0 if K = 0, so that E = P(K > 0) E_q[pi/q R grad log pi | known]."""
    law, n = log_law(OTHER), 2
    laws = oracle.laws(POLICY, MISSING)
    rewards, scores = oracle.rewards(JensenShannon, laws), oracle.score_function(POLICY)
    known = ~rewards.isnan()
    share = (law.exp() * known).sum(1)
    terms = torch.where(known, laws.log_policy.exp() * rewards, 0.0)
    exact = (-(1 - (1 - share) ** n) / share) @ (terms[:, :, None] * scores).sum(1) / len(CONTEXTS)
    found = oracle.expected_gradient(JensenShannon, POLICY, MISSING, log_laws=[law] * n, baseline="none")
    assert off(found.mean, exact) < 1e-13


def test_what_cannot_be_listed_is_refused() -> None:
    with pytest.raises(ConfigError, match="823,543 batches"):
        oracle.expected_gradient(ForwardKL, POLICY, SOFT, log_laws=[log_law(POLICY)] * 7)

    class Odd:
        name, at_target = "odd", 0.0

    with pytest.raises(ConfigError, match="odd has no exact value"):
        oracle.gradient(Odd(), POLICY, SOFT)  # type: ignore[arg-type]


def test_sampled_gradients_are_told_from_shifted_ones() -> None:
    exact = oracle.gradient(ForwardKL, POLICY, SOFT)
    noise = torch.randn(400, len(exact), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    right = oracle.compare(exact + noise, exact)
    assert right.z < 4
    assert abs(right.slope - 1) < 4 * right.slope_error
    half = oracle.compare(0.5 * exact + 0.1 * noise, exact)
    assert half.slope == pytest.approx(0.5, abs=4 * half.slope_error)
    assert half.z > 10
    aside = exact.flip(0) - (exact.flip(0) @ exact) / (exact @ exact) * exact  # seen by the random directions alone
    assert oracle.compare(exact + aside + 0.01 * noise, exact).z > 10


def test_the_baseline_of_gdc_saves_nearly_all_of_the_variance_near_the_target() -> None:
    """Korbak et al. 2022 (GDC++): at the target P/(Z q) is 1 for every sample, and Z pi/q leaves nothing of it."""
    near = PRIOR.tilt(lambda prompts, completions, **columns: [float("a" in text) for text in completions], beta=20.0)
    shares = [
        oracle.expected_gradient(ForwardKL, PRIOR, near, log_laws=[log_law(PRIOR)], baseline=name).variance
        for name in ("none", "target")
    ]
    assert shares[1] < 0.01 * shares[0]
