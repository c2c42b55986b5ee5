"""A small code model trained from scratch on the standard library's functions: the prior of the studies on compilable code.

    x ~ functions of the training modules + EOS        maximise log pi(x), contexts ""; stopped early, on purpose

`code_model(making)` is that model: trained at its first use, kept in the cache, loaded afterwards. `amenable run code-model`
shows what it can do: bits per byte on modules it never saw, how many of its samples compile, and what they look like.
The studies want a prior that compiles 20 to 50% of the time, so that there is something to gain and something to start from.

Source: the prior of Korbak et al. 2021 (arXiv 2106.04985) and 2022 (arXiv 2112.00791).
Changed from the papers: 3.7M parameters and the standard library in place of GPT-2 or GPT-Neo and GitHub.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from amenable import durable
from amenable.cache import cache_folder
from amenable.errors import ConfigError, DataError
from amenable.method import checkpoint
from amenable.method.imitation import Example, Imitation
from amenable.method.loop import Optimisation
from amenable.policy.causal_lm import CausalLM
from amenable.policy.loading import load_policy
from amenable.policy.scratch import from_scratch
from amenable.progress import duration, say
from amenable.recipes.code_model_report import build_report, measure
from amenable.recipes.environment import machine, prepare
from amenable.recipes.settings import Recipe, setting
from amenable.recipes.training import trained
from amenable.report.html import write
from amenable.report.page import Report
from amenable.runs import Run
from amenable.task.functions import SPLITS, Function, contexts, fingerprint, of_split, standard_library

MADE_BY = 1
"""Raised when this file, or `from_scratch`, makes another model of the same settings: part of the cache's key."""

CHARACTERS = 1000  # longer functions are not read; they have more tokens than any sensible `longest`
SPEED = 6e10  # operations a second of training on one core, for the plan's guess
POSITIONS = 1024  # padded tokens of a micro-batch: small ones waste less on padding, and cost nothing more at this size


@dataclass(frozen=True)
class Making:
    """What decides the weights, with the Python version and the source of its library."""

    packages: tuple[str, ...] = setting((), "installed packages to train on besides the standard library, such as yaml")
    tests: bool = setting(False, "also train on the functions of test modules (three times as many)")
    longest: int = setting(128, "longest function in tokens, EOS included; longer ones are left out")
    vocabulary: int = setting(2048, "tokens of the byte-level BPE tokenizer")
    width: int = setting(256, "width of the model")
    layers: int = setting(4, "layers of the model")
    heads: int = setting(4, "attention heads a layer")
    steps: int = setting(600, "optimiser steps; more make a better model and a worse prior to improve on")
    batch_size: int = setting(32, "functions an optimiser step")
    learning_rate: float = setting(2e-3, "peak learning rate of AdamW")
    seed: int = setting(0, "seed of weights, data order and samples")


@dataclass(frozen=True)
class CodeModelSettings(Making):
    """The model, and how it is measured."""

    samples: int = setting(1024, "unconditional samples")
    contexts: int = setting(50, "held-out signatures whose bodies are sampled")
    samples_per_context: int = setting(16, "bodies a signature")
    rows: int = setting(256, "samples decoded at once")
    checkpoint_every: int = setting(100, "optimiser steps between checkpoints, 0 for none")
    on_full: str = setting(
        "continue", "where the disk has no room for a checkpoint: continue without it, or stop", ("continue", "stop")
    )
    threads: int = setting(0, "CPU threads of the measurements, 0 for all cores; training takes one")


@dataclass(frozen=True)
class Made:
    """A trained code model, its folder in the cache, and the metrics of every step of its training."""

    policy: CausalLM
    folder: Path
    metrics: Sequence[dict[str, Any]]


def code_model(making: Making = Making(), *, rows: int = 256) -> CausalLM:
    """The frozen code model of these settings, float32: from the cache, or trained now (minutes, with a bar).

    Functions to condition on or to compare with: `functions_of(making)`.
    """
    return made(making, rows=rows).policy


def functions_of(making: Making) -> tuple[Function, ...]:
    """Every function that the model of `making` was trained on or is measured with, before `longest` is applied."""
    return standard_library(tests=making.tests, packages=making.packages, longest=CHARACTERS)


def home(making: Making) -> Path:
    """The model's folder in the cache; its name is a hash of the settings, the Python version and the corpus."""
    what = [MADE_BY, _plain(making), platform.python_version(), fingerprint(functions_of(making))]
    return cache_folder() / "code-models" / hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def made(making: Making, *, rows: int = 256, checkpoint_every: int = 100, on_full: str = "continue") -> Made:
    """The model of `making`, trained first if the cache does not hold it whole.

    A training that was killed goes on from its last checkpoint. Two processes that want the same model train it once. On a
    CPU training takes one thread, so that equal keys mean equal weights, on one kind of machine.
    Errors: ConfigError for sizes that cannot be; StorageError if the cache cannot be written.
    """
    making = Making(**_plain(making))
    _check(making)
    folder = home(making)
    training = folder / "code-model"
    if durable.manifest_of(training / "model") is None:
        with _only_process(folder):
            if durable.manifest_of(training / "model") is None:  # no other process made it while we waited
                if (training / "model").exists():  # it appears whole: somebody changed it since
                    durable.delete(folder)
                _train(making, folder, checkpoint_every=checkpoint_every, on_full=on_full)
            checkpoint.drop_all(training)
    policy = load_policy(str(training / "model"), dtype="float32", rows=rows)
    assert isinstance(policy, CausalLM)
    policy.model.requires_grad_(False)
    metrics = [json.loads(line) for line in (training / "metrics.jsonl").read_text().splitlines()]
    return Made(policy, folder, metrics)


