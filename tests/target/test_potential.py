"""Potentials: what each says of a sample, that they multiply, and what they do with answers that are none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tables import CONTEXTS, count_b, everything, has_b, table

from amenable.errors import ConfigError, FeedbackError
from amenable.records import Samples
from amenable.target.potential import Potential, constraint, features, scores_of, tilt, weight

INF, NAN = math.inf, math.nan


def batch() -> tuple[list[str], Samples]:
    samples = table(max_tokens=2).sample(CONTEXTS, n=4, seed=1)
    return [context for context in CONTEXTS for _ in range(4)], samples


def saying(*values: Any) -> Any:
    """A score that answers with `values`, one a sample, whatever it is asked."""

    def score(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[Any]:
        return [values[place % len(values)] for place in range(len(completions))]

    return score


def of(potential: Potential) -> list[float]:
    return [float(value) for value in potential.log_values(*batch())]


def same(found: Sequence[float], wanted: Sequence[float]) -> bool:
    return all(a == pytest.approx(b, nan_ok=True) for a, b in zip(found, wanted, strict=False))


def test_each_is_what_it_says() -> None:
    assert same(of(constraint(saying(1, 0, True, False))), [0, -INF, 0, -INF])
    assert same(of(tilt(saying(2.0, -1, 0, 0.5), beta=0.5)), [4, -2, 0, 1])
    assert same(of(weight(saying(0.5, 0, 1, 3))), [math.log(0.5), -INF, 0, math.log(3)])
    assert same(of(features([saying(1, 0), saying(2.0, 3.0)], [0.5, -1.0])), [-1.5, -3.0, -1.5, -3.0])
    assert [p.hard for p in (constraint(has_b), tilt(has_b, beta=1), weight(has_b), features([has_b], [1.0]))] == [
        True, False, True, False,
    ]  # fmt: skip
    assert constraint(has_b).log_values(*batch()).dtype == torch.float64


def test_they_have_names() -> None:
    assert constraint(has_b).name == "has_b"
    assert tilt(count_b, beta=0.25).name == "exp(count_b / 0.25)"
    assert weight(count_b, name="count").name == "count"
    assert (constraint(has_b) * tilt(count_b, beta=2)).name == "has_b * exp(count_b / 2)"
    assert features([has_b, count_b], [0.5, -2]).name == "exp(0.5 has_b + -2 count_b)"

    class Scorer:
        name = "my scorer"

    assert constraint(Scorer()).name == "my scorer"  # type: ignore[arg-type]


def test_a_product_is_the_sum_of_logs_and_does_not_depend_on_the_order() -> None:
    one, two, three = tilt(saying(1.0, 2.0), beta=1), weight(saying(0.5, 0.0)), constraint(saying(1, 1, 0, 1))
    wanted = [1 + math.log(0.5), -INF, -INF, -INF]
    for product in (one * two * three, three * (two * one), (two * three) * one):
        assert same(of(product), wanted)
        assert product.hard
    assert not (one * one).hard
    with pytest.raises(TypeError):
        one * has_b  # type: ignore[operator]


def test_missing_is_missing_unless_another_factor_forbids() -> None:
    """Kleene: what one factor forbids is forbidden, even where the other says nothing."""
    nothing = constraint(saying(None))
    assert same(of(nothing), [NAN] * 8)
    assert same(of(tilt(saying(None, 1.0), beta=1)), [NAN, 1.0])
    assert same(of(weight(saying(None, 2.0))), [NAN, math.log(2)])
    assert same(of(features([saying(1.0), saying(None, 1.0)], [1.0, 1.0])), [NAN, 2.0])
    for product in (nothing * constraint(saying(0, 1)), constraint(saying(0, 1)) * nothing):
        assert same(of(product), [-INF, NAN])


def test_a_score_is_given_what_a_record_says() -> None:
    seen: dict[str, Any] = {}

    def score(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
        seen.update(columns, prompts=prompts, completions=completions)
        return [0.0] * len(completions)

    prompts, samples = batch()
    scores_of(score, prompts, samples)
    assert seen["prompts"] == prompts
    assert seen["completions"] == list(samples.texts)
    assert seen["ended"] == list(samples.ended)
    assert seen["lengths"] == samples.lengths.tolist()


def test_numbers_of_other_kinds_are_numbers() -> None:
    import numpy as np

    answers = (torch.tensor(1.5), np.float32(2.0), np.int64(3), True)
    assert same(scores_of(saying(*answers), *batch()).tolist(), [1.5, 2, 3, 1])


@pytest.mark.parametrize(
    ("make", "error", "complaint", "fix"),
    [
        (lambda: constraint(saying(1, 0.5)), FeedbackError, "is 0.5 for sample 1, which is neither 0 nor 1", "tilt"),
        (lambda: constraint(saying(-1)), FeedbackError, "is -1 for sample 0", "weight"),
        (lambda: weight(saying(1, 1, -0.1)), FeedbackError, "is -0.1 for sample 2", ">= 0"),
        (lambda: tilt(saying(1.0, NAN), beta=1), FeedbackError, "returned nan for sample 1", "None if there is none"),
        (lambda: tilt(saying(INF), beta=1), FeedbackError, "returned inf for sample 0", "finite"),
        (lambda: tilt(saying(1.0, "good"), beta=1), FeedbackError, "returned 'good' for sample 1", "finite"),
        (lambda: tilt(has_b, beta=0), ConfigError, "beta=0 is not a positive number", "maximise the reward"),
        (lambda: tilt(has_b, beta=-1), ConfigError, "beta=-1", "beta > 0"),
        (lambda: tilt(has_b, beta=INF), ConfigError, "beta=inf", "beta > 0"),
        (lambda: tilt(has_b, beta=NAN), ConfigError, "beta=nan", "beta > 0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(make: Any, error: Any, complaint: str, fix: str) -> None:
    with pytest.raises(error) as caught:
        make().log_values(*batch())
    assert complaint in caught.value.what
    assert fix in caught.value.fix


def test_a_score_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(FeedbackError, match="returned 2 values for 8 samples"):
        scores_of(lambda prompts, completions, **_: [1.0, 2.0], *batch())


def test_a_score_that_raises_names_the_sample() -> None:
    prompts, samples = batch()
    worst = max(samples.texts, key=len)
    place = list(samples.texts).index(worst)

    def score(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
        assert len(columns["ended"]) == len(completions)
        return [1 / (worst != text) for text in completions]

    with pytest.raises(FeedbackError) as caught:
        constraint(score).log_values(prompts, samples)
    assert caught.value.what == f"score raised ZeroDivisionError: division by zero for sample {place}: {worst!r}"
    assert "FunctionScore" in caught.value.fix
    assert isinstance(caught.value.__cause__, ZeroDivisionError)

    def moody(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
        if len(completions) > 1:
            raise RuntimeError("too many")
        return [1.0]

    with pytest.raises(FeedbackError, match="moody raised RuntimeError: too many"):
        constraint(moody).log_values(prompts, samples)


def test_a_potential_may_depend_on_the_context() -> None:
    prior = table(max_tokens=2)
    target = prior * constraint(lambda prompts, completions, **_: [float(prompt == "left") for prompt in prompts])
    prompts, samples = everything(prior)
    log_score = target.scores(prompts, samples).log_score.view(2, -1)
    assert float(log_score[0].logsumexp(0)) == pytest.approx(0)
    assert float(log_score[1].logsumexp(0)) == -INF
