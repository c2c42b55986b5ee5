"""One training of TRL's, GRPO or RLOO, on what a bench gives it: prompts, a reward function, settings of TRL's own.

given   system ("grpo" | "rloo"), folder, prompts, n (samples a step, of all prompts), tokens, steps, seed
        ends      samples may end before `tokens` (default: they may not, the work is fixed)
        micro     sequences of a micro-batch at most
        settings  of TRL's config, over those here
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

from clock import Clock

MICRO = 16


def trainer_of(given: dict[str, Any], reward: Callable[..., list[float]], folder: str) -> Any:
    """TRL's trainer in float32, a step of which takes every prompt once; its own files go to `folder`."""
    import torch
    import transformers
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    config, kind = (GRPOConfig, GRPOTrainer) if given["system"] == "grpo" else (RLOOConfig, RLOOTrainer)
    n, prompts = given["n"], given["prompts"]
    micro = max(size for size in range(1, given.get("micro", MICRO) + 1) if n % size == 0)
    own: dict[str, Any] = {
        "output_dir": folder, "num_generations": n // len(prompts), "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": n // micro, "max_completion_length": given["tokens"], "beta": 0.04,
        "max_steps": given["steps"], "learning_rate": 1e-5, "lr_scheduler_type": "constant", "bf16": False,
        "use_cpu": True, "gradient_checkpointing": False, "save_strategy": "no", "logging_strategy": "no",
        "disable_tqdm": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "disable_dropout": True, "report_to": "none",
        "shuffle_dataset": False, "seed": given["seed"],
    }  # fmt: skip
    if not given.get("ends"):
        own["generation_kwargs"] = {"min_new_tokens": given["tokens"]}
    model = transformers.AutoModelForCausalLM.from_pretrained(given["folder"], dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(given["folder"], padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows = [{"prompt": prompt} for prompt in prompts] * max(1, 64 // len(prompts))
    return kind(
        model=model, args=config(**{**own, **given.get("settings", {})}), reward_funcs=reward,
        train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
    )  # fmt: skip


def trl(given: dict[str, Any], clock: Clock, reward: Callable[..., list[float]]) -> None:
    """Timed steps."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(given, reward, folder)
        watch(trainer, clock)
        trainer.train()


def watch(trainer: Any, clock: Clock) -> None:
    """The phases of TRL's step; the clock starts."""
    import torch
    import transformers

    def phase(model: Any, *_: Any, **__: Any) -> str:
        if model is trainer.ref_model:
            return "reference"
        return "train" if torch.is_grad_enabled() else "rescore"

    clock.watch(transformers.GenerationMixin, "generate", "sample")
    clock.watch(trainer, "_calculate_rewards", "reward")
    clock.watch(trainer, "_get_per_token_logps_and_entropies", phase)
    clock.watch(torch.Tensor, "backward", "train")
    clock.watch_optimiser(torch.optim.AdamW)
    clock.start()
