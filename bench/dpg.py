"""A training step of ours against disco's DPG and TRL's GRPO and RLOO: CPU seconds by phase, peak memory, and a parity check.

    python bench/dpg.py [model=small|smollm2-135m] [n=32] [tokens=64] [steps=1] [repeats=2] [systems=ours,ours-bf16,disco,...]

Systems: ours, ours-bf16, disco (as it ships), disco-quiet (without its anomaly detection), grpo, rloo; the peers in float32.
All get the same model folder, prompt of 16 tokens, number and length of samples (no end of text: the work is fixed), reference
model and precision, one thread, each in a process of its own, in turn; the first step of a process is a warm-up. Peers are
installed once, from PyPI, into an environment of their own in amenable's cache. What cannot run says why.

Before it measures: one fixed batch of token ids and rewards, the gradient of each peer's loss written down with autograd, and
the norm of ours beside it. A ratio means something only if those agree.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from dpg_peers import GAIN
from transformers import LlamaConfig, LlamaForCausalLM

from amenable.cache import cache_folder
from amenable.policy.causal_lm import CausalLM
from amenable.policy.loading import load_policy
from amenable.records import Decoding

TEXT = "In the beginning the committee could not agree on the order of business, and so the secretary read the minutes"
INSTALL = {
    "trl": (["torch==2.13.0", "transformers==5.23.0", "trl==1.16.0"],),
    "disco": (  # it calls what transformers 4.46 took away, asks for Python < 3.11 and for loggers that it does not need here
        ["torch==2.13.0", "transformers==4.40.2", "numpy>=2", "scipy", "datasets"],
        ["--no-deps", "--ignore-requires-python", "disco-generation==1.1.1"],
    ),
}
PHASES = ("sample", "rescore", "reference", "train", "optimiser", "other")


def peers_python(name: str) -> str:
    """The interpreter of a peer's environment, which is made at the first call."""
    folder = cache_folder() / "peers" / name
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        for packages in INSTALL[name]:
            subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True, stdout=sys.stderr)
        done.touch()
    return str(python)


