"""f-DPG: bring a policy close to a target in any f-divergence, with one score-function gradient.

    1  x_1..N ~ q(.|c)                                   `proposal`: the policy, the best so far, a corpus ...
    2  log P = log a + log phi;  log pi;  w = P / q      `target`
    3  log Z(c)  <-  running mean of w                   `Partition`, one a context, bootstrapped before the first step
    4  R = -f'(pi Z / P)                                 `objective`: a divergence, or a reward
    5  loss = - mean[ pi/q (R - B) log pi ]              `score_gradient`; everything but the last log pi is held constant

With the forward KL this is DPG (Parshakova et al. 2019) and GDC, one Z a context makes it CDPG (Korbak et al. 2022, arXiv
2112.00791), the baseline "target" GDC++ (2206.00761); with the reverse KL and a tilt it is RL with KL penalties, and so RLHF
(2205.11275). Source of the whole: Go et al. 2023, f-DPG, arXiv 2302.08215.
Changed from the papers: a batch counts in Z before its rewards are made, so that one large weight is bounded by its own Z;
samples whose feedback is missing, and contexts in which no sample has a positive weight, count for nothing, and are counted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from amenable.errors import ConfigError, TrainingError
from amenable.method.protocol import Loss
from amenable.method.value import ValueBaseline
from amenable.objective.reward import Objective
from amenable.objective.score_gradient import BASELINES, coefficients
from amenable.objective.value import explained
from amenable.policy.scoring import length_groups
from amenable.records import Decoding, Samples
from amenable.sampling.batches import subset
from amenable.sampling.proposal import OnPolicy, Proposal, State
from amenable.seeding import derive, python_random
from amenable.target.partition import Partition, effective_sample_size, groups, pareto_k
from amenable.target.posterior import Scores, Target, recorded_log_prob, sequence_log_prob

BOOTSTRAP = 32
GAP = 1e-3  # nats a token by which the sampler and the trainer may differ
FADE = 0.9  # a step: what pi/p was like long ago (rewards of -20, say) says nothing about now


@dataclass(frozen=True)
class Batch:
    """A step's N samples of the proposal, what they continue, and what they are worth, (N,) float64 nats each."""

    prompts: list[str]
    samples: Samples
    scores: Scores
    log_policy: torch.Tensor
    log_proposal: torch.Tensor
    graph: torch.Tensor | None = None
    """The policy's log-probabilities (N, L) with gradient, where they had to be computed before the rewards."""

    @property
    def log_weights(self) -> torch.Tensor:
        """log P - log q."""
        return self.scores.log_score - self.log_proposal


