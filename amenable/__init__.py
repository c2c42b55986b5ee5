"""amenable: make a language model better from any kind of feedback.

Feedback turns the pretrained model into a target distribution, and a method is one way of getting close to it:
target x proposal x divergence. Start with `amenable run ilf` or `docs/`. What most programs need can be imported from here,
everything else from where it lives (`docs/architecture.md`).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "policy.loading": ("load_policy",),
    "policy.tabular": ("TabularPolicy",),
    "target.potential": ("constraint", "features", "softened", "tilt", "weight"),
    "target.moments": ("with_moments",),
    "target.posterior": ("Target",),
    "objective.divergence": (
        "ChiSquaredForward", "ChiSquaredReverse", "Divergence", "ForwardKL", "JensenShannon", "ReverseKL", "TotalVariation",
        "alpha_divergence",
    ),
    "objective.reward": ("ExpectedReward",),
    "sampling.best_of_n": ("best_of_n",),
    "sampling.defensive": ("Defensive",),
    "sampling.importance": ("importance_sample",),
    "sampling.rejection": ("quasi_rejection",),
    "sampling.proposal": ("Adaptive", "Corpus", "Fixed", "OnPolicy", "Replay"),
    "method.fdpg": ("FDPG",),
    "method.ppo": ("PPO",),
    "method.imitation": ("Example", "Imitation"),
    "method.loop": ("Optimisation", "train"),
    "records": ("Decoding", "Samples"),
}  # fmt: skip
_HOME = {name: f"amenable.{home}" for home, names in _HOMES.items() for name in names}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    """Import on demand: `import amenable` alone must not load torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'amenable' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
