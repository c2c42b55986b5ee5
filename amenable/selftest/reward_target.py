"""The target that a reward makes, p proportional to a exp(r / beta), and the way to it, on a table whose letters are texts.

beta    the reward's standard deviation under the prior, so that the target is neither the prior nor a single text
bound   E_pi[r] - beta KL(pi || a) = beta (log Z - KL(pi || p))        (Korbak et al. 2022, arXiv 2205.11275, eq. 7)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from amenable.evaluation import oracle
from amenable.objective.divergence import Divergence, ForwardKL, JensenShannon, ReverseKL
from amenable.objective.reward import ExpectedReward, Objective
from amenable.selftest.bench import EXACT, Bench, gradient_checks, tables, training_check
from amenable.selftest.check import Check, attempt, shown, told
from amenable.target.potential import constraint, tilt

PROMPTS = ("Say something.", "Is it raining?")
SAME = 1e-5  # relative: a neural reward rounds differently in batches of other widths


def target_checks(
    function: Callable[..., Any], name: str, pieces: tuple[str, ...], mine: Divergence | None, seed: int
) -> Iterator[Check]:
    """The reward `function` on all texts of at most two of `pieces`; with the divergence `mine` besides those that ship."""
    policy, other, prior = tables(pieces, 2, seed, contexts=PROMPTS)
    label = f"{name}, enumerated target"
    try:
        table = oracle.laws(prior, prior.tilt(function, beta=1.0))
    except Exception as error:
        yield Check(label, "", False, told(error))
        return
    values = table.log_potential
    unknown = _nothing_to_see(table, pieces)
    if unknown is not None:
        yield Check(label, *unknown)
        return
    beta = float(f"{_spread(table):.2g}")
    keys = zip(table.prompts, table.samples.texts, table.samples.ended, strict=True)
    known = dict(zip(keys, values.flatten().tolist(), strict=True))

    def looked_up(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
        """The reward from now on: it was shown to be a function of its text, and may be slow."""
        return [known[key] for key in zip(prompts, completions, columns["ended"], strict=True)]

    looked_up.__name__ = name
    on = Bench(policy, other, prior * tilt(looked_up, beta=beta), None)
    yield attempt(label, partial(_target, function, label, on, beta))
    as_reward = ExpectedReward(beta=beta, of="log-potential", scale=beta)
    yield attempt(f"{name}, bound", partial(bound_check, on, as_reward))
    objectives: list[Objective] = [ReverseKL, JensenShannon, as_reward, *([mine] if mine else [])]
    for objective in objectives:
        yield from gradient_checks(objective, on, baselines=("leave-one-out",), only=("policy", "fixed"), seed=seed)
    if set(values.flatten().tolist()) == {0.0, 1.0}:
        hard = Bench(policy, other, prior * constraint(looked_up), None)
        for check in gradient_checks(ForwardKL, hard, baselines=("leave-one-out",), only=("policy",), seed=seed):
            yield Check(f"as a constraint: {check.name}", check.found, check.ok, check.why)
    yield training_check(f"{name}, training (reverse-kl)", ReverseKL, on, seed=seed)


def _spread(table: oracle.Laws) -> float:
    """Standard deviation of log phi under the prior, over contexts."""
    mean = oracle.expectation(table.log_prior, table.log_potential)
    return float(oracle.expectation(table.log_prior, (table.log_potential - mean[:, None]) ** 2).mean().sqrt())


def _nothing_to_see(table: oracle.Laws, pieces: tuple[str, ...]) -> tuple[str, None, str] | None:
    """What was found, and the fix, where the reward says nothing of the table's texts, or the same of all."""
    values, made = table.log_potential, f"texts made of {', '.join(map(shown, pieces))}"
    missing = int(values.isnan().sum())
    if missing:
        found = f"not checked: no answer for {missing} of {values.numel()} {made}"
        return found, None, "give texts with pieces=ONE,TWO that are all answered"
    if _spread(table) < EXACT * (1 + float(values.abs().max())):
        found = f"not checked: {float(values[0, 0]):.3g} for all {made}"
        return found, None, "give texts that the reward tells apart: pieces=ONE,TWO"
    return None


def _target(function: Callable[..., Any], name: str, on: Bench, beta: float) -> Check:
    """p of the package, against a exp(r / beta) / Z with the reward asked one sample at a time."""
    table = oracle.laws(on.prior, on.target)
    ended, lengths = table.samples.ended, table.samples.lengths.tolist()
    single = [
        float(function(prompts=[prompt], completions=[text], ended=[why], lengths=[length])[0])
        for prompt, text, why, length in zip(table.prompts, table.samples.texts, ended, lengths, strict=True)
    ]
    values = torch.tensor(single, dtype=torch.float64).view(table.log_prior.shape)
    log_p = (table.log_prior + values / beta).log_softmax(1)
    error = float((log_p.exp() - table.log_target.exp()).abs().max())
    before, after = (float(oracle.expectation(law, values).mean()) for law in (table.log_prior, log_p))
    found = f"{values.numel()} texts, beta {beta:g}: mean {before:.3g} -> {after:.3g}, p {error:.0e} off"
    why = f"p differs by {error:.2g} from the one that is made of single answers"
    return Check(name, found, error < SAME, why)


def bound_check(on: Bench, objective: ExpectedReward) -> Check:
    """E_pi[r] - beta KL(pi || a) = beta (log Z - KL(pi || p)), both sides by enumeration; r = beta log phi."""
    table = oracle.laws(on.policy, on.target)
    left = -float(oracle.loss(objective, on.policy, on.target))
    right = objective.beta * float((table.log_z - oracle.kl(table.log_policy, table.log_target)).mean())
    error = abs(left - right) / (1 + abs(left))
    found = f"E[r] - beta KL(pi||a) = {left:.4g}, {error:.0e} from beta (log Z - KL(pi||p))"
    return Check(f"{objective.name}, bound", found, error < EXACT, f"the right side is {right:.4g}")
