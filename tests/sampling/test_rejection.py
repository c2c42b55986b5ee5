"""Quasi-rejection sampling: the law of what is accepted, what it costs, and what is said of both."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from listed import CONTEXTS, follows, log_law, log_score, policy, texts

from amenable.errors import ConfigError, SamplingError
from amenable.evaluation.interval import wilson
from amenable.sampling.acceptance import acceptance_rate, choose_beta, kl_divergence, quality, total_variation
from amenable.sampling.draws import propose
from amenable.sampling.rejection import quasi_rejection
from amenable.target.potential import constraint, tilt


def many_b(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
    return [float(text.count("b")) for text in completions]


def has_b(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
    return [float("b" in text) for text in completions]


def never_there(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
    return [float("b" in text and prompt == "") for prompt, text in zip(prompts, completions, strict=True)]


PRIOR, OTHER = policy(1, scale=0.5), policy(2, scale=0.5)
TILTED = PRIOR * tilt(many_b, beta=0.7)


def exact(beta: float, context: str) -> tuple[torch.Tensor, torch.Tensor, float]:
    """p, p_beta and the acceptance rate for proposals of OTHER, by listing every text."""
    score, q = log_score(TILTED, context).exp(), log_law(OTHER, context).exp()
    cut = torch.minimum(score, beta * q)
    return score / score.sum(), cut / cut.sum(), float(cut.sum()) / beta


def names_of(samples: Any, places: list[int]) -> list[tuple[str, str]]:
    return [(samples.texts[place], samples.ended[place]) for place in places]


@pytest.mark.parametrize("beta", [0.5, 2.0, 200.0])
def test_what_is_accepted_follows_its_law(beta: float) -> None:
    found = quasi_rejection(OTHER, TILTED, CONTEXTS, n=1500, beta=beta, most=10**6, seed=3)
    assert found.prompts == [context for context in CONTEXTS for _ in range(1500)]
    for number, (context, tally) in enumerate(zip(CONTEXTS, found.tallies, strict=True)):
        target, law, rate = exact(beta, context)
        own = names_of(found.samples, list(range(number * 1500, (number + 1) * 1500)))
        assert follows(own, texts(OTHER), law)
        assert follows(own, texts(OTHER), target) == (beta == 200.0)
        assert abs(tally.accepted / tally.proposed - rate) < 4 * math.sqrt(rate * (1 - rate) / tally.proposed)
        assert (tally.exceeded == 0) == (beta == 200.0)
        assert (tally.kept, tally.missing, tally.context) == (1500, 0, context)


def test_scores_are_those_of_the_target_and_the_proposal() -> None:
    found = quasi_rejection(OTHER, TILTED, CONTEXTS, n=50, beta=2.0, seed=0)
    assert torch.allclose(found.log_score, TILTED.scores(found.prompts, found.samples).log_score)
    assert torch.allclose(found.log_proposal, OTHER.log_prob(found.samples).sum(-1))
    every = found.all_proposed
    assert len(every.prompts) == len(every.log_weights) == len(every.accepted) == found.proposed
    assert int(every.accepted.sum()) == sum(tally.accepted for tally in found.tallies)


def test_one_seed_gives_the_same_bits() -> None:
    first, again, other = (quasi_rejection(OTHER, TILTED, CONTEXTS, n=40, beta=2.0, seed=s) for s in (5, 5, 6))
    assert torch.equal(first.samples.tokens, again.samples.tokens)
    assert torch.equal(first.log_score, again.log_score)
    assert first.samples.texts != other.samples.texts


def test_the_prior_is_not_asked_where_it_proposes() -> None:
    target = PRIOR * constraint(has_b)
    draws = propose(target.prior, target, CONTEXTS, n=200, seed=1)
    asked = propose(PRIOR, target, CONTEXTS, n=200, seed=1)
    assert torch.allclose(draws.log_score, asked.log_score)
    assert set(draws.log_weights.tolist()) == {0.0, -math.inf}
    found = quasi_rejection(target.prior, target, CONTEXTS, n=100, beta=1.0, seed=0)
    assert sum(tally.exceeded for tally in found.tallies) == 0
    assert all("b" in text for text in found.samples.texts)


def test_one_beta_for_each_context() -> None:
    beta = {"": 0.5, "!": 200.0}
    found = quasi_rejection(OTHER, TILTED, CONTEXTS, n=1500, beta=beta, most=10**6, seed=1)
    for number, context in enumerate(CONTEXTS):
        own = names_of(found.samples, list(range(number * 1500, (number + 1) * 1500)))
        assert follows(own, texts(OTHER), exact(beta[context], context)[1])
        assert not follows(own, texts(OTHER), exact(beta[CONTEXTS[1 - number]], context)[1])
    with pytest.raises(ConfigError, match="no beta for the context '!'"):
        quasi_rejection(OTHER, TILTED, CONTEXTS, n=1, beta={"": 1.0})


def test_what_has_no_score_is_neither_accepted_nor_counted() -> None:
    def unsure(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
        return [None if "a" in text else float(text.count("b")) for text in completions]

    target = PRIOR * tilt(unsure, beta=1.0)
    found = quasi_rejection(PRIOR, target, [""], n=400, beta=math.e**3, most=10**5, seed=0)
    (tally,) = found.tallies
    assert not any("a" in text for text in found.samples.texts)
    assert tally.missing == int(found.all_proposed.log_weights.isnan().sum()) > 100
    rate, low, high = found.acceptance()
    assert rate == tally.accepted / (tally.proposed - tally.missing)
    interval = wilson(tally.accepted, tally.proposed - tally.missing)
    assert (low, high) == pytest.approx((interval.low, interval.high))
    score = log_score(target, "").nan_to_num(nan=-torch.inf).exp()
    assert follows(names_of(found.samples, list(range(400))), texts(PRIOR), score / score.sum())


def test_a_budget_that_ends_leaves_what_there_is() -> None:
    target = PRIOR * constraint(never_there)
    found = quasi_rejection(PRIOR, target, CONTEXTS, n=30, beta=1.0, most=300, seed=0)
    assert found.without == found.short == ["!"]
    assert set(found.prompts) == {""}
    assert [tally.kept for tally in found.tallies] == [30, 0]
    assert found.tallies[1].proposed == 300
    assert found.tallies[0].proposed < 300
    with pytest.raises(SamplingError, match=r"1 of 2 contexts had their samples: 0 of 30 for '!'"):
        found.complete()
    assert quasi_rejection(PRIOR, target, [""], n=30, beta=1.0).complete().n == 30


@pytest.mark.parametrize(
    ("context", "beta", "reason"),
    [("!", 1.0, "the target gives probability 0"), ("", 1e9, "the largest P/q is 1, and beta is 1e")],
)
def test_nothing_accepted_is_an_error_that_says_why(context: str, beta: float, reason: str) -> None:
    with pytest.raises(SamplingError, match=reason) as caught:
        quasi_rejection(PRIOR.frozen(), PRIOR * constraint(never_there), [context], n=1, beta=beta, most=64)
    assert "none of 64 proposals" in str(caught.value)


def test_no_answer_at_all_is_said_to_be_that() -> None:
    target = PRIOR * tilt(lambda prompts, **columns: [None] * len(prompts), beta=1.0)
    with pytest.raises(SamplingError, match="no answer for any"):
        quasi_rejection(PRIOR, target, [""], n=1, beta=1.0, most=16)


@pytest.mark.parametrize("wrong", [{"beta": 0.0}, {"beta": math.inf}, {"most": 3}, {"n": 0}, {"contexts": ["", ""]}])
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    settings = {"contexts": CONTEXTS, "n": 5, "beta": 1.0, **wrong}
    with pytest.raises(ConfigError):
        quasi_rejection(PRIOR, TILTED, settings.pop("contexts"), **settings)


# --- the law as a function of beta
def test_the_published_table_of_a_toy() -> None:
    """AR and TV at beta .1 .5 1 3 30 are .74 .67 .54 .35 .04 and .44 .40 .31 .05 .00 for a law of seven outcomes."""
    thousandths = torch.tensor([4, 333, 250, 25, 135, 155, 98])  # q; each thousandth is one proposal
    weights = torch.tensor([3.46, 0.392, 3.98, 0, 0, 1, 0], dtype=torch.float64).log().repeat_interleave(thousandths)
    kept = torch.ones(1, 1000, dtype=torch.bool)
    betas = [torch.full_like(weights, math.log(beta)) for beta in (0.1, 0.5, 1, 3, 30)]
    rates = [round(float(acceptance_rate(kept, weights, beta)), 2) for beta in betas]
    distances = [round(float(total_variation(kept, weights, beta)), 2) for beta in betas]
    assert rates == [0.74, 0.67, 0.54, 0.35, 0.04]
    assert distances == [0.44, 0.40, 0.31, 0.05, 0.00]


@pytest.mark.parametrize("beta", [0.01, 1.0, 3.0, 1e6])
@pytest.mark.parametrize("hard", [False, True])
def test_the_formulas_are_exact_on_all_texts(beta: float, hard: bool) -> None:
    """Every text once is what a uniform proposal draws on average."""
    target = TILTED * constraint(has_b) if hard else TILTED
    score = log_score(target, "")
    log_q = torch.full_like(score, -math.log(len(score)))
    cut = torch.minimum(score.exp(), beta * log_q.exp())
    p, law = score.exp() / score.exp().sum(), cut / cut.sum()
    kept, bound = torch.ones(1, len(score), dtype=torch.bool), torch.full_like(score, math.log(beta))
    inside = p > 0
    kl = float((p[inside] * (p[inside] / law[inside]).log()).sum())
    assert float(acceptance_rate(kept, score - log_q, bound)) == pytest.approx(float(cut.sum()) / beta, abs=1e-12)
    assert float(total_variation(kept, score - log_q, bound)) == pytest.approx(
        float((p - law).abs().sum()) / 2, abs=1e-9
    )
    assert float(kl_divergence(kept, score - log_q, bound)) == pytest.approx(kl, abs=1e-9)


def test_estimates_cover_the_truth() -> None:
    betas = (0.5, 1.5, 4.0)
    truth = []
    for beta in betas:
        laws = [exact(beta, context) for context in CONTEXTS]
        rate = sum(rate for _, _, rate in laws) / 2
        distance = sum(float((p - law).abs().sum()) / 2 for p, law, _ in laws) / 2
        kl = sum(float((p * (p / law).log()).sum()) for p, law, _ in laws) / 2
        truth.append((rate, distance, kl))
    hits = torch.zeros(3, 3)
    generator = torch.Generator().manual_seed(0)
    weights = {context: log_score(TILTED, context) - log_law(OTHER, context) for context in CONTEXTS}
    prompts = [context for context in CONTEXTS for _ in range(200)]
    for _ in range(100):
        drawn = [torch.multinomial(log_law(OTHER, c).exp(), 200, True, generator=generator) for c in CONTEXTS]
        found = quality(prompts, torch.cat([weights[c][d] for c, d in zip(CONTEXTS, drawn, strict=True)]), betas)
        for row, (line, true) in enumerate(zip(found, truth, strict=True)):
            for column, (one, value) in enumerate(
                zip((line.acceptance, line.total_variation, line.kl), true, strict=True)
            ):
                hits[row, column] += abs(one.value - value) <= 1.96 * one.standard_error
    assert hits.min() >= 85, hits  # of 100


def test_beta_is_the_smallest_that_is_close_enough() -> None:
    draws = propose(OTHER, TILTED, CONTEXTS, n=500, seed=0)
    beta = choose_beta(draws.prompts, draws.log_weights, total_variation_at_most=0.05)
    at, below = quality(draws.prompts, draws.log_weights, [beta, 0.98 * beta])
    assert at.total_variation.uncorrected <= 0.05 < below.total_variation.uncorrected
    fresh = propose(OTHER, TILTED, CONTEXTS, n=2000, seed=1)
    (line,) = quality(fresh.prompts, fresh.log_weights, [beta])
    truth = sum(float((exact(beta, c)[0] - exact(beta, c)[1]).abs().sum()) / 4 for c in CONTEXTS)
    assert abs(line.total_variation.value - truth) < 4 * line.total_variation.standard_error


def test_beta_is_the_largest_that_accepts_enough() -> None:
    draws = propose(OTHER, TILTED, [""], n=500, seed=0)
    beta = choose_beta(draws.prompts, draws.log_weights, acceptance_at_least=0.4)
    at, above = quality(draws.prompts, draws.log_weights, [beta, 1.02 * beta])
    assert at.acceptance.uncorrected >= 0.4 - 1e-9 > above.acceptance.uncorrected
    everything = choose_beta(draws.prompts, draws.log_weights, acceptance_at_least=0.0)
    assert everything == pytest.approx(math.exp(float(draws.log_weights.max())))


def test_a_hard_constraint_needs_no_larger_beta() -> None:
    target = PRIOR * constraint(has_b)
    draws = propose(target.prior, target, CONTEXTS, n=100, seed=0)
    assert choose_beta(draws.prompts, draws.log_weights, total_variation_at_most=0.0) == 1.0
    lines = quality(draws.prompts, draws.log_weights, [1.0, 1e-3, 10.0])
    assert [line.total_variation.value for line in lines] == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)
    assert lines[0].acceptance.value == pytest.approx(lines[1].acceptance.value)
    assert lines[2].acceptance.value == pytest.approx(lines[0].acceptance.value / 10)


def test_a_beta_cannot_be_chosen_by_nothing() -> None:
    nothing = torch.full((10,), -torch.inf)
    with pytest.raises(SamplingError, match="none of 10 proposals has a positive weight"):
        choose_beta([""] * 10, nothing, total_variation_at_most=0.1)
    with pytest.raises(ConfigError, match="give one of them"):
        choose_beta([""] * 10, nothing)
    (line,) = quality([""] * 10, nothing, [1.0])
    assert (line.acceptance.value, line.total_variation.without) == (0.0, 1)
    assert math.isnan(line.total_variation.value)
