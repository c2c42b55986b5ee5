"""Any Hugging Face text classifier as a score: the probability it gives to one label.

    score(x) = softmax(z(x))_label       one label a text (the usual head)
    score(x) = sigmoid(z(x)_label)       labels beside each other (problem_type "multi_label_classification")

    z(x)  the model's logits, (labels,)      score in [0, 1], no unit

The score is a feature with values in between: `constraints.above(classifier, 0.5)` makes it binary. What would be wrong in
silence is refused: a checkpoint without a trained head (transformers would draw one at random), a head of one number (a
regression has no probability), a tokenizer that pads with one token while the model looks for another (models that read
the last token then read the wrong one), a text longer than the model can see. Batches are padded on the right, whatever
the tokenizer prefers, since models with absolute positions see left padding as a shift.

Source: Khalifa et al. 2021, arXiv 2012.11635 (classifiers as constraints, at a threshold). Changed from the paper: none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from amenable.errors import ConfigError, DataError, FeedbackError, ModelError, nearest

Activation = Literal["softmax", "sigmoid"]


class Classifier:
    """P(`label` | text) under `model`: a path, a hub id, or a sequence classifier that is loaded already (with `tokenizer`).

    `label` is a name of the model's own `config.id2label`, or a number. `activation` None takes what the model's
    `problem_type` says. `with_prompt` scores prompt + completion, else the completion alone. A text of more tokens than
    `max_tokens` (None: what model and tokenizer say) is a DataError, or cut as the tokenizer cuts if `truncate`. A text
    without any token has no score. Calls take no gradient and no dropout, and leave the model's mode as it was.

    Errors: ConfigError for a label or setting that cannot be, ModelError for a model that is no trained classifier.
    """

    binary = False

    def __init__(
        self,
        model: str | Path | torch.nn.Module,
        label: str | int,
        *,
        tokenizer: Any = None,
        name: str | None = None,
        activation: Activation | None = None,
        with_prompt: bool = False,
        truncate: bool = False,
        max_tokens: int | None = None,
        batch_size: int = 32,
    ) -> None:
        self.model: Any
        if isinstance(model, str | Path):
            self.model = _load_model(str(model))
            self.tokenizer = tokenizer or _load_tokenizer(str(model))
        else:
            self.model, self.tokenizer = model, tokenizer
        if self.tokenizer is None:
            raise ConfigError("a model was given without its tokenizer.", "give tokenizer=, or the path of both.")
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} scores nothing.", "use 1 or more.")
        self.label = _label_index(self.model.config, label)
        self.name = name if name is not None else f"P({self.model.config.id2label[self.label]})"
        self.activation = _activation(self.model.config, activation)
        self.with_prompt, self.truncate, self.batch_size = with_prompt, truncate, batch_size
        self.max_tokens = max_tokens if max_tokens is not None else _longest(self.model, self.tokenizer)
        self.padding = _padding(self.model.config, self.tokenizer, batch_size)

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: object) -> list[float | None]:
        """One probability a completion, None for a text without a token.

        Errors: DataError for a text that is too long, FeedbackError for a score that is not a number.
        """
        if len(prompts) != len(completions):
            raise DataError(
                f"{self.name}: {len(prompts)} prompts for {len(completions)} completions.",
                "give one prompt a completion.",
            )
        texts = [p + c if self.with_prompt else c for p, c in zip(prompts, completions, strict=True)]
        if not texts:
            return []
        encoded = self._encoded(texts)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        order = sorted((i for i, length in enumerate(lengths) if length), key=lambda i: lengths[i])
        scores: list[float | None] = [None] * len(texts)
        training = self.model.training
        self.model.eval()
        try:
            for start in range(0, len(order), self.batch_size):
                rows = order[start : start + self.batch_size]
                for row, value in zip(rows, self._batch(encoded, rows), strict=True):
                    if not math.isfinite(value):
                        raise FeedbackError(
                            f"{self.name} of sample {row} is {value}.", "check the model's weights and number format."
                        )
                    scores[row] = value
        finally:
            self.model.train(training)
        return scores

    def _encoded(self, texts: list[str]) -> dict[str, list[list[int]]]:
        """The tokenizer's columns, each a list of ids a text. Errors: DataError for a text that is too long."""
        cut = {"truncation": True, "max_length": self.max_tokens} if self.truncate and self.max_tokens else {}
        encoded: dict[str, list[list[int]]] = dict(self.tokenizer(texts, padding=False, verbose=False, **cut))
        if not getattr(self.model.config, "type_vocab_size", 0):
            encoded.pop("token_type_ids", None)  # GPT-2 would add the embedding of token 0 to every position
        for row, ids in enumerate(encoded["input_ids"]):
            if self.max_tokens is not None and len(ids) > self.max_tokens:
                raise DataError(
                    f"{self.name}: sample {row} has {len(ids)} tokens, and the classifier sees {self.max_tokens}.",
                    "use truncate=True to score its beginning, or shorter samples.",
                )
        return encoded

    @torch.inference_mode()
    def _batch(self, encoded: dict[str, list[list[int]]], rows: list[int]) -> list[float]:
        """The label's probabilities of `rows`, padded on the right to the longest of them."""
        width = max(len(encoded["input_ids"][row]) for row in rows)
        device = next(self.model.parameters()).device
        inputs = {
            key: torch.tensor(
                [column[row] + [self.padding.get(key, 0)] * (width - len(column[row])) for row in rows], device=device
            )
            for key, column in encoded.items()
        }
        logits = self.model(**inputs).logits.float()  # (rows, labels)
        if self.activation == "sigmoid":
            values = logits.sigmoid()
        else:
            values = logits.softmax(dim=-1)
        return [float(value) for value in values[:, self.label].tolist()]


