"""The programming tasks that come with the package: small specifications of our own, from no benchmark.

Each has one or two exact details (an inclusive bound, a tie, an empty input, a rounding) that the first test,
which the prompt shows, seldom settles: a hasty program fails a hidden test, and that test makes the mistake
plain. A row of embedded.jsonl has `task_id`, `text`, `solution`, `tests`, `split` ("train" | "test") and
`level` ("easy" | "medium").
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from amenable.errors import ConfigError
from amenable.records import Task
from amenable.task.programming import program_prompt
from amenable.task.source import entry_point_of, functions_of

SPLITS = ("train", "test")


def load_embedded(split: str = "") -> list[Task]:
    """The embedded tasks of one split, or of both for "", in the order of the file; one test is shown.

    Raises ConfigError for a split that does not exist.
    """
    if split and split not in SPLITS:
        what = f"There is no split {split!r} of the embedded tasks."
        raise ConfigError(what, f"Choose one of {', '.join(SPLITS)}, or leave it out for both.")
    return [_task(row) for row in embedded_rows() if split in ("", row["split"])]


def embedded_rows() -> list[dict[str, Any]]:
    """The rows of embedded.jsonl as they are shipped."""
    text = resources.files("amenable.task").joinpath("embedded.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line]


def _task(row: dict[str, Any]) -> Task:
    tests = tuple(row["tests"])
    name = entry_point_of(tests, defined=functions_of(row["solution"])) or ""
    prompt, solution = program_prompt(row["text"], tests[0], row["solution"], name)
    return Task(
        task_id=row["task_id"],
        prompt=prompt,
        tests=tests,
        entry_point=name,
        text=row["text"],
        solution=solution,
        split=row["split"],
    )
