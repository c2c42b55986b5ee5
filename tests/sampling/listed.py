"""Laws over all texts of a tabular policy, listed, and the test that samples follow one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch

from amenable.policy.tabular import TabularPolicy
from amenable.target.posterior import Target

CONTEXTS = ["", "!"]


def policy(seed: int, *, scale: float = 1.0, tokens: int = 3) -> TabularPolicy:
    """A random policy over 15 texts of two letters (31 with `tokens=4`), for two contexts."""
    return TabularPolicy.random("ab", tokens, contexts=CONTEXTS, scale=scale, seed=seed)


def log_law(law: TabularPolicy, context: str) -> torch.Tensor:
    """log pi of every text, in the order of `everything`."""
    return law.log_prob(law.everything([context])).sum(-1)


def log_score(target: Target, context: str) -> torch.Tensor:
    """log P of every text."""
    everything = target.prior.everything([context])  # type: ignore[attr-defined]
    return target.scores([context] * len(everything), everything).log_score


def texts(law: TabularPolicy) -> list[tuple[str, str]]:
    """What tells samples apart: the text, and why it ended."""
    everything = law.everything([CONTEXTS[0]])
    return list(zip(everything.texts, everything.ended, strict=True))


def follows(found: Sequence[tuple[str, str]], names: Sequence[tuple[str, str]], law: torch.Tensor) -> bool:
    """Pearson's chi-square of what was drawn against `law` (X,), at four standard deviations; rare texts are pooled."""
    counts, n = Counter(found), len(found)
    if any(law[place] == 0 and counts[name] for place, name in enumerate(names)):
        return False
    cells = [(counts[name], n * float(law[place])) for place, name in enumerate(names)]
    rare = [cell for cell in cells if cell[1] < 5]
    common = [cell for cell in cells if cell[1] >= 5]
    pooled = (sum(seen for seen, _ in rare), sum(expected for _, expected in rare))
    common += [pooled] if pooled[1] >= 1 else []
    statistic = sum((seen - expected) ** 2 / expected for seen, expected in common)
    freedom = len(common) - 1
    spread = 2 / (9 * freedom)  # Wilson and Hilferty 1931
    return statistic < freedom * (1 - spread + 4 * math.sqrt(spread)) ** 3
