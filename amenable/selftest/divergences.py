"""Is it a divergence? The laws of a convex f with f(1) = 0, its gradient on every proposal and baseline, and one training.

convex        f((s+t)/2) <= (f(s) + f(t)) / 2 for neighbours s, t on a grid of log t, from values of f alone
slope         f' by autograd (or as stated) against differences of f
D(pi, p)      >= 0, = 0 where pi = p, > 0 somewhere else
f'(inf)       what a sample costs that the target forbids; hard constraints need it finite
large log t   texts are long: |log pi/p| of hundreds of nats is usual; f'(t) must stay finite there
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from amenable.errors import TrainingError
from amenable.evaluation import oracle
from amenable.objective.divergence import Divergence
from amenable.objective.score_gradient import BASELINES
from amenable.seeding import torch_generator
from amenable.selftest.bench import (
    CONSTANT,
    EXACT,
    Bench,
    bench,
    every_proposal,
    gradient_checks,
    relative,
    training_check,
)
from amenable.selftest.check import Check, attempt, told

FAR = (5, 10, 20, 30, 50, 70, 100, 150, 200, 250, 300, 350, 400, 500, 600, 690)  # log t, nats
NEEDED = 100  # nats that a text may differ between policy and target


def as_divergence(f: Any) -> Divergence:
    """`f` as it is trained with."""
    return f if isinstance(f, Divergence) else Divergence(getattr(f, "__name__", type(f).__name__), f)


def divergence_checks(divergence: Divergence, *, seed: int, on: Bench | None = None) -> Iterator[Check]:
    """Everything about one divergence; stops where it cannot be computed at all."""
    for basic in (_usable, _elementwise):
        check = attempt(divergence.name, partial(basic, divergence))
        yield check
        if not check.ok:
            return
    for name, work in (
        ("f(1) = 0", _zero),
        ("convex", _convex),
        ("slope", _slope),
        ("large log t", _large),
        ("D(pi, p) >= 0", _positive),
        ("f'(inf)", _limit),
    ):
        label = f"{divergence.name}, {name}"
        yield attempt(label, partial(work, divergence, label))
    on = on or bench(seed)
    yield attempt(f"{divergence.name}, hard constraint", partial(_hard, divergence, on))
    yield from gradient_checks(divergence, on, baselines=BASELINES, seed=seed)
    yield training_check(f"{divergence.name}, training", divergence, on, seed=seed)


def _grid(low: float, high: float, count: int) -> torch.Tensor:
    return torch.linspace(low, high, count, dtype=torch.float64)


def _usable(divergence: Divergence) -> Check:
    name = f"{divergence.name}, a tensor function of t"
    t = _grid(-5, 5, 40).exp()
    try:
        values = divergence.f(t.clone().requires_grad_(True))
    except Exception as error:
        return Check(name, "", False, f"f {told(error)}; write it with torch operations (torch.log, not math.log)")
    if not isinstance(values, torch.Tensor) or values.shape != t.shape:
        shape = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        return Check(name, "", False, f"f of {len(t)} values is {shape}: it must give one value for each t")
    if not values.requires_grad:
        return Check(name, "", False, "f's result has no gradient: no detach(), .item() or numpy inside f")
    if not bool(values.isfinite().all()):
        bad = int((~values.isfinite()).nonzero()[0])
        return Check(
            name,
            "",
            False,
            f"f({float(t[bad]):.3g}) is {float(values[bad].detach())}: f must be finite for every t > 0",
        )
    return Check(name, f"f(1/2) = {_at(divergence, 0.5):.4g}, f(2) = {_at(divergence, 2.0):.4g}")


def _at(divergence: Divergence, t: float) -> float:
    return float(divergence.f(torch.tensor([t], dtype=torch.float64))[0].detach())


def _elementwise(divergence: Divergence) -> Check:
    name = f"{divergence.name}, one t at a time"
    t = _grid(-5, 5, 21).exp()
    alone = torch.tensor([_at(divergence, float(value)) for value in t], dtype=torch.float64)
    gap = float((divergence.f(t) - alone).abs().max() / (1 + alone.abs().max()))
    why = "f(t) depends on the other values in the tensor (a mean, a sum, a maximum?): f is a function of one t"
    return Check(name, f"alone and among others differ by {gap:.0e}", gap < EXACT, why)


def _zero(divergence: Divergence, name: str) -> Check:
    value = _at(divergence, 1.0)
    return Check(
        name, f"{abs(value):.3g}", abs(value) < EXACT, f"f(1) = {value:.3g}, so D(p, p) is not 0: subtract it from f"
    )


def _convex(divergence: Divergence, name: str) -> Check:
    t = _grid(-20, 20, 4001).exp()
    middle = (t[1:] + t[:-1]) / 2
    values, between = divergence.f(t).detach(), divergence.f(middle).detach()
    gap = (values[1:] + values[:-1]) / 2 - between
    allowed = 1e-12 * (1 + middle + between.abs())
    below = gap < -allowed
    share = f"{int((~below).sum())} of {len(gap)} chords lie above f"
    if not bool(below.any()):
        return Check(name, share)
    if not bool((gap > allowed).any()):
        return Check(name, share, False, "f is concave: its sign is wrong, -f is convex")
    where = float(middle[below][0])
    return Check(
        name, share, False, f"f is not convex near t = {where:.3g}: D(pi, p) may be negative, p is not its minimum"
    )


def _slope(divergence: Divergence, name: str) -> Check:
    log_t, step = _grid(-5, 5, 40), 1e-4
    up, down = (log_t + step).exp(), (log_t - step).exp()
    difference = (divergence.f(up) - divergence.f(down)).detach() / (up - down)
    stated = divergence.derivative(log_t)
    scale = difference.abs() + (divergence.f(log_t.exp()).detach() / log_t.exp()).abs() + 1e-3
    gap = (stated - difference).abs() / scale
    worst = int(gap.nan_to_num(nan=math.inf).argmax())
    found = f"{'stated' if divergence.slope else 'by autograd'}, {float(gap.max()):.0e} from differences of f"
    if float(gap[worst]) < 1e-5:
        return Check(name, found)
    t, says, rises = float(log_t[worst].exp()), float(stated[worst]), float(difference[worst])
    why = f"at t = {t:.3g} the slope is {says:.4g}, but f rises by {rises:.4g}: "
    part = (
        "`slope` is not f' of log t"
        if divergence.slope
        else "part of f is hidden from autograd (detach, .item(), round)"
    )
    return Check(name, found, False, why + part)


def _large(divergence: Divergence, name: str) -> Check:
    reach = 0
    for far in FAR:
        both = divergence.derivative(torch.tensor([-far, far], dtype=torch.float64))
        if not bool(both.isfinite().all()):
            break
        reach = far
    why = (
        f"f'(t) overflows beyond |log t| = {reach}, and long texts differ by more: avoid powers of t before they cancel, "
        "or give Divergence(name, f, slope) the slope as a function of log t"
    )
    return Check(name, f"f' is finite up to |log t| = {reach}", reach >= NEEDED, why)


def _positive(divergence: Divergence, name: str) -> Check:
    generator = torch_generator(0, "laws")
    policy, target = (
        torch.log_softmax(2 * torch.randn(500, 8, generator=generator, dtype=torch.float64), -1) for _ in range(2)
    )
    values, own = divergence.value(policy, target).detach(), divergence.value(target, target).detach().abs().max()
    found = (
        f"{float(values.min()):.3g} to {float(values.max()):.3g} for 500 pairs of laws, {float(own):.0e} for equal ones"
    )
    if float(values.min()) < -EXACT:
        return Check(
            name, found, False, f"D is {float(values.min()):.3g} for some pair: below 0, so p is not its minimum"
        )
    if float(own) > EXACT:
        return Check(name, found, False, f"D(p, p) is {float(own):.3g}, not 0")
    if float(values.max()) < EXACT:
        return Check(name, found, False, "D is 0 for every pair: f is linear, and has no gradient to follow")
    return Check(name, found)


def _limit(divergence: Divergence, name: str) -> Check:
    slopes = divergence.derivative(torch.tensor(FAR, dtype=torch.float64))
    slopes = slopes[slopes.isfinite()]
    near, far = slopes[-3:].min(), slopes[-3:].max()
    settled = float(far - near) <= 1e-6 * (1 + float(far.abs()))
    taken = divergence.limit if abs(divergence.limit) > 1e-12 else 0.0
    if settled and math.isfinite(taken) and abs(taken - float(far)) > 1e-5 * (1 + abs(taken)):
        why = f"f'(t) tends to {float(far):.4g}, but at_infinity says {taken:.4g}"
        return Check(name, f"{taken:.4g}", False, why)
    if settled and math.isinf(taken):
        how = f"state it: Divergence({divergence.name!r}, f, at_infinity={float(far):.4g})"
        return Check(
            name, f"{float(far):.4g}, but taken for inf, as f overflows: no hard constraints. To have them, {how}"
        )
    allowed = "hard constraints are allowed" if math.isfinite(taken) else "no hard constraints: use a tilt"
    return Check(name, f"{taken:.4g}: {allowed}")


def _hard(divergence: Divergence, on: Bench) -> Check:
    """Where the target has zeros: the gradient, or the refusal."""
    name = f"{divergence.name}, hard constraint"
    if on.hard is None:
        return Check(name, "no such target here", None)
    laws = every_proposal(on)[0].log_laws
    if math.isinf(divergence.limit):
        try:
            oracle.expected_gradient(divergence, on.policy, on.hard, log_laws=laws)
        except TrainingError as error:
            return Check(name, f"refused: {error.what.partition(': ')[2]}")
        return Check(name, "", False, "the divergence is infinite, and is not refused")
    exact = oracle.gradient(divergence, on.policy, on.hard)
    errors = [
        relative(
            oracle.expected_gradient(
                divergence, on.policy, on.hard, log_laws=draws.log_laws, baseline=baseline, constant=CONSTANT
            ).mean,
            exact,
        )
        for draws in every_proposal(on)
        for baseline in BASELINES
    ]
    return Check(
        name,
        f"expected {max(errors):.0e} off, every proposal and baseline",
        max(errors) < EXACT,
        f"on average the estimator is {max(errors):.1%} away from the exact gradient",
    )
