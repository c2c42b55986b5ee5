"""The workers of `bench/dpg.py`: one system's steps on a given model folder, CPU seconds of each (`clock`).

Runs in the peers' environments too, so nothing of amenable is imported but by `ours`. disco 1.1.1 as PyPI has it lacks one of
its own modules (`disco.tuners.losses.misc`): an empty stand-in is put in its place, for the import.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from clock import Clock, work
from trl_worker import MICRO, trl

WORD = "the"
GAIN = 2.0  # the target is a(x) exp(GAIN * [WORD in x])


def rewards(completions: Sequence[str]) -> list[float]:
    return [float(WORD in text) for text in completions]


def ours(given: dict[str, Any], clock: Clock) -> None:
    from ours_worker import learner_of, proposal_of, timed

    from amenable.method.fdpg import FDPG
    from amenable.objective.divergence import divergence_named
    from amenable.records import Decoding
    from amenable.target.posterior import Target
    from amenable.target.potential import tilt

    learner = learner_of(given)
    target = Target(learner.exact(), tilt(lambda prompts, completions, **_: rewards(completions), beta=1 / GAIN))
    method = FDPG(
        learner, target, divergence_named(given["objective"]), contexts=given["prompts"], steps=given["steps"],
        samples_per_context=given["n"], decoding=Decoding(max_tokens=given["tokens"]), bootstrap=0,
        proposal=proposal_of(given), **({"positions": given["positions"]} if "positions" in given else {}),
    )  # fmt: skip
    timed(method, learner, given, clock)


def disco(given: dict[str, Any], clock: Clock) -> None:
    import math
    import types

    import torch
    import transformers

    missing = "disco.tuners.losses.misc"
    try:
        __import__(missing)
    except ImportError:
        for name in (missing, f"{missing}.ema_baseline"):
            sys.modules[name] = types.ModuleType(name)
        sys.modules[f"{missing}.ema_baseline"].EMABaseline = object
    from disco.distributions import LMDistribution
    from disco.scorers import PositiveScorer
    from disco.tuners import DPGTuner

    drawn = {"length": given["tokens"], "min_new_tokens": given["tokens"], "top_k": 0, "top_p": 1.0, "temperature": 1.0}
    base = LMDistribution(given["folder"], given["folder"], **drawn)
    model = LMDistribution(given["folder"], given["folder"], freeze=False, **drawn)
    target = base * PositiveScorer(lambda sample, context: math.exp(GAIN * (WORD in sample.text)))
    clock.watch_optimiser(torch.optim.Adam)  # before a scheduler takes hold of it
    tuner = DPGTuner(
        model, target, context=given["prompts"][0], track_metrics=[], n_gradient_steps=given["steps"],
        n_samples_per_step=given["n"], scoring_size=min(MICRO, given["n"]), sampling_size=given["n"], learning_rate=1e-5,
        divergence_evaluation_interval=1 << 30,
    )  # fmt: skip
    torch.autograd.set_detect_anomaly(given["system"] == "disco")
    clock.watch(transformers.GenerationMixin, "generate", "sample")

    def phase(self: Any, *arguments: Any, grad: bool = False, **settings: Any) -> str:
        return "reference" if self is base else "train" if grad else "rescore"

    clock.watch(LMDistribution, "log_score", phase)
    clock.watch(torch.Tensor, "backward", "train")
    clock.start()
    tuner.tune()


def peer(given: dict[str, Any], clock: Clock) -> None:
    trl(given, clock, lambda completions, **_: rewards(completions))


if __name__ == "__main__":
    work({"ours": ours, "disco": disco, "disco-quiet": disco, "grpo": peer, "rloo": peer})
