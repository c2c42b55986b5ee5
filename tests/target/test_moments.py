"""Coefficients against closed forms and enumeration; what cannot be reached is said, and which feature it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tables import CONTEXTS, Values, count_b, everything, has_a, has_b, kl, log_law, log_target, table

from amenable.errors import ConfigError, FeedbackError
from amenable.policy.tabular import TabularPolicy
from amenable.records import Decoding
from amenable.target.moments import MomentTarget, fit, with_moments
from amenable.target.posterior import Target


def length(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> Values:
    return [float(len(text)) for text in completions]


def no_b(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> Values:
    return [float("b" not in text) for text in completions]


def starts_with_cab(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> Values:
    return [float(text.startswith("cab")) for text in completions]


def left(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> Values:
    return [float(prompt == "left") for prompt in prompts]


def silent(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> Values:
    return [None] * len(completions)


def logit(share: float) -> float:
    return math.log(share / (1 - share))


def single() -> TabularPolicy:
    return TabularPolicy.random("abc", 4, contexts=("left",), scale=0.5, seed=1)


def listed(prior: TabularPolicy, *scores: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (N, K) of every sequence and log a (N,)."""
    prompts, samples = everything(prior)
    values = [torch.tensor(score(prompts, samples.texts), dtype=torch.float64) for score in scores]
    return torch.stack(values, 1), log_law(prior).flatten()


def exact_means(target: Target, prior: TabularPolicy, *scores: Any) -> list[float]:
    """E_c E_{p(.|c)}[f], by enumeration."""
    log_p, _ = log_target(target, prior)
    values, _ = listed(prior, *scores)
    return ((log_p.exp().flatten() @ values) / len(prior.contexts)).tolist()


# --- the fit itself, on laws that are listed
@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 0.9, 0.9999])
def test_one_binary_feature_has_a_closed_form(share: float) -> None:
    """l = logit(m) - logit(E_a f)."""
    values, log_a = listed(single(), has_b)
    before = float(log_a.exp() @ values[:, 0])
    found = fit(values, torch.tensor([share]), log_weights=log_a)
    wanted = logit(float(torch.tensor(share))) - logit(before)  # the share as float32 has it
    assert float(found.coefficients[0]) == pytest.approx(wanted, abs=1e-6)
    assert float(found.means[0]) == pytest.approx(share, abs=1e-7)


def test_several_features_reach_their_means_and_no_law_that_does_is_closer() -> None:
    prior = single()
    values, log_a = listed(prior, has_a, count_b, length)
    asked = torch.tensor([0.55, 0.9, 2.3], dtype=torch.float64)
    found = fit(values, asked, log_weights=log_a)
    log_p = (log_a + values @ found.coefficients).log_softmax(0)
    torch.testing.assert_close(log_p.exp() @ values, asked, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.means, asked, rtol=0, atol=1e-8)
    nearest = kl(log_p[None], log_a[None])
    constraints = torch.cat([values, torch.ones(len(values), 1, dtype=torch.float64)], 1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):  # other laws with the same means: p plus a direction in which no constraint moves
        direction = torch.randn(len(values), generator=generator, dtype=torch.float64) * log_p.exp()
        direction -= constraints @ torch.linalg.lstsq(constraints, direction[:, None]).solution.squeeze(1)
        other = log_p.exp() + 0.3 * direction * float((log_p.exp() / direction.abs()).amin())
        torch.testing.assert_close(other @ values, asked, rtol=0, atol=1e-7)
        assert kl(other.log()[None], log_a[None]) > nearest


def test_the_unit_of_a_feature_does_not_matter() -> None:
    values, log_a = listed(single(), has_a, length)
    asked = torch.tensor([0.6, 2.0], dtype=torch.float64)
    plain = fit(values, asked, log_weights=log_a)
    scale = torch.tensor([1.0, 1e4]).double()
    large = fit(values * scale + 5, asked * scale + 5, log_weights=log_a)
    torch.testing.assert_close(large.coefficients * scale, plain.coefficients, rtol=1e-6, atol=1e-9)


def test_contexts_are_averaged_and_each_has_its_own_z() -> None:
    prior = table(scale=0.5)
    values, log_a = listed(prior, has_b)
    size = len(values) // 2
    places = [torch.arange(size), torch.arange(size, 2 * size)]
    found = fit(values, torch.tensor([0.8], dtype=torch.float64), log_weights=log_a, places=places)
    tilted = (log_a + values @ found.coefficients).view(2, -1).log_softmax(-1)
    shares = (tilted.exp() * values.view(2, -1)).sum(-1)
    assert abs(float(shares[0] - shares[1])) > 0.01  # not 0.8 in each
    assert float(shares.mean()) == pytest.approx(0.8, abs=1e-8)


