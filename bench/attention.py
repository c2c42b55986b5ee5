"""Attention of one query a row, as a token is drawn: torch's fused kernel and ours (`policy.decoder.attend`), in turn.

    python bench/attention.py [repeats=3]

One thread. Milliseconds of CPU a call, median and range over repeats, by rows, query heads, the heads that are kept (size 64)
and columns, in buffers with room for half as many more; and the largest difference to float64 of each.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch.nn import functional

from amenable.policy.decoder import attend

SHAPES = ((16, 9, 3, 50), (64, 9, 3, 50), (16, 9, 3, 400), (64, 9, 3, 400), (64, 14, 2, 100))
CALLS = 20


def milliseconds(call: Callable[[], torch.Tensor]) -> float:
    call()
    began = time.process_time()
    for _ in range(CALLS):
        call()
    return 1e3 * (time.process_time() - began) / CALLS


@torch.inference_mode()
def main() -> None:
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(
        "| precision | rows | heads | kept | columns | fused, ms | ours, ms | fused / ours | error, fused | error, ours |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for dtype in (torch.bfloat16, torch.float32):
        for rows, heads, kept, columns in SHAPES:
            query = torch.randn(rows, heads, 64).to(dtype)
            keys, values = (torch.randn(rows, kept, columns * 3 // 2, 64).to(dtype)[:, :, :columns] for _ in range(2))

            def fused(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
                mixed = functional.scaled_dot_product_attention(
                    query.unsqueeze(2), keys, values, scale=0.125, enable_gqa=True
                )
                return mixed.flatten(1)

            exact = fused(query.double(), keys.double(), values.double())
            sides = [lambda: fused(query, keys, values), lambda: attend(query, keys, values, None, 0.125)]  # noqa: B023
            times = [[milliseconds(side) for side in sides] for _ in range(int(given.get("repeats", 3)))]
            cells = [f"{statistics.median(one):.3f}" for one in zip(*times, strict=True)]
            ratios = [first / second for first, second in times]
            errors = [f"{float((side().double() - exact).abs().max()):.1e}" for side in sides]
            print(
                f"| {str(dtype)[6:]} | {rows} | {heads} | {kept} | {columns} | {' | '.join(cells)} | "
                f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}) | {' | '.join(errors)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
