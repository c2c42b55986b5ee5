"""The jackknife: exact for means, unbiased to first order for logs, honest about what it cannot say."""

from __future__ import annotations

import math

import pytest
import torch

from amenable.sampling.jackknife import BLOCKS, expectation, jackknife, log_mean, mean, over_contexts

NEVER, NAN = -math.inf, math.nan


def plain(kept: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return mean(values, kept)


def log_z(kept: torch.Tensor, log_weights: torch.Tensor) -> torch.Tensor:
    return log_mean(log_weights, kept)


def normal(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", [2, 7, BLOCKS])
def test_a_mean_keeps_its_value_and_its_usual_error(n: int) -> None:
    values = normal(n)
    value, error, uncorrected = jackknife(plain, [values])
    assert value == pytest.approx(float(values.mean()))
    assert uncorrected == pytest.approx(float(values.mean()))
    assert error == pytest.approx(float(values.std() / math.sqrt(n)))


@pytest.mark.parametrize("n", [BLOCKS + 1, 250, 1999])
def test_blocks_of_unequal_size_do_not_move_a_mean(n: int) -> None:
    values = normal(n)
    value, error, _ = jackknife(plain, [values])
    assert value == pytest.approx(float(values.mean()), abs=1e-12)
    assert error == pytest.approx(float(values.std() / math.sqrt(n)), rel=0.25)


def test_the_bias_of_log_z_is_taken_off() -> None:
    found = torch.tensor([jackknife(log_z, [normal(12, seed)]) for seed in range(1500)])  # log E[exp(x)] = 1/2
    corrected, plain_mean = float(found[:, 0].mean()), float(found[:, 2].mean())
    assert plain_mean < 0.5 - 0.04
    assert abs(corrected - 0.5) < abs(plain_mean - 0.5) / 2


def test_what_rests_on_one_sample_has_no_estimate() -> None:
    assert all(map(math.isnan, jackknife(log_z, [torch.tensor([NEVER, 1.0, NEVER])])[:2]))
    value, error, _ = jackknife(log_z, [torch.tensor([NEVER, 1.0, 1.0, NEVER])])
    assert math.isfinite(value)
    assert error > 0.5  # which is sqrt(1/2 - 1/4), by the delta method
    assert jackknife(plain, [torch.tensor([3.0])])[0] == 3.0
    assert math.isnan(jackknife(plain, [torch.tensor([3.0])])[1])
    assert jackknife(plain, [torch.tensor([math.inf, 0.0])])[0] == math.inf


def test_contexts_count_alike_and_those_without_anything_are_counted() -> None:
    columns = [torch.tensor([1.0, 1.0, 1.0, 1.0, 3.0, 3.0, NEVER, NEVER, NAN, NAN, 5.0, NAN])]
    contexts = ["a"] * 4 + ["b"] * 2 + ["none"] * 2 + ["missing"] * 2 + ["one"] * 2
    found = over_contexts(log_z, columns, contexts)
    assert found.value == pytest.approx((1 + 3 + 5) / 3)
    assert (found.contexts, found.without, found.n) == (3, 2, 7)
    assert math.isnan(found.standard_error)  # one sample of a context says nothing of its spread
    found = over_contexts(log_z, [columns[0][:6]], contexts[:6], population=True)
    assert (found.value, found.standard_error) == pytest.approx((2.0, 1.0))  # |3 - 1| / sqrt(2) / sqrt(2)


def test_nothing_is_nothing() -> None:
    found = over_contexts(log_z, [torch.tensor([NAN])], ["a"])
    assert math.isnan(found.value)
    assert (found.n, found.contexts, found.without) == (0, 0, 1)


def test_a_self_normalised_mean() -> None:
    kept = torch.tensor([[True, True, True], [True, True, False]])
    weights = torch.tensor([0.0, math.log(3), NEVER], dtype=torch.float64)
    assert expectation(kept, weights, torch.tensor([1.0, 2.0, 9.0])).tolist() == pytest.approx([1.75, 1.75])
