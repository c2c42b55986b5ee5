"""A GGUF file (weights, tokenizer and template in one) becomes a normal Hugging Face folder.

Only the `llama` and `qwen2` architectures, and only what is known to come out the same as the official
models: anything else is refused by name rather than converted wrongly. The `gguf` package reads and
dequantises; names, row orders, config and tokenizer (`gguf_tokenizer`) are our own work.

What has to be put right on the way:

* Q and K rows of `llama` are interleaved for llama.cpp's rotary order and are put back; not those of `qwen2`.
* A file may carry the embedding and the output matrix of a tied model as two copies of different precision.
  If they agree within quantisation error the model is tied, and the copy with more bits a weight serves both.
* The rows of a padded vocabulary stay in the matrix; they get no token.

Precision. A dequantised weight is a scale (11 bits) times a small integer (4 to 8 bits), so no 16-bit type
holds it exactly. Measured as the KL divergence from the exact float32 model, in nats a token, over 1,000
tokens of Python:

    stored as   SmolLM2-135M   Qwen2.5-Coder-0.5B
    float16     2.7e-6         3.2e-7               the default
    bfloat16    5.2e-5         4.7e-5               for the same disk space
    float32     0              0                    twice the disk space
    (computing in bfloat16 costs 1.3e-3 and 5.5e-4, whichever of the two the weights were stored in)

`config.json` names bfloat16, as the official ones do: the type a model is loaded in unless another is asked
for. Sizes are in bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from numpy.typing import NDArray

from amenable.errors import ModelError
from amenable.policy.gguf_tokenizer import build_tokenizer

CONVERTER_VERSION = 1
"""Raised when the same file would give another folder; a cached folder of an older version is made anew."""

StoredType = Literal["float16", "float32"]
Array = NDArray[Any]

_LAYER_NAMES = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
_BIAS_NAMES = {f"attn_{x}.bias": f"self_attn.{x}_proj.bias" for x in "qkv"}
_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
_BLOCK = 4096
"""Rows dequantised at a time: a float32 copy of the whole embedding would be the largest thing in memory."""
_SAME_MATRIX = 0.5
"""Relative distance under which two matrices are one: 2-bit quantisation gives 0.3, unrelated ones 1.4."""


class _Metadata(dict[str, Any]):
    """The file's metadata, decoded. A missing key is a ModelError; `get` is for those that may be absent."""

    def __init__(self, source: Path, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.source = source

    def __missing__(self, key: str) -> Any:
        raise ModelError(f"{self.source} has no metadata '{key}'", "use a complete GGUF file of the model")


@dataclass(frozen=True)
class _Source:
    """Where a tensor of the folder comes from, and how many heads' rows are interleaved in it (0: none)."""

    tensor: Any
    interleaved_heads: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(size) for size in reversed(self.tensor.shape))

    def values(self, dtype: str, rows: int | None = None) -> Array:
        """The weights (of the first `rows` rows) in Hugging Face's order; too large for `dtype`: infinite."""
        shape = (min(rows or self.shape[0], self.shape[0]), *self.shape[1:])
        values = np.empty(shape, dtype)
        with np.errstate(over="ignore"):
            for start in range(0, shape[0], _BLOCK):
                end = min(start + _BLOCK, shape[0])
                values[start:end] = gguf.dequantize(self.tensor.data[start:end], self.tensor.tensor_type)
        if self.interleaved_heads:
            pairs = values.reshape(self.interleaved_heads, -1, 2, *values.shape[1:])
            values = pairs.swapaxes(1, 2).reshape(values.shape)
        return values


