"""Proposals: whose samples a method learns from. The weights pi/q always use the law that each sample was really drawn from.

    OnPolicy()             q = pi
    Fixed(policy)          q is a policy that does not change, such as the prior
    Adaptive(every, by)    the best policy so far: every so many steps q <- pi if D(p || pi) < D(p || q), estimated on fresh
                           samples of q; D is the KL divergence (Khalifa et al. 2021, arXiv 2012.11635) or the total variation
    Replay(fresh, batches) a share of new samples of pi, the rest from the last batches, each with the law of its own time
    Corpus(prompts, ...)   given samples whose law is known
    Defensive(inner)       a mixture with the policy, whose weights are bounded (`defensive`)

A proposal with memory says it in `state`, so that a run that is resumed draws what the other would have.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch

from amenable.errors import ConfigError
from amenable.policy.protocol import own_precision
from amenable.records import Decoding, Samples
from amenable.sampling.batches import as_plain, concatenated, from_plain, subset
from amenable.seeding import derive, python_random
from amenable.target.partition import Partition
from amenable.target.posterior import Target, recorded_log_prob, sequence_log_prob


@dataclass(frozen=True)
class State:
    """What a method or proposal remembers: tensors by name, and plain data that JSON keeps exactly."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


class Proposal(Protocol):
    """`draw` gives n samples of each context, context-major, with the log-probabilities of the law they come from."""

    name: str
    on_policy: bool
    """True if every sample's recorded log-probability is the policy's own, to rounding: nothing need be scored again."""

    def prepare(
        self, step: int, policy: Any, target: Target, contexts: Sequence[str], decoding: Decoding, seed: int
    ) -> None:
        """Called before `draw` at every step: the moment to change q."""
        ...

    def draw(
        self, step: int, policy: Any, contexts: Sequence[str], *, n: int, decoding: Decoding, seed: int
    ) -> Samples: ...

    def state(self) -> State: ...

    def restore(self, policy: Any, state: State) -> None: ...


class _Forgetful:
    """A proposal without memory."""

    def prepare(self, *arguments: Any, **named: Any) -> None:
        """Nothing to do."""

    def state(self) -> State:
        return State()

    def restore(self, policy: Any, state: State) -> None:
        """Nothing to put back."""


def drawn(policy: Any, contexts: Sequence[str], *, n: int, decoding: Decoding, seed: int) -> Samples:
    """Samples of a policy in its own precision, also inside a method that computes in a lower one."""
    with own_precision():
        samples: Samples = policy.sample(contexts, n=n, decoding=decoding, seed=seed)
    return samples


class OnPolicy(_Forgetful):
    """q = pi. `dtype`: draw from a copy in this precision; its law is another one, so samples are then scored again."""

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        self.dtype, self.on_policy = dtype, dtype is None
        self.name = "policy" if dtype is None else f"policy in {str(dtype).removeprefix('torch.')}"
        self._copy: Any = None

    def draw(
        self, step: int, policy: Any, contexts: Sequence[str], *, n: int, decoding: Decoding, seed: int
    ) -> Samples:
        law = policy if self.dtype is None else self._lowered(policy)
        return drawn(law, contexts, n=n, decoding=decoding, seed=seed)

    def _lowered(self, policy: Any) -> Any:
        """`policy` in `dtype`: copied once, brought up to date where the policy can do that, or copied again."""
        if self._copy is None or not self._copy.follow(policy):
            self._copy = policy.frozen(self.dtype)
            self._copy.eos_ids = policy.eos_ids
        return self._copy


class Fixed(_Forgetful):
    """q is `policy`, for ever."""

    on_policy = False

    def __init__(self, policy: Any) -> None:
        self.law, self.name = policy.exact(), f"fixed {policy.name}"

    def draw(
        self, step: int, policy: Any, contexts: Sequence[str], *, n: int, decoding: Decoding, seed: int
    ) -> Samples:
        return drawn(self.law, contexts, n=n, decoding=decoding, seed=seed)


class Corpus(_Forgetful):
    """Given samples of known law: `samples[i]` continues `prompts[i]`. A step takes n a context at random, with replacement.

    Errors: ConfigError if the law is not known (see `target.posterior.recorded_log_prob`), or a context has no sample.
    """

    on_policy = False

    def __init__(self, prompts: Sequence[str], samples: Samples) -> None:
        recorded_log_prob(samples)
        self.samples, self.name = samples, f"corpus of {len(samples)}"
        self.places: dict[str, list[int]] = {}
        for place, prompt in enumerate(prompts):
            self.places.setdefault(prompt, []).append(place)

    def draw(
        self, step: int, policy: Any, contexts: Sequence[str], *, n: int, decoding: Decoding, seed: int
    ) -> Samples:
        missing = [context for context in contexts if context not in self.places]
        if missing:
            raise ConfigError(
                f"the corpus has no sample that continues {missing[0]!r}", "give one, or leave the context out"
            )
        random = python_random(seed, "corpus")
        return subset(
            self.samples, [place for context in contexts for place in random.choices(self.places[context], k=n)]
        )


