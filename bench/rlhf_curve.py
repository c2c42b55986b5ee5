"""The reward that equal steps reach: our two estimators and TRL's, the small code model, one reward model, several seeds.

    python bench/rlhf.py curve [seeds=5] [steps=30] [prompts=8] [n=48] [tokens=48] [beta=0.1] [rate=1e-4] [last=10]
                               [fresh=32] [out=FILE]

Pairs: leave-one-out with RLOO, group with GRPO. A seed has prompts of its own (signatures of functions), the same for all
systems, each in every step; n samples a step of all prompts; samples end at the end token. Same model folder, reward function,
beta, learning rate (constant, no warm-up), AdamW (betas 0.9 and 0.999, weight decay 0), clipping of the global norm, float32,
one gradient step a batch, temperature 1. `out` keeps every training that is done: a run that was cut short goes on.

The losses differ by a constant factor s, ours / TRL's. AdamW does not see it, but its eps and the clipping do: both are divided
by s on TRL's side, so that the same samples give the same step.

    RLOO    s = 1 / beta             our rewards are in nats, r / beta - log(pi / a)
    GRPO    s = T n / (n - 1)        TRL divides by N T tokens, ours by N (loss_type="dr_grpo", T = `tokens`; by default,
                                     "dapo", by the batch's own number of tokens: a factor that changes from step to step).
                                     Ours compares with the n - 1 other samples of the prompt, TRL with all n

What then still differs. RLOO: rounding and random numbers alone (normalize_advantages=False; epsilon=0.2 clips nothing in the
first pass over a batch). GRPO: where the KL stands. Ours: in the reward, of whole sequences, in the deviation that rewards are
divided by. TRL's: in the loss, token by token, beta k3 with the ratio (its default), not divided by the deviation, and without
what a token does to the KL of later ones; and TRL adds 1e-4 to the deviation.

Before: `checked` steps of either pair on the same samples, ours, which TRL takes in place of drawing: rewards and gradient
norms (TRL's times s) step by step, and how far apart the weights end, as a share of the way they went. After: mean reward of
the `last` steps, and reward and KL of fresh samples of every trained policy; differences over seeds, ours less TRL's, with
Student's interval. "Not worse": the interval ends above -10% of what TRL gained over the start.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peers import given_words, ran, said, why
from rlhf_reward import agreement, reward_folder
from safetensors.torch import load_file

from amenable.evaluation.interval import Estimate, over_seeds
from amenable.feedback.reward_model import load_reward_model
from amenable.policy.language_model import LanguageModel
from amenable.recipes.code_model import Making, code_model, functions_of, home
from amenable.records import Decoding
from amenable.target.posterior import recorded_log_prob, sequence_log_prob
from amenable.task.functions import contexts

PAIRS = {"leave-one-out": "rloo", "group": "grpo"}
SIGNATURES = 80
MARGIN = 0.1  # of what TRL gains: the most that "not worse" may lose
CLIP = 1.0  # of our gradients, which are in nats
EPS = 1e-8  # of our AdamW
DEFAULTS = {
    "seeds": 5, "steps": 30, "prompts": 8, "n": 48, "tokens": 48, "beta": 0.1, "rate": 1e-4, "last": 10, "fresh": 32,
    "checked": 3,
}  # fmt: skip


def scale(estimator: str, *, beta: float, each: int, tokens: int) -> float:
    """Our loss over TRL's: `each` samples a prompt, at most `tokens` long."""
    return 1 / beta if estimator == "leave-one-out" else tokens * each / (each - 1)


