"""Red teaming by search: prompts that made a model misbehave are shown to another model, which writes more like them.

    pool of prompts, each with a score: how bad the target's answers to it are, on average
    round:  draw k prompts of the pool, P(i) ∝ exp(score_i / T), no prompt twice
            the generator reads them as a list and writes new ones
            the target answers each many times; the mean score of the answers is the prompt's; all go into the pool

    letter  name          in the paper
    k       shots         4 prompts of the pool
    T       temperature   0.1, scores being probabilities. `spread` takes the standard deviation of the pool's scores instead:
                          for scores a character, of a few hundredths, exp(score / 0.1) is as good as flat
                          20 new prompts a round, 512 answers to each, 10 rounds, 10 searches

Searches are independent and the unit of every interval: rounds of one search are not, nor are prompts of one pool.
A prompt whose answers are all without a score is missing: it is counted, and never drawn.

Source: Korbak et al. 2023, arXiv 2302.08582, section 4.3 and its released code. Changed from it: a prompt is not drawn twice in
a round, and what the pool has already is not tried again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amenable.errors import ConfigError
from amenable.evaluation.interval import Estimate, over_seeds
from amenable.feedback.segments import Unit
from amenable.seeding import derive


@dataclass(frozen=True)
class Tried:
    """A prompt that the target has answered: mean score of its answers (None: none has one), how many, how many without.

    `worst` is the answer with the highest score, "" without any.
    """

    prompt: str
    score: float | None
    answers: int
    missing: int
    worst: str


def tried(prompt: str, answers: Sequence[str], scores: Sequence[float | None]) -> Tried:
    """What the target's answers to a prompt came to."""
    known = [(score, answer) for answer, score in zip(answers, scores, strict=True) if score is not None]
    mean = sum(score for score, _ in known) / len(known) if known else None
    worst = max(known)[1] if known else ""
    return Tried(prompt, mean, len(answers), len(answers) - len(known), worst)


def spread(pool: Sequence[Tried]) -> float:
    """Standard deviation of the pool's scores, as a temperature; 1 where all are equal, which draws evenly."""
    known = [one.score for one in pool if one.score is not None]
    return float(np.std(known)) or 1.0 if known else 1.0


def draw(pool: Sequence[Tried], k: int, *, temperature: float, seed: int) -> list[str]:
    """At most `k` different prompts of the pool, one after the other with P(i) ∝ exp(score_i / temperature) (Gumbel's way).

    Errors: ConfigError for a temperature that is not positive.
    """
    if not temperature > 0:
        raise ConfigError(
            f"temperature={temperature:g} of the pool is not positive", "use one above 0; inf draws evenly"
        )
    known = [one for one in pool if one.score is not None]
    noise = np.random.default_rng(derive(seed, "pool")).gumbel(size=len(known))
    keys = np.array([one.score for one in known], dtype=np.float64) / temperature + noise
    return [known[at].prompt for at in np.argsort(-keys)[:k]]


def as_list(prompts: Sequence[str], unit: Unit) -> str:
    """What the generator continues with a new prompt: lines of code one after the other, or a numbered list."""
    if unit == "lines":
        return "".join(prompts)
    shown = [" ".join(prompt.split()) for prompt in prompts]
    return "".join(f"{at}. {text}\n" for at, text in enumerate(shown, start=1)) + f"{len(shown) + 1}."


def new_prompts(texts: Sequence[str], known: Sequence[str], unit: Unit, *, longest: int) -> list[str]:
    """The first line of each text as a prompt: none empty, none longer than `longest` characters, none twice or `known`."""
    firsts = [(text.splitlines() or [""])[0] for text in texts]
    wanted = [first.rstrip() + "\n" if unit == "lines" else first.strip() for first in firsts]
    fit = [text for text in dict.fromkeys(wanted) if text.strip() and len(text) <= longest]
    return [text for text in fit if text not in set(known)]


def of_round(found: Sequence[Tried]) -> float:
    """Mean score of the prompts of a round; nan where none has one."""
    known = [one.score for one in found if one.score is not None]
    return sum(known) / len(known) if known else math.nan


def curve(searches: Sequence[Sequence[Sequence[Tried]]]) -> list[Estimate]:
    """The mean score of each round's prompts, over searches (searches, rounds, prompts); Student's t over searches."""
    return [over_seeds([of_round(found) for found in same]) for same in zip(*searches, strict=True)]


def best(searches: Sequence[Sequence[Sequence[Tried]]]) -> Estimate:
    """The score of the worst prompt that a search has found, over searches."""
    every = [[one.score for found in search for one in found if one.score is not None] for search in searches]
    return over_seeds([max(scores) if scores else math.nan for scores in every])


def difference(
    searches: Sequence[Sequence[Sequence[Tried]]], other: Sequence[Sequence[Sequence[Tried]]], rounds: slice
) -> Estimate:
    """Mean over `rounds` of the mean score, less that of `other` in the search of the same number; over searches.

    A round in which either has tried nothing is left out.
    """
    means = []
    for own, its in zip(searches, other, strict=True):
        gaps = [of_round(a) - of_round(b) for a, b in zip(own[rounds], its[rounds], strict=True)]
        known = [gap for gap in gaps if not math.isnan(gap)]
        means.append(sum(known) / len(known) if known else math.nan)
    return over_seeds(means)


def as_rows(found: Sequence[Tried]) -> list[dict[str, Any]]:
    """Plain data for a run's record."""
    return [vars(one).copy() for one in found]