class Replay:
    """A share `fresh` of every step's samples is new; the rest are taken, without repetition, from the last `batches` steps.

    Each has the law it was drawn from, so its weight is right; that the policy has been trained on it is the price of reuse.
    A context that the memory does not hold is drawn afresh.
    """

    on_policy = False

    def __init__(self, fresh: float = 0.5, batches: int = 4) -> None:
        if not 0 < fresh <= 1 or batches < 1:
            raise ConfigError(
                f"replay with fresh={fresh:g}, batches={batches}", "use 0 < fresh <= 1 and at least one batch"
            )
        if 1 - fresh > fresh * batches + 1e-9:  # the memory holds what was new in them
            raise ConfigError(
                f"replay of {1 - fresh:g} of every step's samples from the last {batches} steps, whose new ones are fewer",
                f"use batches >= {math.ceil((1 - fresh) / fresh - 1e-9)}, or a larger fresh",
            )
        self.fresh, self.name = fresh, f"replay {fresh:g} of {batches}"
        self._memory: deque[dict[str, Samples]] = deque(maxlen=batches)

    def prepare(self, *arguments: Any, **named: Any) -> None:
        """Nothing to do."""

    def draw(
        self, step: int, policy: Any, contexts: Sequence[str], *, n: int, decoding: Decoding, seed: int
    ) -> Samples:
        few = max(1, math.ceil(self.fresh * n))
        random, kept = python_random(seed, "replay"), {}
        for context in dict.fromkeys(contexts):
            old = [batch[context] for batch in self._memory if context in batch]
            known = concatenated(old) if old else None
            if known is not None and len(known) >= n - few > 0:
                kept[context] = subset(known, random.sample(range(len(known)), n - few))
        wanted = [(context, few if context in kept else n) for context in contexts]
        new: dict[str, Samples] = {}
        for count in sorted({count for _, count in wanted}):
            ask = [context for context, own in wanted if own == count]
            batch = drawn(policy, ask, n=count, decoding=decoding, seed=derive(seed, "fresh", count))
            for place, context in enumerate(ask):
                new[context] = subset(batch, range(place * count, (place + 1) * count))
        self._memory.append(new)
        return concatenated(
            [part for context in contexts for part in (new[context], kept.get(context)) if part is not None]
        )

    def state(self) -> State:
        """The samples kept."""
        return State(facts={"memory": [{c: as_plain(s) for c, s in batch.items()} for batch in self._memory]})

    def restore(self, policy: Any, state: State) -> None:
        """Put them back."""
        self._memory.clear()
        self._memory.extend({c: from_plain(s) for c, s in batch.items()} for batch in state.facts["memory"])


class Adaptive:
    """q starts as the policy before training, and becomes pi whenever pi is closer to the target.

    `by`: "kl" or "tv"; `every` steps, on `samples` fresh draws of q a context, at most `contexts` contexts.
    """

    on_policy = False

    def __init__(self, every: int = 10, by: Literal["kl", "tv"] = "kl", samples: int = 256, contexts: int = 16) -> None:
        if by not in ("kl", "tv") or every < 1:
            raise ConfigError(f"an adaptive proposal by {by!r}, every {every} steps", "use by=kl or tv, every >= 1")
        self.every, self.by, self.samples, self.contexts = every, by, samples, contexts
        self.name = f"adaptive by {by} every {every} steps, on {samples} samples of {contexts} contexts"
        self.changes = 0
        self.law: Any = None
        self._weights: dict[str, torch.Tensor] = {}
        self._partition = Partition()

    def prepare(
        self, step: int, policy: Any, target: Target, contexts: Sequence[str], decoding: Decoding, seed: int
    ) -> None:
        """q <- pi, at the first step and every so many steps if pi has come closer."""
        if self.law is None:
            self._take(policy)
        elif step and step % self.every == 0 and self._closer(policy, target, contexts, decoding, seed):
            self._take(policy)
            self.changes += 1

    def draw(
        self, step: int, policy: Any, contexts: Sequence[str], *, n: int, decoding: Decoding, seed: int
    ) -> Samples:
        return drawn(self.law, contexts, n=n, decoding=decoding, seed=seed)

    def _closer(self, policy: Any, target: Target, contexts: Sequence[str], decoding: Decoding, seed: int) -> bool:
        chosen = list(dict.fromkeys(contexts))[: self.contexts]
        samples = drawn(self.law, chosen, n=self.samples, decoding=decoding, seed=derive(seed, "adaptive"))
        prompts = [context for context in chosen for _ in range(self.samples)]
        log_score = target.scores(prompts, samples).log_score
        log_law, log_policy = recorded_log_prob(samples), sequence_log_prob(policy, samples)
        self._partition.add(prompts, log_score - log_law)
        log_p = log_score - self._partition.log_z(prompts)
        usable = log_p.isfinite() if self.by == "kl" else ~log_p.isnan()
        weight = torch.where(usable, log_p - log_law, -torch.inf).exp()
        if self.by == "kl":  # KL(p||q) - KL(p||pi) = E_p[log pi - log q]
            return bool((weight * torch.where(usable, log_policy - log_law, 0.0)).sum() > 0)
        ratio = torch.where(usable, log_policy - log_law, -torch.inf).exp()
        return bool((ratio - weight).abs()[usable].sum() < (1 - weight).abs()[usable].sum())

    def _take(self, policy: Any) -> None:
        self._weights = {name: value.detach().clone() for name, value in policy.trainable_parameters()}
        self.law = policy.exact()

    def state(self) -> State:
        """The trainable weights of q, and its log Z."""
        return State(self._weights, {"partition": self._partition.state(), "changes": self.changes})

    def restore(self, policy: Any, state: State) -> None:
        """Rebuild q from its weights, with the help of a policy of the same kind."""
        now = dict(policy.trainable_parameters())
        kept = {name: value.detach().clone() for name, value in now.items()}
        with torch.no_grad():
            for name, value in now.items():
                value.copy_(state.tensors[name])
            self._take(policy)
            for name, value in now.items():
                value.copy_(kept[name])
        self._partition.restore(state.facts["partition"])
        self.changes = int(state.facts["changes"])