def _load_model(name: str) -> Any:
    try:
        model, found = AutoModelForSequenceClassification.from_pretrained(
            name, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{name} could not be loaded as a text classifier: {_first_line(error)}",
            "give the folder or hub id of a sequence classifier with weights in safetensors format",
        ) from error
    if found["missing_keys"]:
        raise ModelError(
            f"{name} has no trained weights for {', '.join(sorted(found['missing_keys'])[:3])}: they would be random",
            "give a model that was trained as a sequence classifier, not the language model it started from",
        )
    return model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _load_tokenizer(name: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{name} has no tokenizer that can be loaded: {_first_line(error)}",
            "put the tokenizer's files beside config.json, or give tokenizer=",
        ) from error


def _label_index(config: Any, label: str | int) -> int:
    """The number of `label` among the model's. Errors: ConfigError."""
    labels = {int(index): str(name) for index, name in config.id2label.items()}
    if isinstance(label, int):
        if label in labels:
            return label
    elif label in labels.values():
        return next(index for index, name in labels.items() if name == label)
    close = nearest(str(label), labels.values())
    raise ConfigError(f"the classifier has no label {label!r}; it has {len(labels)}.", close)


def _activation(config: Any, given: Activation | None) -> Activation:
    """How logits become a probability. Errors: ConfigError."""
    if given not in (None, "softmax", "sigmoid"):
        raise ConfigError(f"activation={given!r} is not known.", "use softmax or sigmoid.")
    alone = int(config.num_labels) == 1
    if (alone and given != "sigmoid") or (config.problem_type == "regression" and given is None):
        raise ConfigError(
            f"the classifier's head is a number and no choice (num_labels={config.num_labels}, problem_type="
            f"{config.problem_type}), which has no softmax.",
            "use activation='sigmoid' if it was trained as yes or no; a reward model is another kind of score.",
        )
    return given or ("sigmoid" if config.problem_type == "multi_label_classification" else "softmax")


def _longest(model: Any, tokenizer: Any) -> int | None:
    """The most tokens the model can see: its positions, and what its tokenizer says; None if nothing says it."""
    limits = []
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        # RoBERTa and its kin count positions from pad_token_id + 1 on
        tables = [module for path, module in model.named_modules() if path.endswith("position_embeddings")]
        reserved = [table.padding_idx + 1 for table in tables if getattr(table, "padding_idx", None) is not None]
        limits.append(positions - max(reserved, default=0))
    if 0 < tokenizer.model_max_length < 10**9:  # without a limit of its own a tokenizer says 10**30
        limits.append(int(tokenizer.model_max_length))
    return min(limits, default=None)


def _padding(config: Any, tokenizer: Any, batch_size: int) -> dict[str, int]:
    """What each of the tokenizer's columns is filled up with (0 where not named). Errors: ModelError."""
    pad, expected = tokenizer.pad_token_id, getattr(config, "pad_token_id", None)
    if batch_size > 1 and pad is None:
        raise ModelError(
            "the classifier's tokenizer has no padding token, so texts of different lengths make no batch",
            "set tokenizer.pad_token and model.config.pad_token_id as in training, or use batch_size=1",
        )
    if batch_size > 1 and pad != expected:
        raise ModelError(
            f"the tokenizer pads with token {pad}, and the model takes {expected} for padding",
            "set model.config.pad_token_id = tokenizer.pad_token_id, or use batch_size=1",
        )
    return {"input_ids": pad or 0, "token_type_ids": int(getattr(tokenizer, "pad_token_type_id", 0) or 0)}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