# --- from samples
def test_a_target_with_moments_has_them() -> None:
    prior = table(scale=0.5)
    asked = {has_a: 0.5, length: 2.2}
    target = prior.with_moments(asked, contexts=CONTEXTS, samples=20_000, seed=1)
    assert isinstance(target, MomentTarget)
    values, log_a = listed(prior, has_a, length)
    half = len(values) // 2
    exact = fit(
        values,
        torch.tensor([0.5, 2.2]).double(),
        log_weights=log_a,
        places=[torch.arange(half), torch.arange(half) + half],
    )
    names = [moment.name for moment in target.moments]
    assert names == ["has_a", "length"]
    for moment, mean, wanted, reached, before in zip(
        target.moments, (0.5, 2.2), exact.coefficients.tolist(), exact_means(target, prior, has_a, length),
        ((log_a.exp() @ values) / 2).tolist(), strict=True,
    ):  # fmt: skip
        assert moment.asked == mean
        assert moment.fitted == pytest.approx(mean, abs=1e-6)
        assert moment.coefficient == pytest.approx(wanted, abs=0.1)
        assert reached == pytest.approx(mean, abs=0.02)
        assert moment.prior == pytest.approx(before, abs=0.02)
        assert moment.fresh != moment.fitted
        assert abs(moment.fresh - reached) < 4 * moment.standard_error
        assert 0 < moment.standard_error < 0.02
    assert target.n == 20_000
    assert 0 < target.ess < target.n


def test_the_error_of_the_fresh_check_is_honest() -> None:
    """z-scores of the fresh means about the exact ones have mean 0 and variance 1, to what 60 show."""
    prior, scores = single(), []
    for seed in range(60):
        target = with_moments(prior, {has_b: 0.7}, contexts=("left",), samples=600, seed=seed)
        (moment,) = target.moments
        scores.append((moment.fresh - exact_means(target, prior, has_b)[0]) / moment.standard_error)
    z = torch.tensor(scores)
    assert abs(float(z.mean())) < 0.5
    assert 0.7 < float(z.std()) < 1.35


def test_a_proposal_finds_what_the_prior_hardly_draws() -> None:
    prior = TabularPolicy.random("abc", 4, contexts=("left",), scale=0.2, seed=1)
    prior.logits[..., 1] -= 4  # b is rare
    likely = TabularPolicy("abc", 4, ["left"], prior.logits.clone())
    likely.logits[..., 1] += 4
    with pytest.raises(
        FeedbackError, match=r"has_b has its rarer value in .* its coefficient would be noise"
    ) as caught:
        with_moments(prior, {has_b: 0.5}, contexts=("left",), samples=200, seed=1)
    assert "give a proposal" in caught.value.fix
    target = with_moments(prior, {has_b: 0.5}, contexts=("left",), samples=2000, seed=1, proposal=likely)
    assert exact_means(target, prior, has_b)[0] == pytest.approx(0.5, abs=0.1)
    values, log_a = listed(prior, has_b)
    wanted = -logit(float(log_a.exp() @ values[:, 0]))
    assert target.moments[0].coefficient == pytest.approx(wanted, abs=0.3)


def test_always_and_never_are_hard_constraints() -> None:
    prior = table(scale=0.5)
    target = prior.with_moments({has_a: 1.0, has_b: 0.0, length: 2.5}, contexts=CONTEXTS, samples=40_000, seed=1)
    log_p, _ = log_target(target, prior)
    values, _ = listed(prior, has_a, has_b)
    allowed = ((values[:, 0] == 1) & (values[:, 1] == 0)).view(2, -1)
    assert bool((log_p.isfinite() == allowed).all())
    assert target.potential.hard
    assert [moment.name for moment in target.moments] == ["length"]
    assert exact_means(target, prior, length)[0] == pytest.approx(2.5, abs=0.05)
    only = prior.with_moments({has_a: 1.0}, contexts=CONTEXTS, samples=100, seed=1)
    assert only.moments == []
    assert exact_means(only, prior, has_a)[0] == pytest.approx(1)


