"""Small instances of every training method in the package; a method without one fails the laws.

"FDPG/replay" is another instance of FDPG: what a method remembers depends on its settings. Two players who learn together
are trained by their recipe: of BothPlay it is the settings that stand here.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

from tiny import tiny_policy

import amenable.method
from amenable.method.corpus import tokenised
from amenable.method.fdpg import FDPG
from amenable.method.imitation import Example, Imitation
from amenable.method.ppo import PPO
from amenable.method.preference import DPO, RewardModelling
from amenable.method.pretraining import Pretraining
from amenable.objective.divergence import ForwardKL, JensenShannon, ReverseKL
from amenable.objective.pretraining import Objective
from amenable.objective.reward import ExpectedReward
from amenable.recipes.text_game import TextGameSettings
from amenable.records import Decoding
from amenable.sampling.proposal import Adaptive, Replay
from amenable.target.posterior import Target
from amenable.target.potential import constraint, tilt
from amenable.task.preferences import Comparison
from amenable.task.scored_corpus import ScoredDocument

CONTEXTS = ["ab", "q: 1 ", "x"]
PAIRS = [Comparison(f"q{i} ", "a" * (1 + i % 4), "b" * (1 + i % 3), float(i % 2)) for i in range(6)]


def upper(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float | None]:
    """The share of capital letters; of a text without letters nothing is known."""
    return [sum(map(str.isupper, text)) / len(text) if text else None for text in completions]


def even(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float | None]:
    return [float(sum(map(ord, text)) % 2 == 0) for text in completions]


def matching(make: type[FDPG], objective: Any, **settings: Any) -> Any:
    """5 steps on a random two-layer model: what it draws differs from step to step, and from a policy at rest."""
    prior = tiny_policy()
    potential = tilt(upper, beta=0.2) if objective is ReverseKL or make is PPO else constraint(even)
    return make(
        prior, Target(prior.exact(), potential), objective, contexts=CONTEXTS, steps=5, contexts_per_step=2,
        samples_per_context=4, decoding=Decoding(max_tokens=5), seed=3, **settings,
    )  # fmt: skip


def pretraining(objective: Objective) -> Pretraining:
    """5 steps on six documents of two segments each, the first two of them plain MLE; `policy.packed` learns from it."""
    documents = [
        ScoredDocument(f"{i}", "ab" * (2 + i) + "c" * 9, (4 + 2 * i, 13 + 2 * i), (i / 6, 0.0)) for i in range(6)
    ]
    return Pretraining(
        tokenised(documents, tiny_policy().tokenizer), objective, eos=256, controls=(1, 2), tokens=5 * 32,
        batch_tokens=32, length=16, switch_at=0.4, seed=1,
    )  # fmt: skip


BUILDERS: dict[str, Callable[[], Any]] = {
    "Imitation": lambda: Imitation([Example(f"q{i}", f"a{i * i}") for i in range(6)], epochs=3, batch_size=3, seed=1),
    "FDPG": lambda: matching(FDPG, JensenShannon, window=2, baseline="constant"),
    "FDPG/adaptive": lambda: matching(
        FDPG, ForwardKL, proposal=Adaptive(every=2, by="tv", samples=8), baseline="target"
    ),
    "FDPG/replay": lambda: matching(FDPG, ReverseKL, proposal=Replay(0.5, 2), one_z=True),
    "FDPG/value": lambda: matching(FDPG, ReverseKL, baseline="value"),
    "DPO": lambda: DPO(PAIRS, epochs=3, batch_size=3, seed=1),
    "RewardModelling": lambda: RewardModelling(PAIRS, epochs=3, batch_size=3, seed=1),
    "Pretraining/awr": lambda: pretraining(Objective("awr", beta=0.5, alpha=0.5)),
    "Pretraining/conditional": lambda: pretraining(Objective("conditional", threshold=0.0)),
    "BothPlay": lambda: TextGameSettings(
        steps=4,
        scenes_per_step=1,
        samples_per_scene=3,
        max_tokens=4,
        adapter="none",
        checkpoint_every=2,
        on_full="stop",
        precision="float32",
        noise=0.2,
    ),
    "PPO": lambda: matching(PPO, ExpectedReward(beta=0.2, of="log-potential"), epochs=3),
    "PPO/value": lambda: matching(PPO, ExpectedReward(beta=0.2, of="log-potential"), epochs=2, baseline="value"),
}


def class_of(name: str) -> str:
    """ "FDPG/replay" is an instance of FDPG."""
    return name.partition("/")[0]


def methods_of_the_package() -> set[str]:
    """Names of the classes under amenable.method that follow its protocol: `steps`, `identity`, `losses`."""
    found = set()
    for module in pkgutil.iter_modules(amenable.method.__path__, "amenable.method."):
        for name, thing in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if thing.__module__.startswith("amenable.method.") and hasattr(thing, "losses") and name != "Method":
                found.add(name)
    return found
