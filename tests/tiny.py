"""Small real models over bytes, built in no time, for tests that need any causal or encoder-decoder model."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    T5Config,
)

from amenable.policy.causal_lm import CausalLM
from amenable.policy.seq2seq import Seq2Seq


def byte_tokenizer(pad_is_eos: bool = True, letters: str = "") -> PreTrainedTokenizerFast:
    """One token a byte (or one of `letters`), and <eos> = 256 (their number); pad is eos unless asked otherwise."""
    alphabet = letters or sorted(pre_tokenizers.ByteLevel.alphabet())
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


def tiny_policy(
    kind: str = "llama", *, scale: float = 6.0, pad_is_eos: bool = True, seed: int = 0, context: int = 0
) -> CausalLM:
    """A random two-layer model over bytes. `scale` sharpens its output law, so that a wrong law is easy to see.

    context: positions, where the kind's own 256 or so are too few.
    """
    torch.manual_seed(seed)
    config = CONFIGS[kind]()
    config.max_position_embeddings = context or config.max_position_embeddings
    config.eos_token_id, config.pad_token_id, config.bos_token_id = 256, 256 if pad_is_eos else 257, None
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
    return CausalLM(model, byte_tokenizer(pad_is_eos), name=f"tiny-{kind}")


def tiny_seq2seq(
    kind: str = "t5", *, scale: float = 2.0, pad_is_eos: bool = False, letters: str = "", seed: int = 0
) -> Seq2Seq:
    """A random two-layer "t5" or "bart" over bytes (or `letters`); texts are closed, and BART's opened, as the real ones'.

    T5 starts its decoder with pad, BART with eos. T5's positions have no end, BART's end at 128.
    """
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer(pad_is_eos, letters)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    eos, pad, bos = tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id
    template = {"t5": "$A <eos>", "bart": "<s> $A <eos>"}[kind]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<eos>", eos), ("<s>", bos)]
    )
    special = {"vocab_size": bos + 1, "eos_token_id": eos, "pad_token_id": pad, "bos_token_id": bos}
    if kind == "t5":
        config = T5Config(
            d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=pad, dropout_rate=0.5, **special
        )  # fmt: skip
    else:
        config = BartConfig(
            d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=64, decoder_ffn_dim=64, dropout=0.5,
            encoder_attention_heads=4, decoder_attention_heads=4, max_position_embeddings=128, init_std=0.15,
            decoder_start_token_id=eos, **special,
        )  # fmt: skip
    model = AutoModelForSeq2SeqLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
    return Seq2Seq(model, tokenizer, name=f"tiny-{kind}")
