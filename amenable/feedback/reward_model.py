"""A reward model: a language model's body with one number on top, of the last token or of the answer's tokens.

    score(x) = w . h(x) - mean        h(x)  the body's hidden state, of the last token or the mean of the answer's tokens, (D,)
                                      w     the head, (D,), float32 whatever the body is
                                      mean  of w . h on the training pairs, so that their scores average 0; no unit

Only differences between answers to one prompt are learned from comparisons (`objective.preference`); the mean makes the zero
mean something. The end token stands behind every text. What is read is known by position, never by token id: `reward_reading`.
Reading is `reward_score`; here is how a reward model is made, copied, trained and kept.

On the disk it is a plain Hugging Face folder of a classifier with one label; `reward_reads`, `reward_mean` and
`reward_end_token_id` stand in its config.json.

    reads="last"      `AutoModelForSequenceClassification` gives w . h(x) for text + end. That class looks for the last token
                      that is not padding, so the padding token saved is never the end token.
    reads="answer"    `AutoModelForTokenClassification` gives w . h_t for every token t; their mean over the answer is w . h(x).

A sequence classifier without these facts (a reward model of somebody else's) is read as its class reads it: nothing
appended, nothing taken off.

Source: Stiennon et al. 2020, arXiv 2009.01325; Ouyang et al. 2022, arXiv 2203.02155.
Changed from the papers: the head starts at 0, not at random; the body may be cut after some of its layers, since the last ones
know more about the next word than about the text; scores are centred on the training pairs, not on demonstrations; the mean
over the answer's tokens.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from amenable.errors import ConfigError, ModelError
from amenable.feedback.reward_reading import READS, Reads
from amenable.feedback.reward_score import RewardScore, head_name

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class RewardModel(RewardScore):
    """A `RewardScore` that can be trained, copied and kept. Make one with `new_reward_model` or `load_reward_model`."""

    def with_head(self, weight: torch.Tensor, *, mean: float = 0.0) -> Self:
        """The same body under another head: `weight` (D,), and what is taken off every score. Shares the body's weights."""
        other = copy.copy(self)
        other.model = copy.copy(self.model)
        other.model._modules = {**self.model._modules, head_name(self.model): copy.deepcopy(self._linear).float()}
        with torch.no_grad():
            other.weight.copy_(weight.reshape(1, -1))
            if other._linear.bias is not None:
                other._linear.bias.zero_()
        other.mean = mean
        return other

    def centred_on(self, prompts: Sequence[str], completions: Sequence[str]) -> Self:
        """The same model, its scores of these texts averaging 0. Texts without a score do not count."""
        known = [value for value in self(prompts, completions) if value is not None]
        other = copy.copy(self)
        other.mean = self.mean + (math.fsum(known) / len(known) if known else 0.0)
        return other

    def frozen(self, dtype: torch.dtype | None = None) -> Self:
        """The same scores without gradient; the body in `dtype` (default: as it is), an adapter merged into it."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model).requires_grad_(False)
        body = other.model.base_model
        if hasattr(body, "merge_and_unload"):
            setattr(other.model, other.model.base_model_prefix, body.merge_and_unload())
        if dtype is not None:
            other.model.base_model.to(dtype)
        return other

    def trainable_copy(self, adapter: Any = None) -> Self:
        """A float32 copy for an optimiser: all weights, or the head and a low-rank `adapter` (rank, alpha) on the body."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model).float().requires_grad_(True)
        if other._linear.bias is not None:
            other._linear.bias.requires_grad_(False)  # no difference between two answers tells what it should be
        if adapter is not None:
            from peft import LoraConfig, get_peft_model

            settings = LoraConfig(r=adapter.rank, lora_alpha=adapter.alpha, target_modules="all-linear")
            with torch.random.fork_rng():
                torch.manual_seed(0)  # the adapter's start is random, and shall be the same every time
                setattr(other.model, other.model.base_model_prefix, get_peft_model(other.model.base_model, settings))
        return other

    def trainable_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Names and tensors that an optimiser may change."""
        return ((name, value) for name, value in self.model.named_parameters() if value.requires_grad)

    def save(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Write the Hugging Face folder, the body in `dtype`, the head in float32, the tokenizer included."""
        model = self.frozen(dtype).model
        model.config.reward_reads, model.config.reward_mean = self.reads, self.mean
        model.config.reward_end_token_id = self.end
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def new_reward_model(
    folder: Path, *, depth: float = 1.0, reads: Reads = "last", dtype: str = "auto", name: str = "", **options: Any
) -> RewardModel:
    """An untrained reward model (head 0) on the causal language model in `folder`, of a share `depth` of its layers.

    The end token is the tokenizer's end-of-text token. `options` as of `RewardModel`.
    Errors: ModelError if it is no causal language model that transformers has a classifier with a `score` head for.
    """
    if reads not in READS:
        raise ConfigError(f"reads={reads!r} is not known", f"use one of {', '.join(READS)}")
    tokenizer = _tokenizer(folder)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{folder} has no end-of-text token to read", "set eos_token in its tokenizer_config.json")
    config = _config(folder)
    if not 0 < depth <= 1:
        raise ConfigError(f"depth={depth:g} is no share of the layers", "use 0 < depth <= 1, 1 for all")
    config.num_labels, config.id2label = 1, {0: "reward"}
    if depth < 1:
        config.num_hidden_layers = max(1, round(depth * config.num_hidden_layers))
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[: config.num_hidden_layers]
    config.pad_token_id = _choose_padding(tokenizer)
    model, _ = _classifier(folder, config, reads)
    tokenizer.padding_side = "right"
    made = RewardModel(
        _placed(model, dtype),
        tokenizer,
        name=name or str(folder),
        end=int(tokenizer.eos_token_id),
        reads=reads,
        **options,
    )
    return made.with_head(torch.zeros_like(made.weight))


