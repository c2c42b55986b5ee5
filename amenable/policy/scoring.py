"""Log-probabilities of given tokens under a causal model, with gradient where the model has one.

    log pi(y_t | c, y_<t) = l_t[y_t] - log sum_v exp l_t[v]        l_t: logits at the position before y_t, float32

Samples are scored in groups of similar length, at most `POSITIONS` positions at a time, so that padding stays small and
a group's logits (positions x vocabulary) fit in memory. Logits are made only where a sampled token is predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

POSITIONS = 2048


def token_log_probs(
    model: Any,
    context_ids: Sequence[Sequence[int]],
    tokens: torch.Tensor,
    lengths: torch.Tensor,
    positions: int = POSITIONS,
) -> torch.Tensor:
    """(N, L) float32 nats on the CPU or the model's device, 0 at padding. `tokens` (N, L), `lengths` (N,)."""
    sizes = [len(context) + int(length) for context, length in zip(context_ids, lengths, strict=True)]
    rows: list[torch.Tensor | None] = [None] * len(sizes)
    for group in length_groups(sizes, positions):
        for row, values in zip(
            group, _score_group(model, [context_ids[i] for i in group], tokens[group], lengths[group]), strict=True
        ):
            rows[row] = torch.nn.functional.pad(values, (0, tokens.shape[1] - len(values)))
    return torch.stack([row for row in rows if row is not None]) if rows else torch.zeros(tokens.shape)


def length_groups(sizes: Sequence[int], positions: int) -> list[list[int]]:
    """Indices in groups of similar size, each at most `positions` padded positions (one index at least), longest first."""
    groups: list[list[int]] = []
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        if groups and (len(groups[-1]) + 1) * sizes[groups[-1][0]] <= positions:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _score_group(
    model: Any, contexts: Sequence[Sequence[int]], tokens: torch.Tensor, lengths: torch.Tensor
) -> list[torch.Tensor]:
    """One forward over right-padded sequences; the log-probabilities of each row's own tokens."""
    device = model.device
    full = [[*context, *row[:length].tolist()] for context, row, length in zip(contexts, tokens, lengths, strict=True)]
    width = max(len(ids) for ids in full)
    ids = torch.zeros(len(full), width, dtype=torch.int64)
    mask = torch.zeros(len(full), width, dtype=torch.int64)
    for row, sequence in enumerate(full):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    first = min(len(context) for context in contexts) - 1  # the first position that predicts a sampled token
    out = model(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        use_cache=False,
        logits_to_keep=torch.arange(first, width - 1, device=device),
    )
    values = []
    for row, context in enumerate(contexts):
        begin = len(context) - 1 - first
        logits = out.logits[row, begin : begin + int(lengths[row])].float()
        target = tokens[row, : int(lengths[row])].to(device)
        values.append(-torch.nn.functional.cross_entropy(logits, target, reduction="none"))
    return values
