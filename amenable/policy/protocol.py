"""What a policy is: a distribution over texts given a context, that can be drawn from and scored.

sample(contexts, n)  draws n continuations of each context and records their log-probabilities
log_prob(samples)    log pi(x | c), one number a token, with gradient if the policy is trainable
weighted_log_prob()  the sum of w log pi(x) for weights known beforehand: the cheap way to a gradient
prefix_features()    what the policy knows where it predicts a token, for a learned value (`objective.value`)
frozen()             the same law, no gradient, in the fastest precision that was asked for
trainable_copy()     a copy with float32 weights (or an adapter) that an optimiser may change
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Protocol

import torch

from amenable.records import Decoding, Samples


@contextmanager
def own_precision() -> Iterator[None]:
    """Inside, every law and every score computes in its own precision, whatever that of the training around it is."""
    cuda = torch.autocast("cuda", enabled=False) if torch.cuda.is_available() else nullcontext()
    with torch.autocast("cpu", enabled=False), cuda:
        yield


class Policy(Protocol):
    """A language model as a distribution. N samples of at most L tokens; log-probabilities in nats, float32."""

    def sample(
        self,
        contexts: Sequence[str],
        *,
        n: int = 1,
        decoding: Decoding = ...,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Samples:
        """Draw `n` continuations a context: samples i*n .. i*n + n - 1 continue `contexts[i]`."""
        ...

    def log_prob(self, samples: Samples) -> torch.Tensor:
        """Log-probability of every sampled token under this policy at temperature 1: (N, L), 0 at padding."""
        ...

    def weighted_log_prob(self, samples: Samples, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """sum_i w_i log pi(x_i), a scalar with gradient, `weights` (N,) or (N, L); the log-probabilities (N, L) without."""
        ...

    def prefix_features(self, samples: Samples) -> torch.Tensor:
        """What the policy knows of c, x_<t where it predicts x_t: (M, D) without gradient, a row for each of all M tokens."""
        ...

    def frozen(self) -> Policy:
        """The same law without gradient."""
        ...

    def exact(self) -> Policy:
        """The same law without gradient, in the precision that weights of whole sequences need (float32)."""
        ...

    def trainable_copy(self) -> Policy:
        """A copy that can be trained."""
        ...
