"""The workers of `bench/rlhf.py`: timed steps, or a whole training whose rewards, gradient norms and weights are kept.

given   as of `ours_worker` and `trl_worker`, and
        reward      folder of the reward model, the same function on both sides; reward_dtype: of its arithmetic
        sampler     bfloat16: ours draws from a bfloat16 copy of the policy, whatever it trains in
        beta        the KL's weight; estimator, learning_rate, clip: ours (TRL's stand in `settings`)
        weights     file for the trained weights; without it, steps are timed
        write       file for our samples' token ids, step by step       read: TRL takes these in place of drawing its own
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clock import Clock, work
from trl_worker import trainer_of, trl

Reward = Callable[..., list[float]]


def reward_of(given: dict[str, Any]) -> tuple[Reward, list[float]]:
    """The reward model as a function with TRL's signature, and the list to which it adds the mean of every call, one a step."""
    from amenable.feedback.reward_model import load_reward_model

    model = load_reward_model(given["reward"], dtype=given.get("reward_dtype", "float32"))
    means: list[float] = []

    def reward(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        found = [float(value) for value in model(prompts, completions) if value is not None]
        means.append(sum(found) / len(found))
        return found

    return reward, means


def finish(given: dict[str, Any], model: Any, rewards: list[float], norms: list[float], began: float) -> None:
    """Keep the weights, and say what was measured: by step, and the CPU seconds since `began`."""
    seconds = time.process_time() - began
    from safetensors.torch import save_file

    save_file({name: value.detach().clone() for name, value in model.named_parameters()}, given["weights"])
    print("RESULT " + json.dumps({"rewards": rewards, "norms": norms, "seconds": seconds}), flush=True)


def ours(given: dict[str, Any], clock: Clock) -> None:
    import torch
    from ours_worker import learner_of, proposal_of, timed

    from amenable.method.loop import Optimisation, train
    from amenable.method.rlhf import rlhf
    from amenable.records import Decoding
    from amenable.sampling.proposal import OnPolicy

    learner = learner_of(given)
    proposal = OnPolicy(torch.bfloat16) if given.get("sampler") == "bfloat16" else proposal_of(given)
    reward, means = reward_of(given)
    method = rlhf(
        learner, reward, beta=given["beta"], estimator=given["estimator"], contexts=given["prompts"], steps=given["steps"],
        samples_per_context=given["n"] // len(given["prompts"]), decoding=Decoding(max_tokens=given["tokens"]),
        proposal=proposal, seed=given["seed"],
    )  # fmt: skip
    if "weights" not in given:
        timed(method, learner, given, clock)
        return
    drawn = recorded(method.proposal) if "write" in given else []
    settings = Optimisation(
        learning_rate=given["learning_rate"], schedule="constant", warmup=0.0, weight_decay=0.0, clip_norm=given["clip"],
        precision=given["precision"],
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        train(learner, method, optimisation=settings, folder=Path(folder))
        metrics = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    if drawn:
        Path(given["write"]).write_text(json.dumps(drawn))
    finish(given, learner.model, means, [float(row["gradient_norm"]) for row in metrics], began)


def recorded(proposal: Any) -> list[list[tuple[list[int], list[int]]]]:
    """A list to which every draw adds its samples: (prompt's ids, sampled ids)."""
    whole, found = proposal.draw, []

    def draw(*arguments: Any, **settings: Any) -> Any:
        samples = whole(*arguments, **settings)
        found.append([(list(ids), samples.ids(row)) for row, ids in enumerate(samples.context_ids)])
        return samples

    proposal.draw = draw
    return found


def peer(given: dict[str, Any], clock: Clock) -> None:
    reward, means = reward_of(given)
    if "weights" not in given:
        trl(given, clock, reward)
        return
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(given, reward, folder)
        if "read" in given:
            replay(trainer, json.loads(Path(given["read"]).read_text()), given["system"])
        began = time.process_time()
        trainer.train()
        rows = [row for row in trainer.state.log_history if "grad_norm" in row]
        finish(given, trainer.model, means, [float(row["grad_norm"]) for row in rows], began)


def replay(trainer: Any, batches: list[list[tuple[list[int], list[int]]]], system: str) -> None:
    """TRL's trainer is given these samples, a batch a step, in place of what it would draw."""
    coming = iter(batches)

    def turn(prompt_ids: list[list[int]], *arguments: Any, **settings: Any) -> Any:
        waiting: dict[tuple[int, ...], list[list[int]]] = {}
        for prompt, ids in next(coming):
            waiting.setdefault(tuple(prompt), []).append(ids)
        found = [waiting[tuple(prompt)].pop(0) for prompt in prompt_ids]
        return (found, None) if system == "grpo" else found

    trainer._generate_single_turn = turn


if __name__ == "__main__":
    work({"ours": ours, "grpo": peer, "rloo": peer})
