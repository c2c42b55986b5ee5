"""A causal model that learns from packed rows: tokens without padding or prompt, each predicted from all before it in its row.

    ids (N, L + 1)    token j + 1 is predicted at position j: L predictions a row
    V_j = - sigmoid(w . h_(j-1))     a value head for those who ask for one: w (D,) float32, 0 at first, no bias

The head's gradient is formed while its softmax is at hand (`head`), also where the weights of the tokens depend on the values,
which are known before the vocabulary's logits are made. The value head's gradient flows on into the model.
Its weights are trained and kept in checkpoints like the model's; a saved model goes without it.

Source: the value head of Korbak et al. 2023, arXiv 2302.08582 (AWR).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

import torch

from amenable.policy import head as heads
from amenable.policy.causal_lm import CausalLM, LoRA


class PackedLM(CausalLM):
    """A `CausalLM` that also scores packed rows; `PackedLM.of(policy, value=True)` gives it a value head."""

    value: torch.nn.Parameter | None = None
    """w (D,) of the value head, None for none."""

    @classmethod
    def of(cls, policy: CausalLM, *, value: bool = False) -> Self:
        """`policy`'s own model and tokenizer, not a copy."""
        made = cls(policy.model, policy.tokenizer, name=policy.name, rows=policy.rows)
        if value:
            embedding = policy.model.get_input_embeddings().weight
            made.value = torch.nn.Parameter(torch.zeros(_width(policy.model), device=embedding.device))
        return made

    def packed_log_probs(self, ids: torch.Tensor) -> torch.Tensor:
        """log p (N, L) float32 nats of `ids` (N, L + 1) but the first of each row; carries gradient if trainable."""
        states, head, targets = self._packed(ids)
        flat = states.flatten(0, 1)
        found = heads.log_probs_of_logits(flat, targets) if head is None else heads.log_probs(flat, head, targets)
        return found.view(len(ids), -1)

    def packed_likelihood(self, ids: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """sum_j w_j log p_j, a scalar that carries gradient, for weights (N, L) known beforehand; log p (N, L) without."""
        states, head, targets = self._packed(ids)
        return _weighted(states, head, targets, weights)

    def packed_regression(
        self, ids: torch.Tensor, values_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        weights_of: Callable[[torch.Tensor], torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
        """As `packed_likelihood` with weights_of(V) (N, L), and V = values_of(h, w) (N, L) with gradient.

        h (N, L, D): hidden states that predict; w (D,) of the value head. Errors: ValueError without a value head.
        """
        if self.value is None:
            raise ValueError("this policy has no value head: make it with PackedLM.of(policy, value=True)")
        states, head, targets = self._packed(ids, hidden=True)
        hidden, predicting = states if isinstance(states, tuple) else (states, states)
        values = values_of(hidden, self.value)
        return *_weighted(predicting, head, targets, weights_of(values.detach())), values

    def trainable_copy(self, adapter: LoRA | None = None) -> Self:
        """As `LanguageModel`; a value head starts at 0 again."""
        made = super().trainable_copy(adapter)
        if self.value is not None:
            made.value = torch.nn.Parameter(torch.zeros_like(self.value))
        return made

    def trainable_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """The model's, and `value.weight`."""
        yield from super().trainable_parameters()
        if self.value is not None:
            yield "value.weight", self.value

    def _packed(self, ids: torch.Tensor, *, hidden: bool = False) -> tuple[Any, torch.nn.Linear | None, torch.Tensor]:
        """Hidden states (N, L, D) and the head that reads them, or logits (N, L, V) and None; the targets (N * L,).

        `hidden`: in the second case both, hidden states and logits.
        """
        ids = ids.to(self.model.device)
        inputs: dict[str, Any] = {"input_ids": ids[:, :-1], "use_cache": False}
        targets = ids[:, 1:].flatten()
        head = heads.plain_head(self.model)
        states = None if head is None else heads.hidden_states(self.model, head, **inputs)
        if states is not None:
            return states, head, targets
        out = self.model(**inputs, output_hidden_states=hidden)
        return (out.hidden_states[-1], out.logits) if hidden else out.logits, None, targets


def _weighted(
    states: torch.Tensor, head: torch.nn.Linear | None, targets: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    flat, each = states.flatten(0, 1), weights.to(device=states.device, dtype=torch.float32).flatten()
    if head is None:
        values = heads.log_probs_of_logits(flat, targets)
        total = (each * values).sum()
    else:
        total, values = heads.weighted_log_probs(flat, head, targets, each)
    return total, values.detach().view(weights.shape)


def _width(model: Any) -> int:
    """D, the size of what the head reads."""
    head = model.get_output_embeddings()
    return int(head.in_features if hasattr(head, "in_features") else model.config.hidden_size)