def test_a_mean_of_1_of_a_number_is_no_constraint() -> None:
    """Texts of one letter on average, and not texts of one letter alone."""
    prior = table(scale=0.5)
    target = prior.with_moments({length: 1.0}, contexts=CONTEXTS, samples=8000, seed=1)
    assert exact_means(target, prior, length)[0] == pytest.approx(1.0, abs=0.05)
    assert not target.potential.hard


def test_a_hard_constraint_that_few_samples_satisfy() -> None:
    """Whether the fresh samples have it or not, there is a target or an error that says what to do."""
    prior = table(scale=0.5)
    told = []
    for seed in range(12):
        try:
            target = prior.with_moments({starts_with_cab: 1.0}, contexts=CONTEXTS, samples=200, seed=seed)
        except ConfigError as error:
            told.append(error.what)
        else:
            assert exact_means(target, prior, starts_with_cab)[0] == pytest.approx(1)
    assert 0 < len(told) < 12
    assert set(told) == {"none of 200 samples of the prior satisfies starts_with_cab"}


def test_answers_that_are_missing_are_left_out() -> None:
    def sometimes(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> Values:
        return [None if text.startswith("c") else float("b" in text) for text in completions]

    prior = table(scale=0.5)
    target = prior.with_moments({sometimes: 0.7}, contexts=CONTEXTS, samples=8000, seed=1)
    log_p, _ = log_target(prior * target.potential, prior)
    assert bool(log_p.isnan().any())  # of such texts nothing is known
    assert target.moments[0].fresh == pytest.approx(0.7, abs=0.05)


def test_a_context_in_which_a_constraint_never_holds_does_not_count() -> None:
    prior = table(scale=0.5)
    target = prior.with_moments({left: 1.0, has_b: 0.6}, contexts=CONTEXTS, samples=8000, seed=1)
    prompts, samples = everything(prior)
    log_score = target.scores(prompts, samples).log_score.view(2, -1)
    law = log_score[0].softmax(0)
    assert float(law @ torch.tensor(has_b(prompts, samples.texts)).double().view(2, -1)[0]) == pytest.approx(
        0.6, abs=0.03
    )


# --- what cannot be
@pytest.mark.parametrize(
    ("moments", "complaint"),
    [
        ({has_b: 1.2}, "has_b cannot have the mean 1.2"),
        ({has_b: -0.1}, "has_b cannot have the mean -0.1"),
        ({length: 4.5}, "length cannot have the mean 4.5: it lies between 0 and 4"),
        ({length: 4.0}, "length cannot have the mean 4"),
        ({left: 0.5}, "left cannot have the mean 0.5: it is 1 in every one"),
        ({has_b: 0.8, no_b: 0.7}, "contradict each other"),
        ({has_b: 0.95, length: 0.5}, "contradict each other"),
        ({has_b: math.nan}, "has_b is asked to have the mean nan"),
        ({has_b: 1.0, no_b: 1.0}, "none of 4096 samples of the prior satisfies has_b and no_b"),
        ({silent: 0.5}, "none of 4096 samples of the prior has an answer"),
        ({}, "no moments"),
    ],
)
def test_what_cannot_be_reached_is_said_and_named(moments: dict[Any, float], complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_moments(single(), moments, contexts=("left",), seed=1)
    assert complaint in caught.value.what
    assert caught.value.fix


def test_redundant_features_that_agree_are_no_contradiction() -> None:
    """b in 70% and no b in 30% say the same: many coefficients do it, the law is one."""
    prior = single()
    target = with_moments(prior, {has_b: 0.7, no_b: 0.3}, contexts=("left",), samples=4000, seed=1)
    alone = with_moments(prior, {has_b: 0.7}, contexts=("left",), samples=4000, seed=1)
    one, two = log_target(target, prior)[0], log_target(alone, prior)[0]
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_the_same_seed_gives_the_same_coefficients_and_the_decoding_is_used() -> None:
    prior = table(scale=0.5)
    first, second, third = (
        prior.with_moments({length: 1.5}, contexts=CONTEXTS, samples=2000, seed=seed) for seed in (1, 1, 2)
    )
    assert first.moments == second.moments != third.moments
    short = prior.with_moments({length: 1.5}, contexts=CONTEXTS, samples=2000, seed=1, decoding=Decoding(max_tokens=2))
    assert short.moments[0].coefficient > first.moments[0].coefficient  # no longer texts to make up for short ones


def test_already_so() -> None:
    values, log_a = listed(single(), has_b)
    found = fit(values, (log_a.exp() @ values), log_weights=log_a)
    assert found.coefficients.tolist() == pytest.approx([0], abs=1e-6)
