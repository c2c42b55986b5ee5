"""RL with KL penalties as inference, read off a frontier: what the reward alone does to entropy, J / beta against log Z.

    amenable run frontier task=compiles methods=reinforce,rl --out runs/collapse
    python bench/collapse.py runs/collapse [beta=0.1]

    J = E_pi[r] - beta KL(pi || a) = beta (log Z - KL(pi || p)),    p = a exp(r / beta) / Z,   r = phi, the share

KL(pi || p) is estimated from samples of the policy with log Z from one half of the prior's samples, J / beta - log Z with the
other half: the two sides of the identity share the policy's samples alone.
Source: Korbak et al. 2022, "RL with KL penalties is better viewed as Bayesian inference", arXiv 2205.11275.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from amenable.evaluation.interval import Estimate, bootstrap_mean, over_seeds


def stages(folder: Path) -> dict[str, list[dict[str, float]]]:
    """The measured samples of every policy of a run."""
    found: dict[str, list[dict[str, float]]] = {}
    for line in (folder / "samples.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "rows" not in row and "log_prior" in row:
            found.setdefault(row["stage"], []).append(row)
    return found


def log_z(rows: list[dict[str, float]], beta: float) -> float:
    """log Z of a exp(r / beta), nats, from samples of the prior."""
    tilts = torch.tensor([row["value"] for row in rows], dtype=torch.float64) / beta
    return float(tilts.logsumexp(0) - torch.tensor(float(len(tilts))).log())


def main() -> None:
    folder, *rest = sys.argv[1:]
    beta = float(dict(item.split("=", 1) for item in rest).get("beta", 0.1))
    found = stages(Path(folder))
    prior = found.pop("prior")
    one, other = log_z(prior[::2], beta), log_z(prior[1::2], beta)
    print(f"beta {beta:g}; log Z {log_z(prior, beta):.3f} nats (halves: {one:.3f}, {other:.3f}), n={len(prior)}\n")
    print("| policy | share | entropy, nats | KL(π, a) | J / β | log Z − KL(π, p) |\n|---|---|---|---|---|---|")
    gaps: dict[str, list[float]] = {}
    for name, rows in {"prior 0": prior, **found}.items():
        away = [row["log_policy"] - row["log_prior"] for row in rows]
        gain = [row["value"] / beta - moved for row, moved in zip(rows, away, strict=True)]
        divergence = [moved - row["value"] / beta + one for row, moved in zip(rows, away, strict=True)]
        numbers: list[Estimate] = [
            bootstrap_mean(values)
            for values in ([row["value"] for row in rows], [-row["log_policy"] for row in rows], away, gain, divergence)
        ]
        share, entropy, kl, j, to_target = numbers
        cells = [share.text(percent=True), entropy.text(), kl.text(), j.text(), f"{other - to_target.value:.3f}"]
        print(f"| {name} | {' | '.join(cells)} |")
        gaps.setdefault(name.rsplit(" ", 1)[0], []).append(j.value - log_z(prior, beta))
    print("\n| method | J / β − log Z, over seeds (0 at the target) |\n|---|---|")
    for name, values in gaps.items():
        print(f"| {name} | {over_seeds(values).text(signed=True)} |")


if __name__ == "__main__":
    main()
