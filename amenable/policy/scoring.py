"""Log-probabilities of given tokens under a causal model, with gradient where the model has one.

    log pi(y_t | c, y_<t) = l_t[y_t] - log sum_v exp l_t[v]        l_t: logits at the position before y_t, float32

Samples are scored in groups of similar length, at most `POSITIONS` positions at a time. Where the forward is written down
(`forward`), a group has no padding, and what its contexts have in common, as the samples of each prompt do, is read once
(`layout`). Elsewhere padding stands behind a sequence, where no token that counts can see it, so the model needs no mask; what
all contexts of a group begin with is read once if that is much. Logits are made only where a sampled token is predicted, a
chunk at a time (`head`).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import DynamicCache

from amenable.policy import forward
from amenable.policy import head as heads
from amenable.policy.layout import laid_out

POSITIONS = 2048
SHARED = 1 / 3  # of all positions: what must be saved for a second call of a forward of `transformers` to be worth it


def token_log_probs(
    model: Any,
    context_ids: Sequence[Sequence[int]],
    tokens: torch.Tensor,
    lengths: torch.Tensor,
    positions: int = POSITIONS,
) -> torch.Tensor:
    """(N, L) float32 nats on the model's device, 0 at padding. `tokens` (N, L), `lengths` (N,)."""
    sizes = [len(context) + int(length) for context, length in zip(context_ids, lengths, strict=True)]
    parts, order = [], []
    for group in length_groups(sizes, positions):
        states, head, targets = _states(model, [context_ids[i] for i in group], tokens[group], lengths[group])
        values = heads.log_probs_of_logits(states, targets) if head is None else heads.log_probs(states, head, targets)
        parts.append(_rows(values, lengths[group], tokens.shape[1]))
        order += group
    if not parts:
        return torch.zeros(tokens.shape)
    return torch.cat(parts)[torch.tensor(order, device=parts[0].device).argsort()]


def weighted_log_probs(
    model: Any,
    context_ids: Sequence[Sequence[int]],
    tokens: torch.Tensor,
    lengths: torch.Tensor,
    weights: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """sum_i w_i log pi_i of one group in one forward, a scalar that carries gradient; the log-probabilities (N, L), without.

    `weights` (N,) a sequence or (N, L) a token, known beforehand: the head's gradient is formed with its softmax at hand.
    """
    states, head, targets = _states(model, context_ids, tokens, lengths)
    mask = _mask(lengths, tokens.shape[1])
    each = (weights if weights.dim() == 2 else weights.unsqueeze(1).expand(tokens.shape))[mask].to(targets.device)
    if head is None:
        values = heads.log_probs_of_logits(states, targets)
        loss = (each.to(values) * values).sum()
    else:
        loss, values = heads.weighted_log_probs(states, head, targets, each)
    return loss, _rows(values.detach(), lengths, tokens.shape[1])


def prefix_features(
    model: Any, context_ids: Sequence[Sequence[int]], tokens: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """(M, D): what the last layer hands on where each of one group's M sampled tokens is predicted, row by row."""
    return _states(model, context_ids, tokens, lengths, features=True)[0]


def length_groups(sizes: Sequence[int], positions: int) -> list[list[int]]:
    """Indices in groups of similar size, each at most `positions` padded positions (one index at least), longest first."""
    groups: list[list[int]] = []
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        if groups and (len(groups[-1]) + 1) * sizes[groups[-1][0]] <= positions:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _states(
    model: Any,
    contexts: Sequence[Sequence[int]],
    tokens: torch.Tensor,
    lengths: torch.Tensor,
    *,
    features: bool = False,
) -> tuple[torch.Tensor, torch.nn.Linear | None, torch.Tensor]:
    """Of all M sampled tokens, row by row: hidden states (M, D) and the head that reads them, or logits (M, V) and None
    (hidden states nonetheless, if `features` are asked for); and the tokens themselves (M,)."""
    device = model.device
    head = heads.plain_head(model)
    mask = _mask(lengths, tokens.shape[1])
    targets = tokens[mask].to(device)
    # the last sampled token is predicted, not read
    read = [row[: max(0, length - 1)].tolist() for row, length in zip(tokens, lengths.tolist(), strict=True)]
    if head is not None and forward.written_down(model):
        layout = laid_out(contexts, read)
        at = [place for path, context, length in zip(layout.paths, contexts, lengths.tolist(), strict=True)
              for place in path[len(context) - 1 :][:length]]  # fmt: skip
        return forward.states_at(model, layout, torch.tensor(at, dtype=torch.int64)), head, targets
    shared = _in_common(model, contexts, lengths)
    rows = [torch.tensor([*context[shared:], *row], dtype=torch.int64)
            for context, row in zip(contexts, read, strict=True)]  # fmt: skip
    ids = pad_sequence(rows, batch_first=True)
    before = torch.tensor([len(context) - shared - 1 for context in contexts]).unsqueeze(1)
    at_each = torch.arange(len(rows)).unsqueeze(1) * ids.shape[1] + before + torch.arange(tokens.shape[1])
    places = at_each[mask].to(device)

    def inputs() -> dict[str, Any]:
        given: dict[str, Any] = {"input_ids": ids.to(device), "use_cache": False}
        if shared:
            positions = torch.arange(shared, shared + ids.shape[1], device=device).expand(ids.shape)
            cache = _read_once(model, contexts[0][:shared], len(rows))
            given |= {"use_cache": True, "past_key_values": cache, "position_ids": positions}
        return given

    states = None if head is None else heads.hidden_states(model, head, **inputs())
    if states is None:
        out = model(**inputs(), **({"output_hidden_states": True} if features else {}))
        head, states = None, out.hidden_states[-1] if features else out.logits
    return states.flatten(0, 1).index_select(0, places), head, targets


def _in_common(model: Any, contexts: Sequence[Sequence[int]], lengths: torch.Tensor) -> int:
    """How many tokens all contexts begin with, up to the last but one of the shortest; 0 if that saves less than `SHARED`."""
    if len(contexts) < 2 or not _can_go_on(model):
        return 0
    first, last = min(map(list, contexts)), max(map(list, contexts))
    most = min(len(context) for context in contexts) - 1
    shared = next((i for i in range(most) if first[i] != last[i]), most)
    positions = sum(map(len, contexts)) + int(lengths.sum())
    return shared if shared * (len(contexts) - 1) >= SHARED * positions else 0


def _can_go_on(model: Any) -> bool:
    """True if the model's forward takes keys, values and positions from its caller."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {"past_key_values", "position_ids"} <= set(inspect.signature(inner.forward).parameters)


def _read_once(model: Any, ids: Sequence[int], rows: int) -> DynamicCache:
    """Keys and values of `ids`, the same for each of `rows`; they carry gradient where the model has one."""
    cache = DynamicCache()
    model(
        input_ids=torch.tensor([list(ids)], device=model.device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    for layer in cache.layers:
        layer.keys, layer.values = (part.expand(rows, -1, -1, -1) for part in (layer.keys, layer.values))
    return cache


def _mask(lengths: torch.Tensor, width: int) -> torch.Tensor:
    return torch.arange(width).unsqueeze(0) < lengths.unsqueeze(1)


def _rows(values: torch.Tensor, lengths: torch.Tensor, width: int) -> torch.Tensor:
    """(M,) row by row as (N, L), 0 at padding."""
    mask = _mask(lengths, width).to(values.device)
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)
