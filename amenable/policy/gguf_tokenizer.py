"""The fast tokenizer that a GGUF file's metadata describes: a byte-level BPE with its added tokens.

GGUF holds the tokens, their kinds and the merges, but of the splitting before the merges no more than a name
(`tokenizer.ggml.pre`). The schemes of the models we convert are written out here; another is refused, as a
wrong split gives ids that look right and are not.

The ids are meant to be the official tokenizers' own, and so are the losses: `qwen2` brings text into the
composed form of Unicode (NFC), and SmolLM2 has no token for 21 bytes, which it drops: the control characters
4, 6, 19, 20, 22 and 29, and code points 40000 to BFFFF (hexadecimal); the other bytes do not occur in UTF-8.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from amenable.errors import ModelError

_NORMAL, _CONTROL, _USER = 1, 3, 4  # kinds of token (tokenizer.ggml.token_type); padding rows are 5
_QWEN2_PLAIN = ("<|fim_", "<|repo_name|>", "<|file_sep|>")
"""Starts of tokens that are control tokens to llama.cpp and plain ones to Qwen: decoding keeps them."""
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_FIX = "use the model's Hugging Face folder or hub id"


def build_tokenizer(meta: Mapping[str, Any], *, source: Path, qwen2: bool) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer, and its tokenizer_config.json. `source` is named in errors.

    Errors: ModelError if the tokenizer is not a byte-level BPE, splits by an unknown scheme, puts a token
    before every text, or would give a token another id than the file does.
    """
    if meta["tokenizer.ggml.model"] != "gpt2" or meta.get("tokenizer.ggml.add_bos_token"):
        raise ModelError(f"{source} has another tokenizer than a byte-level BPE without a first token", _FIX)
    tokens: list[str] = meta["tokenizer.ggml.tokens"]
    kinds: list[int] = meta["tokenizer.ggml.token_type"]
    last_normal = max(index for index, kind in enumerate(kinds) if kind == _NORMAL)
    vocabulary = {token: index for index, token in enumerate(tokens[: last_normal + 1])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=_merges(meta, source)))
    _set_splitting(tokenizer, meta["tokenizer.ggml.pre"], source)
    added = {i: tokens[i] for i, kind in enumerate(kinds) if kind in (_CONTROL, _USER)}
    plain = _QWEN2_PLAIN if qwen2 else ()
    control = [token for i, token in added.items() if kinds[i] == _CONTROL and not token.startswith(plain)]
    for token in added.values():
        tokenizer.add_tokens([AddedToken(token, normalized=False, special=token in control)])
    wrong = [token for index, token in added.items() if tokenizer.token_to_id(token) != index]
    if wrong:
        raise ModelError(f"{source}: {wrong[0]!r} would get another id than the file gives it", _FIX)
    return tokenizer, _tokenizer_config(meta, tokens, control, qwen2=qwen2)


def _tokenizer_config(meta: Mapping[str, Any], tokens: list[str], control: list[str], *, qwen2: bool) -> dict[str, Any]:
    """Named tokens, chat template and length limit (in tokens)."""
    named: dict[str, str | None] = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        index = meta.get(f"tokenizer.ggml.{key}_token_id")
        named[f"{name}_token"] = None if index is None else tokens[index]
    if qwen2:  # the id in its config is never put before a text, and its tokenizer has none
        named["bos_token"] = None
    return {
        **named,
        "additional_special_tokens": [token for token in control if token not in named.values()],
        "add_prefix_space": False,
        "chat_template": meta.get("tokenizer.chat_template"),
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(meta[f"{meta['general.architecture']}.context_length"]),
        "tokenizer_class": "Qwen2Tokenizer" if qwen2 else "PreTrainedTokenizerFast",
    }


def _merges(meta: Mapping[str, Any], source: Path) -> list[tuple[str, str]]:
    """The merges in their order. Byte-level tokens hold no space, so one separates the two."""
    merges: list[tuple[str, str]] = []
    for merge in meta["tokenizer.ggml.merges"]:
        left, space, right = merge.partition(" ")
        if not space or " " in right:
            raise ModelError(f"{source} has the merge {merge!r}, which is not two tokens", _FIX)
        merges.append((left, right))
    return merges


def _set_splitting(tokenizer: Tokenizer, name: str, source: Path) -> None:
    """Set how text is split before the merges, by the name of the scheme."""
    if name == "smollm":  # every digit alone, then GPT-2's split
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    elif name == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(_QWEN2_SPLIT), "isolated")
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    else:
        known = "only smollm and qwen2 can be converted"
        raise ModelError(f"{source} splits text by the scheme '{name}'; {known}", _FIX)
    tokenizer.decoder = decoders.ByteLevel()
