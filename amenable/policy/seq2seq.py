"""A Hugging Face encoder-decoder model (T5, BART and their kin) as a policy: the context is the encoder's source.

    log pi(y | c) = sum_t log softmax(l_t)[y_t]        l_t: the decoder's logits after prefix, y_1 .. y_t-1, reading enc(c)

    letter   name      shape     what it is
    c        source    (S,)      token ids that the encoder reads, closed as its tokenizer closes them; never scored
    enc(c)   memory    (S, D)    the encoder's output: made once for a source, shared by all of its samples
    -        prefix    (P,)      what the decoder is given to begin with: decoder_start, then forced_bos if the model has one
    y        tokens    (L,)      sampled: all up to and including the first EOS are scored, nothing after

Pad may equal eos or decoder_start, and may be sampled: padding is known by position. (M2M100 alone counts its decoder's
positions by pad id; its law is consistent as long as pad is neither given nor sampled, as in the released models.)
`transformers` draws forced_bos (a language code in mBART and NLLB) with probability 1, so it is given here, not sampled.
Its other generation settings (forced_eos, length penalty, n-gram bans) make another law than the model's and are not used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

import torch

from amenable.errors import ModelError, SamplingError
from amenable.policy.encoder_decoder import draw_all, prefix_features, token_log_probs
from amenable.policy.engine import Drawn
from amenable.policy.language_model import UNBOUNDED, LanguageModel
from amenable.records import Samples

# model_type -> why what is sampled from it would not be what is scored
UNSUITED = {
    "fsmt": "its decoder must be given all tokens again at every step, and places them by pad id",
    "prophetnet": "its decoder reads several streams of tokens at once, one sequence at a time",
    "switch_transformers": "its experts have a bounded capacity, so a token's probability depends on what stands beside it",
    "nllb-moe": "its experts have a bounded capacity, so a token's probability depends on what stands beside it",
}


class Seq2Seq(LanguageModel):
    """`transformers` encoder-decoder model + tokenizer. Build with `load_policy`; the attributes are public and plain."""

    adapter_task = "SEQ_2_SEQ_LM"

    def __init__(self, model: Any, tokenizer: Any, *, name: str, rows: int = 64) -> None:
        super().__init__(model, tokenizer, name=name, rows=rows)
        why = UNSUITED.get(model.config.model_type)
        if why is not None:
            raise ModelError(
                f"{name} has no one law to sample and score: {why}", "use a T5, BART, Marian or Pegasus model"
            )
        self.prefix = _prefix(model, name)
        self.max_length = _positions(model.config, "encoder")
        self.max_target = _positions(model.config, "decoder")
        self.opening = self._opening()

    def encode(self, text: str) -> list[int]:
        """Token ids of a source, with the special tokens around it that the encoder was trained on."""
        return list(self.tokenizer(text)["input_ids"]) or self.eos_ids[:1]

    def encode_completion(self, text: str, *, eos: bool = True) -> list[int]:
        """Token ids of a completion, as training needs it: opened as the decoder was trained, with the EOS that ends it."""
        content = self.tokenizer(text_target=text, add_special_tokens=False)["input_ids"]
        return [*self.opening, *content, *self.eos_ids[: int(eos)]]

    def log_prob(self, samples: Samples) -> torch.Tensor:
        """log pi(token | source, tokens before), (N, L) float32 nats, 0 at padding; carries gradient if trainable."""
        self._check_lengths(samples.context_ids, int(samples.lengths.max()) if len(samples) else 0)
        return token_log_probs(self.model, self.prefix, samples.context_ids, samples.tokens, samples.lengths)

    @torch.no_grad()
    def prefix_features(self, samples: Samples) -> torch.Tensor:
        """As `LanguageModel`, of the decoder; all samples in one forward."""
        self._check_lengths(samples.context_ids, int(samples.lengths.max()) if len(samples) else 0)
        return prefix_features(self.model, self.prefix, samples.context_ids, samples.tokens, samples.lengths)

    # --- inside
    def _opening(self) -> list[int]:
        """What the tokenizer puts in front of every completion (BART's <s>), unless the decoder is given it already."""
        closed = self.tokenizer(text_target="")["input_ids"]
        specials = [token for token in closed if token in self.tokenizer.all_special_ids]
        opening = list(takewhile(lambda token: token not in self.eos_ids, specials))
        return [] if opening == self.prefix[-len(opening) :] else opening

    def _draw(self, contexts: Sequence[Sequence[int]], **settings: Any) -> Drawn:
        return draw_all(self.model, self.prefix, contexts, **settings)

    def _check_lengths(self, contexts: Sequence[Sequence[int]], new_tokens: int) -> None:
        longest = max((len(source) for source in contexts), default=0)
        if longest > self.max_length:
            index = next(i for i, source in enumerate(contexts) if len(source) == longest)
            raise SamplingError(
                f"source {index} has {longest} tokens, more than the {self.max_length} that the encoder of {self.name} reads",
                "shorten the source, or use a model with a longer context; nothing is cut silently",
            )
        most = self.max_target - len(self.prefix) + 1  # the last sampled token is not read
        if new_tokens > most:
            raise SamplingError(
                f"{new_tokens} new tokens are more than the {most} that the decoder of {self.name} can write",
                "lower max_tokens, or use a model with a longer context; nothing is cut silently",
            )


def _prefix(model: Any, name: str) -> list[int]:
    """The tokens that the decoder is given: where it starts, and the one that is forced upon it, if any."""
    start, bos, forced = (
        next((int(value) for value in _configured(model, key) if isinstance(value, int)), None)
        for key in ("decoder_start_token_id", "bos_token_id", "forced_bos_token_id")
    )
    first = start if start is not None else bos
    if first is None:
        raise ModelError(
            f"{name} does not say which token its decoder starts with",
            "set decoder_start_token_id in its generation_config.json",
        )
    return [first, *([forced] if forced is not None else [])]


def _configured(model: Any, key: str) -> Iterator[Any]:
    """`key` in the generation settings and in the configuration, in the order in which `generate` looks."""
    yield from (getattr(place, key, None) for place in (getattr(model, "generation_config", None), model.config))


def _positions(config: Any, part: str) -> int:
    """How many tokens the "encoder" or "decoder" has positions for; relative positions (T5) have no end."""
    half = getattr(config, part, None)
    limits = (
        getattr(config, f"max_{part}_position_embeddings", None),
        getattr(half, "max_position_embeddings", None),
        getattr(config, "max_position_embeddings", None),
    )
    return next((int(limit) for limit in limits if limit), UNBOUNDED)
