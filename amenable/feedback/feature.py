"""Features of texts, and how features are put together; the ones that ship are in `constraints`.

A feature is a `kinds.Score` with a name: f(prompts, completions, **columns) -> one number a completion, 0 or 1 if it is
`binary`, None where it cannot be said. With T, F and ? for 1, 0 and missing, combinations follow Kleene's logic:

    all_of   F if one is F, else ? if one is ?, else T          negated   T <-> F, ? stays
    any_of   T if one is T, else ? if one is ?, else F          share     number of T / number of features; ? if one is ?

so that a missing value is missing only where it matters. Source: Kleene 1952, section 64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from amenable.errors import ConfigError, DataError

Values = list[float | None]
Columns = Mapping[str, object]
Rule = Callable[[Sequence[str], Sequence[str], Columns], Values]


class NamedScore(Protocol):
    """A `kinds.Score` that says what it is called, and whether its values are 0 and 1 alone."""

    @property
    def name(self) -> str: ...
    @property
    def binary(self) -> bool: ...
    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: object) -> Values: ...


@dataclass(frozen=True)
class Feature:
    """A feature; two of one name are equal. `rule` takes prompts, completions and the columns as one mapping.

    Calling it gives one value a completion. Errors: DataError if there are not as many prompts as completions.
    """

    name: str
    binary: bool
    rule: Rule = field(repr=False, compare=False)

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: object) -> Values:
        if len(prompts) != len(completions):
            raise DataError(
                f"{self.name}: {len(prompts)} prompts for {len(completions)} completions.",
                "give one prompt a completion.",
            )
        return self.rule(prompts, completions, columns)


def above(score: NamedScore, threshold: float) -> Feature:
    """Whether `score` is greater than `threshold`: makes a binary feature of a classifier. Missing stays missing."""
    return Feature(f"{score.name}>{threshold:g}", True, partial(_each_value, partial(_greater, threshold), (score,)))


def all_of(*features: NamedScore) -> Feature:
    """1 where all hold, 0 where one does not; missing only where that is open. ConfigError for features not binary."""
    return Feature(f"({_joined(' and ', features)})", True, partial(_each_value, _and, features))


both = all_of


def any_of(*features: NamedScore) -> Feature:
    """1 where one holds at least, 0 where none does; missing only where that is open. ConfigError if not binary."""
    return Feature(f"({_joined(' or ', features)})", True, partial(_each_value, _or, features))


def negated(feature: NamedScore) -> Feature:
    """1 where `feature` is 0 and 0 where it is 1; missing stays missing. ConfigError if `feature` is not binary."""
    return Feature(f"not {_joined('', (feature,))}", True, partial(_each_value, _not, (feature,)))


def share(*features: NamedScore) -> Feature:
    """The share of `features` that hold, in [0, 1]; missing where one is missing. ConfigError if not binary."""
    return Feature(f"share({_joined(', ', features)})", False, partial(_each_value, _share, features))


def _joined(word: str, features: Sequence[NamedScore]) -> str:
    """The features' names with `word` between them. Errors: ConfigError."""
    if not features:
        raise ConfigError("a combination of no features says nothing.", "give one feature or more.")
    for feature in features:
        if not feature.binary:
            raise ConfigError(
                f"{feature.name} is not binary, and only what is 0 or 1 can be combined.",
                "make it binary: above(feature, threshold).",
            )
    return word.join(feature.name for feature in features)


def _each_value(
    rule: Callable[..., float | None],
    features: Sequence[NamedScore],
    prompts: Sequence[str],
    completions: Sequence[str],
    columns: Columns,
) -> Values:
    """`rule` of all features' values, sample by sample."""
    values = [feature(prompts, completions, **columns) for feature in features]
    return [rule(*row) for row in zip(*values, strict=True)]


def _greater(threshold: float, value: float | None) -> float | None:
    return None if value is None else float(value > threshold)


def _not(value: float | None) -> float | None:
    return None if value is None else 1.0 - value


def _and(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return 0.0 if 0.0 in known else 1.0 if len(known) == len(values) else None


def _or(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return 1.0 if 1.0 in known else 0.0 if len(known) == len(values) else None


def _share(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
