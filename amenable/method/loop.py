"""The training loop: the only place where weights change.

    for each step:  add up the gradients of the method's losses;  clip;  AdamW;  log;  checkpoint

AdamW (Loshchilov and Hutter 2017, arXiv 1711.05101) with a linear warm-up and a schedule down to 0; gradients are clipped
to a global norm. "bfloat16" computes in mixed precision: weights, moments and the loss stay float32. Dropout is off, so the
loop draws no random numbers; everything random belongs to the method and depends on (seed, step) alone. A killed run goes on
from its last checkpoint to the same bits (CPU, same number of threads).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from amenable import stopping
from amenable.errors import ConfigError, TrainingError
from amenable.method import checkpoint
from amenable.method.protocol import Method
from amenable.runs import MetricsLog


@dataclass(frozen=True)
class Optimisation:
    """How weights change. `warmup` is a share of the steps; `precision` is that of the arithmetic, not of the weights."""

    learning_rate: float = 1e-5
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup: float = 0.1
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    precision: Literal["bfloat16", "float32"] = "bfloat16"

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step `step` (from 0) of `steps`."""
        warm = math.ceil(self.warmup * steps)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        done = (step - warm) / max(1, steps - warm)
        shape = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}
        if self.schedule not in shape:
            raise ConfigError(f"schedule={self.schedule!r} is not known", f"use one of {', '.join(shape)}")
        return self.learning_rate * shape[self.schedule]


def train(
    policy: Any,
    method: Method,
    *,
    optimisation: Optimisation,
    folder: Path,
    checkpoint_every: int = 0,
    on_full: str = "continue",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Change `policy` (a trainable copy) in place by `method.steps` steps; metrics and checkpoints go to `folder`.

    A checkpoint every `checkpoint_every` steps, 0 for none; `on_full`: "continue" or "stop" where the disk has no room for one.
    If `folder` holds a checkpoint of this training, goes on from it. Asked to stop (SIGTERM, Ctrl-C), it finishes the step and
    writes a checkpoint first.
    Errors: TrainingError if a loss or gradient is not finite; nothing is stepped then, and checkpoints are kept.
    """
    names = dict(policy.trainable_parameters())
    if not names:
        raise TrainingError("the policy has no trainable parameter", "train a trainable_copy() of it")
    parameters = list(names.values())
    decay = optimisation.weight_decay
    optimizer = torch.optim.AdamW(parameters, lr=optimisation.learning_rate, weight_decay=decay, fused=True)
    log = MetricsLog(folder / "metrics.jsonl")
    identity = f"{method.identity} {method.steps} {optimisation}"
    first, state = checkpoint.resume(folder, names, optimizer, log, identity=identity)
    if state is not None:
        method.restore(policy, state)
    device = parameters[0].device.type
    with stopping.after_this_step() as asked_to_stop:
        for step in range(first, method.steps):
            began = time.perf_counter()
            rate = optimisation.rate(step, method.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            sums: dict[str, float] = {}
            for loss in _with_precision(method.losses(policy, step), optimisation.precision, device):
                loss.value.backward()
                for name, value in loss.sums.items():
                    sums[name] = sums.get(name, 0.0) + value
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, optimisation.clip_norm))
            if not math.isfinite(norm):
                raise TrainingError(
                    f"step {step}: the gradient's norm is {norm}",
                    "lower the learning rate, use precision=float32, or look at the samples of this step",
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            log.write({"step": step, **sums, "learning_rate": rate, "gradient_norm": norm}, began=began)
            due = bool(checkpoint_every) and (step + 1) % checkpoint_every == 0 and step + 1 < method.steps
            if due or asked_to_stop():
                checkpoint.save(
                    folder,
                    names,
                    optimizer,
                    log,
                    step=step + 1,
                    identity=identity,
                    state=method.state(),
                    on_full=on_full,
                )
            if progress is not None:
                progress(step + 1, method.steps)
            if asked_to_stop():
                break
    log.flush()
    log.close()


def _with_precision(losses: Any, precision: str, device: str) -> Any:
    """The method's losses, each computed in `precision`; backward runs outside, in the precision of its forward."""
    while True:
        context: Any = contextlib.nullcontext()
        if precision == "bfloat16":
            context = torch.autocast(device, dtype=torch.bfloat16)
        with context:
            loss = next(losses, None)
        if loss is None:
            return
        yield loss