def trl_settings(estimator: str, given: dict[str, Any]) -> dict[str, Any]:
    """TRL's settings for the same step."""
    factor = scale(estimator, beta=given["beta"], each=given["n"] // len(given["prompts"]), tokens=given["tokens"])
    own = (
        {"loss_type": "dr_grpo", "scale_rewards": "group"} if estimator == "group" else {"normalize_advantages": False}
    )
    return own | {
        "beta": given["beta"], "learning_rate": given["learning_rate"], "max_grad_norm": CLIP / factor,
        "adam_epsilon": EPS / factor, "weight_decay": 0.0, "warmup_steps": 0, "optim": "adamw_torch", "num_iterations": 1,
        "logging_strategy": "steps", "logging_steps": 1,
    }  # fmt: skip


def trained(system: str, estimator: str, given: dict[str, Any], weights: Path, **more: Any) -> dict[str, Any]:
    """What a training gave: rewards and norms (in our units) by step, CPU seconds. Errors: SystemExit if it does not run."""
    order = given | {
        "system": system,
        "estimator": estimator,
        "clip": CLIP,
        "precision": "float32",
        "weights": str(weights),
    }
    if system != "ours":
        order["settings"] = trl_settings(estimator, given)
    process = ran("rlhf_peers.py", order | more)
    found = said(process.stdout, "RESULT")
    if process.returncode or not found:
        raise SystemExit(f"{system} does not run: {why(process)}\n{process.stderr[-2000:]}")
    if system != "ours":
        each = given["n"] // len(given["prompts"])
        factor = scale(estimator, beta=given["beta"], each=each, tokens=given["tokens"])
        found[0]["norms"] = [factor * norm for norm in found[0]["norms"]]
    return dict(found[0])


# --- the same samples on both sides
def print_check(given: dict[str, Any], steps: int) -> None:
    """Both sides on our samples, step by step."""
    print("\n| same samples | step | reward, ours | TRL's | gradient norm, ours | TRL's, in our units | difference |")
    print("|---|---|---|---|---|---|---|")
    start = dict(code_model().model.named_parameters())
    with tempfile.TemporaryDirectory() as folder:
        for estimator, peer in PAIRS.items():
            files = [Path(folder) / name for name in ("ours.safetensors", "theirs.safetensors", "samples.json")]
            few = given | {"steps": steps}
            mine = trained("ours", estimator, few, files[0], write=str(files[2]))
            theirs = trained(peer, estimator, few, files[1], read=str(files[2]))
            for step in range(steps):
                r, s, a, b = (side[key][step] for key in ("rewards", "norms") for side in (mine, theirs))
                cells = f"{r:.6f} | {s:.6f} | {a:.6g} | {b:.6g} | {abs(a - b) / b:.1e}"
                print(f"| {estimator}, {peer} | {step} | {cells} |", flush=True)
            apart, way = distances(start, load_file(files[0]), load_file(files[1]))
            print(f"| {estimator}, {peer} | weights | | | went {way:.3g} | apart {apart:.3g} | {apart / way:.1e} |")


def distances(start: dict[str, Any], one: dict[str, Any], other: dict[str, Any]) -> tuple[float, float]:
    """How far `other` is from `one`, and `one` from `start`. Errors: KeyError if they have other names."""
    apart = sum(float((one[name].detach() - other[name].detach()).double().square().sum()) for name in one)
    way = sum(float((one[name].detach() - start[name].detach()).double().square().sum()) for name in one)
    return apart**0.5, way**0.5


# --- fresh samples
@torch.no_grad()
def fresh(policy: LanguageModel, prior: LanguageModel, given: dict[str, Any], each: int) -> dict[str, float]:
    """Mean reward and KL(policy || prior), nats a sequence, of `each` new samples a prompt."""
    prompts = given["prompts"]
    drawn = policy.sample(prompts, n=each, decoding=Decoding(max_tokens=given["tokens"]), seed=10_000 + given["seed"])
    reward = load_reward_model(given["reward"], dtype="float32")
    found = [value for value in reward([p for p in prompts for _ in range(each)], drawn.texts) if value is not None]
    kl = recorded_log_prob(drawn) - sequence_log_prob(prior, drawn)
    return {"reward": sum(found) / len(found), "kl": float(kl.mean())}


def with_weights(policy: LanguageModel, file: Path) -> LanguageModel:
    """A copy of `policy` that has the weights in the file."""
    made, found = policy.exact(), load_file(file)
    for name, value in made.model.named_parameters():
        value.copy_(found[name])
    return made


# --- over seeds
def difference(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Ours less theirs, seed by seed, with Student's interval over seeds."""
    return over_seeds([one - other for one, other in zip(ours, theirs, strict=True)])


def verdict(found: Estimate, gain: float) -> str:
    """What the interval of a difference says, where the other side gained `gain` over the start."""
    if not found.has_interval:
        return "one seed says nothing"
    if found.low > 0:
        return "better"
    if found.high < 0:
        return "worse"
    return "not worse" if found.low > -MARGIN * abs(gain) else "undecided"


def print_results(rows: Sequence[dict[str, Any]], last: int, beta: float) -> None:
    """A row a training, and a row a pair. `rows` have name, system, estimator, seed, rewards, start, reward, kl, seconds."""
    for row in rows:
        row["at the end"] = sum(row["rewards"][-last:]) / len(row["rewards"][-last:])
        row["objective"] = row["reward"] - beta * row["kl"]
    print(
        f"\n| system | seed | start | reward of the last {last} steps | of fresh samples | KL | reward - beta KL | CPU s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        numbers = (row["start"], row["at the end"], row["reward"], row["kl"], row["objective"], row["seconds"])
        print(f"| {row['name']} | {row['seed']} | " + " | ".join(f"{number:.3f}" for number in numbers) + " |")
    print("\n| ours less TRL's | of | TRL's gain | difference, 95% over seeds | |\n|---|---|---|---|---|")
    for estimator, peer in PAIRS.items():
        mine, theirs = (
            {r["seed"]: r for r in rows if r["system"] == s and r["estimator"] == estimator} for s in ("ours", peer)
        )
        seeds = sorted(mine.keys() & theirs.keys())
        for key, what in (
            ("at the end", f"last {last} steps"),
            ("reward", "fresh samples"),
            ("objective", "reward - beta KL"),
        ):
            found = difference([mine[s][key] for s in seeds], [theirs[s][key] for s in seeds])
            gain = sum(theirs[s][key] - theirs[s]["start"] for s in seeds) / max(1, len(seeds))
            said_of_it = verdict(found, gain)
            print(
                f"| {estimator}, {peer} | {what} | {gain:+.3f} | {found.text(signed=True)} | {said_of_it} |", flush=True
            )


def curve(words: list[str]) -> None:
    """The whole of it."""
    asked = given_words(words, (*DEFAULTS, "out"))
    number = {key: type(value)(asked.get(key, value)) for key, value in DEFAULTS.items()}
    prior = code_model()
    folder = str(home(Making()) / "code-model" / "model")
    signatures = [one.signature for one in contexts(functions_of(Making()), "train", SIGNATURES)]
    count = int(number["prompts"])
    if number["n"] % count or number["n"] < 2 * count or number["seeds"] * count > SIGNATURES:
        raise SystemExit(
            f"n={number['n']}, prompts={count}, seeds={number['seeds']}: 2 samples of each, {SIGNATURES} prompts in all"
        )
    reward = reward_folder("code-model", folder, signatures, scripted=True, tokens=48)
    right, pairs = agreement(reward)
    print(f"code model, {number}; the reward model knows {right} of {pairs} held-out labels", flush=True)
    given = {
        "folder": folder, "reward": str(reward), "n": number["n"], "tokens": number["tokens"], "steps": number["steps"],
        "beta": number["beta"], "learning_rate": number["rate"], "ends": True, "micro": 32,
    }  # fmt: skip
    if number["checked"]:
        print_check(given | {"prompts": signatures[:count], "seed": 0}, int(number["checked"]))
    settings = json.dumps({key: value for key, value in number.items() if key not in ("seeds", "last", "checked")})
    kept = Path(asked["out"]) if "out" in asked else None
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept and kept.exists() else []
    for seed in range(int(number["seeds"])):
        here = given | {"prompts": signatures[seed * count : (seed + 1) * count], "seed": seed}
        start: dict[str, float] = {}
        for estimator, peer in PAIRS.items():
            for system in ("ours", peer):
                label = {"system": system, "estimator": estimator, "seed": seed, "settings": settings}
                if any(label.items() <= row.items() for row in rows):
                    continue
                start = start or fresh(prior, prior, here, int(number["fresh"]))
                found = one_training(system, estimator, here, prior, int(number["fresh"]))
                rows.append(label | found | {"start": start["reward"]})
                print(f"{rows[-1]['name']} {seed}: {rows[-1]['reward']:.3f}", file=sys.stderr, flush=True)
                if kept:
                    with kept.open("a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
    print_results([row for row in rows if row["settings"] == settings], int(number["last"]), float(number["beta"]))


def one_training(system: str, estimator: str, given: dict[str, Any], prior: LanguageModel, each: int) -> dict[str, Any]:
    """A training and what it reached."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        found = trained(system, estimator, given, weights)
        after = fresh(with_weights(prior, weights), prior, given, each)
    name = f"ours, {estimator}" if system == "ours" else f"TRL {system.upper()}"
    return found | after | {"name": name}
