"""Estimates of divergences, log Z, entropy and moments: exact where every text is listed, covered where texts are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from amenable.errors import ConfigError
from amenable.evaluation import divergence as measured
from amenable.evaluation.divergence import Evidence, SampleEstimate, f_divergence, gather, measure, moment
from amenable.evaluation.interval import Estimate
from amenable.objective.divergence import (
    DIVERGENCES,
    Divergence,
    ForwardKL,
    JensenShannon,
    ReverseKL,
    TotalVariation,
    alpha_divergence,
)
from amenable.policy.tabular import TabularPolicy
from amenable.target.posterior import Target
from amenable.target.potential import constraint, tilt

CONTEXTS = ["", "!", "?"]


def many_b(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
    return [float(text.count("b")) for text in completions]


def has_b(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
    return [float("b" in text) for text in completions]


PRIOR = TabularPolicy.random("ab", 4, contexts=CONTEXTS, scale=0.5, seed=1)
NOISE = TabularPolicy.random("ab", 4, contexts=CONTEXTS, scale=0.2, seed=2)
POLICY = TabularPolicy("ab", 4, CONTEXTS, PRIOR.logits + NOISE.logits)
SOFT = PRIOR * tilt(many_b, beta=4.0)
STEEP = PRIOR * tilt(many_b, beta=0.35)
HARD = SOFT * constraint(has_b)
LISTED = PRIOR.everything(CONTEXTS)
TEXTS = len(LISTED) // len(CONTEXTS)
PROMPTS = [context for context in CONTEXTS for _ in range(TEXTS)]
EVERY = (*DIVERGENCES, alpha_divergence(0.5), alpha_divergence(-0.5))


def listed(target: Target, policy: TabularPolicy = POLICY) -> Evidence:
    """Every text once, as a uniform proposal draws them on average: every estimate is then exact."""
    scores = target.scores(PROMPTS, LISTED)
    uniform = torch.full((len(LISTED),), -math.log(TEXTS), dtype=torch.float64)
    return Evidence(policy.log_prob(LISTED).sum(-1), scores.log_score, uniform, PROMPTS, scores.log_prior)


def laws(target: Target) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """log pi, log p and log Z, a row a context."""
    score = target.scores(PROMPTS, LISTED).log_score.view(len(CONTEXTS), TEXTS)
    log_z = score.logsumexp(-1, keepdim=True)
    return POLICY.log_prob(LISTED).sum(-1).view(score.shape), score - log_z, log_z


def drawn(target: Target, proposal: TabularPolicy, n: int, generator: torch.Generator) -> Evidence:
    """n samples of each context, drawn from the list."""
    law = proposal.log_prob(LISTED).sum(-1)
    chosen = torch.multinomial(law.view(len(CONTEXTS), TEXTS).exp(), n, True, generator=generator)
    places = (chosen + TEXTS * torch.arange(len(CONTEXTS)).unsqueeze(1)).flatten()
    whole = listed(target)
    assert whole.log_prior is not None
    return Evidence(
        whole.log_policy[places], whole.log_score[places], law[places], [PROMPTS[place] for place in places.tolist()],
        whole.log_prior[places],
    )  # fmt: skip


@pytest.mark.parametrize("divergence", EVERY, ids=lambda one: one.name)
@pytest.mark.parametrize("target", [SOFT, HARD], ids=["soft", "hard"])
def test_every_divergence_is_exact_on_all_texts(divergence: Divergence, target: Target) -> None:
    found = f_divergence(listed(target), divergence)
    log_policy, log_target, _ = laws(target)
    truth = float(divergence.value(log_policy, log_target).mean())
    assert found.uncorrected == pytest.approx(truth, abs=1e-9)
    assert math.isinf(truth) == (target is HARD and math.isinf(divergence.limit))


@pytest.mark.parametrize("divergence", [JensenShannon, TotalVariation, ForwardKL, ReverseKL], ids=lambda one: one.name)
def test_a_divergence_of_one_s_own_agrees_with_the_named_one(divergence: Divergence) -> None:
    own = Divergence("mine", divergence.f, divergence.slope, divergence.at_infinity)
    for target in (SOFT, HARD):
        first, second = (f_divergence(listed(target), one) for one in (divergence, own))
        assert second.uncorrected == pytest.approx(first.uncorrected, abs=1e-9)
        if math.isfinite(first.value):
            assert second.standard_error == pytest.approx(first.standard_error, abs=1e-9)


def test_the_named_numbers_are_what_they_say() -> None:
    log_policy, log_target, log_z = laws(SOFT)
    pi, p, evidence = log_policy.exp(), log_target.exp(), listed(SOFT)
    middle = ((pi + p) / 2).log()
    prior = PRIOR.log_prob(LISTED).sum(-1).view(pi.shape)
    truth: dict[Callable[..., SampleEstimate], torch.Tensor] = {
        measured.kl_target_policy: (p * (log_target - log_policy)).sum(-1),
        measured.kl_policy_target: (pi * (log_policy - log_target)).sum(-1),
        measured.total_variation: (pi - p).abs().sum(-1) / 2,
        measured.jensen_shannon: ((pi * (log_policy - middle)).sum(-1) + (p * (log_target - middle)).sum(-1)) / 2,
        measured.kl_policy_prior: (pi * (log_policy - prior)).sum(-1),
        measured.entropy: -(pi * log_policy).sum(-1),
        measured.log_z: log_z,
    }
    for function, values in truth.items():
        assert function(evidence).uncorrected == pytest.approx(float(values.mean()), abs=1e-9), function.__name__
    feature = torch.tensor([float(text.count("b")) for text in LISTED.texts])
    for law, weights in (("target", p), ("policy", pi)):
        mean = float((weights * feature.view(p.shape)).sum(-1).mean())
        assert moment(evidence, feature, law=law).uncorrected == pytest.approx(mean, abs=1e-9)


def test_samples_of_the_policy_give_the_usual_formula() -> None:
    """KL(p, pi) = -log Z + (1/Z) mean[(P/q)(log P - log pi)], where forbidden texts contribute 0."""
    evidence = drawn(HARD, POLICY, 50, torch.Generator().manual_seed(0))
    usual = []
    for start in range(0, 150, 50):
        own = slice(start, start + 50)
        weight = evidence.log_weights[own].exp()
        z = weight.mean()
        gain = torch.where(weight > 0, evidence.log_score[own] - evidence.log_policy[own], 0.0)
        usual.append(float(-z.log() + (weight * gain).mean() / z))
    assert measured.kl_target_policy(evidence).uncorrected == pytest.approx(sum(usual) / 3, abs=1e-12)


@pytest.mark.parametrize("proposal", [POLICY, PRIOR], ids=["policy", "prior"])
@pytest.mark.parametrize("target", [SOFT, HARD], ids=["soft", "hard"])
def test_intervals_cover_the_truth(proposal: TabularPolicy, target: Target) -> None:
    functions = (
        measured.kl_target_policy, measured.total_variation, measured.jensen_shannon, measured.kl_policy_prior,
        measured.entropy, measured.log_z, *([measured.kl_policy_target] if target is SOFT else []),
    )  # fmt: skip
    truth = {function: function(listed(target)).uncorrected for function in functions}
    generator, hits = torch.Generator().manual_seed(0), dict.fromkeys(functions, 0)
    repetitions = 50
    for _ in range(repetitions):
        evidence = drawn(target, proposal, 150, generator)
        for function in functions:
            found = function(evidence)
            hits[function] += found.low <= truth[function] <= found.high
    assert min(hits.values()) >= 0.85 * repetitions, {function.__name__: hit for function, hit in hits.items()}


def test_few_samples_a_context_do_not_bias_the_average() -> None:
    """The plain estimate is too low by many of its standard errors; the jackknife takes the bias off."""
    generator = torch.Generator().manual_seed(0)
    parts = [drawn(SOFT, POLICY, 12, generator) for _ in range(100)]
    whole = Evidence(
        torch.cat([part.log_policy for part in parts]),
        torch.cat([part.log_score for part in parts]),
        torch.cat([part.log_proposal for part in parts]),
        [f"{number} {context}" for number, part in enumerate(parts) for context in part.contexts],
    )
    for function in (measured.kl_target_policy, measured.total_variation, measured.log_z):
        found, truth = function(whole), function(listed(SOFT)).uncorrected
        assert found.contexts == 300
        assert abs(found.value - truth) < 3 * found.standard_error
        assert abs(found.uncorrected - truth) > 2 * abs(found.value - truth)


def test_contexts_drawn_from_many_have_a_wider_interval() -> None:
    evidence = drawn(SOFT, POLICY, 2000, torch.Generator().manual_seed(0))
    these, many = (measured.kl_target_policy(evidence, population=flag) for flag in (False, True))
    assert these.value == many.value
    assert many.standard_error > 2 * these.standard_error
    assert "over contexts" in many.method


def test_a_target_s_scale_changes_log_z_alone() -> None:
    evidence = drawn(HARD, PRIOR, 100, torch.Generator().manual_seed(0))
    scaled = Evidence(evidence.log_policy, evidence.log_score + 800, evidence.log_proposal, evidence.contexts)
    for divergence in (ForwardKL, JensenShannon, TotalVariation):
        first, second = f_divergence(evidence, divergence), f_divergence(scaled, divergence)
        assert second.value == pytest.approx(first.value, abs=1e-9)
        assert second.standard_error == pytest.approx(first.standard_error, abs=1e-9)
    assert measured.log_z(scaled).value == pytest.approx(measured.log_z(evidence).value + 800)


def test_weights_far_apart_stay_finite() -> None:
    zero = torch.zeros(4, dtype=torch.float64)
    far = Evidence(zero, torch.tensor([0.0, -900.0, 900.0, -math.inf]), zero, [""] * 4)
    for divergence in EVERY:
        found = f_divergence(far, divergence).uncorrected
        assert not math.isnan(found)
        assert math.isinf(found) == math.isinf(divergence.limit)
    assert f_divergence(far, TotalVariation).uncorrected == pytest.approx(0.75)


def test_what_the_target_forbids_makes_the_reverse_kl_infinite() -> None:
    found = measured.kl_policy_target(drawn(HARD, POLICY, 100, torch.Generator().manual_seed(0)))
    assert found.value == math.inf
    assert not found.has_interval
    assert "inf" in found.text()


def test_a_context_without_positive_samples_is_left_out_and_counted() -> None:
    evidence = drawn(SOFT, POLICY, 40, torch.Generator().manual_seed(0))
    score = evidence.log_score.clone()
    score[:40] = -math.inf
    score[41:80] = -math.inf  # one positive sample says nothing of its own spread
    emptied = Evidence(evidence.log_policy, score, evidence.log_proposal, evidence.contexts, evidence.log_prior)
    last = [tensor[80:] for tensor in (evidence.log_policy, evidence.log_score, evidence.log_proposal)]
    alone = Evidence(*last, evidence.contexts[80:])
    for function in (measured.kl_target_policy, measured.total_variation, measured.log_z):
        found, only = function(emptied), function(alone)
        assert (found.contexts, found.without, found.n) == (1, 2, 40)
        assert found.value == pytest.approx(only.value)
    assert measured.entropy(emptied).contexts == 3
    nothing = Evidence(*(tensor[:40] for tensor in (evidence.log_policy, score, evidence.log_proposal)), [""] * 40)
    assert math.isnan(measured.total_variation(nothing).value)
    assert "no data" in measured.total_variation(nothing).text()


def test_missing_scores_are_left_out_and_counted() -> None:
    evidence = drawn(SOFT, POLICY, 40, torch.Generator().manual_seed(0))
    score = evidence.log_score.clone()
    score[::4] = math.nan
    holed = Evidence(evidence.log_policy, score, evidence.log_proposal, evidence.contexts)
    kept = [place for place in range(120) if place % 4]
    without = Evidence(
        evidence.log_policy[kept],
        score[kept],
        evidence.log_proposal[kept],
        [evidence.contexts[place] for place in kept],
    )
    found, expected = measured.kl_target_policy(holed), measured.kl_target_policy(without)
    assert (found.value, found.standard_error, found.ess) == (expected.value, expected.standard_error, expected.ess)
    assert (found.missing, found.n) == (30, 90)
    values = torch.ones(120, dtype=torch.float64)
    values[0] = math.nan
    assert moment(holed, values).missing == 30
    assert moment(evidence, values).missing == 1


def test_effective_sample_sizes() -> None:
    evidence = drawn(HARD, PRIOR, 100, torch.Generator().manual_seed(0))
    assert measured.log_z(evidence).ess < 300
    assert measured.entropy(drawn(HARD, POLICY, 100, torch.Generator().manual_seed(0))).ess == pytest.approx(300)
    assert measured.jensen_shannon(evidence).ess <= min(measured.log_z(evidence).ess, measured.entropy(evidence).ess)


def test_weights_that_cannot_be_trusted_are_told() -> None:
    """What matters is rarely drawn: the interval misses the truth, and pareto k says that it would."""
    evidence = drawn(STEEP, POLICY, 200, torch.Generator().manual_seed(0))
    found, truth = measured.kl_target_policy(evidence), measured.kl_target_policy(listed(STEEP)).uncorrected
    assert truth > found.high
    assert found.pareto_k > 0.7
    assert measured.kl_target_policy(drawn(SOFT, POLICY, 200, torch.Generator().manual_seed(0))).pareto_k < 0.7
    assert math.isnan(measured.entropy(evidence).pareto_k)  # all weights are 1


def test_everything_about_samples_at_once() -> None:
    samples = POLICY.sample(CONTEXTS, n=200, seed=0)
    prompts = [context for context in CONTEXTS for _ in range(200)]
    found = measure(POLICY, SOFT, prompts, samples)
    own = measure(POLICY, SOFT, prompts, samples, on_policy=True)
    for name, estimate in found.items():
        assert isinstance(estimate, Estimate)
        assert estimate.n == 600
        truth = getattr(measured, name)(listed(SOFT)).uncorrected
        assert abs(estimate.value - truth) < 4 * estimate.standard_error, name
        assert own[name].value == pytest.approx(estimate.value)
    evidence = gather(POLICY, SOFT, prompts, samples)
    assert torch.equal(evidence.log_ratios, torch.zeros(600, dtype=torch.float64))


def test_settings_that_make_no_sense() -> None:
    evidence = listed(SOFT)
    with pytest.raises(ConfigError, match="level=2 is not a probability"):
        measured.log_z(evidence, level=2)
    with pytest.raises(ConfigError, match="use target or policy"):
        moment(evidence, evidence.log_policy, law="prior")
    with pytest.raises(ConfigError, match="needs log_prior"):
        measured.kl_policy_prior(
            Evidence(evidence.log_policy, evidence.log_score, evidence.log_proposal, evidence.contexts)
        )
    with pytest.raises(ConfigError, match="one number a sample"):
        Evidence(evidence.log_policy, evidence.log_score[:3], evidence.log_proposal, evidence.contexts)
