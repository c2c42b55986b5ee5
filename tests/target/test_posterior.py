"""The target: prior times potential, known up to Z; and which samples have a weight at all."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tables import CONTEXTS, HARD, SOFT, count_b, everything, has_a, has_b, log_law, log_target, share_a, table

from amenable.errors import ConfigError
from amenable.records import Decoding
from amenable.target.posterior import Scores, Target, recorded_log_prob, sequence_log_prob
from amenable.target.potential import constraint, tilt, weight


def test_p_is_a_times_phi_over_z() -> None:
    """By hand, for every sequence of both contexts."""
    prior = table()
    prompts, samples = everything(prior)
    target = prior * weight(share_a) * constraint(has_b) * tilt(count_b, beta=2.0)
    found, _ = log_target(target, prior)
    ranks = zip(
        share_a(prompts, samples.texts), has_b(prompts, samples.texts), count_b(prompts, samples.texts), strict=True
    )
    phi = torch.tensor([w * c * math.exp(r / 2) for w, c, r in ranks if None not in (w, c, r)]).view(2, -1)  # type: ignore[operator]
    mass = log_law(prior).exp() * phi
    torch.testing.assert_close(found.exp(), mass / mass.sum(-1, keepdim=True))


@pytest.mark.parametrize("kind", [*SOFT, *HARD])
def test_the_exact_law_is_the_fixed_point_of_its_weights(kind: str) -> None:
    """Drawn from the prior and weighed, samples have the target's means: E_q[w f] / E_q[w] = E_p[f]."""
    prior = table(scale=0.3)
    target = {**SOFT, **HARD}[kind](prior)
    log_p, _ = log_target(target, prior)
    prompts, samples = everything(prior)
    exact = (log_p.exp() * torch.tensor(count_b(prompts, samples.texts)).view(2, -1)).sum(-1)
    n = 20_000
    drawn = table(seed=2, scale=0.3).sample(CONTEXTS, n=n, seed=1)
    weights = target.log_weights([context for context in CONTEXTS for _ in range(n)], drawn).view(2, n).softmax(-1)
    counts = torch.tensor(count_b([], drawn.texts)).view(2, n)
    mean = (weights * counts).sum(-1)
    error = ((weights * (counts - mean[:, None])) ** 2).sum(-1).sqrt()
    assert bool(((mean - exact).abs() < 4 * error).all())


def test_the_prior_is_a_copy_that_training_cannot_move() -> None:
    policy = table().trainable_copy()
    target = policy.tilt(count_b, beta=1)
    before = target.prior.log_prob(everything(policy)[1])
    with torch.no_grad():
        policy.logits.add_(torch.randn_like(policy.logits))
    torch.testing.assert_close(target.prior.log_prob(everything(policy)[1]), before, rtol=0, atol=0)
    assert not target.prior.log_prob(everything(policy)[1]).requires_grad


def test_what_is_forbidden_is_forbidden_whatever_the_prior_says() -> None:
    inf, nan = math.inf, math.nan
    scores = Scores(
        log_prior=torch.tensor([-1.0, -inf, -2.0, nan, -inf]), log_potential=torch.tensor([0.5, 0.0, nan, -inf, -inf])
    )
    assert scores.log_score.tolist()[:2] == [-0.5, -inf]
    assert math.isnan(float(scores.log_score[2]))
    assert scores.log_score.tolist()[3:] == [-inf, -inf]
    assert scores.missing.tolist() == [False, False, True, False, False]


def test_a_target_is_multiplied_and_not_changed() -> None:
    prior = table()
    first = prior * constraint(has_b)
    second = first * constraint(has_a)
    prompts, samples = everything(prior)
    allowed = [int(target.scores(prompts, samples).log_potential.isfinite().sum()) for target in (first, second)]
    assert allowed[0] > allowed[1] > 0
    assert second.potential.name == "has_b * has_a"
    assert second.prior is first.prior


def test_a_score_is_no_potential() -> None:
    for make in (lambda: table() * has_b, lambda: Target(table(), has_b), lambda: table() * constraint(has_b) * has_a):  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="multiplied by a potential, not by a function"):
            make()


def test_weights_need_a_law_that_is_known() -> None:
    policy = table()
    samples = policy.sample(CONTEXTS, n=3, seed=1)
    torch.testing.assert_close(recorded_log_prob(samples), sequence_log_prob(policy, samples))
    for changed in (Decoding(temperature=0.7), Decoding(top_k=5), Decoding(top_p=0.9)):
        with pytest.raises(ConfigError, match="not the law of any policy") as caught:
            recorded_log_prob(replace(samples, decoding=changed))
        assert "temperature=1, top_k=0, top_p=1" in caught.value.fix
    with pytest.raises(ConfigError, match="given and not drawn"):
        recorded_log_prob(replace(samples, log_probs=torch.full_like(samples.log_probs, torch.nan)))


def test_what_a_sequence_is_worth_is_summed_in_float64() -> None:
    samples = table().sample(CONTEXTS, n=3, seed=1)
    coarse = replace(samples, log_probs=samples.log_probs.float())
    assert recorded_log_prob(coarse).dtype == torch.float64
    exact = samples.log_probs.float().double().sum(-1)
    torch.testing.assert_close(recorded_log_prob(coarse), exact, rtol=0, atol=0)
