"""A reward model's features of pairs: by the forward of policies, a shared prompt read once, and by transformers', padded.

    python bench/reward.py PAIRS [model=smollm2-135m] [pairs=64] [repeats=2]

PAIRS is what `load_comparisons` reads. 60% of the layers, one thread, CPU seconds in turn, each repeat; and in bfloat16 the
distance of the features from float32's, relative to their norm. Texts above 500 tokens are left out.
"""

from __future__ import annotations

import sys
import time
from itertools import islice
from pathlib import Path

import torch
from peers import model_folder

from amenable.feedback import reward_reading
from amenable.feedback.reward_model import new_reward_model
from amenable.task.preferences import load_comparisons


def main() -> None:
    given = dict(word.split("=", 1) for word in sys.argv[2:])
    torch.set_num_threads(1)
    pairs = list(islice(load_comparisons(sys.argv[1]), int(given.get("pairs", 64))))
    folder = Path(model_folder(given.get("model", "smollm2-135m")))
    once = reward_reading.reads_once
    exact = torch.zeros(())
    print("| precision | forward | texts | CPU s, each repeat | distance from float32 |\n|---|---|---|---|---|")
    for dtype in ("float32", "bfloat16"):
        model = new_reward_model(folder, depth=0.6, dtype=dtype, reads="answer")
        texts = [model.encode(pair.prompt, answer) for pair in pairs for answer in (pair.first, pair.second)]
        texts = [text for text in texts if len(text) <= 500]
        seconds: dict[str, list[str]] = {"transformers'": [], "of policies": []}
        features: dict[str, torch.Tensor] = {}
        for _ in range(int(given.get("repeats", 2))):
            for name in seconds:
                reward_reading.reads_once = once if name == "of policies" else lambda _: False
                began = time.process_time()
                features[name] = model.features(texts)
                seconds[name].append(f"{time.process_time() - began:.2f}")
        exact = features["transformers'"] if dtype == "float32" else exact
        for name, found in seconds.items():
            gap = float((features[name] - exact).norm() / exact.norm())
            print(f"| {dtype} | {name} | {len(texts)} | {', '.join(found)} | {gap:.1e} |", flush=True)


if __name__ == "__main__":
    main()
