"""What every `transformers` model with a tokenizer does as a policy; a subclass says how it reads, draws and scores.

Here: text and token ids, the record of what was drawn, frozen and trainable copies, saving. Contract (design.md,
section 3): given tokens are excluded from every log-probability; every sampled token up to and including the first EOS
counts; padding is known by position and never by token id, so pad may equal eos; what does not fit is an error. Dropout
is off in sampling, scoring and training: one law everywhere.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from amenable.errors import ModelError
from amenable.policy import attention
from amenable.policy.algebra import Prior
from amenable.policy.engine import Drawn
from amenable.records import Decoding, Samples

UNBOUNDED = 1_000_000_000  # tokens, where a model's positions have no end


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapter (Hu et al. 2021, arXiv 2106.09685): W + (alpha / rank) B A on every linear layer but the head."""

    rank: int = 16
    alpha: float = 32.0


class LanguageModel(Prior, ABC):
    """`transformers` model + tokenizer. Build with `load_policy`; the attributes are public and plain."""

    adapter_task: ClassVar[str]  # what peft calls this kind of model

    def __init__(self, model: Any, tokenizer: Any, *, name: str, rows: int = 64) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.rows = rows  # samples decoded at once
        self.eos_ids = _eos_ids(model, tokenizer, name)
        self.max_length: int = getattr(model.config, "max_position_embeddings", None) or UNBOUNDED
        self.opening: list[int] = []  # special tokens that open a completion: drawn and scored, but no part of the text

    # --- what a subclass says
    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of a context, as this model reads one."""

    @abstractmethod
    def encode_completion(self, text: str, *, eos: bool = True) -> list[int]:
        """Token ids of a completion, as training needs it: with the EOS that ends it, unless it ends otherwise."""

    @abstractmethod
    def log_prob(self, samples: Samples) -> torch.Tensor:
        """log pi(token | context, tokens before), (N, L) float32 nats, 0 at padding; carries gradient if trainable.

        The policy's own law (temperature 1), whatever law the samples were drawn from. Recorded ids are scored;
        nothing is tokenised again.
        """

    def weighted_log_prob(self, samples: Samples, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """sum_i w_i log pi(x_i), a scalar that carries gradient, and the log-probabilities (N, L) float32 nats, without.

        `weights` (N,) a sequence or (N, L) a token: known beforehand, which is what makes the gradient cheap.
        """
        values = self.log_prob(samples)
        weights = weights.to(values)
        return ((weights if weights.dim() == 2 else weights.unsqueeze(1)) * values).sum(), values.detach()

    @abstractmethod
    def prefix_features(self, samples: Samples) -> torch.Tensor:
        """The last layer's output where each of all M sampled tokens is predicted, row by row: (M, D), without gradient."""

    @abstractmethod
    def _check_lengths(self, contexts: Sequence[Sequence[int]], new_tokens: int) -> None:
        """SamplingError if a context and `new_tokens` more do not fit the model."""

    @abstractmethod
    def _draw(self, contexts: Sequence[Sequence[int]], **settings: Any) -> Drawn:
        """Draw with the settings of `engine.draw_all` that `sample` gives."""

    # --- text and tokens
    def chat(self, message: str) -> str:
        """`message` as a user's turn in the model's own chat template; unchanged where the model has none."""
        if not getattr(self.tokenizer, "chat_template", None):
            return message
        turns = [{"role": "user", "content": message}]
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

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
        if ids[: len(self.opening)] == self.opening:
            ids = ids[len(self.opening) :]
        text = str(self.tokenizer.decode(ids))
        cuts = [at for at in (text.find(stop) for stop in samples.decoding.stop) if at >= 0]
        return text[: min(cuts)] if samples.ended[index] == "stop" and cuts else text

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

        Errors: SamplingError if a context or `decoding.max_tokens` exceed what the model can read and write.
        """
        context_ids = [self.encode(context) for context in contexts]
        self._check_lengths(context_ids, decoding.max_tokens)
        drawn = self._draw(
            context_ids,
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
            context_ids=[ids for ids in context_ids for _ in range(n)],
            tokens=drawn.tokens[:, :longest].contiguous(),
            lengths=drawn.lengths,
            log_probs=drawn.log_probs[:, :longest].contiguous(),
            texts=[""] * len(drawn.ended),
            ended=drawn.ended,
            decoding=decoding,
        )
        return replace(samples, texts=[self._text(samples, index) for index in range(len(samples))])

    def frozen(self, dtype: torch.dtype | None = None) -> Self:
        """The same law without gradient, in `dtype` (default: bfloat16 where it is fast, else the weights' own).

        An adapter is merged into the weights.
        """
        model = copy.deepcopy(self.model)
        if hasattr(model, "merge_and_unload"):
            model = model.merge_and_unload()
        model = model.to(dtype or fast_dtype(self.model)).requires_grad_(False)
        return type(self)(model, self.tokenizer, name=self.name, rows=self.rows)

    def follow(self, policy: Self) -> bool:
        """Take over the weights of `policy`, of which this is a frozen copy; False if it has others (an adapter)."""
        own, now = dict(self.model.named_parameters()), dict(policy.model.named_parameters())
        if own.keys() != now.keys():
            return False
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(now[name])
        return True

    def trainable_copy(self, adapter: LoRA | None = None) -> Self:
        """A copy an optimiser may change: float32 weights, or frozen weights with a trainable `adapter`."""
        model = attention.use(copy.deepcopy(self.model).float())
        if adapter is None:
            model.requires_grad_(True)
        else:
            from peft import LoraConfig, get_peft_model

            settings = LoraConfig(
                r=adapter.rank, lora_alpha=adapter.alpha, target_modules="all-linear", task_type=self.adapter_task
            )
            model = get_peft_model(model, settings)
        return type(self)(model, self.tokenizer, name=self.name, rows=self.rows)

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
