"""Feedback that people wrote on failing programs: the 174 published for MBPP, or your own.

Chen et al. 2023 (arXiv 2303.16749), MIT: a draft that failed its tests, what a person said about it, and that
person's own refinement, some of which are broken (lost indentation) and kept so: the tests judge them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amenable.errors import DataError
from amenable.records import Critique, Task
from amenable.task.rows import excerpt, field, read_rows
from amenable.task.source import unix_newlines

FILE_NAME = "mbpp_human_feedback.jsonl"


def load_critiques(path: str | Path, tasks: Sequence[Task]) -> dict[str, Critique]:
    """Task id -> critique, in the order of the file `path`, or of mbpp_human_feedback.jsonl in that folder.

    Required fields: `task_id`, `draft`, `feedback`; optional: `refinement`. A bare number n is MBPP's task
    "mbpp/n" unless a task has that very id. Raises DataError for a task not among `tasks`, or there twice.
    """
    path = Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)
    known = {task.task_id for task in tasks}
    critiques: dict[str, Critique] = {}
    unknown: list[str] = []
    for number, row in read_rows(path):
        where = f"{path}, line {number}"
        task_id = _task_id(row, known, where)
        if task_id not in known:
            unknown.append(task_id)
            continue
        if task_id in critiques:
            what = f"{where}: task {task_id!r} already has a critique."
            raise DataError(what, "Keep one critique a task.")
        refinement = unix_newlines(field(row, "refinement", where, ""))
        critiques[task_id] = Critique(
            task_id=task_id,
            draft=unix_newlines(field(row, "draft", where)),
            feedback=unix_newlines(field(row, "feedback", where)).strip(),
            refinement=refinement or None,
        )
    if unknown:
        names = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        what = f"{path}: {len(unknown)} critiques are on tasks not among the {len(known)} given: {names}."
        raise DataError(what, "Load the tasks these critiques were written on, or correct their task_id.")
    return critiques


def _task_id(row: dict[str, Any], known: set[str], where: str) -> str:
    value = row.get("task_id")
    if isinstance(value, bool) or not isinstance(value, int | str):
        what = f"{where}: field `task_id` is {excerpt(value)}, not the id of a task."
        raise DataError(what, "Give the id of the task that the draft was written for.")
    given = str(value)
    return f"mbpp/{given}" if given not in known and given.isdecimal() else given
