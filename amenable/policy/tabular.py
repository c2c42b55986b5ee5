"""A policy over a few hundred sequences, every one of which can be listed: the oracle that everything else is checked against.

    pi(x | c) = prod_t softmax(l[c, x_<t])[x_t]        one row of logits for every context c and prefix x_<t

Tokens 0 .. V-1 are the letters of `alphabet`, token V ends a sequence; a sequence of T = `max_tokens` letters ends by its
length. There are 1 + V + .. + V^(T-1) prefixes and as many sequences that end, and V^T that are cut: 364 for V = 3, T = 5.
Texts, contexts and records are those of any policy, so a method runs on it unchanged.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import torch

from amenable.errors import SamplingError
from amenable.policy.algebra import Prior
from amenable.policy.draw import BELOW_ONE
from amenable.records import Decoding, Samples
from amenable.seeding import torch_generator


class TabularPolicy(Prior):
    """`logits` (contexts, prefixes, V + 1), float64, nats up to a constant a row."""

    def __init__(self, alphabet: Sequence[str], max_tokens: int, contexts: Sequence[str], logits: torch.Tensor) -> None:
        self.alphabet, self.max_tokens, self.contexts = alphabet, max_tokens, list(contexts)
        self.logits = logits
        self.name = f"tabular-{len(alphabet)}x{max_tokens}"
        self.eos_ids = [len(alphabet)]

    @staticmethod
    def random(
        alphabet: Sequence[str] = "abc",
        max_tokens: int = 4,
        *,
        contexts: Sequence[str] = ("",),
        scale: float = 1.0,
        seed: int = 0,
    ) -> TabularPolicy:
        """Logits drawn from a normal law of standard deviation `scale`."""
        prefixes = sum(len(alphabet) ** length for length in range(max_tokens))
        shape = (len(contexts), prefixes, len(alphabet) + 1)
        logits = scale * torch.randn(shape, generator=torch_generator(seed, "tabular"), dtype=torch.float64)
        return TabularPolicy(alphabet, max_tokens, contexts, logits)

    # --- the distribution
    def everything(self, contexts: Sequence[str] = ("",)) -> Samples:
        """Every sequence once for each of `contexts`, context-major; `log_probs` are this policy's."""
        letters, size = range(len(self.alphabet)), len(self.alphabet)
        rows = [[*row, size] for length in range(self.max_tokens) for row in itertools.product(letters, repeat=length)]
        rows += [list(row) for row in itertools.product(letters, repeat=self.max_tokens)]
        tokens = torch.tensor([row + [0] * (self.max_tokens - len(row)) for row in rows]).repeat(len(contexts), 1)
        lengths = torch.tensor([len(row) for row in rows]).repeat(len(contexts))
        nodes = torch.arange(len(rows)).repeat(len(contexts))  # whether ended or cut: the tree's own order
        samples = self._record(list(contexts), len(rows), tokens, lengths, nodes, Decoding(max_tokens=self.max_tokens))
        samples.log_probs.copy_(self.log_prob(samples).detach())
        return samples

    @torch.no_grad()
    def sample(
        self,
        contexts: Sequence[str],
        *,
        n: int = 1,
        decoding: Decoding | None = None,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Samples:
        """As `protocol.Policy`. Errors: SamplingError for a decoding that is not the policy's own law."""
        decoding = decoding or Decoding(max_tokens=self.max_tokens)
        if decoding.deviations() or decoding.stop:
            raise SamplingError(f"a tabular policy is drawn from as it is, not with {decoding}", "use Decoding()")
        steps, size = min(self.max_tokens, decoding.max_tokens), len(self.alphabet)
        total = len(contexts) * n
        uniforms = torch.rand(total, steps, generator=torch_generator(seed, "uniforms"), dtype=torch.float64)
        where = torch.tensor(self._places(contexts), dtype=torch.int64).repeat_interleave(n)
        running = self.logits.detach().softmax(-1).cumsum(-1)  # of a row: the last is 1, to rounding
        node = torch.zeros(total, dtype=torch.int64)
        tokens, lengths = torch.zeros(total, steps, dtype=torch.int64), torch.zeros(total, dtype=torch.int64)
        alive = torch.ones(total, dtype=torch.bool)
        for step in range(steps):
            row = running[where, torch.where(alive, node, 0)]
            mark = uniforms[:, step, None] * row[:, -1:] * BELOW_ONE
            token = (row <= mark).sum(-1)  # the first that reaches over the mark; never one of probability 0
            tokens[:, step] = torch.where(alive, token, 0)
            lengths += alive
            alive = alive & (token < size)
            node = torch.where(alive, node * size + 1 + token, node)
        samples = self._record(list(contexts), n, tokens, lengths, node, decoding)
        samples.log_probs.copy_(self.log_prob(samples).detach())
        return samples

    def log_prob(self, samples: Samples) -> torch.Tensor:
        """log pi(token | context, tokens before): (N, L) float64 nats, 0 at padding; carries gradient if trainable."""
        where = torch.tensor([ids[0] for ids in samples.context_ids])
        log_probs = torch.log_softmax(self.logits, -1)
        prefix = torch.zeros(len(samples), dtype=torch.int64)
        columns = []
        for step in range(samples.tokens.shape[1]):
            inside = step < samples.lengths
            token = torch.where(inside, samples.tokens[:, step], 0)
            columns.append(torch.where(inside, log_probs[where, torch.where(inside, prefix, 0), token], 0.0))
            prefix = prefix * len(self.alphabet) + 1 + token
        return torch.stack(columns, 1) if columns else torch.zeros(samples.tokens.shape, dtype=torch.float64)

    def weighted_log_prob(self, samples: Samples, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """sum_i w_i log pi(x_i) with gradient, `weights` (N,) or (N, L); the log-probabilities (N, L) without."""
        values = self.log_prob(samples)
        weights = weights.to(values)
        return ((weights if weights.dim() == 2 else weights.unsqueeze(1)) * values).sum(), values.detach()

    def prefix_features(self, samples: Samples) -> torch.Tensor:
        """Which row of the table predicts each of all M sampled tokens: (M, contexts * prefixes) float64, one-hot."""
        count, size = self.logits.shape[1], len(self.alphabet)
        columns = [torch.zeros(len(samples), dtype=torch.int64)]
        for step in range(samples.tokens.shape[1] - 1):
            goes_on = step + 1 < samples.lengths
            columns.append(torch.where(goes_on, columns[-1] * size + 1 + samples.tokens[:, step], 0))
        rows = count * torch.tensor([ids[0] for ids in samples.context_ids]).unsqueeze(1) + torch.stack(columns, 1)
        return torch.nn.functional.one_hot(rows[samples.mask], len(self.contexts) * count).double()

    def frozen(self, dtype: torch.dtype | None = None) -> TabularPolicy:
        """The same law without gradient; a table stays in float64, whatever `dtype` is asked for."""
        return TabularPolicy(self.alphabet, self.max_tokens, self.contexts, self.logits.detach().clone())

    def exact(self) -> TabularPolicy:
        """The same as `frozen`: a table is in float64."""
        return self.frozen()

    def trainable_copy(self) -> TabularPolicy:
        """A copy whose logits an optimiser may change."""
        logits = torch.nn.Parameter(self.logits.detach().clone())
        return TabularPolicy(self.alphabet, self.max_tokens, self.contexts, logits)

    def trainable_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """The logits, if this is a trainable copy."""
        if isinstance(self.logits, torch.nn.Parameter):
            yield "logits", self.logits

    def encode(self, text: str) -> list[int]:
        """A context's number."""
        return self._places([text])

    # --- inside
    def _places(self, contexts: Sequence[str]) -> list[int]:
        unknown = sorted(set(contexts) - set(self.contexts))
        if unknown:
            raise SamplingError(f"{unknown[0]!r} is not a context of this table", f"use one of {self.contexts[:5]}")
        return [self.contexts.index(context) for context in contexts]

    def _record(
        self,
        contexts: list[str],
        n: int,
        tokens: torch.Tensor,
        lengths: torch.Tensor,
        nodes: torch.Tensor,
        decoding: Decoding,
    ) -> Samples:
        """`nodes` (N,): the letters of each sample, as a place in the tree of prefixes."""
        texts = _texts(self.alphabet, self.max_tokens)
        tokens = tokens[:, : max(1, int(lengths.max()))].contiguous() if len(tokens) else tokens
        places = lengths.clamp(min=1).unsqueeze(1) - 1
        closed = (lengths > 0) & (tokens.gather(1, places).squeeze(1) == len(self.alphabet))
        return Samples(
            context_ids=[[place] for place in self._places(contexts) for _ in range(n)],
            tokens=tokens,
            lengths=lengths,
            log_probs=torch.zeros(tokens.shape, dtype=torch.float64),
            texts=[texts[node] for node in nodes.tolist()],
            ended=["eos" if end else "length" for end in closed.tolist()],
            decoding=decoding,
        )


@functools.lru_cache(maxsize=8)
def _texts(alphabet: Sequence[str], max_tokens: int) -> list[str]:
    """The letters on the way to every node of the tree of prefixes; node i has the children i V + 1 .. i V + V."""
    return ["".join(row) for length in range(max_tokens + 1) for row in itertools.product(alphabet, repeat=length)]