class FDPG:
    """`policy` comes close to `target` in `objective` (a divergence, or `ExpectedReward`). Train it with `method.loop.train`.

    contexts: texts to continue; `contexts_per_step` of them a step (0: all), each `samples_per_context` times.
    baseline: none, constant (the mean of past rewards, which fade), leave-one-out, or target (see `score_gradient`); or value,
    a learned one of every prefix (see `value`), for one more forward a step; leave-one-out while nothing is known yet.
    window: batches of a context that count in its Z (0: all); `bootstrap` samples a context before the first step (default: as
    many as a step has, 32 at least: with 4, the first step of the forward KL is a third too short, by the bias of 1/Z).
    one_z: one Z for all contexts, as DPG before CDPG had it: contexts of large Z then weigh more.
    normalised: rewards in units of their context's standard deviation (GRPO), which is another step than the gradient's.
    Errors: ConfigError for settings that make no sense together.
    """

    def __init__(
        self,
        policy: Any,
        target: Target,
        objective: Objective,
        *,
        contexts: Sequence[str] = ("",),
        steps: int = 200,
        contexts_per_step: int = 0,
        samples_per_context: int = 16,
        proposal: Proposal | None = None,
        baseline: str = "leave-one-out",
        decoding: Decoding = Decoding(max_tokens=64),  # noqa: B008 (frozen)
        window: int = 0,
        bootstrap: int | None = None,
        one_z: bool = False,
        normalised: bool = False,
        positions: int = 4096,
        seed: int = 0,
    ) -> None:
        _check(decoding, contexts, baseline, samples_per_context)
        self.policy, self.target, self.objective, self.contexts = policy, target, objective, list(contexts)
        self.proposal: Proposal = proposal or OnPolicy()
        self.steps, self.samples_per_context, self.baseline = steps, samples_per_context, baseline
        self.contexts_per_step = min(contexts_per_step or len(self.contexts), len(self.contexts))
        self.decoding, self.one_z, self.positions, self.seed = decoding, one_z, positions, seed
        self.normalised = normalised
        self.bootstrap = max(samples_per_context, BOOTSTRAP) if bootstrap is None else bootstrap
        self.partition = Partition(window)
        self.value = ValueBaseline(self.proposal) if baseline == "value" else None
        self.rewarded = (0.0, 0.0)  # sum and number of past rewards, for the constant baseline; old ones fade
        what = [
            self.contexts, steps, self.contexts_per_step, samples_per_context, self.proposal.name, baseline, str(decoding),
            window, self.bootstrap, one_z, objective.name, target.potential.name, seed,
        ] + ["normalised"] * normalised  # fmt: skip
        self.identity = hashlib.sha256(json.dumps(what).encode()).hexdigest()

    # --- one step
    def losses(self, policy: Any, step: int) -> Iterator[Loss]:
        seed = derive(self.seed, "step", step)
        if step == 0 and self.bootstrap:
            self._bootstrap(policy, derive(self.seed, "bootstrap"))
        self.proposal.prepare(step, policy, self.target, self.contexts, self.decoding, derive(seed, "proposal"))
        batch = self.draw(policy, step, self._contexts(step), self.samples_per_context, seed, learn=True)
        self._count(batch)
        rewards = self._rewards(batch)
        values = self._values(policy, batch, rewards)
        named = "leave-one-out" if self.baseline == "value" else self.baseline
        weights = coefficients(
            rewards,
            batch.log_policy,
            batch.log_proposal,
            baseline=named if values is None else values,
            constant=self.rewarded[0] / max(1, self.rewarded[1]),
            at_target=self.objective.at_target,
            groups=list(groups(batch.prompts).values()),
            normalised=self.normalised,
        )
        known = rewards[rewards.isfinite()]
        total, count = self.rewarded  # a batch counts after its use
        self.rewarded = FADE * total + float(known.sum()), FADE * count + len(known)
        sums = self._numbers(batch, rewards, values)
        if batch.graph is not None:
            each = batch.graph if weights.dim() == 2 else batch.graph.sum(-1)
            yield Loss((weights.to(each) * each).sum(), sums)
            return
        for group in self._groups(batch.samples):
            part = subset(batch.samples, group)
            own = weights[group]
            value, log_probs = policy.weighted_log_prob(part, own[:, : part.tokens.shape[1]] if own.dim() == 2 else own)
            self._compare(log_probs.sum(-1).cpu().double(), batch.log_policy[group], part.lengths, step)
            yield Loss(value, sums)
            sums = {}

    def draw(self, policy: Any, step: int, contexts: Sequence[str], n: int, seed: int, *, learn: bool = False) -> Batch:
        """`n` samples of the proposal for each context, scored by the target and the policy.

        To `learn` from a batch of one group whose law is not the policy's, its scores keep their gradient: one forward.
        """
        samples = self.proposal.draw(step, policy, contexts, n=n, decoding=self.decoding, seed=derive(seed, "samples"))
        prompts = [context for context in contexts for _ in range(n)]
        log_proposal = recorded_log_prob(samples)
        scores = self.target.scores(prompts, samples)
        if self.proposal.on_policy:
            return Batch(prompts, samples, scores, log_proposal, log_proposal)
        if not learn or len(self._groups(samples)) > 1:
            return Batch(prompts, samples, scores, sequence_log_prob(policy, samples), log_proposal)
        graph = policy.log_prob(samples)
        return Batch(prompts, samples, scores, graph.detach().double().sum(-1).cpu(), log_proposal, graph)

    def _groups(self, samples: Samples) -> list[list[int]]:
        sizes = [len(c) + int(n) for c, n in zip(samples.context_ids, samples.lengths, strict=True)]
        return length_groups(sizes, self.positions)

    def _contexts(self, step: int) -> list[str]:
        """The contexts of a step: each once an epoch, in an order of its own."""
        per_epoch = -(-len(self.contexts) // self.contexts_per_step)
        epoch, place = divmod(step, per_epoch)
        order = list(range(len(self.contexts)))
        python_random(self.seed, "contexts", epoch).shuffle(order)
        first, last = (len(order) * part // per_epoch for part in (place, place + 1))
        return [self.contexts[index] for index in order[first:last]]

    def _bootstrap(self, policy: Any, seed: int) -> None:
        """A first estimate of every Z, from the policy before it learns."""
        self.proposal.prepare(0, policy, self.target, self.contexts, self.decoding, derive(seed, "proposal"))
        batch = self.draw(policy, 0, self.contexts, self.bootstrap, seed)
        self._count(batch)
        if self.value is not None:
            self._values(policy, batch, self._rewards(batch))

    def _count(self, batch: Batch) -> None:
        self.partition.add(self._keys(batch.prompts), batch.log_weights)

    def _keys(self, prompts: Sequence[str]) -> list[str]:
        return [""] * len(prompts) if self.one_z else list(prompts)

    def _rewards(self, batch: Batch) -> torch.Tensor:
        log_z = self.partition.log_z(self._keys(batch.prompts))
        rewards = self.objective.rewards(batch.log_policy, batch.scores.log_prior, batch.scores.log_potential, log_z)
        return torch.where(batch.scores.missing, torch.nan, rewards)

    def _values(self, policy: Any, batch: Batch, rewards: torch.Tensor) -> torch.Tensor | None:
        """V of every prefix (N, L) as it was known before this batch, which counts from then on; None if nothing was known."""
        if self.value is None:
            return None
        log_ratio = batch.log_policy - batch.log_proposal
        return self.value.read(policy, batch.samples, rewards, log_ratio, self._groups(batch.samples))

    def _compare(self, now: torch.Tensor, then: torch.Tensor, lengths: torch.Tensor, step: int) -> None:
        """The law that was drawn from is the law that is trained. Errors: TrainingError at the first step if it is not."""
        gap = float(((now - then).abs() / lengths.clamp(min=1)).max())
        if step == 0 and not gap <= GAP:
            raise TrainingError(
                f"the log-probabilities of sampler and trainer differ by {gap:.2g} nats a token",
                "compute both in one precision: precision=float32, or OnPolicy(torch.bfloat16), which scores its samples again",
            )

    def _numbers(self, batch: Batch, rewards: torch.Tensor, values: torch.Tensor | None = None) -> dict[str, float]:
        """What is logged of a step: estimates under the policy, of samples of the proposal."""
        scores, known = batch.scores, rewards.isfinite()
        ratio = (batch.log_policy - batch.log_proposal).exp()
        usable = ~scores.missing
        log_p = scores.log_score - self.partition.log_z(self._keys(batch.prompts))
        weights = torch.where(log_p.isfinite(), log_p - batch.log_proposal, -torch.inf)

        def mean(values: torch.Tensor, where: torch.Tensor) -> float:
            return float((values * ratio)[where].sum() / ratio[where].sum()) if bool(where.any()) else float("nan")

        share = float("nan") if values is None else explained(rewards, values, batch.samples.mask)
        return ({} if self.value is None else {"value_explained": share}) | {
            "reward": mean(rewards, known),
            "potential": mean(scores.log_potential.exp(), usable),
            "log_potential": mean(scores.log_potential, scores.log_potential.isfinite()),
            "kl_policy_prior": mean(batch.log_policy - scores.log_prior, usable),
            "kl_target_policy": float(
                (weights.exp() * torch.where(log_p.isfinite(), log_p - batch.log_policy, 0.0)).mean()
            ),
            "entropy": mean(-batch.log_policy, usable),
            "log_z": float(
                torch.tensor([self.partition.of(key).value for key in dict.fromkeys(self._keys(batch.prompts))]).mean()
            ),
            "ratio": float(ratio.mean()),
            "ess": effective_sample_size(weights) / len(weights),
            "pareto_k": pareto_k(weights),
            "length": float(batch.samples.lengths.double().mean()),
            "missing": float((~known).sum()),
            "samples": float(len(rewards)),
        }

    # --- what a resumed run needs
    def state(self) -> State:
        """Z, the running mean of rewards, the learned value, and what the proposal remembers."""
        inner = self.proposal.state()
        value = State() if self.value is None else self.value.state()
        facts = {"partition": self.partition.state(), "rewarded": list(self.rewarded), "proposal": inner.facts}
        return State(inner.tensors | value.tensors, facts | {"value": value.facts})

    def restore(self, policy: Any, state: State) -> None:
        """Put back what `state` said; `policy` has its weights already."""
        self.partition.restore(state.facts["partition"])
        total, count = state.facts["rewarded"]
        self.rewarded = float(total), float(count)
        self.proposal.restore(policy, State(state.tensors, state.facts["proposal"]))
        if self.value is not None:
            self.value.restore(policy, State(state.tensors, state.facts["value"]))


def _check(decoding: Decoding, contexts: Sequence[str], baseline: str, samples: int) -> None:
    changed = decoding.deviations()
    if changed:
        raise ConfigError(
            f"training draws with {', '.join(changed)}, which is not the law of the policy",
            "leave temperature=1, top_k=0, top_p=1",
        )
    if not contexts or len(set(contexts)) != len(contexts):
        raise ConfigError(
            f"{len(contexts)} contexts, {len(set(contexts))} different ones", "give each context once, at least one"
        )
    if baseline not in (*BASELINES, "value"):
        raise ConfigError(f"baseline={baseline!r} is not known", f"use one of {', '.join(BASELINES)}, value")
    if samples < 2 and baseline == "leave-one-out":
        raise ConfigError("leave-one-out needs another sample of the same context", "use samples_per_context >= 2")
