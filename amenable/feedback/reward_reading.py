"""Which tokens of a text a reward model reads.

    h(x) = 1/|R| sum over t in R of h_t        h_t  (D,) the body's hidden state at token t of prompt + answer + end
                                               R    the tokens that are read: all from `start` on

    reads="last"      R = the last token, which is the end
    reads="answer"    R = the answer's tokens and the end, so that an empty answer has one token too

A token is the answer's if it ends behind the prompt: one that holds the prompt's last character and the answer's first counts.
A linear head on a mean of states is the mean of a number a token, w . h(x) = mean of w . h_t: so a text's reward is the mean
of what each token is worth, and a token classifier of one label holds the whole model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn.utils.rnn import pad_sequence

from amenable.policy.forward import states_from, written_down

Reads = Literal["last", "answer"]
READS: tuple[Reads, ...] = ("last", "answer")


@dataclass(frozen=True)
class Encoded:
    """A whole text as token ids, its end included."""

    ids: list[int]
    start: int
    """The first token that is read."""
    prompt: int = 0
    """How many of the first tokens hold nothing of the answer."""

    def __len__(self) -> int:
        return len(self.ids)


def encode(tokenizer: Any, prompt: str, completion: str, *, end: int | None, reads: Reads) -> Encoded:
    """prompt + completion as one text, and token `end` behind it, unless it stands there already (None: nothing).

    reads="answer" needs a tokenizer that knows where in the text its tokens stand (a fast one).
    """
    found = tokenizer(prompt + completion, verbose=False, return_offsets_mapping=tokenizer.is_fast)
    ids = list(found["input_ids"])
    ends = [last for _, last in found["offset_mapping"]] if tokenizer.is_fast else []
    answer = next((place for place, last in enumerate(ends) if last > len(prompt)), len(ends))
    if end is not None and ids[-1:] != [end]:
        ids.append(end)
    last = max(0, len(ids) - 1)
    start = min(answer, last) if reads == "answer" else last
    return Encoded(ids, start, min(answer, start))


def by_prompt(texts: Sequence[Encoded]) -> list[int]:
    """Their places, those of one prompt side by side, prompts in the order of their longest text, within one shortest first."""
    prompts = [tuple(text.ids[: text.prompt]) for text in texts]
    longest: dict[tuple[int, ...], int] = {}
    for prompt, text in zip(prompts, texts, strict=True):
        longest[prompt] = max(len(text), longest.get(prompt, 0))
    return sorted(range(len(texts)), key=lambda row: (longest[prompts[row]], prompts[row], len(texts[row])))


def reads_once(model: Any) -> bool:
    """Whether `states_read` reads a shared prompt once: the same states to rounding, which in bfloat16 is another one."""
    return written_down(model, (torch.float32, torch.bfloat16))


def states_read(model: Any, texts: Sequence[Encoded]) -> list[torch.Tensor]:
    """Of each text the states of the tokens that are read, (T, D) float32, by the body of the classifier `model`.

    Where the forward is written down (`policy.forward`), the prompts that the texts share are read once. Elsewhere padding
    stands behind a text, where nothing that counts can see it: no mask is needed.
    """
    if reads_once(model):
        prompts = [text.ids[: text.prompt] for text in texts]
        answers = [text.ids[text.prompt :] for text in texts]
        return states_from(model, prompts, answers, [text.start for text in texts])
    ids = pad_sequence([torch.tensor(text.ids) for text in texts], batch_first=True).to(model.device)
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return [row[text.start : len(text)].float() for row, text in zip(hidden, texts, strict=True)]
