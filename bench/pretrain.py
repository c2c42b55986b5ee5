"""A step of pretraining, ours against transformers' Trainer and TRL's SFT: real tokens a CPU-second, and peak memory.

    python bench/pretrain.py [model=4m|15m|small|NAME] [batch=32] [length=256] [steps=2] [repeats=2] [systems=ours,limit,...]

Functions of the standard library, cut at `length` tokens, `batch` of them a step (`small`: 25.6 M weights, SmolLM2's
tokenizer). All learn from the same token ids with the same model, AdamW and precision, weights in float32, one thread, each
in a process of its own, in turn; the first step of a process is a warm-up. A real token is one that is predicted: padding is
none. Ours packs documents into rows, as `amenable run pretrain` does; the peers pad a batch to its longest document.

Systems: ours, ours-bf16, ours-awr, ours-awr-bf16 (weights that depend on a value head), trainer, trainer-bf16, sft, sft-bf16
(gradient checkpointing off), sft-default (as TRL ships: bfloat16, gradient checkpointing), trainer-packed, trainer-packed-bf16
(the same rows as ours), and limit, limit-bf16: the matrix products of a step alone, which nothing can be faster than.

Before it measures: 8 packed rows, one step of each in float32, loss and norm of the gradient (`parity`). A ratio means
something only if those agree.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from peers import given_words, model_folder, ran, said, why
from pretrain_peers import method_of

from amenable.cache import cache_folder
from amenable.policy.loading import load_policy
from amenable.policy.packed import PackedLM
from amenable.policy.scratch import from_scratch
from amenable.recipes.pretrain_arm import SIZES
from amenable.seeding import python_random
from amenable.task.functions import standard_library

KEYS = ("model", "batch", "length", "steps", "repeats", "systems")
SYSTEMS = "limit,ours,trainer,sft,limit-bf16,ours-bf16,ours-awr-bf16,trainer-bf16,sft-bf16"
PARITY_ROWS = 8
Step = tuple[int, float]
"""Real tokens, CPU seconds."""


def folder_of(name: str) -> str:
    """The model's folder: a size of `amenable run pretrain`, its tokenizer learnt from the functions; or a named model."""
    if name not in SIZES:
        return model_folder(name)
    folder = cache_folder() / "peers" / f"model-pretrain-{name}"
    if not (folder / "done").is_file():
        vocabulary, width, layers, heads = SIZES[name]
        texts = [function.text for function in standard_library()]
        from_scratch(
            texts, vocabulary=vocabulary, width=width, layers=layers, heads=heads, context=1024
        ).save(folder)  # fmt: skip
        (folder / "done").touch()
    return str(folder)


def documents(folder: str, count: int, length: int) -> list[list[int]]:
    """`count` functions as token ids, at most `length` predictions each: <eos>, the text, <eos>."""
    policy = load_policy(folder)
    texts = [function.text for function in standard_library()]
    python_random(0, "bench").shuffle(texts)
    eos = policy.eos_ids[0]
    found = []
    for text in texts[:count]:
        found.append([eos, *policy.encode_completion(text)[: length - 1], eos])
    return found


def order_of(system: str) -> dict[str, Any]:
    """What a system's name says, for its worker."""
    own, *words = system.split("-")
    return {
        "system": own, "precision": "bfloat16" if {"bf16", "default"} & set(words) else "float32",
        "objective": "awr" if "awr" in words else "mle", "checkpointing": "default" in words, "packed": "packed" in words,
    }  # fmt: skip


def measure(system: str, work: dict[str, Any], packed: Path, seed: int) -> tuple[list[Step], float] | str:
    """Each measured step and the peak in GiB, or why there are none."""
    order = work | order_of(system) | {"seed": seed}
    if order["packed"]:
        order |= {"documents": str(packed), "batch": max(1, round(work["tokens"] / work["length"]))}
    process = ran("pretrain_peers.py", order)
    steps, tokens, peak = (said(process.stdout, word) for word in ("STEP", "TOKENS", "PEAK"))
    if process.returncode or not peak or len(steps) < 2:
        return why(process)
    return [(n, step["step"]) for n, step in zip(tokens, steps, strict=True)][1:], peak[0]


def speed(steps: list[Step]) -> float:
    """Real tokens a CPU-second of a run."""
    return sum(n for n, _ in steps) / sum(seconds for _, seconds in steps)