@contextmanager
def _only_process(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system frees it if this process dies."""
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say("waiting for another process that makes the same code model")
            lock.acquire()
    except OSError as error:
        raise durable.storage_error(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def _train(making: Making, folder: Path, *, checkpoint_every: int, on_full: str) -> None:
    functions = of_split(functions_of(making), "train")
    policy = from_scratch(
        [function.text for function in functions],
        vocabulary=making.vocabulary,
        width=making.width,
        layers=making.layers,
        heads=making.heads,
        context=2 * making.longest,  # a signature, and as long a body
        seed=making.seed,
        name="code-model",
    )
    examples = [Example("", function.text) for function in short_enough(policy, functions, making.longest)]
    if not examples:
        raise DataError(f"no function has at most {making.longest} tokens", "raise longest")
    batches = -(-len(examples) // making.batch_size)
    epochs = -(-making.steps // batches)
    method = Imitation(examples, epochs=epochs, batch_size=making.batch_size, seed=making.seed, positions=POSITIONS)
    method.steps = making.steps  # the last epoch may end early
    record = Run.of(folder, making)
    threads = torch.get_num_threads()
    torch.set_num_threads(
        1
    )  # the same bits on any number of cores; and where others compute too, two are slower than one
    try:
        trained(
            policy,
            method,
            optimisation=Optimisation(
                learning_rate=making.learning_rate, schedule="cosine", warmup=0.05, precision="float32"
            ),
            adapter="none",
            folder=folder / "code-model",
            record=record,
            checkpoint_every=checkpoint_every,
            on_full=on_full,
        )
    finally:
        torch.set_num_threads(threads)
        record.close()


def short_enough(policy: CausalLM, functions: Sequence[Function], longest: int) -> list[Function]:
    """The functions of at most `longest` tokens, EOS included, in their order."""
    return [function for function in functions if len(policy.encode_completion(function.text)) <= longest]


def plan(settings: CodeModelSettings) -> list[str]:
    """What the run will do, in lines."""
    _check(settings)
    functions = functions_of(settings)
    folder = home(settings)
    sizes = ", ".join(f"{len(of_split(functions, split)):,} {split}" for split in SPLITS)
    weights = settings.vocabulary * settings.width + settings.layers * 12 * settings.width**2
    seconds = settings.steps * settings.batch_size * 50 * weights * 6 / SPEED
    cached = (folder / "code-model" / "model").exists()
    return [
        f"a code model of about {weights / 1e6:.1f}M weights, from scratch, on the functions of Python "
        f"{platform.python_version()}'s {' and '.join(['standard library', *settings.packages])}",
        f"1  functions by module: {sizes}; those of at most {settings.longest} tokens are used",
        f"2  the model is in the cache, {folder}"
        if cached
        else f"2  {settings.steps} steps of {settings.batch_size} functions, about {duration(seconds)} on one core; "
        f"kept in {folder}",
        f"3  bits per byte on held-out modules; {settings.samples} samples, and {settings.samples_per_context} bodies for "
        f"each of {settings.contexts} held-out signatures: how many compile",
    ]


def run(settings: CodeModelSettings, folder: Path) -> Report:
    """The model, its measurements in `folder`/samples.jsonl, a copy in `folder`/model, and report.html."""
    clock = prepare(settings.threads)
    _check(settings)
    record = Run.of(folder, settings)
    one = made(settings, rows=settings.rows, checkpoint_every=settings.checkpoint_every, on_full=settings.on_full)
    clock.lap("model")
    functions = short_enough(one.policy, functions_of(settings), settings.longest)
    signatures = contexts(functions, "held-out", settings.contexts, seed=settings.seed)
    measured = measure(one.policy, functions, signatures, settings, record)
    clock.lap("measurements")
    if not (folder / "model").exists():
        with durable.folder(folder / "model", {"steps": settings.steps}) as work:
            one.policy.save(work)
    report = build_report(settings, one.metrics, measured, clock.minutes(), machine({}), str(one.folder))
    write(report, folder / "report.html")
    record.close()
    return report


def _plain(making: Making) -> dict[str, Any]:
    """The settings that decide the weights, also of a recipe's settings that hold more."""
    return {field.name: getattr(making, field.name) for field in fields(Making)}


def _check(making: Making) -> None:
    for name in ("longest", "steps", "batch_size", "width", "layers", "heads"):
        if getattr(making, name) < 1:
            raise ConfigError(f"{name}={getattr(making, name)} is not a size", f"use {name}=1 or more")


RECIPE = Recipe(
    "code-model", "a small code model from scratch, on the standard library's functions", CodeModelSettings, plan, run
)
