"""The draw: exact law by sweeping the uniform, exact log-probabilities, and no token of probability 0."""

from __future__ import annotations

import pytest
import torch

from amenable.policy.draw import draw, invert
from amenable.records import Decoding


@pytest.mark.parametrize("size", [3, 256, 257, 1000])
def test_the_inverse_cdf_gives_each_token_its_exact_share(size: int) -> None:
    torch.manual_seed(size)
    logits = torch.randn(1, size) * 2
    grid = 200_000
    uniforms = (torch.arange(grid, dtype=torch.float64) + 0.5) / grid
    tokens = torch.cat([invert(logits.expand(len(part), -1), part)[0] for part in uniforms.split(20_000)])
    shares = torch.bincount(tokens, minlength=size) / grid
    # a stratified grid hits every interval of the CDF to within two cells
    assert (shares - logits.softmax(-1)[0]).abs().max() <= 2.5 / grid


def test_log_probabilities_are_those_of_the_law() -> None:
    torch.manual_seed(0)
    logits = torch.randn(64, 5000) * 3
    tokens, log_probs = draw(logits, torch.rand(64, dtype=torch.float64), Decoding(temperature=0.7))
    exact = (logits / 0.7).log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(log_probs, exact, atol=2e-5, rtol=0)


def test_a_forbidden_token_is_never_drawn_even_at_the_ends_of_the_interval() -> None:
    logits = torch.full((4, 700), -torch.inf)
    logits[:, [3, 300, 650]] = 0.0
    edge = torch.tensor([0.0, 1 - 2.0**-53, 1 / 3, 2 / 3], dtype=torch.float64)
    tokens, log_probs = invert(logits, edge)
    assert set(tokens.tolist()) <= {3, 300, 650}
    assert tokens[0] == 3
    assert tokens[1] == 650
    torch.testing.assert_close(log_probs, torch.full((4,), -1.0986123))


def test_top_k_and_top_p_keep_what_they_should_and_renormalise() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(4000, -1)
    uniforms = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    by_k, log_k = draw(logits, uniforms, Decoding(top_k=2))
    assert torch.bincount(by_k, minlength=4).tolist() == [2500, 1500, 0, 0]
    assert log_k.exp().unique().tolist() == pytest.approx([0.375, 0.625])
    by_p, _ = draw(logits, uniforms, Decoding(top_p=0.7))  # 0.5 does not reach 0.7, 0.5 + 0.3 does
    assert set(by_p.tolist()) == {0, 1}
    greedy, certain = draw(logits, uniforms, Decoding(temperature=0))
    assert set(greedy.tolist()) == {0}
    assert set(certain.tolist()) == {0.0}
