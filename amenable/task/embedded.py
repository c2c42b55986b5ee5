"""The programming tasks that come with the package: small specifications of our own, from no benchmark.

Each has one or two exact details (an inclusive bound, a tie, an empty input, a rounding) that the first test,
which the prompt shows, seldom settles: a hasty program fails a hidden test, and that test makes the mistake
plain. A row of embedded.jsonl has `task_id`, `text`, `solution`, `tests`, `split` ("train" | "test") and
`level` ("easy" | "medium").

Qwen2.5-Coder-0.5B-Instruct at temperature 1 solves 22% of the easy tasks with one sample and 46% with three;
of the medium ones 2% and 4%.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from amenable.errors import ConfigError
from amenable.records import Task
from amenable.task.programming import program_prompt
from amenable.task.source import entry_point_of, functions_of

SPLITS = ("train", "test")
LEVELS = ("easy", "medium")


def load_embedded(split: str = "", *, level: str = "") -> list[Task]:
    """The embedded tasks of one split and level, or of all for "", in the file's order; one test is shown.

    Raises ConfigError for a split or a level that does not exist.
    """
    for kind, given, choices in (("split", split, SPLITS), ("level", level, LEVELS)):
        if given not in ("", *choices):
            what = f"There is no {kind} {given!r} of the embedded tasks."
            raise ConfigError(what, f"Choose one of {', '.join(choices)}, or leave it out for all.")
    rows = embedded_rows()
    return [_task(row) for row in rows if split in ("", row["split"]) and level in ("", row["level"])]


def embedded_rows() -> list[dict[str, Any]]:
    """The rows of embedded.jsonl as they are shipped."""
    text = resources.files("amenable.task").joinpath("embedded.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line]


def feedback_file() -> Path:
    """Feedback in words on one failing draft of each easy task of the split "train"; load_critiques reads it.

    Written by the authors of this package on drafts of Qwen2.5-Coder-0.5B-Instruct (and on typical mistakes
    where its drafts passed), not by the people of a study. Every refinement passes the tests of its task.
    """
    return Path(str(resources.files("amenable.task").joinpath("embedded_feedback.jsonl")))


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
