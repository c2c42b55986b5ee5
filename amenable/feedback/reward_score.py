"""What a reward model says of a text: one number, of its last token or of the answer's tokens.

    score(x) = w . h(x) - mean        h(x)  the body's hidden state, of the last token or the mean of the answer's tokens, (D,)
                                      w     the head, (D,), float32 whatever the body is
                                      mean  of w . h on the training pairs, so that their scores average 0; no unit

Only reading: how a reward model is made, copied, trained and kept is `reward_model`; which tokens are read, `reward_reading`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch.nn import functional

from amenable.errors import ConfigError, DataError, FeedbackError, ModelError
from amenable.feedback.reward_reading import Encoded, Reads, by_prompt, encode, reads_once, states_read

ROWS = 16  # texts read at once, of one prompt or of similar length


class RewardScore:
    """A `kinds.Score`: `model(prompts, completions)` gives one number a completion, higher is better, and no unit.

    `model` is a causal classifier of one label, of sequences if `reads` is "last", of tokens if "answer"; `end` is the token
    appended to every text (None: none).
    A text of more than `max_tokens` tokens (None: what the model can see) is a DataError, or has no score if
    too_long="missing"; nothing is ever cut.
    """

    binary = False

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        mean: float = 0.0,
        end: int | None = None,
        reads: Reads = "last",
        max_tokens: int | None = None,
        too_long: Literal["error", "missing"] = "error",
        rows: int = ROWS,
    ) -> None:
        if too_long not in ("error", "missing"):
            raise ConfigError(f"too_long={too_long!r} is not known.", "use error or missing; nothing is cut.")
        if reads == "answer" and not tokenizer.is_fast:
            raise ModelError(
                f"{name}: its tokenizer does not say where in the text its tokens stand, so an answer's cannot be told",
                "use reads=last, or a body with a tokenizer.json",
            )
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        self.mean, self.end, self.reads, self.too_long, self.rows = mean, end, reads, too_long, rows
        self.max_tokens: int | None = max_tokens or getattr(model.config, "max_position_embeddings", None)

    # --- a score
    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: object) -> list[float | None]:
        """One number a completion, None for a text that is too long, if that is allowed.

        Errors: DataError for a text that is too long, FeedbackError for a score that is not a number.
        """
        if len(prompts) != len(completions):
            raise DataError(
                f"{self.name}: {len(prompts)} prompts for {len(completions)} completions.",
                "give one prompt a completion.",
            )
        texts = [self.encode(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        fitting = [row for row, text in enumerate(texts) if self._fits(row, text)]
        scores: list[float | None] = [None] * len(texts)
        with torch.no_grad():
            found = self._head(self.features([texts[row] for row in fitting]).to(self.device)).tolist()
        for row, value in zip(fitting, found, strict=True):
            if not math.isfinite(value):
                raise FeedbackError(f"{self.name} of sample {row} is {value}.", "check the model's weights.")
            scores[row] = value - self.mean
        return scores

    def encode(self, prompt: str, completion: str) -> Encoded:
        """The text as tokens, its end included, and where reading begins."""
        return encode(self.tokenizer, prompt, completion, end=self.end, reads=self.reads)

    def rewards(self, texts: Sequence[Encoded]) -> torch.Tensor:
        """w . h of encoded texts as one batch: (N,) float32, not centred, with gradient if trainable.

        Errors: DataError for a text that is too long.
        """
        for row, text in enumerate(texts):
            self._check(row, text)
        return self._head(self._means(texts))

    @torch.no_grad()
    def features(self, texts: Sequence[Encoded], progress: Callable[[int, int], None] | None = None) -> torch.Tensor:
        """h of encoded texts, in their order: (N, D) float32 on the CPU, without gradient. Errors: DataError for a long one."""
        for row, text in enumerate(texts):
            self._check(row, text)
        found = torch.zeros(len(texts), self.weight.shape[-1])
        order = by_prompt(texts)
        for start in range(0, len(order), self.rows):
            chosen = order[start : start + self.rows]
            found[chosen] = self._means([texts[row] for row in chosen]).cpu()
            if progress is not None:
                progress(start + len(chosen), len(order))
        return found

    @torch.no_grad()
    def per_token(self, prompt: str, completion: str) -> list[tuple[str, float]]:
        """The tokens that are read and what each is worth, w . h_t - mean: the score is the mean of these numbers.

        Errors: DataError for a text that is too long.
        """
        text = self.encode(prompt, completion)
        self._check(0, text)
        worth = self._head(states_read(self.model, [text])[0]) - self.mean
        return list(zip(map(self.tokenizer.decode, text.ids[text.start :]), worth.tolist(), strict=True))

    # --- facts
    @property
    def device(self) -> torch.device:
        found: torch.device = self.weight.device
        return found

    @property
    def weight(self) -> torch.nn.Parameter:
        """The head, (1, D)."""
        found: Any = self._linear.weight
        assert isinstance(found, torch.nn.Parameter)
        return found

    def fingerprint(self) -> str:
        """A hash of the body: its weights, and how they are computed. Features of one fingerprint are the same."""
        digest = hashlib.sha256(b"prompts once" if reads_once(self.model) else b"")
        for name, value in sorted(self.model.base_model.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    # --- inside
    @property
    def _linear(self) -> torch.nn.Linear:
        found: torch.nn.Linear = getattr(self.model, head_name(self.model))
        return found

    def _means(self, texts: Sequence[Encoded]) -> torch.Tensor:
        """h (N, D) float32."""
        return torch.stack([states.mean(0) for states in states_read(self.model, texts)])

    def _head(self, states: torch.Tensor) -> torch.Tensor:
        bias = self._linear.bias
        with torch.autocast(states.device.type, enabled=False):
            return functional.linear(states, self.weight.float(), None if bias is None else bias.float()).squeeze(1)

    def _fits(self, row: int, text: Encoded) -> bool:
        if self.too_long == "missing" and self.max_tokens is not None and len(text) > self.max_tokens:
            return False
        self._check(row, text)
        return True

    def _check(self, row: int, text: Encoded) -> None:
        if not len(text):
            raise DataError(f"{self.name}: sample {row} has no token.", "leave out empty texts.")
        if self.max_tokens is not None and len(text) > self.max_tokens:
            raise DataError(
                f"{self.name}: sample {row} has {len(text)} tokens, and the reward model sees {self.max_tokens}.",
                'shorten it, or use too_long="missing", which leaves it without a score; nothing is cut.',
            )


def head_name(model: Any) -> str:
    """The name of the head in its classifier: "score", or "classifier" (as GPT-2's token classifier has it); "" for none."""
    return next(
        (name for name in ("score", "classifier") if isinstance(getattr(model, name, None), torch.nn.Linear)), ""
    )
