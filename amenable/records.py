"""What travels between the houses: tasks, samples, verdicts. Frozen, plain, and never re-derived.

Token ids are the record and text is derived from them. Log-probabilities are in nats, and they are those of the law
that the sample was really drawn from (`Decoding`), written down while sampling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch

Ended = Literal["eos", "stop", "length"]
Outcome = Literal["pass", "fail", "timeout", "crash", "memory", "protocol", "infra"]


@dataclass(frozen=True)
class Task:
    """One programming task. The policy continues `prompt`; the program is `prompt + completion`.

    `tests` are assert statements; the first `shown` of them stand in the prompt, the rest are hidden from the policy.
    `setup` is code the tests need (not the program). `solution` is a whole reference program, if there is one.
    """

    task_id: str
    prompt: str
    tests: tuple[str, ...]
    entry_point: str
    shown: int = 1
    text: str = ""
    setup: str = ""
    solution: str | None = None
    split: str = ""


@dataclass(frozen=True)
class Critique:
    """Feedback in words on one draft. `refinement` is a person's own corrected program, where there is one."""

    task_id: str
    draft: str
    feedback: str
    refinement: str | None = None


@dataclass(frozen=True)
class Failure:
    """The first assertion that failed, in plain data: everything is a bounded string, nothing is an object.

    `call` is the expression under test, `got` and `expected` are reprs ("" where unknown), `error` is
    "TypeName: message" if the program raised, `line` the line of the program (1-based) where it did.
    """

    test: str
    call: str = ""
    got: str = ""
    expected: str = ""
    error: str = ""
    line: int | None = None
    source: str = ""


@dataclass(frozen=True)
class Verdict:
    """What running a program against its tests showed. `passed[i]` is None where test i gave no verdict (missing is not false).

    `outcome` is "pass" only if every test passed. `infra` means that the sandbox failed, not the program: excluded
    and counted, never a 0. `seconds` are wall clock, `cpu_seconds` what the program itself computed. `isolation` names
    the layers that held; `integrity` is "cooperative" where the program had to hand live objects to its tests and could
    in principle deceive them.
    """

    outcome: Outcome
    passed: tuple[bool | None, ...]
    failure: Failure | None = None
    output: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    isolation: str = ""
    integrity: Literal["enforced", "cooperative"] = "enforced"

    @property
    def ok(self) -> bool:
        """True if the program passed every test."""
        return self.outcome == "pass"

    @property
    def missing(self) -> bool:
        """True if nothing can be said about the program."""
        return self.outcome == "infra"

    def as_row(self) -> dict[str, Any]:
        """Plain data for a run's record; without the time it took, so that the record of a run is reproducible."""
        return {key: value for key, value in asdict(self).items() if not key.endswith("seconds")}

    @staticmethod
    def from_row(row: Mapping[str, Any]) -> Verdict:
        """The verdict that `as_row` wrote down."""
        failure = Failure(**row["failure"]) if row["failure"] else None
        return Verdict(**{**row, "passed": tuple(row["passed"]), "failure": failure})


@dataclass(frozen=True)
class Decoding:
    """The law that samples are drawn from, and where they end.

    The default is the training law: the policy itself, temperature 1 and nothing cut off. `stop` strings end a
    sample: the text is cut before the string, the token ids keep the token that completed it.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()

    def deviations(self) -> list[str]:
        """The settings that make this another law than the policy's own, as "name=value"; empty for the training law."""
        default = Decoding()
        return [
            f"{name}={getattr(self, name)}"
            for name in ("temperature", "top_k", "top_p")
            if getattr(self, name) != getattr(default, name)
        ]


@dataclass(frozen=True)
class Samples:
    """A batch of N continuations, L tokens at most.

    context_ids  one prompt's token ids a sample, in order        list of N lists of int
    tokens       sampled ids, right-padded with 0                 (N, L) int64
    lengths      number of sampled tokens, first EOS included     (N,) int64
    log_probs    log-probability of each under `decoding`, 0 pad  (N, L) float32, nats
    texts        the continuations as text, cut before a stop     N strings, EOS not shown
    ended        why each sample ended                            N of "eos" | "stop" | "length"
    """

    context_ids: Sequence[Sequence[int]]
    tokens: torch.Tensor
    lengths: torch.Tensor
    log_probs: torch.Tensor
    texts: Sequence[str]
    ended: Sequence[Ended]
    decoding: Decoding = field(default_factory=Decoding)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def mask(self) -> torch.Tensor:
        """True at the sampled tokens, by position and never by token id: (N, L) bool."""
        return torch.arange(self.tokens.shape[1]).unsqueeze(0) < self.lengths.unsqueeze(1)

    def ids(self, index: int) -> list[int]:
        """The sampled token ids of sample `index`, without padding."""
        return [int(token) for token in self.tokens[index, : int(self.lengths[index])]]


def as_samples(contexts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], *, ended: Ended = "eos") -> Samples:
    """Given (not drawn) token ids in the record of a batch; their log-probabilities are unknown, hence NaN."""
    lengths = torch.tensor([len(target) for target in targets])
    tokens = torch.zeros(len(targets), int(lengths.max()), dtype=torch.int64)
    for row, target in enumerate(targets):
        tokens[row, : len(target)] = torch.tensor(target)
    return Samples(
        context_ids=contexts,
        tokens=tokens,
        lengths=lengths,
        log_probs=torch.full(tokens.shape, torch.nan),
        texts=[""] * len(targets),
        ended=[ended] * len(targets),
    )
