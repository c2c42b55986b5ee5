"""Everything that ships, on the tables: each divergence and reward with each proposal and baseline; and that errors are found.

What has to fail is there too: a self-test that finds nothing wrong must be one that would have found it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from amenable.evaluation import oracle
from amenable.objective.divergence import (
    DIVERGENCES,
    Divergence,
    ForwardKL,
    JensenShannon,
    ReverseKL,
    TotalVariation,
    alpha_divergence,
)
from amenable.objective.reward import ExpectedReward
from amenable.objective.score_gradient import BASELINES
from amenable.policy.tabular import TabularPolicy
from amenable.records import Decoding
from amenable.sampling.proposal import Adaptive
from amenable.seeding import torch_generator
from amenable.selftest.baselines import baseline_checks
from amenable.selftest.bench import EXACT, LARGEST_Z, Bench, bench, gradient_checks, has_a, liked
from amenable.selftest.check import Check, attempt
from amenable.selftest.divergences import divergence_checks
from amenable.selftest.reward_target import bound_check
from amenable.selftest.rewards import reward_checks
from amenable.target.partition import Partition

MANY = 4096  # samples of an estimate


def shipped_checks(seed: int) -> Iterator[Check]:
    """All of it, in less than a minute."""
    on = bench(seed)
    for divergence in (*DIVERGENCES, alpha_divergence(0.5)):
        yield from divergence_checks(divergence, seed=seed, on=on)
        yield attempt(f"{divergence.name}, duality", partial(_dual, divergence))
    yield attempt("named divergences", _identities)
    for objective in (ExpectedReward(of="log-potential"), ExpectedReward(beta=1.0, of="log-potential")):
        yield from gradient_checks(objective, on, baselines=BASELINES, seed=seed)
    yield attempt("reward, beta=1, bound", partial(bound_check, on, ExpectedReward(beta=1.0, of="log-potential")))
    yield attempt("log Z from samples", partial(_partition, on, seed))
    yield attempt("moments from samples", partial(_moments, on, seed))
    yield attempt("the adaptive proposal's choice", partial(_adaptive, on, seed))
    yield from _wrong_ones(seed)


def _pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """500 pairs of laws over 8 outcomes."""
    draws = torch.randn(2, 500, 8, generator=torch_generator(0, "pairs"), dtype=torch.float64)
    return torch.log_softmax(2 * draws[0], -1), torch.log_softmax(2 * draws[1], -1)


def _dual(divergence: Divergence) -> Check:
    one, other = _pairs()
    there, back = divergence.value(one, other), divergence.dual.value(other, one)
    error = float(((there - back).abs() / (1e-3 + there)).max())
    why = "D_f(pi, p) is not D_f*(p, pi) with f*(t) = t f(1/t)"
    return Check(f"{divergence.name}, duality", f"D_f(pi, p) and D_f*(p, pi) differ by {error:.0e}", error < EXACT, why)


def _identities() -> Check:
    """The definitions that need no f."""
    one, other = _pairs()
    mean = torch.logaddexp(one, other) - math.log(2)
    hellinger = ((one / 2).exp() - (other / 2).exp()).square().sum(-1) / 2
    errors = [
        ForwardKL.value(one, other) - oracle.kl(other, one),
        ReverseKL.value(one, other) - oracle.kl(one, other),
        JensenShannon.value(one, other) - (oracle.kl(one, mean) + oracle.kl(other, mean)) / 2,
        TotalVariation.value(one, other) - (one.exp() - other.exp()).abs().sum(-1) / 2,
        alpha_divergence(0.5).value(one, other) - 4 * hellinger,
    ]
    worst = max(float(error.abs().max()) for error in errors)
    return Check(
        "named divergences", f"{worst:.0e} from their definitions", worst < EXACT, "one is not what its name says"
    )


def _partition(on: Bench, seed: int) -> Check:
    samples = on.other.sample(on.other.contexts, n=MANY, seed=seed)
    prompts = [context for context in on.other.contexts for _ in range(MANY)]
    partition = Partition()
    partition.add(prompts, on.target.log_weights(prompts, samples))
    exact = oracle.laws(on.policy, on.target).log_z.tolist()
    found = [partition.of(context) for context in on.other.contexts]
    z = max(abs(one.value - true) / one.standard_error for one, true in zip(found, exact, strict=True))
    shown = f"{found[0].value:.3f} ± {found[0].standard_error:.3f}, exact {exact[0]:.3f}, z {z:.1f}"
    return Check("log Z from samples", shown, z < LARGEST_Z, "the estimate is not where its standard error says")


def _moments(on: Bench, seed: int) -> Check:
    asked = 0.8
    target = on.prior.with_moments({has_a: asked}, contexts=on.prior.contexts, samples=MANY, seed=seed)
    table = oracle.laws(on.policy, target)
    values = torch.tensor(has_a(table.prompts, list(table.samples.texts)), dtype=torch.float64).view(
        table.log_prior.shape
    )
    exact = float(oracle.expectation(table.log_target, values).mean())
    moment = target.moments[0]
    z = abs(exact - asked) / moment.standard_error
    found = f"{moment.prior:.3f} -> {exact:.3f} exact, asked {asked:g} ± {moment.standard_error:.3f}, z {z:.1f}"
    return Check(
        "moments from samples", found, z < LARGEST_Z, "the fitted target does not have the mean that was asked for"
    )


def _adaptive(on: Bench, seed: int) -> Check:
    """q <- pi if and only if pi is closer to p: tried with the target itself, and with a law further away."""
    name = "the adaptive proposal's choice"
    table = oracle.laws(on.policy, on.target)
    best, before, far = (
        table.log_target,
        table.log_policy,
        table.log_policy + torch.log_softmax(-3 * table.log_target, 1),
    )

    def changes(start: TabularPolicy, now: TabularPolicy) -> int:
        proposal = Adaptive(every=1)
        for step, policy in enumerate((start, now)):
            decoding = Decoding(max_tokens=policy.max_tokens)
            proposal.prepare(step, policy, on.target, policy.contexts, decoding, seed)
        return proposal.changes

    closer, further = _as_table(on.policy, best), _as_table(on.policy, far.log_softmax(1))
    taken, left = changes(on.policy, closer), changes(on.policy, further)
    distances = [float(oracle.kl(table.log_target, law.log_softmax(1)).mean()) for law in (best, before, far)]
    found = f"KL(p||pi) {distances[1]:.2f} -> {distances[0]:.2f} is taken, -> {distances[2]:.2f} is not"
    return Check(name, found, taken == 1 and left == 0, f"taken {taken} times where closer, {left} where further")


def _as_table(like: TabularPolicy, log_law: torch.Tensor) -> TabularPolicy:
    """The table whose sequences have the law (C, X): each logit is the log-mass of the sequences that go that way."""
    samples, logits = like.everything(like.contexts), torch.full_like(like.logits.detach(), -torch.inf)
    law = log_law.flatten()
    for row, (token_row, length) in enumerate(zip(samples.tokens.tolist(), samples.lengths.tolist(), strict=True)):
        context, prefix = samples.context_ids[row][0], 0
        for token in token_row[:length]:
            logits[context, prefix, token] = torch.logaddexp(logits[context, prefix, token], law[row])
            prefix = prefix * len(like.alphabet) + 1 + token
    return TabularPolicy(like.alphabet, like.max_tokens, like.contexts, logits)


# --- what must be found wrong


def batch_mean(rewards: torch.Tensor, ratio: torch.Tensor, groups: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of the batch, the sample itself included."""
    return rewards.mean().expand_as(rewards)


