"""Attention of one query a row, as a token is drawn: torch's fused kernel and ours (`policy.decoder.attend`), in turn.

    python bench/attention.py [repeats=3]                      # the operation
    python bench/attention.py model=smollm2-135m [repeats=3]   # a whole draw in bfloat16, and how far its law is from float32

One thread, CPU time. The operation: median and range over repeats, by rows, query heads, the heads that are kept (size 64) and
columns, in buffers with room for half as many more; and the largest difference to float64 of each. The draw: 16 samples of 64
tokens; the mean over tokens of |log p - log p in float32|, nats, of what each drew.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch.nn import functional

from amenable.policy import decoder
from amenable.policy.loading import load_policy
from amenable.records import Decoding

SHAPES = ((16, 9, 3, 50), (64, 9, 3, 50), (16, 9, 3, 400), (64, 9, 3, 400), (64, 14, 2, 100))
CALLS = 20
PROMPTS = ["The train to the north was late again, so", "Somebody who has never cooked before should learn"]
ours = decoder.attend


def fused(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, visible: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """As `decoder.attend`, by torch's kernel."""
    mask = None if visible is None else visible.unsqueeze(1)
    mixed = functional.scaled_dot_product_attention(
        query.unsqueeze(2), keys, values, attn_mask=mask, scale=scale, enable_gqa=True
    )
    return mixed.flatten(1)


def milliseconds(call: Callable[[], torch.Tensor]) -> float:
    call()
    began = time.process_time()
    for _ in range(CALLS):
        call()
    return 1e3 * (time.process_time() - began) / CALLS


@torch.inference_mode()
def operation(repeats: int) -> None:
    torch.manual_seed(0)
    print(
        "| precision | rows | heads | kept | columns | fused, ms | ours, ms | fused / ours | error, fused | error, ours |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for dtype in (torch.bfloat16, torch.float32):
        for rows, heads, kept, columns in SHAPES:
            query = torch.randn(rows, heads, 64).to(dtype)
            keys, values = (torch.randn(rows, kept, columns * 3 // 2, 64).to(dtype)[:, :, :columns] for _ in range(2))
            given = (query, keys, values, None, 0.125)
            exact = fused(query.double(), keys.double(), values.double(), None, 0.125)
            times = [[milliseconds(lambda: side(*given)) for side in (fused, ours)] for _ in range(repeats)]  # noqa: B023
            cells = [f"{statistics.median(one):.3f}" for one in zip(*times, strict=True)]
            ratios = [first / second for first, second in times]
            errors = [f"{float((side(*given).double() - exact).abs().max()):.1e}" for side in (fused, ours)]
            print(
                f"| {str(dtype)[6:]} | {rows} | {heads} | {kept} | {columns} | {' | '.join(cells)} | "
                f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}) | {' | '.join(errors)} |",
                flush=True,
            )


@torch.inference_mode()
def draw(model: str, repeats: int) -> None:
    exact, policy = load_policy(model, dtype="float32"), load_policy(model, dtype="bfloat16")
    print(
        "| attention | CPU s a draw, each repeat | tokens | mean distance to float32, nats a token |\n|---|---|---|---|"
    )
    seconds: dict[str, list[str]] = {"fused": [], "ours": []}
    gaps: dict[str, list[torch.Tensor]] = {"fused": [], "ours": []}
    for repeat in range(-1, repeats):  # the first warms up
        for name, side in (("fused", fused), ("ours", ours)):
            decoder.attend = side
            began = time.process_time()
            samples = policy.sample(PROMPTS, n=8, decoding=Decoding(max_tokens=64), seed=repeat + 1)
            if repeat >= 0:
                seconds[name].append(f"{time.process_time() - began:.2f}")
                gaps[name].append((exact.log_prob(samples) - samples.log_probs)[samples.mask].abs())
    for name in seconds:
        gap = torch.cat(gaps[name])
        print(f"| {name} | {', '.join(seconds[name])} | {len(gap)} | {float(gap.mean()):.4f} |")


def main() -> None:
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    torch.set_num_threads(1)
    repeats = int(given.get("repeats", 3))
    if "model" in given:
        draw(given["model"], repeats)
    else:
        operation(repeats)


if __name__ == "__main__":
    main()
