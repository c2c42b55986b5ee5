"""Importance resampling: shares, the law of what comes out in the limit, and what is said of the weights."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from listed import CONTEXTS, follows, log_law, log_score, policy, texts

from amenable.errors import ConfigError, SamplingError
from amenable.sampling.draws import joined, propose
from amenable.sampling.importance import diagnose, importance_sample, resample, shares
from amenable.target.potential import constraint, tilt


def many_b(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
    return [float(text.count("b")) for text in completions]


def only_empty_prompt(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
    return [float(prompt == "" and "b" in text) for prompt, text in zip(prompts, completions, strict=True)]


PRIOR, OTHER = policy(1, scale=0.5), policy(2, scale=0.5)
TILTED = PRIOR * tilt(many_b, beta=1.0)
NAN, NEVER = math.nan, -math.inf


def test_shares_sum_to_one_over_each_context() -> None:
    weights = torch.tensor([0.0, 5.0, math.log(3), 700.0, NEVER, NAN, NEVER], dtype=torch.float64)
    found = shares(["a", "b", "a", "b", "a", "a", "c"], weights)
    assert found.tolist() == pytest.approx([0.25, 0.0, 0.75, 1.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("scheme", ["systematic", "multinomial"])
def test_the_law_is_the_target_s_with_many_proposals(scheme: Any) -> None:
    """One sample from each of many independent sets of proposals, so that the samples are independent."""
    draws = propose(OTHER, TILTED, [""], n=400 * 150, seed=0)
    found = []
    for number in range(400):
        part = draws.at(range(150 * number, 150 * (number + 1)))
        one = resample(part, n=1, scheme=scheme, seed=number)
        found.append((one.samples.texts[0], one.samples.ended[0]))
    score = log_score(TILTED, "").exp()
    assert follows(found, texts(OTHER), score / score.sum())
    assert not follows(found, texts(OTHER), log_law(OTHER, "").exp())


def test_systematic_copies_are_the_expected_number_to_within_one() -> None:
    draws = propose(OTHER, TILTED, CONTEXTS, n=60, seed=0)
    found = resample(draws, n=40, seed=1)
    counts, expected = Counter(found.places.tolist()), 40 * shares(draws.prompts, draws.log_weights)
    assert all(
        math.floor(e - 1e-9) <= counts[place] <= math.ceil(e + 1e-9) for place, e in enumerate(expected.tolist())
    )
    assert found.prompts == [""] * 40 + ["!"] * 40
    assert found.samples.texts == [draws.samples.texts[place] for place in found.places.tolist()]
    assert torch.equal(found.log_score, draws.log_score[found.places])
    assert found.distinct == len(counts)


def test_multinomial_copies_are_right_on_average() -> None:
    draws = propose(OTHER, TILTED, [""], n=6, seed=0)
    found = resample(draws, n=20_000, scheme="multinomial", seed=1)
    share = torch.bincount(found.places, minlength=6) / 20_000
    assert torch.allclose(share.double(), shares(draws.prompts, draws.log_weights), atol=0.02)


def test_one_seed_gives_the_same_bits() -> None:
    first, again, other = (
        importance_sample(OTHER, TILTED, CONTEXTS, n=30, proposals=100, scheme="multinomial", seed=seed)
        for seed in (4, 4, 5)
    )
    assert torch.equal(first.places, again.places)
    assert first.samples.texts == again.samples.texts
    assert first.samples.texts != other.samples.texts


def test_a_context_without_a_positive_weight_is_named_and_left_out() -> None:
    target = PRIOR * constraint(only_empty_prompt)
    found = importance_sample(PRIOR, target, CONTEXTS, n=5, proposals=50, seed=0)
    assert found.without == ["!"]
    assert set(found.prompts) == {""}
    empty, full = found.diagnoses[1], found.diagnoses[0]
    assert (empty.positive, empty.log_z.value, empty.log_z.ess) == (0, NEVER, 0.0)
    assert full.log_z.ess == pytest.approx(full.positive, rel=1e-4)
    with pytest.raises(SamplingError, match="none of 50 proposals has a positive weight"):
        importance_sample(PRIOR, target, ["!"], n=5, proposals=50, seed=0)


def test_what_is_missing_never_comes_and_is_counted() -> None:
    def unsure(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
        return [None if "a" in text else 0.0 for text in completions]

    found = importance_sample(PRIOR, PRIOR * tilt(unsure, beta=1.0), [""], n=100, proposals=100, seed=0)
    (line,) = found.diagnoses
    assert line.missing + line.positive == line.n == 100
    assert line.missing > 10
    assert not any("a" in text for text in found.samples.texts)


def test_log_z_and_the_tail_are_diagnosed() -> None:
    draws = propose(OTHER, TILTED, CONTEXTS, n=4000, seed=0)
    for line in diagnose(draws.prompts, draws.log_weights):
        truth = float(log_score(TILTED, line.context).logsumexp(0))
        assert abs(line.log_z.value - truth) < 4 * line.log_z.standard_error
        assert line.log_z.n == line.n == 4000
    heavy = torch.rand(2000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).log().neg()
    assert diagnose([""] * 2000, heavy)[0].pareto_k > 0.7  # w = 1/u has no mean
    assert diagnose([""] * 2000, heavy / 4)[0].pareto_k < 0.5


def test_draws_can_be_joined() -> None:
    parts = [propose(OTHER, TILTED, [context], n=3, seed=1) for context in CONTEXTS]
    whole = joined(parts)
    assert whole.prompts == [""] * 3 + ["!"] * 3
    assert torch.equal(whole.log_weights, torch.cat([part.log_weights for part in parts]))
    assert whole.at([4]).samples.texts == [parts[1].samples.texts[1]]


def test_settings_that_make_no_sense() -> None:
    draws = propose(OTHER, TILTED, [""], n=3, seed=1)
    with pytest.raises(ConfigError):
        resample(draws, n=0)
    with pytest.raises(ConfigError, match="systematic or multinomial"):
        resample(draws, n=1, scheme="stratified")  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        propose(OTHER, TILTED, [""], n=0)
