"""Does a baseline bias the gradient? By listing every batch of a small table, so that the answer has no noise.

    c_i = - pi/q(x_i) (R_i - B_i) / N        unbiased for every reward iff  E[ sum_i pi/q(x_i) B_i grad log pi(x_i) ] = 0

B_i may depend on the other samples and on the context, not on x_i itself. The mean of a batch that includes x_i shrinks the
gradient to (n-1)/n of itself. For the forward KL, pi/q R = P/(Z q): subtracting Z pi/q (B_i = 1) is right, subtracting Z
(B_i = q/pi) only where q = pi (Korbak et al. 2022, arXiv 2206.00761). `groups` are the places of each context's samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from amenable.evaluation import oracle
from amenable.objective.divergence import Divergence, ForwardKL, JensenShannon
from amenable.objective.reward import ExpectedReward, Objective
from amenable.seeding import torch_generator
from amenable.selftest.bench import EXACT, Bench, bench, every_proposal, relative
from amenable.selftest.check import Check, attempt, told

GROUPS = [torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5])]


@dataclass(frozen=True)
class Habits:
    """What a sample's own shift changes with."""

    own_reward: bool
    own_ratio: bool

    def told(self) -> str:
        both = [word for word, is_so in (("reward", self.own_reward), ("ratio", self.own_ratio)) if is_so]
        return f"the shift of a sample changes with its own {' and '.join(both)}"


def baseline_checks(
    baseline: Callable[..., Any], *, mine: Divergence | None, seed: int, on: Bench | None = None
) -> Iterator[Check]:
    """Shapes and manners first; then the bias, for each objective, on and off policy, and across contexts."""
    label = getattr(baseline, "__name__", type(baseline).__name__)
    first = _usable(baseline, f"{label}, one number a sample")
    yield first
    if not first.ok:
        return
    again = attempt(label, partial(_repeats, baseline, f"{label}, the same answer again"))
    yield again
    if not again.ok:
        return
    yield attempt(f"{label}, one sample alone", partial(_alone, baseline, f"{label}, one sample alone"))
    habits = _habits(baseline)
    on = on or bench(seed)
    reward = ExpectedReward(of="log-potential")
    objectives: list[Objective] = [ForwardKL, JensenShannon, reward, *([mine] if mine else [])]
    for objective in objectives:
        for draws, where in zip(every_proposal(on), ("on policy", "off policy"), strict=False):
            name = f"{label}, {objective.name}, {where}"
            law = draws.log_laws[0]
            yield attempt(name, partial(_bias, baseline, name, objective, law, on, habits))
    name = f"{label}, two contexts at once"
    yield attempt(name, partial(_bias, baseline, name, ForwardKL, law, on, habits, jointly=True))


