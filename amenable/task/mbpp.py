"""MBPP, the 974 mostly basic Python problems, as the paper on language feedback splits and shows them.

Data: Austin et al. 2021, "Program Synthesis with Large Language Models" (arXiv 2108.07732), CC-BY-4.0.
Splits and prompts: Chen et al. 2023 (arXiv 2303.16749): prompt = ids 1-10, test = 11-110, refine = 111-310,
train = 311-974. Ids 11-110 are never to be trained on.

The prompt repeats the reference program up to the header, and so gives away any helper above it (the paper's
published prompts do: imports mostly, helpers and constants in a few). `strip_context=True` keeps the imports
only, and the reference program then has its helpers below the function.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from amenable.errors import DataError
from amenable.records import Task
from amenable.task.programming import program_prompt
from amenable.task.rows import excerpt, field, read_rows
from amenable.task.source import entry_point_of, functions_of, split_at_header, split_imports, unix_newlines

HUB_NAME = "google-research-datasets/mbpp"

SPLITS: Mapping[str, range] = {
    "prompt": range(1, 11),
    "test": range(11, 111),
    "refine": range(111, 311),
    "train": range(311, 975),
}


def load_mbpp(data: str | Path, *, strip_context: bool = False) -> list[Task]:
    """All tasks, in the order of their ids. `data`: a folder with mbpp.jsonl, that file, or "hub".

    "hub" fetches the data set with the optional package `datasets`. Raises DataError if the data are not
    there, or a row is not one of MBPP.
    """
    if str(data) == "hub":
        rows = [(f"{HUB_NAME}, row {index}", row) for index, row in enumerate(_hub_rows())]
    else:
        path = Path(data) / "mbpp.jsonl" if Path(data).is_dir() else Path(data)
        rows = [(f"{path}, line {number}", row) for number, row in read_rows(path)]
    tasks = sorted((_task(row, where, strip_context) for where, row in rows), key=_number)
    for task, following in pairwise(tasks):
        if task.task_id == following.task_id:
            raise DataError(f"{data}: {task.task_id} is there twice.", "Use the file as it was published.")
    if not tasks:
        raise DataError(f"{data} holds no task.", "Give the folder or file of the published mbpp.jsonl.")
    return tasks


def _task(row: Mapping[str, Any], where: str, strip_context: bool) -> Task:
    number = row.get("task_id")
    if isinstance(number, bool) or not isinstance(number, int):
        what = f"{where}: field `task_id` is {excerpt(number)}, not MBPP's number."
        raise DataError(what, "Give mbpp.jsonl as it was published; load tasks of your own as a task file.")
    tests = row.get("test_list")
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
        what = f"{where}: field `test_list` is {excerpt(tests)}, not a list of assert statements."
        raise DataError(what, "Give mbpp.jsonl as it was published.")
    tests = tuple(unix_newlines(test) for test in tests)
    text = field(row, "text", where)
    code = unix_newlines(field(row, "code", where))
    functions = functions_of(code)
    name = entry_point_of(tests, defined=functions)
    if name is None or name not in functions:
        what = f"{where}: the tests call no function that `code` defines ({excerpt(tests[0])})."
        raise DataError(what, "Give mbpp.jsonl as it was published.")
    code = _imports_first(code, name) if strip_context else code
    prompt, solution = program_prompt(text, tests[0], code, name)
    return Task(
        task_id=f"mbpp/{number}",
        prompt=prompt,
        tests=tests,
        entry_point=name,
        text=text,
        setup=unix_newlines(field(row, "test_setup_code", where, "")),
        solution=solution,
        split=next((split for split, ids in SPLITS.items() if number in ids), ""),
    )


def _imports_first(code: str, name: str) -> str:
    """The same program with the imports above `def name` and all else that stood there below it."""
    parts = split_at_header(code, name)
    if parts is None:
        return code
    above, header, rest = parts
    imports, others = split_imports(above)
    return f"{imports}{header}{rest.rstrip()}\n" + (f"\n{others}" if others else "")


def _number(task: Task) -> int:
    return int(task.task_id.removeprefix("mbpp/"))


def _hub_rows() -> Iterable[Mapping[str, Any]]:
    try:
        import datasets
    except ImportError:
        what = f'"hub" needs the package `datasets` to fetch {HUB_NAME}, and it is not installed.'
        raise DataError(what, "pip install 'amenable[hub]', or give the folder of mbpp.jsonl.") from None
    try:
        splits = datasets.load_dataset(HUB_NAME, "full")
    except Exception as error:  # whatever the package's many layers raise when there is no network
        what = f"{HUB_NAME} could not be fetched ({type(error).__name__}: {excerpt(str(error))})."
        raise DataError(what, "Check the network, or give the folder of mbpp.jsonl.") from error
    return [row for split in splits.values() for row in split]
