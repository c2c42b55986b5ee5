"""RLHF with one reward model, ours against TRL's GRPO and RLOO: what a step costs, and what equal steps reach.

    python bench/rlhf.py [model=small|smollm2-135m] [prompts=8] [n=32] [tokens=64] [steps=1] [repeats=2]
                         [systems=ours,ours-bf16,ours-group,grpo,rloo] [reward=float32|bfloat16] [sampler=bfloat16]
    python bench/rlhf.py curve [seeds=5] [steps=30] ...        (`rlhf_curve`)

Same model folder, reward model and its arithmetic (`rlhf_reward`: one function for both sides; TRL gets it as reward_funcs),
prompts of 16 tokens each, number and length of samples (no end of text: the work is fixed), reference model, beta 0.04, float32
but for ours-bf16, one thread, each in a process of its own, in turn; the first step of a process is a warm-up. CPU seconds by
phase, peak memory of the process. n counts the samples of all prompts: 32 are 4 of each of 8 prompts.

Systems: ours (`method.rlhf`, leave-one-out), ours-bf16 (the same in the bfloat16 mode, weights in float32), ours-group and
ours-group-bf16 (group-normalised), grpo and rloo (TRL, its own defaults for the loss; gradient checkpointing off, 16 sequences
a micro-batch). Before it measures, the parity of gradients (`parity`): a ratio means something only if those agree.
"""

from __future__ import annotations

import sys

import torch
from parity import print_parity
from peers import given_words, in_turn, model_folder, print_table, shortened
from rlhf_reward import agreement, reward_folder

TEXTS = (
    "In the beginning the committee could not agree on the order of business, and so the secretary read the minutes",
    "Could you please explain to me in a few simple words why the sky is blue during the day and red in the evening",
    "My neighbour has asked me whether it would be all right to cut down the old tree that stands between our gardens",
    "What should somebody who has never cooked before learn first, and what would they need to buy for their kitchen",
    "Please write a short letter to the manager of a hotel in which you thank them for the room with the view of the sea",
    "The train to the north was late again this morning, so the people on the platform began to talk to each other about",
    "How do I find out whether the water from the well behind the house is safe to drink, and who could test it for me",
    "Tell me about the history of the bridge over the river, and about the people who built it so many years ago in",
)
KEYS = ("model", "prompts", "n", "tokens", "steps", "repeats", "systems", "reward", "sampler")


def speed(words: list[str]) -> None:
    """The table of times."""
    given = given_words(words, KEYS)
    name, tokens, repeats = given.get("model", "small"), int(given.get("tokens", 64)), int(given.get("repeats", 2))
    count, n = int(given.get("prompts", 8)), int(given.get("n", 32 if name == "small" else 16))
    if not 1 <= count <= len(TEXTS) or n % count or n < 2 * count:
        raise SystemExit(
            f"n={n} samples of prompts={count}: give 1 to {len(TEXTS)} prompts, and 2 samples or more of each"
        )
    folder = model_folder(name)
    prompts = shortened(folder, TEXTS[:count], 16)
    reward = reward_folder(name, folder, shortened(folder, TEXTS, 16), scripted=False, tokens=32)
    work = {
        "folder": folder, "prompts": prompts, "n": n, "tokens": tokens, "steps": int(given.get("steps", 1)) + 1, "beta": 0.04,
        "reward": str(reward), "reward_dtype": given.get("reward", "float32"), "sampler": given.get("sampler", ""),
    }  # fmt: skip
    right, pairs = agreement(reward)
    print(
        f"{name}, {len(prompts)} prompts, {n} samples of {tokens} tokens a step, reward model in {work['reward_dtype']} "
        f"(knows {right} of {pairs} held-out labels), 1 thread, {repeats} runs of each in turn\n"
    )
    print_parity(folder, prompts[0], tokens)
    systems = given.get("systems", "ours,ours-bf16,grpo,rloo").split(",")
    print_table(*in_turn("rlhf_peers.py", systems, work, repeats))


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["curve"]:
        from rlhf_curve import curve

        curve(sys.argv[2:])
    else:
        speed(sys.argv[1:])


if __name__ == "__main__":
    main()
