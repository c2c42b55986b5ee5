"""Targets by name, as they are written on a command line.

    target   factor { " * " factor }           all hold at once; spaces on both sides of the star
    factor   NAME                              always:               phi = 1 if it holds, else 0
             NAME@SHARE                        in that share:        phi = exp(l b), l fitted until E_p[b] = SHARE
             NAME~BETA                         the more the better:  phi = exp(b / BETA)

    compiles       contains:amazing@0.5       length<=100 * word:cat@0.3       pep8~0.5       not contains:TODO * compiles~0.1

NAME is that of a constraint (`feedback.constraints`: compiles, contains:WORD, length<=100, ...). A number at the end
behind @ or ~ is always read as a share or a beta. NAME@1 and NAME@0 are hard constraints: it always or never holds.
Shares are fitted together, to samples that satisfy the hard factors; a share and a tilt in one target are refused,
since the tilt would move the share.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from amenable.errors import ConfigError
from amenable.feedback.constraints import named
from amenable.feedback.feature import Feature, negated
from amenable.policy.protocol import Policy
from amenable.records import Decoding
from amenable.target.moments import with_moments
from amenable.target.posterior import Target
from amenable.target.potential import constraint, tilt

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"


@dataclass(frozen=True)
class Factor:
    """One factor of a target: its feature, what is asked of it, and the share or beta (0 for a constraint)."""

    feature: Feature
    kind: Literal["constraint", "share", "tilt"]
    number: float = 0.0


def factors_of(text: str) -> list[Factor]:
    """The factors that a target is written with, checked before any model is loaded.

    Errors: ConfigError that says which factor cannot be read, and why.
    """
    if not text.strip():
        raise ConfigError(
            "no target is named",
            "give target=compiles, target=contains:amazing@0.5, target=pep8~0.5, or several with ' * '",
        )
    found = [_factor(part.strip()) for part in re.split(r"\s\*\s", text)]
    names = [factor.feature.name for factor in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"target {text!r} names {twice!r} twice", "name each feature once")
    if {"share", "tilt"} <= {factor.kind for factor in found}:
        raise ConfigError(
            f"target {text!r} has a share (@) and a tilt (~): the tilt would move the share that was fitted",
            "use shares, or tilts",
        )
    return found


def target_named(
    prior: Policy,
    text: str,
    *,
    contexts: Sequence[str] = ("",),
    decoding: Decoding = Decoding(max_tokens=64),  # noqa: B008 (frozen)
    samples: int = 4096,
    proposal: Policy | None = None,
    seed: int = 0,
) -> Target:
    """The target that `text` names, over `prior` in float32; a `MomentTarget` if shares had to be fitted.

    Shares are fitted over `contexts` with `samples` draws of `proposal` (default: the prior) of at most `decoding.max_tokens`
    tokens, which must be the length that is drawn later; the other arguments matter to them alone.
    Errors: ConfigError for a text that cannot be read or a share that cannot be reached; FeedbackError for one too rare to fit.
    """
    factors = factors_of(text)
    if any(factor.kind == "share" for factor in factors):
        moments = {factor.feature: factor.number if factor.kind == "share" else 1.0 for factor in factors}
        return with_moments(
            prior, moments, contexts=contexts, samples=samples, decoding=decoding, proposal=proposal, seed=seed
        )
    target: Target | None = None
    for factor in factors:
        if factor.kind == "tilt":
            potential = tilt(factor.feature, beta=factor.number)
        else:
            potential = constraint(factor.feature)
        target = Target(prior.exact(), potential) if target is None else target * potential
    assert target is not None
    return target


def is_hard(text: str) -> bool:
    """True if the target is a product of constraints alone, so that P/a is 0 or 1."""
    return all(factor.kind == "constraint" for factor in factors_of(text))


def _factor(text: str) -> Factor:
    found = re.fullmatch(rf"(.+?)\s*([@~])\s*({_NUMBER})", text, re.DOTALL)
    if found is None:
        feature = named(text)
        if not feature.binary:
            raise ConfigError(f"{text!r} is a matter of degree, not a constraint", f"write {text}~BETA or {text}@MEAN")
        return Factor(feature, "constraint")
    feature, number = named(found[1]), float(found[3])
    if found[2] == "~":
        if number <= 0:
            raise ConfigError(f"{text!r} has a beta of {number:g}", "use beta > 0: small ones insist, large ones hint")
        return Factor(feature, "tilt", number)
    if feature.binary and not 0 <= number <= 1:
        raise ConfigError(f"{text!r} asks for a share of {number:g}", "a share lies between 0 and 1")
    if feature.binary and number in (0, 1):
        return Factor(feature if number else negated(feature), "constraint")
    return Factor(feature, "share", number)
