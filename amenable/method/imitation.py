"""Imitation: raise the likelihood of given completions. The method behind ILF's last step, fine-tuning and filtering.

    target    the examples, each with its weight        proposal   the examples themselves (offline)
    divergence    forward KL, whose gradient is that of the (weighted) log-likelihood

Each epoch visits every example once in an order of its own; the prompt is not trained on; the first EOS is, where
the sample ended with one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from amenable.errors import TrainingError
from amenable.method.protocol import Loss
from amenable.policy.scoring import length_groups
from amenable.records import as_samples
from amenable.sampling.proposal import State
from amenable.seeding import python_random


@dataclass(frozen=True)
class Example:
    """A completion to imitate in its context. `eos`: the end-of-text token follows it, and is imitated too."""

    prompt: str
    completion: str
    weight: float = 1.0
    eos: bool = True


class Imitation:
    """Weighted likelihood over `examples`: `epochs` passes in batches of at most `batch_size`, all of nearly equal size.

    `positions` bounds the padded tokens of one micro-batch (memory), and does not change the result beyond rounding.
    """

    def __init__(
        self, examples: Sequence[Example], *, epochs: int, batch_size: int, seed: int, positions: int = 2048
    ) -> None:
        if not examples:
            raise TrainingError(
                "there is nothing to imitate: 0 examples",
                "accept at least one: draw more samples a task, use easier tasks, or a stronger model",
            )
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.positions = positions
        self.batches_per_epoch = -(-len(examples) // batch_size)
        self.steps = epochs * self.batches_per_epoch
        what = [[e.prompt, e.completion, e.weight, e.eos] for e in examples], epochs, batch_size, seed
        self.identity = hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def batch(self, step: int) -> list[Example]:
        """The examples of optimiser step `step`."""
        epoch, place = divmod(step, self.batches_per_epoch)
        order = list(range(len(self.examples)))
        python_random(self.seed, "epoch", epoch).shuffle(order)
        first, last = (len(order) * part // self.batches_per_epoch for part in (place, place + 1))
        return [self.examples[i] for i in order[first:last]]

    def losses(self, policy: Any, step: int) -> Iterator[Loss]:
        batch = self.batch(step)
        contexts = [policy.encode(example.prompt) for example in batch]
        targets = [policy.encode_completion(example.completion, eos=example.eos) for example in batch]
        tokens = sum(len(target) for target in targets)
        sizes = [len(context) + len(target) for context, target in zip(contexts, targets, strict=True)]
        for group in length_groups(sizes, self.positions):
            samples = as_samples([contexts[i] for i in group], [targets[i] for i in group])
            weights = torch.tensor([batch[i].weight for i in group])
            value, _ = policy.weighted_log_prob(samples, -weights / tokens)  # `objective.likelihood`
            yield Loss(value, {"loss": float(value.detach()), "tokens": float(samples.lengths.sum())})

    def state(self) -> State:
        """Nothing: a step depends on its number alone."""
        return State()

    def restore(self, policy: Any, state: State) -> None:
        """Nothing to put back."""
