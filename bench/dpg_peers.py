"""The workers of `bench/dpg.py`: one system's steps on a given model folder, CPU seconds of each, one JSON line a step.

Runs in the peers' environments too, so nothing of amenable is imported but by `ours`. A step lies between the ends of two
optimiser steps; phases are the time inside of functions that are wrapped from outside, no peer's code is changed. disco 1.1.1
as PyPI has it lacks one of its own modules (`disco.tuners.losses.misc`): an empty stand-in is put in its place, for the import.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WORD = "the"
GAIN = 2.0  # the target is a(x) exp(GAIN * [WORD in x])
MICRO = 16  # sequences of the peers' micro-batches


class Clock:
    """CPU seconds of this process by phase; `ended` prints those of a step. A phase inside another counts for the inner one."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self.inner = [0.0]
        self.began = time.process_time()

    def watch(self, owner: Any, name: str, phase: str | Callable[..., str]) -> None:
        """Count the time in `owner.name` for `phase`, or for what `phase(*arguments)` says."""
        whole = getattr(owner, name)

        def timed(*arguments: Any, **settings: Any) -> Any:
            label = phase if isinstance(phase, str) else phase(*arguments, **settings)
            began = time.process_time()
            self.inner.append(0.0)
            try:
                return whole(*arguments, **settings)
            finally:
                took = time.process_time() - began
                self.phases[label] = self.phases.get(label, 0.0) + took - self.inner.pop()
                self.inner[-1] += took

        setattr(owner, name, timed)

    def ended(self) -> None:
        now = time.process_time()
        step = now - self.began
        phases = dict(self.phases)
        phases["other"] = step - sum(phases.values())
        print("STEP " + json.dumps({"step": step, **phases}), flush=True)
        self.phases, self.began = {}, time.process_time()


def rewards(completions: Sequence[str]) -> list[float]:
    return [float(WORD in text) for text in completions]


def watch_optimiser(clock: Clock, kind: Any) -> None:
    clock.watch(kind, "step", "optimiser")
    stepped = kind.step

    def step(self: Any, *arguments: Any, **settings: Any) -> Any:
        found = stepped(self, *arguments, **settings)
        clock.ended()
        return found

    kind.step = step


def ours(given: dict[str, Any], clock: Clock) -> None:
    import torch

    from amenable.method.fdpg import FDPG
    from amenable.method.loop import Optimisation, train
    from amenable.objective.divergence import divergence_named
    from amenable.policy.loading import load_policy
    from amenable.records import Decoding
    from amenable.sampling.proposal import OnPolicy
    from amenable.target.posterior import Target
    from amenable.target.potential import tilt

    policy = load_policy(given["folder"], dtype="float32", rows=given["n"])
    policy.eos_ids = []  # no sample ends before its length: the work is fixed
    learner, half = policy.trainable_copy(), given["precision"] == "bfloat16"
    learner.eos_ids = []
    target = Target(policy.exact(), tilt(lambda prompts, completions, **_: rewards(completions), beta=1 / GAIN))
    del policy
    proposal = OnPolicy(torch.bfloat16) if half else OnPolicy()
    method = FDPG(
        learner, target, divergence_named(given["objective"]), contexts=[given["prompt"]], steps=given["steps"] + 1,
        samples_per_context=given["n"], decoding=Decoding(max_tokens=given["tokens"]), bootstrap=0, proposal=proposal,
        **({"positions": given["positions"]} if "positions" in given else {}),
    )  # fmt: skip
    clock.watch(proposal, "draw", "sample")
    clock.watch(target.potential, "log_values", "score")
    clock.watch(target.prior, "log_prob", "reference")
    clock.watch(learner, "log_prob", "train")
    clock.watch(learner, "weighted_log_prob", "train")
    clock.watch(torch.Tensor, "backward", "train")
    watch_optimiser(clock, torch.optim.AdamW)
    settings = Optimisation(learning_rate=1e-5, schedule="constant", warmup=0.0, precision=given["precision"])
    with tempfile.TemporaryDirectory() as folder:
        clock.began = time.process_time()
        train(learner, method, optimisation=settings, folder=Path(folder))


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
    watch_optimiser(clock, torch.optim.Adam)  # before a scheduler takes hold of it
    tuner = DPGTuner(
        model, target, context=given["prompt"], track_metrics=[], n_gradient_steps=given["steps"] + 1,
        n_samples_per_step=given["n"], scoring_size=min(MICRO, given["n"]), sampling_size=given["n"], learning_rate=1e-5,
        divergence_evaluation_interval=1 << 30,
    )  # fmt: skip
    torch.autograd.set_detect_anomaly(given["system"] == "disco")
    clock.watch(transformers.GenerationMixin, "generate", "sample")

    def phase(self: Any, *arguments: Any, grad: bool = False, **settings: Any) -> str:
        return "reference" if self is base else "train" if grad else "rescore"

    clock.watch(LMDistribution, "log_score", phase)
    clock.watch(torch.Tensor, "backward", "train")
    clock.began = time.process_time()
    tuner.tune()


def trl(given: dict[str, Any], clock: Clock) -> None:
    import torch
    import transformers
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    config, kind = (GRPOConfig, GRPOTrainer) if given["system"] == "grpo" else (RLOOConfig, RLOOTrainer)
    micro = min(MICRO, given["n"])
    folder = tempfile.TemporaryDirectory()
    settings = config(
        output_dir=folder.name, num_generations=given["n"], per_device_train_batch_size=micro, report_to="none",
        gradient_accumulation_steps=given["n"] // micro, max_completion_length=given["tokens"], beta=0.04,
        max_steps=given["steps"] + 1, learning_rate=1e-5, lr_scheduler_type="constant", bf16=False, use_cpu=True,
        gradient_checkpointing=False, save_strategy="no", logging_strategy="no", disable_tqdm=True, temperature=1.0,
        top_k=0, top_p=1.0, generation_kwargs={"min_new_tokens": given["tokens"]}, disable_dropout=True,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_pretrained(given["folder"], dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(given["folder"], padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    trainer = kind(
        model=model, args=settings, reward_funcs=lambda completions, **_: rewards(completions),
        train_dataset=Dataset.from_list([{"prompt": given["prompt"]}] * 64), processing_class=tokenizer,
    )  # fmt: skip
    clock.watch(transformers.GenerationMixin, "generate", "sample")

    def phase(model: Any, *_: Any, **__: Any) -> str:
        if model is trainer.ref_model:
            return "reference"
        return "train" if torch.is_grad_enabled() else "rescore"

    clock.watch(trainer, "_get_per_token_logps_and_entropies", phase)
    clock.watch(torch.Tensor, "backward", "train")
    watch_optimiser(clock, torch.optim.AdamW)
    clock.began = time.process_time()
    trainer.train()


def main() -> None:
    given = json.loads(sys.argv[1])
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(given["seed"])
    run = {"ours": ours, "disco": disco, "disco-quiet": disco, "grpo": trl, "rloo": trl}[given["system"]]
    run(given, Clock())
    print("PEAK " + json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
