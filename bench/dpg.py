"""A training step of ours against disco's DPG and TRL's GRPO and RLOO: CPU seconds by phase, peak memory, and a parity check.

    python bench/dpg.py [model=small|smollm2-135m] [n=32] [tokens=64] [steps=1] [repeats=2] [systems=ours,ours-bf16,disco,...]

Systems: ours, ours-bf16, disco (as it ships), disco-quiet (without its anomaly detection), grpo, rloo; the peers in float32.
All get the same model folder, prompt of 16 tokens, number and length of samples (no end of text: the work is fixed), reference
model and precision, one thread, each in a process of its own, in turn; the first step of a process is a warm-up. Peers are
installed once, from PyPI, into an environment of their own in amenable's cache. What cannot run says why.

Before it measures: one fixed batch of token ids and rewards, the gradient of each peer's loss written down with autograd, and
the norm of ours beside it (`parity`). A ratio means something only if those agree.
"""

from __future__ import annotations

import sys

import torch
from parity import print_parity
from peers import given_words, in_turn, model_folder, print_table, shortened

TEXT = "In the beginning the committee could not agree on the order of business, and so the secretary read the minutes"
KEYS = ("model", "n", "tokens", "steps", "repeats", "systems", "objective", "positions")


def main() -> None:
    given = given_words(sys.argv[1:], KEYS)
    name, tokens, repeats = given.get("model", "small"), int(given.get("tokens", 64)), int(given.get("repeats", 2))
    systems = given.get("systems", "ours,ours-bf16,disco,disco-quiet,grpo,rloo").split(",")
    torch.set_num_threads(1)
    folder = model_folder(name)
    prompts = shortened(folder, [TEXT], 16)
    work = {
        "folder": folder, "prompts": prompts, "n": int(given.get("n", 32 if name == "small" else 16)), "tokens": tokens,
        "steps": int(given.get("steps", 1)) + 1, "objective": given.get("objective", "forward-kl"),
    } | ({"positions": int(given["positions"])} if "positions" in given else {})  # fmt: skip
    print(f"{name}, {work['n']} samples of {tokens} tokens a step, 1 thread, {repeats} runs of each in turn\n")
    print_parity(folder, prompts[0], tokens)
    print_table(*in_turn("dpg_peers.py", systems, work, repeats))


if __name__ == "__main__":
    main()
