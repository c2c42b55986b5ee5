"""A Hugging Face causal language model as a policy.

Contract (design.md, section 3): prompt tokens are excluded from every log-probability; every sampled token up to and
including the first EOS counts; padding is known by position and never by token id, so pad may equal eos; a prompt that
does not fit is an error. Dropout is off in sampling, scoring and training: one law everywhere.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from amenable.errors import ModelError, SamplingError
from amenable.policy.engine import draw_all
from amenable.policy.scoring import token_log_probs
from amenable.records import Decoding, Samples


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapter (Hu et al. 2021, arXiv 2106.09685): W + (alpha / rank) B A on every linear layer but the head."""

    rank: int = 16
    alpha: float = 32.0


class CausalLM:
    """`transformers` causal model + tokenizer. Build with `load_policy`; the attributes are public and plain."""

    def __init__(self, model: Any, tokenizer: Any, *, name: str, rows: int = 64) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.rows = rows  # samples decoded at once
        self.eos_ids = _eos_ids(model, tokenizer, name)
        self.max_length: int = getattr(model.config, "max_position_embeddings", None) or 1_000_000_000

    # --- text and tokens
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

    def chat(self, message: str) -> str:
        """`message` as a user's turn in the model's own chat template; unchanged where the model has none."""
        if not getattr(self.tokenizer, "chat_template", None):
            return message
        turns = [{"role": "user", "content": message}]
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    # --- the distribution
    def sample(
        self,
        contexts: Sequence[str],
        *,
        n: int = 1,
        decoding: Decoding = Decoding(),  # noqa: B008 (frozen)
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Samples:
        """Draw `n` continuations a context: samples i*n .. i*n + n - 1 continue `contexts[i]`. Same seed, same bits.

        Errors: SamplingError if a prompt and `decoding.max_tokens` exceed the model's context.
        """
        prompts = [self.encode(context) for context in contexts]
        self._check_lengths(prompts, decoding.max_tokens)
        drawn = draw_all(
            self.model,
            prompts,
            n=n,
            decoding=decoding,
            eos_ids=self.eos_ids,
            stopped=self._stop_check(decoding.stop),
            seed=seed,
            rows=self.rows,
            progress=progress,
        )
        longest = max(1, int(drawn.lengths.max())) if len(drawn.lengths) else 1
        samples = Samples(
            context_ids=[prompt for prompt in prompts for _ in range(n)],
            tokens=drawn.tokens[:, :longest].contiguous(),
            lengths=drawn.lengths,
            log_probs=drawn.log_probs[:, :longest].contiguous(),
            texts=[""] * len(drawn.ended),
            ended=drawn.ended,
            decoding=decoding,
        )
        return replace(samples, texts=[self._text(samples, index) for index in range(len(samples))])

    def log_prob(self, samples: Samples) -> torch.Tensor:
        """log pi(token | context, tokens before), (N, L) float32 nats, 0 at padding; carries gradient if trainable.

        The policy's own law (temperature 1), whatever law the samples were drawn from. Recorded ids are scored;
        nothing is tokenised again.
        """
        self._check_lengths(samples.context_ids, samples.tokens.shape[1])
        return token_log_probs(self.model, samples.context_ids, samples.tokens, samples.lengths)

    def frozen(self, dtype: torch.dtype | None = None) -> CausalLM:
        """The same law without gradient, in `dtype` (default: bfloat16 where it is fast, else the weights' own).

        An adapter is merged into the weights.
        """
        model = copy.deepcopy(self.model)
        if hasattr(model, "merge_and_unload"):
            model = model.merge_and_unload()
        model = model.to(dtype or fast_dtype(self.model)).requires_grad_(False)
        return CausalLM(model, self.tokenizer, name=self.name, rows=self.rows)

    def trainable_copy(self, adapter: LoRA | None = None) -> CausalLM:
        """A copy an optimiser may change: float32 weights, or frozen weights with a trainable `adapter`."""
        model = copy.deepcopy(self.model).float()
        if adapter is None:
            model.requires_grad_(True)
        else:
            from peft import LoraConfig, get_peft_model

            settings = LoraConfig(
                r=adapter.rank, lora_alpha=adapter.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
            )
            model = get_peft_model(model, settings)
        return CausalLM(model, self.tokenizer, name=self.name, rows=self.rows)

    @property
    def brings_code(self) -> bool:
        """True if the model's class came with the model, and not with transformers."""
        return type(self.model).__module__.startswith("transformers_modules")

    def trainable_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Names and tensors that an optimiser may change."""
        return ((name, value) for name, value in self.model.named_parameters() if value.requires_grad)

    def save(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Write a Hugging Face folder (or PEFT adapter) that `transformers` loads, tokenizer included."""
        model = self.model
        if dtype is not None and not hasattr(model, "peft_config"):
            model = copy.deepcopy(model).to(dtype)
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    # --- inside
    def _check_lengths(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
        longest = max((len(prompt) for prompt in prompts), default=0)
        if longest + new_tokens > self.max_length:
            index = next(i for i, prompt in enumerate(prompts) if len(prompt) == longest)
            raise SamplingError(
                f"prompt {index} has {longest} tokens; with {new_tokens} new tokens it exceeds the context of "
                f"{self.max_length} tokens of {self.name}",
                "shorten the prompt, lower max_tokens, or use a model with a longer context; nothing is cut silently",
            )

    def _stop_check(self, stop: Sequence[str]) -> Callable[[torch.Tensor], bool] | None:
        if not stop:
            return None
        # every token is at least one byte; three more cover a character that began before the window
        window = max(len(text.encode()) for text in stop) + 3

        def stopped(ids: torch.Tensor) -> bool:
            tail = self.tokenizer.decode(ids[-window:].tolist())
            return any(text in tail for text in stop)

        return stopped

    def _text(self, samples: Samples, index: int) -> str:
        ids = samples.ids(index)
        if samples.ended[index] == "eos":
            ids = ids[:-1]
        text = str(self.tokenizer.decode(ids))
        cuts = [at for at in (text.find(stop) for stop in samples.decoding.stop) if at >= 0]
        return text[: min(cuts)] if samples.ended[index] == "stop" and cuts else text


def fast_dtype(model: Any) -> torch.dtype:
    """bfloat16 where matrix units make it fast (AMX, AVX-512 BF16, CUDA), else the dtype the weights have."""
    if model.device.type == "cuda" or torch.cpu._is_amx_tile_supported():
        return torch.bfloat16
    dtype: torch.dtype = model.dtype
    return dtype


def _eos_ids(model: Any, tokenizer: Any, name: str) -> list[int]:
    """The tokens that end a text: the tokenizer's first, then those of the generation settings."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    ids = dict.fromkeys(int(token) for token in [tokenizer.eos_token_id, *several] if token is not None)
    if not ids:
        raise ModelError(
            f"{name} has no end-of-text token, so a sample would never end",
            "set eos_token in its tokenizer_config.json",
        )
    return list(ids)