def load_reward_model(folder: str | Path, *, dtype: str = "auto", name: str = "", **options: Any) -> RewardModel:
    """The reward model in `folder` (`RewardModel.save`, or any sequence classifier of one label). `options` as of the class.

    `dtype` of the body: "auto" is bfloat16 where the machine is fast at it, else float32.
    Errors: ModelError if it is none, or its head was never trained.
    """
    folder = Path(folder)
    config = _config(folder)
    if int(getattr(config, "num_labels", 0)) != 1:
        raise ModelError(f"{folder} has {config.num_labels} labels: a reward is one number", "give a reward model")
    reads: Reads = getattr(config, "reward_reads", "last")
    kinds = getattr(config, "architectures", None) or [""]
    if reads not in READS or (reads == "last") == kinds[0].endswith("ForTokenClassification"):
        raise ModelError(
            f"{folder} is a {kinds[0] or 'model'} whose reward_reads is {reads}: which of its numbers are the reward?",
            "write reward_reads into its config.json: answer for a token classifier whose mean over the answer it is",
        )
    model, missing = _classifier(folder, config, reads)
    if missing:
        raise ModelError(
            f"{folder} has no trained weights for {', '.join(missing[:3])}: they would be random",
            "give a reward model, not the language model it started from; `amenable run reward-model` makes one",
        )
    mean, end = getattr(config, "reward_mean", 0.0), getattr(config, "reward_end_token_id", None)
    return RewardModel(
        _placed(model, dtype), _tokenizer(folder), name=name or str(folder), mean=mean, end=end, reads=reads, **options
    )


def _config(folder: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder} is not a model folder: {_first_line(error)}", "give the folder that save_pretrained wrote"
        ) from error


def _classifier(folder: Path, config: Any, reads: Reads) -> tuple[Any, list[str]]:
    """The classifier in float32, and the names of weights that it has not got. Errors: ModelError."""
    kind = AutoModelForTokenClassification if reads == "answer" else AutoModelForSequenceClassification
    try:
        with torch.device("meta"):  # only a body that sees nothing behind a token has a sequence classifier named so
            causal = head_name(AutoModelForSequenceClassification.from_config(config)) == "score"
        if not causal:
            raise ModelError(
                f"{folder} is a {config.model_type} model, which is not classified by its last token",
                "use a causal language model (Llama, Qwen, GPT-2 ...) as the body of a reward model",
            )
        model, found = kind.from_pretrained(
            folder, config=config, dtype=torch.float32, use_safetensors=True, trust_remote_code=False,
            local_files_only=True, output_loading_info=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder} could not be loaded as a reward model: {_first_line(error)}",
            "give a causal language model, or a classifier of one label, with weights in safetensors format",
        ) from error
    return model, sorted(found["missing_keys"])


def _tokenizer(folder: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder} has no tokenizer that can be loaded: {_first_line(error)}",
            "put the tokenizer's files beside config.json",
        ) from error


def _choose_padding(tokenizer: Any) -> int | None:
    """A special token besides the end, made the tokenizer's padding; None if there is none: then only single texts are read."""
    special = {index: str(token.content) for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    known = [tokenizer.pad_token_id, *sorted(special)]
    chosen = next((index for index in known if index is not None and index != tokenizer.eos_token_id), None)
    tokenizer.pad_token = None if chosen is None else tokenizer.convert_ids_to_tokens(chosen)
    return chosen


def _placed(model: Any, dtype: str) -> Any:
    """On the device, its body in `dtype`, its head in float32. Errors: ConfigError."""
    if dtype not in ("auto", *DTYPES):
        raise ConfigError(f"dtype={dtype!r} is not known", f"use one of auto, {', '.join(DTYPES)}")
    model = model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    fast = model.device.type == "cuda" or torch.cpu._is_amx_tile_supported()
    model.base_model.to(DTYPES["bfloat16" if fast else "float32"] if dtype == "auto" else DTYPES[dtype])
    return model


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