def convert(
    source: Path,
    folder: Path,
    *,
    dtype: StoredType = "float16",
    eos_tokens: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the GGUF file `source` as config, weights, tokenizer and generation config into `folder`.

    `eos_tokens` name further tokens that end a generation, after the file's own. `progress(done, total)` is
    called in bytes written. The memory needed is about twice the largest matrix. Errors: ModelError for a
    file that is no GGUF, is damaged, or holds something not known to convert rightly; OSError is passed on.
    """
    meta, tensors = _read(source)
    architecture = meta["general.architecture"]
    if architecture not in _CLASSES:
        raise ModelError(
            f"{source} has the architecture '{architecture}'; only {', '.join(_CLASSES)} can be converted",
            "load the model from its Hugging Face folder or hub id instead of a GGUF file",
        )
    plan, tied = _plan(tensors, architecture, meta)
    config = _config(meta, architecture, plan, tied=tied)
    tokenizer, tokenizer_config = build_tokenizer(meta, source=source, qwen2=architecture == "qwen2")
    unknown = [token for token in eos_tokens if tokenizer.token_to_id(token) is None]
    if unknown:
        raise ModelError(f"{source} has no token {unknown[0]!r}", "name tokens of this model in eos_tokens")
    ends = [config["eos_token_id"], *(tokenizer.token_to_id(token) for token in eos_tokens)]
    folder.mkdir(parents=True, exist_ok=True)
    _write_weights(plan, folder / "model.safetensors", dtype, progress)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", _generation_config(config, ends))
    _write_json(folder / "tokenizer_config.json", tokenizer_config)


def _read(source: Path) -> tuple[_Metadata, dict[str, Any]]:
    """Metadata and tensors by name. The tensors' data is mapped from the file, not read."""
    try:
        reader = gguf.GGUFReader(source)
        meta = _Metadata(source, {name: field.contents() for name, field in reader.fields.items()})
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise ModelError(f"{source} cannot be read as GGUF: {error}", "fetch the file again") from error
    return meta, {tensor.name: tensor for tensor in reader.tensors}


def _plan(tensors: Mapping[str, Any], architecture: str, meta: _Metadata) -> tuple[dict[str, _Source], bool]:
    """Which tensor of the file gives which of the folder, and whether input and output matrix are tied."""
    heads = int(meta[f"{architecture}.attention.head_count"])
    kv_heads = int(meta.get(f"{architecture}.attention.head_count_kv", heads))
    names = _LAYER_NAMES | (_BIAS_NAMES if architecture == "qwen2" else {})
    wanted = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    for layer in range(int(meta[f"{architecture}.block_count"])):
        wanted |= {f"blk.{layer}.{old}": f"model.layers.{layer}.{new}" for old, new in names.items()}
    missing = sorted(wanted.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - wanted.keys() - {"output.weight"})
    if missing or unknown:
        trouble = f"lacks the tensor '{missing[0]}'" if missing else f"has the unknown tensor '{unknown[0]}'"
        what = f"{meta.source} {trouble}: not a plain {architecture} model"
        raise ModelError(what, "use the model's Hugging Face folder or hub id")
    plan: dict[str, _Source] = {}
    for old, new in wanted.items():
        rotated = {"attn_q.weight": heads, "attn_k.weight": kv_heads}.get(old.split(".", 2)[-1], 0)
        plan[new] = _Source(tensors[old], rotated if architecture == "llama" else 0)
    if "output.weight" not in tensors:
        return plan, True
    embedding, output = plan["model.embed_tokens.weight"], _Source(tensors["output.weight"])
    if not _are_copies(embedding, output):
        return plan | {"lm_head.weight": output}, False
    plan["model.embed_tokens.weight"] = max(embedding, output, key=_bits_a_weight)
    return plan, True


def _bits_a_weight(source: _Source) -> float:
    weights, size = gguf.GGML_QUANT_SIZES[source.tensor.tensor_type]
    return 8.0 * float(size) / float(weights)


def _are_copies(a: _Source, b: _Source, rows: int = 1024) -> bool:
    """True if the first rows of two matrices differ by no more than quantisation error."""
    if a.shape != b.shape:
        return False
    x, y = a.values("<f4", rows), b.values("<f4", rows)
    return bool(np.linalg.norm(x - y) < _SAME_MATRIX * np.linalg.norm(x))


def _config(meta: _Metadata, architecture: str, plan: Mapping[str, _Source], *, tied: bool) -> dict[str, Any]:
    """config.json, in the fields of the official ones."""
    scaling = meta.get(f"{architecture}.rope.scaling.type", "none")
    if scaling != "none":
        raise ModelError(
            f"{meta.source} scales its rotary positions ('{scaling}'), which cannot be converted",
            "use the model's Hugging Face folder",
        )
    of = {key.removeprefix(f"{architecture}."): value for key, value in meta.items()}
    heads = int(of["attention.head_count"])
    config: dict[str, Any] = {
        "architectures": [_CLASSES[architecture]],
        "attention_dropout": 0.0,
        "bos_token_id": meta.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": meta["tokenizer.ggml.eos_token_id"],
        "pad_token_id": meta.get("tokenizer.ggml.padding_token_id"),
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "hidden_size": int(meta[f"{architecture}.embedding_length"]),
        "intermediate_size": int(meta[f"{architecture}.feed_forward_length"]),
        "max_position_embeddings": int(meta[f"{architecture}.context_length"]),
        "model_type": architecture,
        "num_attention_heads": heads,
        "num_hidden_layers": int(of["block_count"]),
        "num_key_value_heads": int(of.get("attention.head_count_kv", heads)),
        "rms_norm_eps": _decimal(meta[f"{architecture}.attention.layer_norm_rms_epsilon"]),
        "rope_theta": _decimal(of.get("rope.freq_base", 10_000.0)),
        "tie_word_embeddings": tied,
        "use_cache": True,
        "vocab_size": plan["model.embed_tokens.weight"].shape[0],
    }
    if "attention.key_length" in of:
        config["head_dim"] = int(of["attention.key_length"])
    return config | ({"attention_bias": False, "mlp_bias": False} if architecture == "llama" else {})


def _decimal(value: float) -> float:
    """A number that went through float32, as it was written: 9.99999974e-06 is 1e-05."""
    return float(str(np.float32(value)))


def _generation_config(config: Mapping[str, Any], ends: Sequence[int]) -> dict[str, Any]:
    """Only the ends. The official ones set temperature, top-p and penalties: another law than the model's."""
    unique = list(dict.fromkeys(ends))
    eos: int | list[int] = unique if len(unique) > 1 else unique[0]
    return {key: config[key] for key in ("bos_token_id", "pad_token_id")} | {"eos_token_id": eos}


def _write_weights(
    plan: Mapping[str, _Source],
    path: Path,
    dtype: StoredType,
    progress: Callable[[int, int], None] | None,
) -> None:
    """The safetensors file, with one tensor in memory at a time.

    The format: the header's length (8 bytes, little-endian), the header (JSON), then all values in order.
    """
    width = 2 if dtype == "float16" else 4
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, source in plan.items():
        start, end = end, end + width * int(np.prod(source.shape))
        kind = "F16" if dtype == "float16" else "F32"
        header[name] = {"dtype": kind, "shape": list(source.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, values in _stored(plan, dtype):
            file.write(values.tobytes())
            if progress:
                progress(header[name]["data_offsets"][1], end)


def _stored(plan: Mapping[str, _Source], dtype: StoredType) -> Iterator[tuple[str, Array]]:
    """Each tensor as it is stored. A value that the type cannot hold is an error, not an infinity."""
    for name, source in plan.items():
        values = source.values("<f2" if dtype == "float16" else "<f4")
        if not np.isfinite(values).all():
            raise ModelError(f"'{name}' has values that are not finite in {dtype}", "convert with dtype='float32'")
        yield name, values


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
