"""A small causal model that knows nothing yet: a tokenizer learnt from texts, and random weights of Llama's shape.

    tokenizer   byte-level BPE (Sennrich et al. 2016, arXiv 1508.07909), merges learnt from the texts; any text round-trips
    model       Llama (Touvron et al. 2023, arXiv 2302.13971), input and output embeddings tied

One special token, <eos>, begins a prompt, ends a text and pads: a text is drawn in the context "", which is <eos> alone. What
stands in a text is never taken for it. No token reaches over the end of a line, so a text that is cut behind a newline has the
same tokens alone as at the beginning of the whole: a model of whole texts is a model of their continuations.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from amenable.errors import ConfigError
from amenable.policy.causal_lm import CausalLM
from amenable.seeding import derive

EOS = "<eos>"
SMALLEST = 257  # every byte, and <eos>

# GPT-2's pieces, but for code: a name is one piece with its underscores, and a newline ends every piece
PIECES = r" ?[\p{L}_]+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}_]+\n?|\n|[^\S\n]+(?!\S)|[^\S\n]"


def from_scratch(
    texts: Iterable[str],
    *,
    vocabulary: int = 2048,
    width: int = 256,
    layers: int = 4,
    heads: int = 4,
    context: int = 256,
    seed: int = 0,
    name: str = "from scratch",
    rows: int = 128,
) -> CausalLM:
    """An untrained policy over at most `vocabulary` tokens, with float32 weights that `seed` decides.

    `width` of the residual stream, `context` in tokens. Parameters: vocabulary * width + layers * about 12 * width^2.
    Errors: ConfigError if the sizes do not fit together.
    """
    if width % (2 * heads) or width < 2 * heads:
        raise ConfigError(
            f"width={width} cannot be shared by {heads} heads: each needs an even number of dimensions",
            f"use a multiple of {2 * heads}",
        )
    tokenizer = learnt_tokenizer(texts, vocabulary)
    eos = tokenizer.eos_token_id
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=64 * -(-8 * width // (3 * 64)),
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads,
        max_position_embeddings=context, tie_word_embeddings=True, bos_token_id=eos, eos_token_id=eos,
        pad_token_id=None,  # its embedding would get no gradient, and it is the first token of every text
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        model = LlamaForCausalLM(config)
    model = model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return CausalLM(model, tokenizer, name=name, rows=rows)


def learnt_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer of at most `vocabulary` tokens (fewer where the texts have no more pairs to merge).

    Errors: ConfigError if there is no room for every byte and <eos>.
    """
    if vocabulary < SMALLEST:
        raise ConfigError(
            f"vocabulary={vocabulary} has no room for every byte and {EOS}", f"use {SMALLEST} at least, such as 2048"
        )
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single=f"{EOS} $A", special_tokens=[(EOS, inner.token_to_id(EOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=EOS, eos_token=EOS, pad_token=EOS,
        split_special_tokens=True, clean_up_tokenization_spaces=False,
    )  # fmt: skip
