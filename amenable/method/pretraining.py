"""Pretraining with human feedback: imitation of a scored corpus, with a weight, a control token or a sign for each token.

    target    the corpus, tilted by its segments' scores        proposal   the corpus itself (offline)
    loss      one of six (`objective.pretraining`), a mean over all tokens of the step

A step takes `batch_tokens` tokens of the stream (`corpus`) in rows of `length`, the next row of each of as many places in it,
so that a step has rows of many documents. Objectives are compared at equal tokens, control tokens counted, never at equal
steps. With `switch_at` > 0 the share of the steps before it is plain MLE: the fine-tuning arm. At the switch an objective goes
on in the order of the documents where MLE was, on its own data.

Source: Korbak et al. 2023, arXiv 2302.08582.
Changed from the paper: which segments go without a control token is drawn once, not in every pass; the two control tokens'
embeddings are there, not yet used, before a switch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch

from amenable.errors import ConfigError, DataError
from amenable.method.corpus import Stream, Tokens, order_of, stream_of
from amenable.method.protocol import Loss
from amenable.objective.pretraining import (
    Objective,
    reward_weights,
    rewards_of,
    unlikelihood,
    value_error,
    values_of,
)
from amenable.sampling.proposal import State

MLE = Objective("mle")


class Learner(Protocol):
    """A policy that learns from packed rows: `policy.packed.PackedLM`."""

    def packed_log_probs(self, ids: torch.Tensor) -> torch.Tensor: ...
    def packed_likelihood(self, ids: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]: ...
    def packed_regression(
        self,
        ids: torch.Tensor,
        values_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        weights_of: Callable[[torch.Tensor], torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]: ...


@cache
def lanes(rows: int, width: int) -> Any:
    """The order (rows,) int64 in which the rows of a pass are read: `width` readers side by side, each through its own part.

    A long document would fill a step, and the next, if rows were read as they stand.
    """
    side_by_side = np.arange(-(-rows // width) * width).reshape(width, -1).T.ravel()
    return side_by_side[side_by_side < rows]


class Pretraining:
    """`tokens` predictions of `corpus` under `objective`, in steps of `batch_tokens` (both to whole rows of `length`).

    eos, opening   the token that ends a document, and what begins one (`corpus.stream_of`)
    controls       the ids of <|good|> and <|bad|>, for conditional training
    positions      tokens of one micro-batch (memory); does not change the result beyond rounding
    Errors: ConfigError for sizes that cannot be; DataError if the documents are less than one row.
    """

    def __init__(
        self,
        corpus: Tokens,
        objective: Objective,
        *,
        eos: int,
        tokens: int,
        opening: Sequence[int] = (),
        controls: tuple[int, int] | None = None,
        batch_tokens: int = 8192,
        length: int = 256,
        switch_at: float = 0.0,
        positions: int = 4096,
        seed: int = 0,
    ) -> None:
        if objective.name == "conditional" and controls is None:
            raise ConfigError("conditional training without control tokens", "add them first: policy.control")
        if not (0 <= switch_at < 1 and length >= 1 and batch_tokens >= length and tokens >= length):
            raise ConfigError(
                f"switch_at={switch_at:g}, length={length}, batch_tokens={batch_tokens}, tokens={tokens}",
                "use 0 <= switch_at < 1 and length <= batch_tokens <= tokens",
            )
        self.corpus, self.objective, self.controls = corpus, objective, controls
        self.eos, self.opening, self.seed = eos, tuple(opening), seed
        self.length, self.rows = length, batch_tokens // length
        self.steps = max(1, round(tokens / (self.rows * length)))
        self.switch = round(switch_at * self.steps)
        self.micro_rows = max(1, positions // length)
        self._streams: dict[tuple[bool, int], Stream] = {}
        self._passes: dict[bool, int] = {}
        what = [
            "lanes", corpus.fingerprint, asdict(objective), eos, self.opening, controls, batch_tokens, length, switch_at, seed,
        ]  # fmt: skip
        self.identity = hashlib.sha256(json.dumps(what).encode()).hexdigest()
        for own in (False, True) if self.switch else (True,):
            self.rows_of_a_pass(own)

    @property
    def tokens(self) -> int:
        """How many tokens are predicted in the whole training."""
        return self.steps * self.rows * self.length

    def rows_of_a_pass(self, own: bool = True) -> int:
        """Rows of one pass over the documents of the objective (`own`), or of the MLE before the switch."""
        if own not in self._passes:
            self._passes[own] = self._stream(own, 0).rows(self.length)
            if not self._passes[own]:
                raise DataError(
                    f"the documents for objective={self.objective.name} are less than one row of {self.length} tokens",
                    "give a larger corpus, a smaller length, or a higher threshold",
                )
        return self._passes[own]

    def passes(self) -> float:
        """How often the objective's documents are seen in its share of the steps."""
        return (self.steps - self.switch) * self.rows / self.rows_of_a_pass()

    def objective_at(self, step: int) -> Objective:
        """MLE before the switch."""
        return MLE if step < self.switch else self.objective

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """ids (B, T + 1) int64; of the T predicted tokens: scores (B, T) float64, and which are control tokens (B, T)."""
        own = step >= self.switch
        first = (step - self.switch if own else step) * self.rows
        if own and self.switch:  # where MLE was, in documents
            first += round(self.switch * self.rows / self.rows_of_a_pass(False) * self.rows_of_a_pass(True))
        a_pass, parts = self.rows_of_a_pass(own), []
        for row in range(first, first + self.rows):
            epoch, at = divmod(row, a_pass)
            place = int(lanes(a_pass, self.rows)[at])
            parts.append((self._stream(own, epoch), slice(place * self.length, (place + 1) * self.length + 1)))
        ids, scores, control = (
            torch.stack([torch.from_numpy(getattr(stream, name)[part].copy()) for stream, part in parts])
            for name in ("ids", "scores", "control")
        )
        return ids, scores[:, 1:], control[:, 1:]

    def losses(self, policy: Learner, step: int) -> Iterator[Loss]:
        objective, (ids, scores, control) = self.objective_at(step), self.batch(step)
        for first in range(0, len(ids), self.micro_rows):
            part = slice(first, first + self.micro_rows)
            yield self._loss(policy, objective, ids[part], scores[part], control[part])

    def _loss(
        self, policy: Learner, objective: Objective, ids: torch.Tensor, scores: torch.Tensor, control: torch.Tensor
    ) -> Loss:
        tokens = self.rows * self.length
        rewards = rewards_of(scores, scale=objective.scale).float()
        said: dict[str, float] = {}
        if objective.name == "unlikelihood":
            assert objective.threshold is not None
            log_probs = policy.packed_log_probs(ids)
            value = unlikelihood(
                log_probs, scores.to(log_probs.device), threshold=objective.threshold, alpha=objective.alpha,
                tokens=tokens,
            )  # fmt: skip
            log_probs = log_probs.detach()
        elif self.objective.name == "awr":
            # before a switch too: the value head's gradient is 0 then, not none, and every checkpoint has its moments
            regressing = objective.name == "awr"
            share = objective.alpha if regressing else 1.0

            def weights_of(values: torch.Tensor) -> torch.Tensor:
                if not regressing:
                    return torch.full_like(values, -1 / tokens)
                found = reward_weights(rewards.to(values.device), beta=objective.beta, values=values)
                said["weight"] = float(found.sum()) / tokens
                return found * (-share / tokens)

            value, log_probs, values = policy.packed_regression(ids, values_of, weights_of)
            error = value_error(rewards.to(values.device), values, tokens=tokens)
            said["value_error"] = float(error.detach())
            value = value + (1 - share) * error
        else:
            weights = torch.ones_like(rewards)
            if objective.name == "rwr":
                weights = reward_weights(rewards, beta=objective.beta)
                said["weight"] = float(weights.sum()) / tokens
            value, log_probs = policy.packed_likelihood(ids, -weights / tokens)
        log_probs = log_probs.cpu().double()
        return Loss(
            value,
            {
                "loss": float(value.detach()), **said,
                "nats": -float(log_probs.sum()) / tokens,
                "control_nats": -float(log_probs[control].sum()) / tokens,
                "control": float(control.sum()) / tokens,
                "known": float((~scores.isnan()).sum()) / tokens,
                "tokens": float(control.numel()),
            },
        )  # fmt: skip

    def _stream(self, own: bool, epoch: int) -> Stream:
        """The stream of a pass; the last two of each kind are kept."""
        if (own, epoch) not in self._streams:
            objective = self.objective if own else MLE
            at_most = objective.threshold if objective.name == "filtering" else None
            order = order_of(self.corpus, seed=self.seed, epoch=epoch, at_most=at_most)
            conditional = objective.name == "conditional"
            made = stream_of(
                self.corpus, order, eos=self.eos, opening=self.opening, controls=self.controls if conditional else None,
                threshold=objective.threshold or 0.0, drop=objective.drop, seed=self.seed,
            )  # fmt: skip
            self._streams = {key: kept for key, kept in self._streams.items() if key[1] >= epoch - 1}
            self._streams[own, epoch] = made
        return self._streams[own, epoch]

    def state(self) -> State:
        """Nothing: a step depends on its number alone."""
        return State()

    def restore(self, policy: Any, state: State) -> None:
        """Nothing to put back."""