def model_folder(name: str) -> str:
    """A plain float32 folder of the model that transformers 4 and 5 read: a named one, or `small`: 25.6 M random weights."""
    folder = cache_folder() / "peers" / f"model-{name.replace('/', '--')}"
    if (folder / "done").is_file():
        return str(folder)
    policy = load_policy("smollm2-135m" if name == "small" else name, dtype="float32")
    if name == "small":
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=49152, hidden_size=320, intermediate_size=864, num_hidden_layers=8, num_attention_heads=5,
            num_key_value_heads=5, max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=1,
            eos_token_id=2, pad_token_id=2,
        )  # fmt: skip
        policy = CausalLM(LlamaForCausalLM(config), policy.tokenizer, name="small")
    policy.save(folder)
    for file, changes in {
        "config.json": lambda old: old | {"torch_dtype": "float32", **old.get("rope_parameters", {})},
        "tokenizer_config.json": lambda old: {
            **{key: old[key] for key in ("bos_token", "eos_token", "pad_token", "unk_token") if old.get(key)},
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
        "tokenizer.json": lambda old: (
            old | {"model": old["model"] | {"merges": [" ".join(pair) for pair in old["model"]["merges"]]}}
        ),
    }.items():
        path = folder / file
        path.write_text(json.dumps(changes(json.loads(path.read_text())), indent=1))
    (folder / "done").touch()
    return str(folder)


# --- parity ---
def parity(folder: str, prompt: str, tokens: int) -> list[tuple[str, float, float]]:
    """(loss, norm of our gradient, norm of the plain one) on a fixed batch of 8 samples and made-up rewards."""
    policy = load_policy(folder, dtype="float32")
    policy.eos_ids = []
    samples = policy.sample([prompt], n=8, decoding=Decoding(max_tokens=tokens), seed=1)
    learner = policy.trainable_copy()
    with torch.no_grad():  # a policy that has moved
        for _, value in learner.trainable_parameters():
            value.add_(1e-3 * value.std() * torch.randn(value.shape, generator=torch.Generator().manual_seed(3)))
    reward = torch.tensor([1.0, 0, 0, 1, 0, 1, 0, 0])
    ids = torch.tensor([[*c, *t.tolist()] for c, t in zip(samples.context_ids, samples.tokens, strict=True)])
    first = len(samples.context_ids[0])
    with torch.no_grad():
        reference = policy.model(ids).logits[:, first - 1 : -1].log_softmax(-1).gather(-1, ids[:, first:, None])[..., 0]

    def plain() -> torch.Tensor:
        logits = learner.model(ids).logits[:, first - 1 : -1]
        found: torch.Tensor = logits.log_softmax(-1).gather(-1, ids[:, first:, None])[..., 0]
        return found

    def norm(loss: torch.Tensor) -> float:
        learner.model.zero_grad()
        loss.backward()
        return float(sum(p.grad.double().square().sum() for _, p in learner.trainable_parameters()) ** 0.5)

    with torch.no_grad():
        now = plain()
    # DPG: -mean (P / (Z q) - 1) log pi, with q = pi and Z the batch's own
    weight = (reference.sum(1) + GAIN * reward - now.sum(1)).double().exp()
    excess = (weight / weight.mean() - 1).float()
    # RLOO: the reward less beta times the sequence's KL estimate, less the mean of the others
    beta, total = 0.04, len(reward)
    penalised = reward - beta * (now - reference).sum(1)
    advantage = (penalised - penalised.mean()) * total / (total - 1)
    # GRPO: rewards in units of their deviation, and the k3 penalty inside of the loss, a mean over tokens
    scaled = (reward - reward.mean()) / (reward.std() + 1e-4)

    def grpo() -> torch.Tensor:
        values = plain()
        gap = reference - values
        gain = (values - values.detach()).exp() * scaled[:, None]
        return -(gain - beta * (gap.exp() - gap - 1)).mean(1).mean()

    by_token = -(scaled[:, None] - beta * (1 - (reference - now).exp())) / (total * tokens)
    pairs = {
        "DPG": (-excess / total, lambda: -(excess * plain().sum(1)).mean()),
        "RLOO": (-advantage / total, lambda: -(advantage * plain().sum(1)).mean()),
        "GRPO": (by_token, grpo),
    }
    return [
        (name, norm(learner.weighted_log_prob(samples, weights)[0]), norm(loss()))
        for name, (weights, loss) in pairs.items()
    ]


# --- time ---
def measure(system: str, given: dict[str, Any]) -> tuple[list[dict[str, float]], float] | str:
    """Each measured step's CPU seconds by phase, and the peak in GiB; or why there are none."""
    own, _, kind = system.partition("-") if system.startswith("ours") else (system, "", "")
    order = given | {"system": own, "precision": "bfloat16" if kind == "bf16" else "float32"}
    python = sys.executable if own == "ours" else peers_python("disco" if own.startswith("disco") else "trl")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
    worker = Path(__file__).with_name("dpg_peers.py")
    ran = subprocess.run([python, str(worker), json.dumps(order)], capture_output=True, text=True, env=environment)
    steps = [json.loads(line[5:]) for line in ran.stdout.splitlines() if line.startswith("STEP ")]
    peak = [float(line[5:]) for line in ran.stdout.splitlines() if line.startswith("PEAK ")]
    if ran.returncode or not peak or len(steps) < 2:
        return (ran.stderr.strip().splitlines() or [f"exit {ran.returncode}"])[-1][:300]
    return steps[1:], peak[0]


def main() -> None:
    given = dict(item.split("=", 1) for item in sys.argv[1:])
    name, tokens, repeats = given.get("model", "small"), int(given.get("tokens", 64)), int(given.get("repeats", 2))
    systems = given.get("systems", "ours,ours-bf16,disco,disco-quiet,grpo,rloo").split(",")
    torch.set_num_threads(1)
    folder = model_folder(name)
    tokenizer = load_policy(folder).tokenizer
    prompt = tokenizer.decode(tokenizer(TEXT)["input_ids"][:16])
    work = {
        "folder": folder, "prompt": prompt, "n": int(given.get("n", 32 if name == "small" else 16)), "tokens": tokens,
        "steps": int(given.get("steps", 1)), "objective": given.get("objective", "forward-kl"),
    } | ({"positions": int(given["positions"])} if "positions" in given else {})  # fmt: skip
    print(f"{name}, {work['n']} samples of {tokens} tokens a step, 1 thread, {repeats} runs of each in turn\n")
    print("| fixed batch: norm of the gradient of | ours | plain autograd | relative difference |\n|---|---|---|---|")
    for loss, mine, theirs in parity(folder, prompt, tokens):
        print(f"| {loss} | {mine:.6g} | {theirs:.6g} | {abs(mine - theirs) / theirs:.1e} |", flush=True)
    found: dict[str, list[list[dict[str, float]]]] = {system: [] for system in systems}
    peaks: dict[str, float] = {}
    for repeat in range(repeats):
        for system in list(found):
            result = measure(system, work | {"seed": repeat})
            if isinstance(result, str):
                print(f"\n{system} does not run: {result}", flush=True)
                del found[system]
                continue
            found[system].append(result[0])
            peaks[system] = max(result[1], peaks.get(system, 0.0))
            print(f"{system}: {result[0]} {result[1]:.2f} GiB", file=sys.stderr, flush=True)
    head = " | ".join(PHASES)
    print(f"\n| CPU s a step (median) | {head} | step | range | peak GiB | step / ours | step / ours-bf16 |")
    print("|---|" + "---|" * (len(PHASES) + 5))
    medians = {
        system: [statistics.median(step["step"] for step in run) for run in runs] for system, runs in found.items()
    }
    for system, runs in found.items():
        steps = [step for run in runs for step in run]
        whole = [step["step"] for step in steps]
        cells = [f"{statistics.median(step.get(phase, 0.0) for step in steps):.2f}" for phase in PHASES]
        cells += [f"{statistics.median(whole):.2f}", f"{min(whole):.2f} to {max(whole):.2f}", f"{peaks[system]:.2f}"]
        for base in ("ours", "ours-bf16"):
            ratios = [b / a for a, b in zip(medians.get(base, []), medians[system], strict=False)]
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "-")
        print(f"| {system} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