def constant_z(rewards: torch.Tensor, ratio: torch.Tensor, groups: Sequence[torch.Tensor]) -> torch.Tensor:
    """P/q - Z: right on policy alone."""
    return 1 / ratio


def concave(t: torch.Tensor) -> torch.Tensor:
    """The forward KL with the wrong sign."""
    return t.log()


def ranked(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    """A reward that looks at the rest of its batch."""
    order = sorted(liked(prompts, completions))
    return [float(order.index(value)) for value in liked(prompts, completions)]


def _wrong_ones(seed: int) -> Iterator[Check]:
    wrong: Sequence[tuple[Callable[..., Any], Callable[[], Iterator[Check]], str]] = [
        (
            batch_mean,
            partial(baseline_checks, batch_mean, mine=None, seed=seed),
            "the batch mean includes the sample itself",
        ),
        (constant_z, partial(baseline_checks, constant_z, mine=None, seed=seed), "Z pi/q is meant"),
        (concave, partial(divergence_checks, Divergence("concave", concave), seed=seed), "its sign is wrong"),
        (ranked, partial(reward_checks, ranked, mine=None, seed=seed), "A reward depends on its own text alone"),
    ]
    for function, checks, reason in wrong:
        found = next((check for check in checks() if not check.ok and reason in check.why), None)
        name = f"wrong on purpose: {function.__name__}"
        shown = "" if found is None else f"found: {found.name}{f' ({found.found})' if found.found else ''}"
        yield Check(name, shown, found is not None, "it was not found")
