"""What a conditional training did to contexts in which much of the prior is of the target, and where little is.

    amenable run frontier task=prefixes methods=kl,kl-one-z,tv,tv-one-z --out runs/prefixes
    python bench/by_context.py runs/prefixes [groups=3]

Contexts in `groups` of equal count by Z(c), the share of the prior's samples that meet a hard constraint; then every method's
share, and KL(p_c, pi) = E_p_c[log a - log pi] - log Z(c) from the prior's samples that meet it (contexts without one are left
out of the KL). Means over contexts, then over seeds.
Source of the comparison: Korbak et al. 2022 (CDPG), arXiv 2112.00791, where one Z for all contexts is DPG.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

from amenable.evaluation.interval import over_seeds

Row = dict[str, Any]
ON_PRIOR = " on the prior"


def by_prompt(folder: Path) -> dict[str, dict[str, list[Row]]]:
    """Stage -> prompt -> measured samples, in order; what a policy makes of the prior's samples carries their prompts."""
    stages: dict[str, list[Row]] = {}
    for line in (folder / "samples.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "log_policy" in row:
            stages.setdefault(row["stage"], []).append(row)
    found: dict[str, dict[str, list[Row]]] = {}
    for stage, rows in stages.items():
        own = stages["prior"] if stage.endswith(ON_PRIOR) else rows
        for row, source in zip(rows, own, strict=True):
            found.setdefault(stage, {}).setdefault(source["prompt"], []).append(row)
    return found


def share(rows: list[Row]) -> float:
    return statistics.fmean(row["value"] for row in rows)


def divergence(before: list[Row], after: list[Row]) -> float | None:
    """KL(p_c, pi), nats; None without a sample of the target."""
    apart = [
        one["log_prior"] - other["log_policy"] for one, other in zip(before, after, strict=True) if one["value"] == 1
    ]
    return statistics.fmean(apart) - math.log(share(before)) if apart else None


def main() -> None:
    folder, *rest = sys.argv[1:]
    count = int(dict(item.split("=", 1) for item in rest).get("groups", 3))
    found = by_prompt(Path(folder))
    prior = found["prior"]
    if any(row["value"] not in (0, 1) for rows in prior.values() for row in rows):
        sys.exit("the target of this run is no hard constraint")
    order = sorted(prior, key=lambda prompt: share(prior[prompt]))
    cuts = [round(len(order) * part / count) for part in range(count + 1)]
    groups = [order[low:high] for low, high in itertools.pairwise(cuts)]
    shown = [f"Z(c) {share(prior[one[0]]):.2f} to {share(prior[one[-1]]):.2f}" for one in groups]
    print(f"{len(order)} contexts, {len(next(iter(prior.values())))} samples each\n")
    print("| | " + " | ".join(f"{text}: share | KL(p, π)" for text in shown) + " |")
    print("|---" * (1 + 2 * count) + "|")
    numbers: dict[str, list[list[float]]] = {}
    for stage, prompts in found.items():
        if stage.endswith(ON_PRIOR) or (stage != "prior" and stage + ON_PRIOR not in found):
            continue
        scored = found.get(stage + ON_PRIOR, prior)
        row = []
        for group in groups:
            apart = [divergence(prior[prompt], scored[prompt]) for prompt in group]
            row.append(statistics.fmean(share(prompts[prompt]) for prompt in group))
            row.append(statistics.fmean(one for one in apart if one is not None))
        numbers.setdefault(stage if stage == "prior" else stage.rsplit(" ", 1)[0], []).append(row)
    for name, rows in numbers.items():
        cells = [over_seeds(list(values)) for values in zip(*rows, strict=True)]
        texts = [
            f"{one.value:.2f}" if len(rows) == 1 else one.text(percent=place % 2 == 0)
            for place, one in enumerate(cells)
        ]
        print(f"| {name} | {' | '.join(texts)} |")


if __name__ == "__main__":
    main()
