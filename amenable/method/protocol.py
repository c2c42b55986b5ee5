"""What a training method is: a number of steps, and the losses whose gradients make up one step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from amenable.sampling.proposal import State


@dataclass(frozen=True)
class Loss:
    """One micro-batch's share of a step's loss: values add up over the step; so do the `sums`, which are logged."""

    value: torch.Tensor
    sums: dict[str, float] = field(default_factory=dict)


class Method(Protocol):
    """`losses(policy, step)` yields micro-batches; the loop calls backward on each before it asks for the next.

    What a step does depends on the policy, the step and the method's `state` alone: a run that is resumed at step k does what
    the other would have.
    """

    steps: int
    identity: str
    """What this training is (a hash of examples and settings), so that no checkpoint of another one is taken for its own."""

    def losses(self, policy: Any, step: int) -> Iterator[Loss]: ...

    def state(self) -> State:
        """What the method remembers between steps, besides the policy's weights; kept in every checkpoint."""
        ...

    def restore(self, policy: Any, state: State) -> None:
        """Put back what `state` said."""
        ...
