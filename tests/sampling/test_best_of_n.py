"""Best of n: its exact law on a policy that can be listed, its bound, ties, and scores that are missing."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from listed import CONTEXTS, follows, log_law, policy, texts

from amenable.errors import ConfigError, SamplingError
from amenable.sampling.best_of_n import best_of_n, best_places, exact_law, kl_bound
from amenable.target.potential import constraint, scores_of

POLICY = policy(3, scale=0.7)
NAN = math.nan


def many_b(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
    return [float(text.count("b")) for text in completions]


def unsure(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
    return [None if text.startswith("a") else float(len(text)) for text in completions]


def listed(score: Any) -> torch.Tensor:
    everything = POLICY.everything([""])
    return scores_of(score, [""] * len(everything), everything)


@pytest.mark.parametrize("score", [many_b, unsure])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_exact_law_is_that_of_all_groups(score: Any, n: int) -> None:
    law, values = log_law(POLICY, "").exp(), listed(score)
    known = values.nan_to_num(nan=-1.0)
    found = torch.zeros_like(law)
    for group in itertools.product(range(len(law)), repeat=n):
        best = max(float(known[place]) for place in group)
        winners = [place for place in group if float(known[place]) == best]
        for place in winners if best >= 0 else ():
            found[place] += math.prod(float(law[one]) for one in group) / len(winners)
    assert torch.allclose(exact_law(law.log(), values, n).exp(), found / found.sum(), atol=1e-12)


@pytest.mark.parametrize("score", [many_b, unsure])
def test_samples_follow_the_exact_law(score: Any) -> None:
    found = best_of_n(POLICY, score, CONTEXTS, n=3, draws=1500, seed=1)
    own = list(zip(found.samples.texts, found.samples.ended, strict=True))
    law = exact_law(log_law(POLICY, ""), listed(score), 3).exp()
    first = [pair for prompt, pair in zip(found.prompts, own, strict=True) if prompt == ""]
    assert follows(first, texts(POLICY), law)
    assert not follows(first, texts(POLICY), log_law(POLICY, "").exp())
    assert found.proposed == 2 * 3 * 1500
    assert torch.equal(found.scores, scores_of(score, found.prompts, found.samples))
    assert (found.missing > 0) == (score is unsure)
    assert found.without == (CONTEXTS if score is unsure else [])


@pytest.mark.parametrize("n", [1, 2, 8, 100])
def test_the_kl_is_never_above_its_bound(n: int) -> None:
    law = log_law(POLICY, "")
    for values in (listed(many_b), torch.arange(len(law)).double(), torch.zeros(len(law)), law):
        best = exact_law(law, values, n)
        assert float((best.exp() * (best - law)).sum()) <= kl_bound(n) + 1e-12
    values = listed(unsure)
    missing = float(law[values.isnan()].exp().sum())
    best = exact_law(law, values, n)
    inside = best > -torch.inf
    kl = float((best.exp() * (best - law))[inside].sum())
    assert kl_bound(1, missing=missing) - 1e-12 <= kl <= kl_bound(n, missing=missing) + 1e-12


def test_the_bound_in_numbers() -> None:
    assert kl_bound(1) == 0
    assert kl_bound(2) == pytest.approx(math.log(2) - 0.5)
    assert kl_bound(16) == pytest.approx(1.8351, abs=1e-4)
    assert kl_bound(16, missing=1e-9) == pytest.approx(kl_bound(16))
    assert kl_bound(1, missing=0.75) == pytest.approx(math.log(4))
    fine = torch.linspace(0, 1, 200_001, dtype=torch.float64)[1:]  # quantiles of a score without ties
    density = torch.where(fine > 0.3, 4 * fine**3 / (1 - 0.3**4), 0.0)
    assert kl_bound(4, missing=0.3) == pytest.approx(float(torch.xlogy(density, density).mean()), abs=1e-4)
    assert 0.99 * kl_bound(4) < float(torch.xlogy(4 * fine**3, 4 * fine**3).mean()) <= kl_bound(4) + 1e-4
    for wrong in ({"n": 0}, {"n": 2, "missing": 1.0}):
        with pytest.raises(ConfigError):
            kl_bound(**wrong)  # type: ignore[arg-type]


def test_ties_are_broken_at_random_and_by_the_seed() -> None:
    scores = torch.tensor([1.0, 2.0, 2.0, NAN] * 4000)
    first, again, other = (best_places(scores, 4, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    counts = torch.bincount(first % 4, minlength=4).tolist()
    assert counts[0] == counts[3] == 0
    assert abs(counts[1] - 2000) < 4 * math.sqrt(1000)


def test_missing_is_never_the_best_and_minus_infinity_may_be() -> None:
    scores = torch.tensor([NAN, -math.inf, NAN, NAN, 3.0, NAN])
    assert best_places(scores, 2).tolist() == [1, -1, 4]


def test_a_constraint_is_satisfied_where_one_text_satisfies_it() -> None:
    def has_b(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
        return [float("b" in text) for text in completions]

    found = best_of_n(POLICY, constraint(has_b), CONTEXTS, n=4, draws=300, seed=0)
    share = sum("b" in text for text in found.samples.texts) / len(found.samples)
    both = [
        float(log_law(POLICY, context)[["b" not in text for text, _ in texts(POLICY)]].exp().sum()) ** 4
        for context in CONTEXTS
    ]
    assert abs(share - (1 - sum(both) / 2)) < 4 * math.sqrt(0.25 / 600)
    assert found.kl_bound == kl_bound(4)


def test_no_score_at_all_is_an_error() -> None:
    with pytest.raises(SamplingError, match="none of 6 texts has a score"):
        best_of_n(POLICY, lambda prompts, **columns: [None] * len(prompts), [""], n=3, draws=2)
    with pytest.raises(ConfigError):
        best_of_n(POLICY, many_b, [""], n=0)
