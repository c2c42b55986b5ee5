"""Our sampler against transformers' `generate` with scores: same model, prompts, precision, threads, in turn, in one process.

    python bench/sampling.py [model=smollm2-135m] [rows=64] [tokens=64] [prompt=16] [repeats=3] [threads=2] [dtype=bfloat16]

Three workloads: *one prompt* sampled `rows` times and *many prompts* of different lengths, both without end-of-text so that the
work is fixed; and *ragged*, where "." ends a sample and real tokens are counted. Both sides return the log-probability of every
token. Prints tokens a second of wall clock and of CPU, the ratio of medians with its range over repeats, and how far the
recorded log-probabilities are from a full forward in float32.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from amenable.policy.causal_lm import CausalLM
from amenable.policy.loading import load_policy
from amenable.records import Decoding, Samples

TEXT = (
    "In the beginning the committee could not agree on the order of business, and so the secretary read the minutes aloud "
    "while everybody waited for the rain to end and the doors of the old hall to be opened again by the keeper of the keys. "
) * 8


def ours(policy: CausalLM, contexts: list[str], n: int, tokens: int, seed: int) -> int:
    samples = policy.sample(contexts, n=n, decoding=Decoding(max_tokens=tokens), seed=seed)
    return int(samples.lengths.sum())


@torch.inference_mode()
def theirs(policy: CausalLM, contexts: list[str], n: int, tokens: int, seed: int) -> int:
    """generate(do_sample, no truncation) with scores, and the log-probabilities of the sampled tokens from them."""
    torch.manual_seed(seed)
    tokenizer = policy.tokenizer
    tokenizer.padding_side = "left"
    batch = tokenizer(contexts, return_tensors="pt", padding=True)
    eos = policy.eos_ids or None
    out = policy.model.generate(
        **batch, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_return_sequences=n, max_new_tokens=tokens,
        eos_token_id=eos, pad_token_id=tokenizer.pad_token_id, return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    new = out.sequences[:, batch["input_ids"].shape[1] :]
    scores = torch.stack(out.scores, dim=1)
    scores.log_softmax(-1).gather(-1, new.unsqueeze(-1))
    if eos is None:
        return int(new.numel())
    ended = torch.isin(new, torch.tensor(eos)).int()
    return int((ended.cumsum(1) - ended == 0).sum())


def measure(side: Callable[..., int], *arguments: Any) -> tuple[float, float]:
    """Tokens a second of wall clock, and of CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = side(*arguments)
    return tokens / (time.perf_counter() - wall), tokens / (time.process_time() - cpu)


def parity(policy: CausalLM, context: str, tokens: int) -> float:
    """Largest difference, nats a token, between recorded log-probabilities and a full float32 forward."""
    exact = policy.frozen(torch.float32)
    samples: Samples = exact.sample([context], n=16, decoding=Decoding(max_tokens=tokens), seed=0)
    return float((exact.log_prob(samples) - samples.log_probs).abs().max())


def main() -> None:
    given = dict(item.split("=", 1) for item in sys.argv[1:])
    rows, tokens, width = (
        int(given.get(key, default)) for key, default in (("rows", 64), ("tokens", 64), ("prompt", 16))
    )
    repeats, threads = int(given.get("repeats", 3)), int(given.get("threads", 2))
    torch.set_num_threads(threads)
    name, dtype = given.get("model", "smollm2-135m"), given.get("dtype", "bfloat16")
    policy = load_policy(name, dtype=dtype, rows=rows)
    eos = policy.eos_ids
    ids = policy.encode(TEXT)
    one = [policy.tokenizer.decode(ids[:width])]
    many = [policy.tokenizer.decode(ids[: width + 5 * i]) for i in range(rows // 4)]
    stop = policy.tokenizer(" end.", add_special_tokens=False)["input_ids"][-1]
    loads = [("one prompt", one, rows, []), ("many prompts", many, 4, []), ("ragged", one, rows, [stop])]
    print(f"{name} {dtype}, {rows} rows, {tokens} new tokens, {threads} threads, {repeats} repeats in turn")
    print("| workload | ours tok/s (CPU) | generate tok/s (CPU) | ratio of medians | range |\n|---|---|---|---|---|")
    for label, contexts, n, ends in loads:
        policy.eos_ids = ends
        runs: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
        for repeat in range(repeats + 1):  # the first is a warm-up
            for key, side in (("ours", ours), ("theirs", theirs)):
                found = measure(side, policy, contexts, n, tokens, repeat)
                runs[key] += [found] if repeat else []
        ratios = [a[0] / b[0] for a, b in zip(runs["ours"], runs["theirs"], strict=True)]
        cells = [
            f"{statistics.median(w for w, _ in r):.0f} ({statistics.median(c for _, c in r):.0f})"
            for r in runs.values()
        ]
        print(
            f"| {label} | {cells[0]} | {cells[1]} | {statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} |"
        )
    policy.eos_ids = eos
    print(f"parity in float32: {parity(policy, one[0], tokens):.1e} nats a token")


if __name__ == "__main__":
    main()
