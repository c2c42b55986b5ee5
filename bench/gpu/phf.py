"""Pretraining with feedback on one GPU: throughput against the peak, and a short suite. The device is chosen by itself.

    python bench/gpu/phf.py [size=124m] [length=1024] [positions=16384,65536] [steps=8] [minutes=10] [tokens=0]
                            [objectives=mle,conditional] [corpus=SCORED.jsonl] [samples=512] [held_out=200000] [--out FOLDER]
    python bench/gpu/phf.py size=1m length=64 positions=128 steps=1 tokens=2048 samples=4 held_out=2000     # on a CPU

1  peak        bfloat16 product of two large square matrices, beside the maker's number where the device is known
2  throughput  steps of `policy.packed` (mle, AdamW, bfloat16) for each size of a micro-batch; operations of a token are
               6 N + 6 K T D: N weights (embeddings, tied, count once), K layers, T length (half of it is future), D width
3  suite       `amenable run phf-suite`, one seed, task=pep8; tokens=0: what the fastest size gets through in `minutes`, half of
               which is left to scores and samples, at most 40 million (the standard library is about 3 million tokens)
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from peers import given_words

from amenable.policy.packed import PackedLM
from amenable.policy.scratch import from_scratch
from amenable.recipes import phf_suite
from amenable.recipes.phf_suite import SuiteSettings
from amenable.recipes.pretrain_arm import SIZES
from amenable.report.text import report_text
from amenable.task.functions import standard_library

KEYS = (
    "size", "length", "positions", "steps", "minutes", "tokens", "objectives", "corpus", "samples", "held_out",
)  # fmt: skip
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}
"""bfloat16 operations a second, dense, as the maker has them (SXM)."""
MOST = 40_000_000


def wait() -> None:
    """Until the device has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(work: Any, repeats: int) -> float:
    """Median of `repeats` calls, after one that is not counted."""
    found = []
    for _ in range(repeats + 1):
        wait()
        began = time.perf_counter()
        work()
        wait()
        found.append(time.perf_counter() - began)
    return statistics.median(found[1:])


def measured_peak(device: torch.device) -> float:
    """Operations a second of a bfloat16 product."""
    size = 8192 if device.type == "cuda" else 1024
    first, second = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / seconds(lambda: first @ second, 10)


def throughput(size: str, length: int, positions: int, steps: int) -> tuple[float, float]:
    """Tokens a second, and operations of a token, of mle steps with one micro-batch of `positions`."""
    vocabulary, width, layers, heads = SIZES[size]
    texts = [function.text for function in standard_library()]
    policy = from_scratch(texts, vocabulary=vocabulary, width=width, layers=layers, heads=heads, context=length)
    learner = PackedLM.of(policy).trainable_copy()
    parameters = [value for _, value in learner.trainable_parameters()]
    device = parameters[0].device
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    rows = max(1, positions // length)
    ids = torch.randint(0, vocabulary, (rows, length + 1)).clamp(max=len(policy.tokenizer) - 1)
    weights = torch.full((rows, length), -1 / (rows * length))

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss, _ = learner.packed_likelihood(ids, weights)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    took = seconds(step, steps)
    count = sum(value.numel() for value in parameters)
    return rows * length / took, 6 * count + 6 * layers * length * width


def main() -> None:
    words = list(sys.argv[1:])
    out = Path("runs/gpu-phf")
    if "--out" in words:
        out = Path(words.pop(words.index("--out") + 1))
        words.remove("--out")
    given = given_words(words, KEYS)
    size, length, steps = given.get("size", "124m"), int(given.get("length", 1024)), int(given.get("steps", 8))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    measured = measured_peak(device)
    quoted = next((peak for known, peak in PEAKS.items() if known in name), None)
    told = f", the maker's {quoted / 1e12:,.0f}" if quoted else ""
    print(f"{name}: a bfloat16 product runs at {measured / 1e12:,.3g} T operations a second{told}\n", flush=True)
    print("| micro-batch | tokens a second | T operations a second | of the measured peak | of the maker's | GiB |")
    print("|---|---|---|---|---|---|")
    speeds: dict[int, float] = {}
    for positions in (int(part) for part in given.get("positions", "16384,65536").split(",")):
        with contextlib.ExitStack() as stack:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
                stack.callback(torch.cuda.empty_cache)
            speed, operations = throughput(size, length, positions, steps)
            speeds[positions] = speed
            room = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
            of = f"{speed * operations / quoted:.0%}" if quoted else "-"
            print(
                f"| {positions:,} | {speed:,.0f} | {speed * operations / 1e12:,.3g} | {speed * operations / measured:.0%} "
                f"| {of} | {room:.1f} |", flush=True,
            )  # fmt: skip
    best = max(speeds, key=lambda positions: speeds[positions])
    objectives = tuple(given.get("objectives", "mle,conditional").split(","))
    fits = speeds[best] * float(given.get("minutes", 10)) * 60 / 2 / len(objectives)
    batch = max(length, min(65536, best))
    settings = SuiteSettings(
        objectives=objectives, seeds=1, size=size, length=length, positions=best, batch_tokens=batch,
        tokens=int(given.get("tokens", 0)) or max(batch, min(MOST, int(fits))), corpus=given.get("corpus", ""),
        samples=int(given.get("samples", 512)), held_out=int(given.get("held_out", 200_000)), rows=512,
        learning_rate=1e-3, checkpoint_every=0,
    )  # fmt: skip
    began = time.perf_counter()
    print("\n" + "\n".join(phf_suite.plan(settings)) + "\n", flush=True)
    print(report_text(phf_suite.run(settings, out)))
    print(f"\nsuite: {(time.perf_counter() - began) / 60:.1f} minutes, {out}")


if __name__ == "__main__":
    main()
