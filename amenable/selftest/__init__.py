"""`amenable selftest`: what ships, or a divergence, reward or baseline of your own, against exact enumeration.

A table of a few dozen sequences has no sampling error: its target, its divergence to it and the gradient are sums
(`evaluation.oracle`). What the package computes from samples, and what your function adds to it, must agree with them.

    f=FILE.py:NAME         a convex function of t = pi/p, made of torch operations, or a `Divergence`
    reward=FILE.py:NAME    f(prompts, completions, **columns) -> [float | None], TRL's signature
    baseline=FILE.py:NAME  f(rewards (N,), ratio pi/q (N,), groups) -> what is subtracted from each reward (N,)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amenable.selftest.check import Check


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Settings:
    """What is tested: nothing given is everything that ships."""

    f: str | None = _setting(None, "FILE.py:NAME of a function f(t), or of a Divergence")
    reward: str | None = _setting(None, "FILE.py:NAME of a reward(prompts, completions, **columns)")
    baseline: str | None = _setting(None, "FILE.py:NAME of a baseline(rewards, ratio, groups)")
    pieces: tuple[str, ...] = _setting((), "two or three texts that the reward tells apart (empty: found by itself)")
    seed: int = _setting(0, "seed of the tables and of what is drawn")


def selftest(settings: Settings) -> Iterator[Check]:
    """One check after the other. Errors: ConfigError for a function that cannot be found, or not be called as it must be.

    On one thread: with tensors as small as these, two threads on a busy machine took twenty times longer.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from _checks(settings)
    finally:
        torch.set_num_threads(threads)


def _checks(settings: Settings) -> Iterator[Check]:
    from amenable.selftest.baselines import baseline_checks
    from amenable.selftest.divergences import as_divergence, divergence_checks
    from amenable.selftest.loading import load
    from amenable.selftest.rewards import reward_checks
    from amenable.selftest.shipped import shipped_checks

    columns = ["prompts=", "completions=", "ended=", "lengths="]
    f = load("f", settings.f, ["t"]) if settings.f else None
    reward = load("reward", settings.reward, columns) if settings.reward else None
    baseline = load("baseline", settings.baseline, ["rewards", "ratio", "groups"]) if settings.baseline else None
    if f is reward is baseline is None:
        yield from shipped_checks(settings.seed)
        return
    mine = None if f is None else as_divergence(f)
    sound = True
    if mine is not None:
        for check in divergence_checks(mine, seed=settings.seed):
            sound = sound and check.ok is not False
            yield check
    mine = mine if sound else None  # one failure is told once
    if reward is not None:
        yield from reward_checks(reward, pieces=settings.pieces, mine=mine, seed=settings.seed)
    if baseline is not None:
        yield from baseline_checks(baseline, mine=mine, seed=settings.seed)
