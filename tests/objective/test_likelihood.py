"""The likelihood loss: hand-worked numbers, micro-batches add up, and its minimum is the target (exact enumeration)."""

from __future__ import annotations

import pytest
import torch

from amenable.objective.likelihood import negative_log_likelihood


def test_hand_worked() -> None:
    log_probs = torch.tensor([[-1.0, -2.0, 0.0], [-0.5, 0.0, 0.0]])
    assert float(negative_log_likelihood(log_probs, tokens=3)) == pytest.approx(3.5 / 3)
    weighted = negative_log_likelihood(log_probs, tokens=3, weights=torch.tensor([2.0, -1.0]))
    assert float(weighted) == pytest.approx((2 * 3.0 - 0.5) / 3)


def test_micro_batches_add_up() -> None:
    torch.manual_seed(0)
    log_probs = -torch.rand(6, 4)
    whole = negative_log_likelihood(log_probs, tokens=24)
    parts = sum(negative_log_likelihood(part, tokens=24) for part in log_probs.split([1, 3, 2]))
    torch.testing.assert_close(whole, parts)


def test_its_gradient_is_that_of_forward_kl_by_enumeration() -> None:
    """grad_theta KL(p || pi) = E_p[-grad log pi], over every one of 7 outcomes, to 1e-6."""
    torch.manual_seed(1)
    target = torch.rand(7).softmax(0)
    theta = torch.randn(7, requires_grad=True)
    kl = (target * (target.log() - theta.log_softmax(0))).sum()
    (exact,) = torch.autograd.grad(kl, theta)
    loss = negative_log_likelihood(theta.log_softmax(0).unsqueeze(1), tokens=1, weights=target)
    (ours,) = torch.autograd.grad(loss, theta)
    torch.testing.assert_close(ours, exact, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours, theta.detach().softmax(0) - target, atol=1e-6, rtol=0)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        negative_log_likelihood(torch.zeros(3), tokens=1)
    with pytest.raises(ValueError, match=r"expected \(2,\)"):
        negative_log_likelihood(torch.zeros(2, 3), tokens=1, weights=torch.zeros(3))
