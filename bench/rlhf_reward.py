"""The reward models of `bench/rlhf.py`: trained once, kept in amenable's cache, and given to both sides as one function.

    of the code model    its whole body; a head fitted to 480 pairs of its own answers, labelled by the scripted reader
                         (`task.scripted`, Bradley-Terry: a label is sometimes wrong)
    of another policy    the first 60% of its layers; a head fitted to 64 pairs of its own answers, the longer text preferred:
                         for measuring time, which does not depend on what is liked

Rewards are in units of their standard deviation over those answers. The folder is a Hugging Face classifier of one label.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from amenable.cache import cache_folder
from amenable.feedback.reward_model import new_reward_model
from amenable.method.reward_head import fit_head
from amenable.policy.loading import load_policy
from amenable.records import Decoding
from amenable.task.scripted import labelled_by_people


def reward_folder(name: str, policy: str, prompts: Sequence[str], *, scripted: bool, tokens: int) -> Path:
    """The folder of the reward model `name` of the policy in a folder, made now if the cache has none."""
    folder = cache_folder() / "peers" / f"reward-{name.replace('/', '--')}"
    if (folder / "done").is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    law = load_policy(policy, dtype="float32", rows=128)
    each = 2 * max(1, (480 if scripted else 64) // len(prompts))
    drawn = law.sample(list(prompts), n=each, decoding=Decoding(max_tokens=tokens), seed=1)
    asked = [prompt for prompt in prompts for _ in range(each // 2)]
    first, second = list(drawn.texts[::2]), list(drawn.texts[1::2])
    model = new_reward_model(Path(policy), depth=1.0 if scripted else 0.6, dtype="float32", name=name)
    texts = [model.encode(prompt, text) for prompt, text in zip(asked * 2, first + second, strict=True)]
    features = model.features(texts)
    if scripted:
        pairs = labelled_by_people(asked, first, second, seed=1)
        labels = torch.tensor([float(pair.label) for pair in pairs if pair.label is not None])
    else:
        labels = torch.tensor([float(len(one) > len(two)) for one, two in zip(first, second, strict=True)])
    count = len(labels)
    head = fit_head(features[:count], features[count:], labels, groups=asked, folds=5)
    assert head.held_out is not None
    right = int(((head.held_out > 0) == (labels > 0.5)).sum())
    values = features.double() @ head.weight
    deviation = float(values.std())
    model.with_head(head.weight / deviation, mean=float(values.mean()) / deviation).save(folder)
    (folder / "done").write_text(json.dumps({"pairs": count, "right": right}))
    return folder


def agreement(folder: Path) -> tuple[int, int]:
    """How many of the labels the head knew that it was not fitted to, and of how many (5 folds of whole prompts)."""
    found = json.loads((folder / "done").read_text())
    return int(found["right"]), int(found["pairs"])
