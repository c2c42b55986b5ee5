"""Small real models over bytes, built in no time, for tests that need any causal model."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config

from amenable.policy.causal_lm import CausalLM


def byte_tokenizer(pad_is_eos: bool = True) -> PreTrainedTokenizerFast:
    """One token a byte, and <eos> = 256; pad is eos unless asked otherwise."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<eos>", "<pad>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<eos>", pad_token="<eos>" if pad_is_eos else "<pad>"
    )


CONFIGS = {
    "llama": lambda: LlamaConfig(
        vocab_size=258, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True,
    ),
    "qwen2": lambda: Qwen2Config(
        vocab_size=258, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, max_position_embeddings=256,
    ),
    "gpt2": lambda: GPT2Config(vocab_size=258, n_embd=32, n_layer=2, n_head=4, n_positions=256),
}  # fmt: skip


def tiny_policy(kind: str = "llama", *, scale: float = 6.0, pad_is_eos: bool = True, seed: int = 0) -> CausalLM:
    """A random two-layer model over bytes. `scale` sharpens its output law, so that a wrong law is easy to see."""
    torch.manual_seed(seed)
    config = CONFIGS[kind]()
    config.eos_token_id, config.pad_token_id, config.bos_token_id = 256, 256 if pad_is_eos else 257, None
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
    return CausalLM(model, byte_tokenizer(pad_is_eos), name=f"tiny-{kind}")