def parity(folder: str, work: dict[str, Any], packed: Path) -> list[tuple[str, float, float]]:
    """(system, loss, norm of the gradient) of one step on the same packed rows, in float32."""
    rows = json.loads(packed.read_text())[:PARITY_ROWS]
    file = packed.with_name("parity.json")
    file.write_text(json.dumps(rows))
    policy = load_policy(folder, dtype="float32")
    learner = PackedLM.of(policy).trainable_copy()  # type: ignore[arg-type]
    ids = torch.tensor(rows)
    weights = torch.full((len(ids), ids.shape[1] - 1), -1 / (len(ids) * (ids.shape[1] - 1)))
    loss, _ = learner.packed_likelihood(ids, weights)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = sum(float(p.grad.double().square().sum()) for _, p in learner.trainable_parameters() if p.grad is not None)
    found = [("ours", float(loss.detach()), norm**0.5)]
    for system in ("trainer", "sft"):
        process = ran("pretrain_peers.py", work | order_of(system) | {"documents": str(file), "rows": True, "seed": 0})
        logged = said(process.stdout, "LOGGED")
        if logged:
            found.append((system, *logged[0]))
        else:
            print(f"\n{system} does not run: {why(process)}")
    return found


def print_table(found: dict[str, list[list[Step]]], peaks: dict[str, float]) -> None:
    """Real tokens a CPU-second: median over repeats; ratios are of the same repeat, in brackets their range."""
    print(
        "\n| | real tokens a CPU-second | range | of the products' limit | ours / it | peak GiB |\n|---|---|---|---|---|---|"
    )
    for system, runs in found.items():
        speeds = [speed(steps) for steps in runs]
        low = {"bf16", "default"} & set(system.split("-"))
        bounds = [speed(steps) for steps in found.get("limit-bf16" if low else "limit", [])]
        ours = [speed(steps) for steps in found.get("ours-bf16" if low else "ours", [])]
        share = f"{statistics.median(speeds) / statistics.median(bounds):.0%}" if bounds else "-"
        ratios = [one / other for one, other in zip(ours, speeds, strict=False)]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "-"
        print(
            f"| {system} | {statistics.median(speeds):,.0f} | {min(speeds):,.0f} to {max(speeds):,.0f} | {share} | {ratio} "
            f"| {peaks[system]:.2f} |"
        )


def main() -> None:
    given = given_words(sys.argv[1:], KEYS)
    torch.set_num_threads(1)
    name, batch, length = given.get("model", "4m"), int(given.get("batch", 32)), int(given.get("length", 256))
    steps, repeats = int(given.get("steps", 2)) + 1, int(given.get("repeats", 2))
    if batch % 16:
        raise SystemExit(f"batch={batch}: the peers take 16 documents at once, give a multiple of 16")
    folder = folder_of(name)
    with tempfile.TemporaryDirectory() as place:
        texts, packed = Path(place) / "documents.json", Path(place) / "packed.json"
        docs = documents(folder, batch * steps, length)
        texts.write_text(json.dumps(docs))
        tokens = round(sum(len(ids) - 1 for ids in docs) / steps)
        work = {
            "folder": folder, "documents": str(texts), "steps": steps, "batch": batch, "tokens": tokens, "length": length,
        }  # fmt: skip
        method = method_of(work | {"objective": "mle", "seed": 0}, docs[0][0])
        packed.write_text(json.dumps([row for step in range(method.steps) for row in method.batch(step)[0].tolist()]))
        weights = sum(value.numel() for value in load_policy(folder).model.parameters())  # type: ignore[attr-defined]
        print(
            f"{name}, {weights / 1e6:.1f}M weights, {batch} functions a step: {tokens} real tokens, the longest {length}; "
            f"1 thread, {steps - 1} steps, {repeats} runs of each in turn\n"
        )
        print(f"| {PARITY_ROWS} packed rows, float32 | loss | norm of the gradient |\n|---|---|---|")
        for system, loss, norm in parity(folder, work, packed):
            print(f"| {system} | {loss:.6f} | {norm:.6g} |", flush=True)
        found: dict[str, list[list[Step]]] = {}
        peaks: dict[str, float] = {}
        refused: set[str] = set()
        for repeat in range(repeats):
            for system in given.get("systems", SYSTEMS).split(","):
                result = system in refused or measure(system, work, packed, repeat)
                if isinstance(result, tuple):
                    found.setdefault(system, []).append(result[0])
                    peaks[system] = max(result[1], peaks.get(system, 0.0))
                    print(f"{system}: {result[0]} {result[1]:.2f} GiB", file=sys.stderr, flush=True)
                elif system not in refused:
                    refused.add(system)
                    print(f"\n{system} does not run: {result}", flush=True)
    print_table(found, peaks)


if __name__ == "__main__":
    main()
