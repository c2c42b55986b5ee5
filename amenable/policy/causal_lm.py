"""A Hugging Face causal language model as a policy: the context stands in front of what is sampled, in one sequence.

Prompt tokens are excluded from every log-probability; a prompt that does not fit with its new tokens is an error. The
rest of the contract is `language_model`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from amenable.errors import SamplingError
from amenable.policy.engine import Drawn, draw_all
from amenable.policy.language_model import LanguageModel, LoRA, fast_dtype
from amenable.policy.scoring import prefix_features, token_log_probs, weighted_log_probs
from amenable.records import Samples

__all__ = ["CausalLM", "LoRA", "fast_dtype"]


class CausalLM(LanguageModel):
    """`transformers` causal model + tokenizer. Build with `load_policy`; the attributes are public and plain."""

    adapter_task = "CAUSAL_LM"

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, with the special tokens this tokenizer puts in front of one."""
        ids = list(self.tokenizer(text)["input_ids"])
        while ids and ids[-1] in self.eos_ids and not text.endswith(self.tokenizer.decode([ids[-1]])):
            ids.pop()  # some tokenizers close every text; a prompt is not closed
        bos = self.tokenizer.bos_token_id
        return ids or [bos if bos is not None else self.eos_ids[0]]

    def encode_completion(self, text: str, *, eos: bool = True) -> list[int]:
        """Token ids of a completion, as training needs it: with the EOS that ends it, unless it ends otherwise."""
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], *self.eos_ids[: int(eos)]]

    def log_prob(self, samples: Samples) -> torch.Tensor:
        """log pi(token | context, tokens before), (N, L) float32 nats, 0 at padding; carries gradient if trainable."""
        self._check_lengths(samples.context_ids, samples.tokens.shape[1])
        return token_log_probs(self.model, samples.context_ids, samples.tokens, samples.lengths)

    def weighted_log_prob(self, samples: Samples, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As `LanguageModel`; all samples in one forward, the head's gradient formed in it."""
        self._check_lengths(samples.context_ids, samples.tokens.shape[1])
        return weighted_log_probs(self.model, samples.context_ids, samples.tokens, samples.lengths, weights)

    @torch.no_grad()
    def prefix_features(self, samples: Samples) -> torch.Tensor:
        """As `LanguageModel`; all samples in one forward."""
        self._check_lengths(samples.context_ids, samples.tokens.shape[1])
        return prefix_features(self.model, samples.context_ids, samples.tokens, samples.lengths)

    # --- inside
    def _draw(self, contexts: Sequence[Sequence[int]], **settings: Any) -> Drawn:
        return draw_all(self.model, contexts, **settings)

    def _check_lengths(self, contexts: Sequence[Sequence[int]], new_tokens: int) -> None:
        longest = max((len(prompt) for prompt in contexts), default=0)
        if longest + new_tokens > self.max_length:
            index = next(i for i, prompt in enumerate(contexts) if len(prompt) == longest)
            raise SamplingError(
                f"prompt {index} has {longest} tokens; with {new_tokens} new tokens it exceeds the context of "
                f"{self.max_length} tokens of {self.name}",
                "shorten the prompt, lower max_tokens, or use a model with a longer context; nothing is cut silently",
            )
