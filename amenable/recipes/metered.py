"""The over-optimisation meter along a training: a second scorer, on which nothing is trained, watches the first.

    reading t    the policy answers held-out prompts;  proxy and gold score the answers;  KL(pi_t, a) of the same answers
    alarm        gold falls while the proxy rises (`evaluation.over_optimisation`), said at the reading where it happens
    canaries     answers that no scorer may like ("", ":", "... answer 10"), against the policy's own (`feedback.canaries`)

`Metered` is a method around a method: it changes no sample and no gradient of it. Its readings are part of its state, so a
run that was killed goes on with them.
Source: Gao, Schulman and Hilton 2022, arXiv 2210.10760.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from amenable import durable
from amenable.errors import ConfigError
from amenable.evaluation.interval import bootstrap_mean
from amenable.evaluation.over_optimisation import Meter, Reading, meter
from amenable.feedback.canaries import complaints, score_canaries
from amenable.feedback.kinds import Score
from amenable.method.protocol import Loss, Method
from amenable.policy.protocol import own_precision
from amenable.progress import say
from amenable.records import Decoding
from amenable.runs import Row
from amenable.sampling.proposal import State
from amenable.seeding import derive
from amenable.target.posterior import recorded_log_prob, sequence_log_prob

ANSWERS = 2  # a prompt and reading


class Metered:
    """`method`, with `readings` readings at even distances, the first before the first step.

    prior: the law that KL is taken from. prompts: held out. proxy: the score that is optimised. path: where readings are kept.
    """

    def __init__(
        self, method: Method, *, readings: int, prior: Any, prompts: Sequence[str], decoding: Decoding, proxy: Score,
        gold: Score, path: Path, seed: int,
    ) -> None:  # fmt: skip
        if readings < 1:
            raise ConfigError(f"readings={readings}: the meter reads nothing", "use readings >= 1")
        self.method, self.prior, self.prompts, self.decoding = method, prior, list(prompts), decoding
        self.proxy, self.gold, self.path, self.seed = proxy, gold, path, seed
        self.steps = method.steps
        self.due = sorted({math.floor(method.steps * i / readings) for i in range(readings)})
        what = [method.identity, self.due, self.prompts, seed]
        self.identity = hashlib.sha256(json.dumps(what).encode()).hexdigest()
        self.rows: list[Row] = []
        self._alarmed, self._won = False, 0  # what was said already

    def losses(self, policy: Any, step: int) -> Iterator[Loss]:
        if step in self.due:
            with own_precision():
                self._read(policy, step)
        yield from self.method.losses(policy, step)

    def state(self) -> State:
        """The method's, and the readings so far."""
        inner = self.method.state()
        return State(inner.tensors, {"method": inner.facts, "readings": self.rows})

    def restore(self, policy: Any, state: State) -> None:
        """Put back what `state` said; readings that were made after it are made again."""
        self.rows = list(state.facts["readings"])
        self.method.restore(policy, State(state.tensors, state.facts["method"]))

    def _read(self, policy: Any, step: int) -> None:
        seed = derive(self.seed, "reading", step)
        answers = policy.sample(self.prompts, n=ANSWERS, decoding=self.decoding, seed=seed)
        prompts = [prompt for prompt in self.prompts for _ in range(ANSWERS)]
        shift = recorded_log_prob(answers) - sequence_log_prob(self.prior, answers)
        row = row_of(f"step {step}", prompts, answers.texts, shift.tolist(), self.proxy, self.gold)
        self.rows = [*self.rows, row]
        durable.write_file(self.path, "".join(json.dumps(one) + "\n" for one in self.rows))
        won = canaries(self.proxy, prompts, answers.texts)
        if len(won) > self._won:
            self._won = len(won)
            say(f"WARNING at step {step}: the score that is optimised likes what no score may like: {'; '.join(won)}.")
        found = metering(self.rows, planned=len(self.due) + 1)
        if found.alarm is not None and not self._alarmed:
            self._alarmed = True
            say(f"WARNING at step {step}: {found.words}. Stop here, or raise beta.")


def row_of(
    name: str, prompts: Sequence[str], texts: Sequence[str], shift: Sequence[float], proxy: Score, gold: Score
) -> Row:
    """A reading as plain values: `shift` is log pi - log a of every text, in nats."""
    return {
        "name": name, "prompts": list(prompts), "shift": list(shift), "proxy": list(proxy(prompts, texts)),
        "gold": list(gold(prompts, texts)),
    }  # fmt: skip


def metering(rows: Sequence[Row], *, planned: int | None = None) -> Meter:
    """What the readings say together."""
    readings = [
        Reading(row["name"], bootstrap_mean(row["shift"], clusters=row["prompts"]), row["prompts"], row["proxy"], row["gold"])
        for row in rows
    ]  # fmt: skip
    return meter(readings, planned=planned)


def canaries(score: Score, prompts: Sequence[str], texts: Sequence[str], limit: int = 20) -> list[str]:
    """A line for every canary that wins against honest answers, `limit` of them that say something; empty: none does."""
    honest = [(prompt, text) for prompt, text in zip(prompts, texts, strict=True) if text.strip(" \n:")][:limit]
    return complaints(score_canaries(score, [p for p, _ in honest], [t for _, t in honest])) if honest else []


def readings_of(path: Path) -> list[Row]:
    """The readings of a training that has ended."""
    return [json.loads(line) for line in path.read_text().splitlines()]
