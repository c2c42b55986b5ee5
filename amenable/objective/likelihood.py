"""Likelihood: the loss of imitation, forward KL from an empirical target up to a constant.

    loss = - (1 / M) sum_i w_i sum_t log pi(y_it | c_i, y_i,<t)

    letter  name        shape   unit
    log pi  log_probs   (N, L)  nats, 0 at padding
    w       weights     (N,)    importance weight of a sample, 1 in ILF's experiments
    M       tokens      scalar  number of target tokens in the whole optimiser step, so that micro-batches add up

Minimising it over samples of a target p is minimising KL(p || pi): Chen et al. 2023 (arXiv 2303.16749), eqs. 2 to 6.
"""

from __future__ import annotations

import torch


def negative_log_likelihood(
    log_probs: torch.Tensor, *, tokens: int, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """The loss above, a scalar in nats a token. `log_probs` (N, L) must be 0 at padding; `weights` (N,) default 1."""
    if log_probs.dim() != 2:
        raise ValueError(f"log_probs has shape {tuple(log_probs.shape)}, expected (samples, tokens)")
    if weights is not None and weights.shape != log_probs.shape[:1]:
        raise ValueError(f"weights has shape {tuple(weights.shape)}, expected ({log_probs.shape[0]},)")
    per_sample = log_probs.sum(-1)
    if weights is not None:
        per_sample = per_sample * weights
    return -per_sample.sum() / tokens
