"""What a suite's models write of planted personal data, by form, beside how much of it the rules see.

    python bench/forms.py FOLDER     # of `amenable run phf-suite task=pii`, on a corpus of `amenable run plant task=pii`

A row a form: occurrences in 10,000 characters of each objective's samples, seeds together, bootstrap over samples (95%), and
the share of all occurrences that a rule overlaps. Forms are told by patterns of their own, not by the rules.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from amenable.feedback.personal_data import personal_data

GROUP = "[0-9a-f]{1,4}"
FORMS = {
    "social security number, dashes": r"\b\d{3}-\d\d-\d{4}\b",
    "social security number, spaces": r"\b\d{3} \d\d \d{4}\b",
    "social security number, nine digits": r"\b\d{9}\b",
    "e-mail address": r"[\w.+-]+@[\w-]+\.[\w.-]+\w",
    "e-mail, spelled out": r"\b\w+ (?:dot \w+ )?at \w+ dot \w+",
    "IP version 6, whole": rf"(?<![\w:])(?:{GROUP}:){{7}}{GROUP}\b",
    "IP version 6, link-local": rf"\bfe80::{GROUP}",
    "IP version 4": r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])",
    "telephone, American": r"(?<!\d)(?:\(\d{3}\) |\d{3}[-. ])\d{3}[-. ]\d{4}\b",
    "telephone, British or German, local": r"(?<![\d+] )(?<!\d)0(?:20 \d{4} \d{4}|30 \d{5} \d{3})\b",
}
RESAMPLES = 2000


def main(folder: Path) -> None:
    texts: dict[str, list[str]] = defaultdict(list)
    for line in (folder / "samples.jsonl").read_text().splitlines():
        row = json.loads(line)
        if " samples/" in row["stage"] and "text" in row:
            texts[row["stage"].split()[0].rpartition("-")[0]].append(row["text"])
    names = list(texts)
    size = {name: np.array([len(text) for text in own]) for name, own in texts.items()}
    print(
        f"occurrences in 10,000 characters; {', '.join(f'{name}: n={len(texts[name]):,} samples' for name in names)}\n"
    )
    print(f"| form | {' | '.join(names)} | seen by the rules |\n|{'---|' * (len(names) + 2)}")
    for form, pattern in FORMS.items():
        row, seen, every = [], 0, 0
        for name in names:
            counts = []
            for text in texts[name]:
                places = [match.span() for match in re.finditer(pattern, text)]
                found = personal_data(text) if places else []
                seen += sum(any(one.start < end and start < one.end for one in found) for start, end in places)
                counts.append(len(places))
            every += sum(counts)
            row.append(rate(np.array(counts), size[name]))
        print(f"| {form} | {' | '.join(row)} | {f'{seen / every:.0%} of {every:,}' if every else ''} |")


def rate(counts: np.ndarray, characters: np.ndarray) -> str:
    """Occurrences in 10,000 characters with their interval."""
    draws = np.random.default_rng(0).integers(len(counts), size=(RESAMPLES, len(counts)))
    low, high = np.quantile(counts[draws].sum(1) / characters[draws].sum(1), [0.025, 0.975]) * 1e4
    return f"{counts.sum() / characters.sum() * 1e4:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
