"""Small GGUF files of random models, written as llama.cpp's converter writes them, for the tests of ours.

Nothing here uses our converter: names and rotary order are llama.cpp's, written down a second time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Q
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen2Config

CORPUS = ["def is_even(n):\n    return n % 2 == 0\n", "for i in range(10):\n\tprint(i, 2024)\n"] * 20
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
HEADS, KV_HEADS = 4, 2


@dataclass
class Words:
    """A vocabulary in GGUF's form; kinds are 1 plain, 3 control, 4 user's, 5 unused."""

    pre: str
    tokens: list[str] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)


def words(pre: str) -> Words:
    """A BPE learned from a few lines; special tokens first (smollm), or last with padding (qwen2)."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    )
    learned = sorted(learner.get_vocab(), key=learner.get_vocab().__getitem__)
    merges = _merges(learner)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    if pre == "smollm":
        return Words(pre, special + learned, [3] * 3 + [1] * len(learned), merges)
    more, padding = ["<tool_call>", "<|fim_prefix|>"], ["[PAD1]", "[PAD2]", "[PAD3]"]
    kinds = [1] * len(learned) + [3, 3, 3, 4, 3, 5, 5, 5]
    return Words(pre, learned + special + more + padding, kinds, merges)


def _merges(learner: Tokenizer) -> list[str]:
    return [" ".join(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]


def random_model(architecture: str, vocabulary: Words, *, tied: bool = True) -> PreTrainedModel:
    """Two layers, grouped heads, no default rotary base or epsilon, biases that are not 0."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": len(vocabulary.tokens),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": tied,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e4},
    }
    config = {"llama": LlamaConfig, "qwen2": Qwen2Config}[architecture](**sizes)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.2 if parameter.dim() > 1 else 0.5))
    return model


def write(
    path: Path,
    architecture: str,
    model: PreTrainedModel,
    vocabulary: Words,
    *,
    kind: Q = Q.F32,
    metadata: dict[str, Any] | None = None,
    tensors: dict[str, tuple[np.ndarray, Q] | None] | None = None,
) -> None:
    """Write the file; matrices as `kind`. `tensors` adds or (None) removes tensors, `metadata` strings."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(5e4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    writer.add_token_merges(vocabulary.merges)
    id_of = vocabulary.tokens.index
    writer.add_bos_token_id(id_of("<|im_start|>"))
    writer.add_eos_token_id(id_of("<|im_end|>"))
    writer.add_pad_token_id(id_of("<|im_end|>" if vocabulary.pre == "smollm" else "<|endoftext|>"))
    writer.add_chat_template(TEMPLATE)
    for key, value in (metadata or {}).items():
        writer.add_string(key, value)
    all_tensors: dict[str, tuple[np.ndarray, Q] | None] = {}
    for name, values in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        array = rotary_order(values.numpy(), gguf_name(name)) if architecture == "llama" else values.numpy()
        all_tensors[gguf_name(name)] = (array, kind if values.dim() > 1 else Q.F32)
    for name, tensor in (all_tensors | (tensors or {})).items():
        if tensor is not None:
            writer.add_tensor(name, gguf.quants.quantize(*tensor), raw_dtype=tensor[1])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_name(name: str) -> str:
    """llama.cpp's name of a weight."""
    if name in NAMES:
        return NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    module, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[module]}.{kind}"


def rotary_order(values: np.ndarray, name: str) -> np.ndarray:
    """llama.cpp's order of rotary rows: the halves of each head are interleaved."""
    for suffix, heads in (("attn_q.weight", HEADS), ("attn_k.weight", KV_HEADS)):
        if name.endswith(suffix):
            halves = values.reshape(heads, 2, -1, values.shape[-1])
            return np.ascontiguousarray(halves.transpose(0, 2, 1, 3)).reshape(values.shape)
    return np.ascontiguousarray(values)


def quantised(model: PreTrainedModel, kind: Q) -> PreTrainedModel:
    """The model with every matrix rounded to what the file can hold."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                rounded = gguf.dequantize(gguf.quants.quantize(parameter.numpy(), kind), kind)
                parameter.copy_(torch.from_numpy(rounded))
    return model