def _batch(seed: int, size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.randn(2, size, generator=torch_generator(seed, "batch"), dtype=torch.float64)
    return values[0], values[1].exp()


def _call(baseline: Callable[..., Any], rewards: torch.Tensor, ratio: torch.Tensor, groups: list[torch.Tensor]) -> Any:
    return baseline(rewards.clone(), ratio.clone(), [chosen.clone() for chosen in groups])


def _usable(baseline: Callable[..., Any], name: str) -> Check:
    for size, groups in ((6, GROUPS), (4, [torch.arange(4)])):
        rewards, ratio = _batch(0, size)
        kept = rewards.clone(), ratio.clone()
        try:
            shift = baseline(rewards, ratio, groups)
        except Exception as error:
            return Check(name, "", False, f"{told(error)}, with {size} samples in {len(groups)} contexts")
        if not isinstance(shift, torch.Tensor):
            return Check(name, "", False, f"it returned a {type(shift).__name__}: return a tensor, one number a sample")
        if shift.shape != rewards.shape:
            shapes = f"shape {tuple(shift.shape)} for {size} samples"
            return Check(name, "", False, f"it returned {shapes}: return one number a sample (expand_as(rewards))")
        if not bool(shift.isfinite().all()):
            return Check(name, "", False, "it returned what is not finite")
        if not torch.equal(rewards, kept[0]) or not torch.equal(ratio, kept[1]):
            return Check(name, "", False, "it changed the rewards or ratios that it was given: work on a copy")
    return Check(name, f"{size} for {size} samples")


def _repeats(baseline: Callable[..., Any], name: str) -> Check:
    rewards, ratio = _batch(0)
    other = _batch(1)
    before = _call(baseline, rewards, ratio, GROUPS)
    _call(baseline, *other, GROUPS)
    gap = float((_call(baseline, rewards, ratio, GROUPS) - before).abs().max())
    why = "it answers otherwise the second time (random, or it remembers): then nothing can be said by listing batches"
    return Check(name, f"differs by {gap:.2g}" if gap else "the same", gap == 0, why)


def _alone(baseline: Callable[..., Any], name: str) -> Check:
    """Where the feedback on all others is missing, one sample is left."""
    one = torch.ones(1, dtype=torch.float64)
    shift = _call(baseline, 2 * one, one, [torch.tensor([0])])
    finite = shift.shape == one.shape and bool(torch.as_tensor(shift).isfinite().all())
    why = "with one known sample in a context there are no others: return 0 for it, not nan"
    return Check(name, f"shift {float(shift.flatten()[0]):.3g} for a reward of 2" if shift.numel() else "", finite, why)


def _habits(baseline: Callable[..., Any]) -> Habits:
    """What changes when one sample's own reward or ratio does; the largest and the smallest of a batch are tried too."""
    own_reward = own_ratio = False
    for seed in range(4):
        rewards, ratio = _batch(seed)
        try:
            before = _call(baseline, rewards, ratio, GROUPS)
            for place in range(len(rewards)):
                for change in (-5.0, 5.0):
                    other, weighed = rewards.clone(), ratio.clone()
                    other[place] += change
                    weighed[place] *= 2.0**change
                    own_reward |= bool((_call(baseline, other, ratio, GROUPS) - before)[place].abs() > EXACT)
                    own_ratio |= bool((_call(baseline, rewards, weighed, GROUPS) - before)[place].abs() > EXACT)
        except Exception:
            continue
    return Habits(own_reward, own_ratio)


def _bias(
    baseline: Callable[..., Any],
    name: str,
    objective: Objective,
    law: torch.Tensor,
    on: Bench,
    habits: Habits,
    *,
    jointly: bool = False,
) -> Check:
    """The expected gradient with batches of two and of three draws of a context; `jointly`: two of each context."""
    exact = oracle.gradient(objective, on.policy, on.target)
    sizes = (2,) if jointly else (2, 3)
    plain = oracle.expected_gradient(objective, on.policy, on.target, log_laws=[law], baseline="none").variance
    errors, slopes, variances, parallel = [], [], [], True
    for n in sizes:
        found = oracle.expected_gradient(
            objective, on.policy, on.target, log_laws=[law] * n, baseline=baseline, jointly=jointly
        )
        errors.append(relative(found.mean, exact))
        slopes.append(float(found.mean @ exact / (exact @ exact)))
        variances.append(found.variance * n / plain)  # draws are independent: n of them have plain / n
        parallel &= relative(found.mean, slopes[-1] * exact) < EXACT
    counts = [n * len(on.policy.contexts) if jointly else n for n in sizes]
    if max(errors) < EXACT:
        part = ", ".join(f"{variance:.2f}" for variance in variances)
        return Check(name, f"expected {max(errors):.0e} off, variance x {part} for n = {_listed(counts)}")
    shown = f"expected {', '.join(f'{error:.0%}' for error in errors)} off for n = {_listed(counts)}"
    if not all(map(math.isfinite, errors)):
        why = "for some batches it returns what is not finite: equal rewards, or a spread of 0?"
    elif parallel:
        why = f"it is biased: the gradient is {', '.join(f'{slope:.4g}' for slope in slopes)} times the right one"
        if all(abs(slope - (n - 1) / n) < EXACT for slope, n in zip(slopes, counts, strict=True)):
            why += ", which is (n-1)/n: the batch mean includes the sample itself. Take the mean of the others"
    elif habits.own_ratio and not habits.own_reward:
        why = f"it is biased off policy: {habits.told()}. Is it Z that is subtracted from P/q, where Z pi/q is meant?"
    elif habits.own_reward or habits.own_ratio:
        why = f"it is biased: {habits.told()}. It may depend on the other samples alone"
    else:
        why = "it is biased: what is subtracted must not depend on the sample itself"
    return Check(name, shown, False, why)


def _listed(counts: list[int]) -> str:
    return ", ".join(map(str, counts))
