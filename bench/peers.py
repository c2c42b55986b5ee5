"""What the benches against other libraries share: the peers' environments, the model folder, processes in turn, and the table.

A peer is installed once, from PyPI, into an environment of its own in amenable's cache. Every system gets a process of its own
for each repeat, one thread, in turn; the first step of a process is a warm-up. What cannot run says why.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from amenable.cache import cache_folder
from amenable.policy.causal_lm import CausalLM
from amenable.policy.loading import load_policy

HERE = Path(__file__).parent
INSTALL = {
    "trl": (["torch==2.13.0", "transformers==5.23.0", "trl==1.16.0"],),
    "disco": (  # it calls what transformers 4.46 took away, asks for Python < 3.11 and for loggers that it does not need here
        ["torch==2.13.0", "transformers==4.40.2", "numpy>=2", "scipy", "datasets"],
        ["--no-deps", "--ignore-requires-python", "disco-generation==1.1.1"],
    ),
}
PHASES = ("sample", "rescore", "reference", "reward", "train", "optimiser", "other")
Steps = list[dict[str, float]]


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


# --- processes
def ran(worker: str, order: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """The worker (a file of this folder) with its order, in the environment of `order["system"]`; it finds amenable, too."""
    own = order["system"]
    python = sys.executable if own == "ours" else peers_python("disco" if own.startswith("disco") else "trl")
    settings = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "PYTHONPATH": str(HERE.parent)}
    command = [python, str(HERE / worker), json.dumps(order)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | settings)


def said(stdout: str, word: str) -> list[Any]:
    """What a worker printed as `WORD json`, in order."""
    return [json.loads(line[len(word) + 1 :]) for line in stdout.splitlines() if line.startswith(f"{word} ")]


def why(process: subprocess.CompletedProcess[str]) -> str:
    """The last line of what a worker complained of."""
    return (process.stderr.strip().splitlines() or [f"exit {process.returncode}"])[-1][:300]


def measure(worker: str, system: str, given: dict[str, Any]) -> tuple[Steps, float] | str:
    """Each measured step's CPU seconds by phase, and the peak in GiB; or why there are none.

    ours-bf16 is our bfloat16 mode, ours-group the group-normalised estimator, ours-group-bf16 both.
    """
    own, _, kind = system.partition("-") if system.startswith("ours") else (system, "", "")
    how = {
        "precision": "bfloat16" if kind.endswith("bf16") else "float32",
        "estimator": "group" if kind.startswith("group") else "leave-one-out",
    }
    process = ran(worker, given | {"system": own} | how)
    steps, peak = said(process.stdout, "STEP"), said(process.stdout, "PEAK")
    if process.returncode or not peak or len(steps) < 2:
        return why(process)
    return steps[1:], peak[0]


def in_turn(
    worker: str, systems: Sequence[str], given: dict[str, Any], repeats: int
) -> tuple[dict[str, list[Steps]], dict[str, float]]:
    """Every system's measured steps by repeat, and its peak in GiB; `seed` is the repeat. What does not run is left out."""
    found: dict[str, list[Steps]] = {system: [] for system in systems}
    peaks: dict[str, float] = {}
    for repeat in range(repeats):
        for system in list(found):
            result = measure(worker, system, given | {"seed": repeat})
            if isinstance(result, str):
                print(f"\n{system} does not run: {result}", flush=True)
                del found[system]
                continue
            found[system].append(result[0])
            peaks[system] = max(result[1], peaks.get(system, 0.0))
            print(f"{system}: {result[0]} {result[1]:.2f} GiB", file=sys.stderr, flush=True)
    return found, peaks


# --- the table
def ratios(runs: Sequence[Steps], base: Sequence[Steps]) -> list[float]:
    """Median step of `runs` over that of `base`, one a repeat."""
    return [_median(one) / _median(other) for one, other in zip(runs, base, strict=False)]


def _median(run: Steps) -> float:
    return statistics.median(step["step"] for step in run)


def print_table(found: dict[str, list[Steps]], peaks: dict[str, float]) -> None:
    """Medians over all steps by phase; ratios are of the same repeat: median, and in brackets the range over repeats."""
    head = " | ".join(PHASES)
    print(f"\n| CPU s a step (median) | {head} | step | range | peak GiB | step / ours | step / ours-bf16 |")
    print("|---|" + "---|" * (len(PHASES) + 5))
    for system, runs in found.items():
        steps = [step for run in runs for step in run]
        whole = [step["step"] for step in steps]
        cells = [f"{statistics.median(step.get(phase, 0.0) for step in steps):.2f}" for phase in PHASES]
        cells += [f"{statistics.median(whole):.2f}", f"{min(whole):.2f} to {max(whole):.2f}", f"{peaks[system]:.2f}"]
        for base in ("ours", "ours-bf16"):
            values = ratios(runs, found.get(base, []))
            cells.append(f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else "-")
        print(f"| {system} | " + " | ".join(cells) + " |", flush=True)


def shortened(folder: str, texts: Sequence[str], tokens: int) -> list[str]:
    """The first `tokens` tokens of each text, as text that has just these tokens. Errors: ValueError if one has not."""
    tokenizer = load_policy(folder).tokenizer
    found = [tokenizer.decode(tokenizer(text)["input_ids"][:tokens]) for text in texts]
    for text in found:
        if len(tokenizer(text)["input_ids"]) != tokens:
            raise ValueError(f"{text!r} has not {tokens} tokens: take another text")
    return found


def given_words(words: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """key=value of the command line. Errors: SystemExit for another key."""
    given = dict(word.split("=", 1) for word in words if "=" in word)
    strange = [word for word in words if word.split("=", 1)[0] not in known or "=" not in word]
    if strange:
        raise SystemExit(f"{', '.join(strange)}: not known. Known: {', '.join(f'{key}=' for key in known)}")
    return given
