"""The workers of `bench/pretrain.py`: one system's steps on given documents, CPU seconds of each (`clock`).

given   folder, documents (a JSON file: lists of token ids, each begins and ends with <eos>), steps, batch (documents a step,
        in micro-batches of 16), tokens (about as many in them), length, objective, precision ("float32" | "bfloat16"), seed
        checkpointing   TRL's default, gradient checkpointing, is left on
        rows            the documents are packed rows of one length: one step on all of them, its loss and norm are printed
Runs in the peers' environment too, so nothing of amenable is imported but by `ours`. Each step's real tokens, those predicted,
are printed as "TOKENS n" before its "STEP {...}".
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clock import Clock, work

MICRO = 16


def documents_of(given: dict[str, Any]) -> list[list[int]]:
    found: list[list[int]] = json.loads(Path(given["documents"]).read_text())
    return found


def counting(clock: Clock, tokens: Callable[[], int]) -> None:
    """`tokens` of a step are printed before the step is."""
    ended = clock.ended

    def both() -> None:
        print(f"TOKENS {tokens()}", flush=True)
        ended()

    clock.ended = both  # type: ignore[method-assign]


# --- ours
def method_of(given: dict[str, Any], eos: int) -> Any:
    """Our training on the documents; each is a segment, with a made-up score for the objectives that have weights."""
    import numpy as np

    from amenable.method.corpus import Tokens
    from amenable.method.pretraining import Pretraining
    from amenable.objective.pretraining import Objective

    texts = [ids[1:-1] for ids in documents_of(given)]
    lengths = [len(ids) for ids in texts]
    scores = np.random.default_rng(0).random(len(texts))
    corpus = Tokens(
        np.concatenate([np.array(ids, dtype=np.int32) for ids in texts]),
        np.repeat(np.arange(len(texts), dtype=np.int32), lengths), np.cumsum([0, *lengths]), scores, scores,
    )  # fmt: skip
    length = given["length"]
    batch = max(1, round(given["tokens"] / length)) * length
    return Pretraining(
        corpus, Objective(given["objective"], alpha=0.5, beta=1.0), eos=eos, tokens=batch * given["steps"],
        batch_tokens=batch, length=length, seed=given["seed"],
    )  # fmt: skip


def ours(given: dict[str, Any], clock: Clock) -> None:
    import torch

    from amenable.method.loop import Optimisation, train
    from amenable.policy.causal_lm import CausalLM
    from amenable.policy.loading import load_policy
    from amenable.policy.packed import PackedLM

    policy = load_policy(given["folder"], dtype="float32")
    assert isinstance(policy, CausalLM)
    learner = PackedLM.of(policy, value=given["objective"] == "awr").trainable_copy()
    method = method_of(given, policy.eos_ids[0])
    settings = Optimisation(learning_rate=1e-5, schedule="constant", warmup=0.0, precision=given["precision"])
    counting(clock, lambda: int(method.rows * method.length))
    clock.watch(torch.Tensor, "backward", "train")
    clock.watch_optimiser(torch.optim.AdamW)
    with tempfile.TemporaryDirectory() as folder:
        clock.start()
        train(learner, method, optimisation=settings, folder=Path(folder))


# --- theirs
def trainer_of(given: dict[str, Any], folder: str) -> Any:
    """transformers' Trainer, or TRL's SFTTrainer, with their own collators; files go to `folder`."""
    import torch
    import transformers
    from datasets import Dataset

    documents = documents_of(given)
    model = transformers.AutoModelForCausalLM.from_pretrained(given["folder"], dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(given["folder"])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows = bool(given.get("rows"))
    batch = len(documents) if rows else given["batch"]
    own: dict[str, Any] = {
        "output_dir": folder, "per_device_train_batch_size": min(MICRO, batch),
        "gradient_accumulation_steps": max(1, batch // MICRO), "max_steps": 1 if rows else given["steps"],
        "learning_rate": 1e-5, "lr_scheduler_type": "constant", "bf16": given["precision"] == "bfloat16",
        "use_cpu": True, "save_strategy": "no", "logging_strategy": "steps" if rows else "no", "logging_steps": 1,
        "disable_tqdm": True, "report_to": "none", "seed": given["seed"],
        "gradient_checkpointing": bool(given.get("checkpointing")),
    }  # fmt: skip
    if given["system"] == "sft":
        from trl import SFTConfig, SFTTrainer

        data = Dataset.from_list([{"input_ids": ids} for ids in documents])
        return SFTTrainer(
            model=model, args=SFTConfig(**own, max_length=given["length"] + 1), train_dataset=data,
            processing_class=tokenizer,
        )  # fmt: skip
    data = Dataset.from_list([{"input_ids": ids, "labels": ids} for ids in documents])
    # pads labels by -100; the collator for language modelling would not learn <eos>, which pads
    collator = transformers.DataCollatorForSeq2Seq(tokenizer)
    return transformers.Trainer(
        model=model, args=transformers.TrainingArguments(**own), train_dataset=data, data_collator=collator
    )


def theirs(given: dict[str, Any], clock: Clock) -> None:
    import torch

    seen: list[int] = []

    def count(model: Any, arguments: Any, settings: dict[str, Any]) -> None:
        mask, ids = settings.get("attention_mask"), settings["input_ids"]
        seen.append(int(ids.numel() if mask is None else mask.sum()) - len(ids))

    def counted() -> int:
        found = sum(seen)
        seen.clear()
        return found

    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(given, folder)
        trainer.model.register_forward_pre_hook(count, with_kwargs=True)
        counting(clock, counted)
        clock.watch(torch.Tensor, "backward", "train")
        clock.watch_optimiser(torch.optim.AdamW)
        clock.start()
        trainer.train()
        for row in trainer.state.log_history[:1] if given.get("rows") else []:
            print("LOGGED " + json.dumps([float(row["loss"]), float(row["grad_norm"])]), flush=True)


# --- the machine
def limit(given: dict[str, Any], clock: Clock) -> None:
    """The matrix products of a step alone, of the model's own shapes: forward, and two each backward.

    `length` tokens attend to each other; half of those products is counted, the future is none. Median of 5 of each.
    """
    import statistics

    import torch

    config = json.loads((Path(given["folder"]) / "config.json").read_text())
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
    size = config.get("head_dim") or width // heads
    length, dtype = given["length"], getattr(torch, given["precision"])
    rows = max(1, round(given["tokens"] / length))
    positions = rows * length

    def seconds(*shapes: tuple[int, ...]) -> float:
        first, second = (torch.randn(shape).to(dtype) for shape in shapes)
        found = []
        for _ in range(6):
            began = time.process_time()
            first @ second
            found.append(time.process_time() - began)
        return statistics.median(found[1:])

    def linear(inputs: int, outputs: int, at_once: int = positions) -> float:
        shapes = ((at_once, inputs), (inputs, outputs)), ((at_once, outputs), (outputs, inputs))
        both = sum(seconds(*shape) for shape in shapes)
        return (both + seconds((outputs, at_once), (at_once, inputs))) * positions / at_once

    def attention() -> float:
        square, tall = (rows * heads, length, length), (rows * heads, length, size)
        wide = (rows * heads, size, length)
        return (2 * seconds(tall, wide) + 4 * seconds(square, tall)) / 2

    for _ in range(given["steps"]):
        layer = linear(width, (heads + 2 * shared) * size) + linear(heads * size, width)
        layer += linear(width, 2 * inner) + linear(inner, width) + attention()
        took = layers * layer + linear(width, config["vocab_size"], min(1024, positions))
        print(f"TOKENS {positions}\nSTEP " + json.dumps({"step": took}), flush=True)


if __name__ == "__main__":
    work({"ours": ours, "trainer": theirs, "sft": theirs, "limit": limit})
