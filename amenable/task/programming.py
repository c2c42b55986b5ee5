"""Programming tasks: a text and its tests become a prompt that a program continues.

    prompt = docstring(text, first test) + code up to and including "def name(...):" + newline
    program = prompt + completion

The prompt format is that of Chen et al. 2023, "Improving Code Generation by Training with Natural Language
Feedback" (arXiv 2303.16749), character by character; a completion ends before the first unindented line, as
in their evaluation.

Changed from the paper: the header is found with the tokenizer and not with a regex, which misses headers over
several lines and comments after the colon; a line that starts with a closing bracket does not end a
completion; a task need not have a reference program.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amenable.errors import DataError
from amenable.records import Task
from amenable.task.rows import excerpt, field, read_rows
from amenable.task.source import (
    body_of,
    entry_point_of,
    functions_of,
    is_assertion,
    is_valid,
    same_parameters,
    split_at_header,
    statements_of,
    unix_newlines,
)

STOP_BODY: tuple[str, ...] = tuple(f"\n{char}" for char in string.ascii_letters + "_#\"'@\\`<>[({*-")
"""Stop strings that end a sample where the function body ends: what `cut_completion` does, while sampling."""

_UNINDENTED = re.compile(r"\n(?=[^\s)\]}])")


def paper_prompt(text: str, shown_test: str, header: str) -> str:
    """The paper's prompt. `header` is the code up to and including `def name(...):`; "" shows no test.

    Source: the 174 `prompt` fields that Chen et al. published. 172 are equal; in the other two (ids 260, 679)
    the bytes of a dash and of an apostrophe were lost.
    """
    example = shown_test.removeprefix("assert ").replace("==", "=")
    shown = f"\n>>> Example: {example}\n" if shown_test else ""
    return f'"""\n{text}\n{shown}"""\n\n{header}\n'


def cut_completion(text: str) -> str:
    """`text` before its first unindented line, without trailing whitespace, ending in one newline.

    A closing bracket in the first column goes on: there it can only end what the body began.
    """
    return _UNINDENTED.split(text, maxsplit=1)[0].rstrip() + "\n"


def completion_of(task: Task, program: str) -> str | None:
    """The part of a program that continues `task.prompt`, or None if it cannot be said as a continuation.

    A program that does not repeat the prompt can be, if its header takes the same parameters and everything
    above the header (docstrings and comments aside) stands in the prompt too.
    """
    program = unix_newlines(program)
    if program.startswith(task.prompt):
        return program[len(task.prompt) :]
    theirs = split_at_header(program, task.entry_point)
    if theirs is None:
        return None
    above, header, rest = theirs
    open_header = task.prompt.rstrip()
    if open_header.endswith(f"def {task.entry_point}("):
        ours_above = open_header[: open_header.rindex("def ")]
        completion = header.partition("(")[2] + rest
    else:
        ours = split_at_header(task.prompt, task.entry_point)
        if ours is None or ours[2].strip() or not same_parameters(ours[1], header):
            return None
        ours_above = ours[0]
        completion = body_of(rest)
    if not set(statements_of(above)) <= set(statements_of(ours_above)):
        return None
    return completion


def load_tasks(path: str | Path) -> list[Task]:
    """Tasks from a JSONL file of your own, one object a line.

    Required: `prompt` (words, or code that ends in the header of the function to write) and `tests` (a list
    of assert statements). Optional: `task_id` (default "file stem/line"), `solution`, `signature`, `setup`
    (or `test_setup_code`), `entry_point`, `split`, `text`, `shown` (how many tests are in the prompt).
    Words become the paper's prompt, with the header of `signature`, else of `solution`, else "def name(".

    Raises DataError with the file, the line and the field.
    """
    tasks: list[Task] = []
    lines: dict[str, int] = {}
    for number, row in read_rows(path):
        task = _task_from_row(row, Path(path), number)
        if task.task_id in lines:
            what = f"{path}, line {number}: task_id {task.task_id!r} is also on line {lines[task.task_id]}."
            raise DataError(what, "Give each task an id of its own, or leave task_id out.")
        lines[task.task_id] = number
        tasks.append(task)
    if not tasks:
        raise DataError(f"{path} holds no task.", "Write one JSON object a line, with `prompt` and `tests`.")
    return tasks


def program_prompt(text: str, shown_test: str, solution: str, entry_point: str) -> tuple[str, str]:
    """(prompt, whole program that starts with it), from words and a reference program for `entry_point`.

    Raises ValueError if the program has no unindented `def entry_point`.
    """
    parts = split_at_header(solution, entry_point)
    if parts is None:
        raise ValueError(f"the program does not define {entry_point}")
    above, header, rest = parts
    prompt = paper_prompt(text, shown_test, above + header)
    return prompt, prompt + body_of(rest)


def _task_from_row(row: Mapping[str, Any], path: Path, number: int) -> Task:
    where = f"{path}, line {number}"
    if "tests" not in row and "test_list" in row:
        what = f"{where}: field `tests` is missing, but there is `test_list`, as in MBPP's file."
        raise DataError(what, "Load it as MBPP data, or rename `test_list` to `tests`.")
    tests = _tests(row, where)
    setup = unix_newlines(field(row, "setup", where, "") or field(row, "test_setup_code", where, ""))
    solution = unix_newlines(field(row, "solution", where, "")) or None
    name = _entry_point(row, tests, solution or "", setup, where)
    given = unix_newlines(field(row, "prompt", where))
    if not given.strip():
        raise DataError(f"{where}: field `prompt` is empty.", "Say in `prompt` what the function must do.")
    code = _as_code(given, name)
    shown = _shown(row, tests, code, where)
    if code is not None:
        prompt = code
    else:
        prompt, solution = _prompt_from_words(row, given.strip(), tests[:shown], solution, name, where)
    if prompt.endswith("\n") and not is_valid(f"{prompt}    pass\n"):
        what = f"{where}: field `prompt` does not make the beginning of a Python program: {excerpt(prompt)}."
        raise DataError(what, "Correct the code, or take triple quotes and backslashes out of the words.")
    return Task(
        task_id=_task_id(row, where, f"{path.stem}/{number}"),
        prompt=prompt,
        tests=tests,
        entry_point=name,
        shown=shown,
        text=field(row, "text", where, "" if code is not None else given.strip()),
        setup=setup,
        solution=solution,
        split=field(row, "split", where, ""),
    )


def _as_code(prompt: str, name: str) -> str | None:
    """The prompt as it is if it ends in a function header or is the beginning of one; None if it is words."""
    last = prompt.rstrip().rpartition("\n")[2]
    if re.fullmatch(r"(async +)?def +\w+\(.*\).*:", last) or re.fullmatch(r"[ \t].*:", last):
        ended = prompt.rstrip() + "\n"
        return ended if is_valid(f"{ended}    pass\n") or last.startswith("def ") else None
    return prompt if name in functions_of(prompt) else None


def _prompt_from_words(
    row: Mapping[str, Any], words: str, shown: tuple[str, ...], solution: str | None, name: str, where: str
) -> tuple[str, str | None]:
    first = shown[0] if shown else ""
    signature = unix_newlines(field(row, "signature", where, "")).strip()
    if signature:
        parts = split_at_header(signature.removesuffix(":") + ":", name)
        if parts is None or parts[2].strip():
            what = f"{where}: field `signature` is {excerpt(signature)}, not the header of {name}."
            raise DataError(what, f'Write the signature as "def {name}(...):".')
        return paper_prompt(words, first, parts[0] + parts[1]), solution
    if solution is None:
        return paper_prompt(words, first, f"def {name}(").removesuffix("\n"), None
    try:
        return program_prompt(words, first, solution, name)
    except ValueError as error:
        fix = f"Define {name} unindented in `solution`, or name another `entry_point`."
        raise DataError(f"{where}: field `solution`: {error}.", fix) from None


def _tests(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    tests = row.get("tests")
    fix = 'Write `tests` as a list of assert statements: ["assert f(1) == 2", ...].'
    if tests is None:
        has = ", ".join(row) or "none"
        raise DataError(f"{where}: field `tests` is missing (fields there: {has}).", fix)
    if not isinstance(tests, list) or not all(isinstance(test, str) for test in tests):
        raise DataError(f"{where}: field `tests` is {excerpt(tests)}, not a list of strings.", fix)
    if not tests:
        raise DataError(f"{where}: field `tests` is empty: a program could not fail.", fix)
    for index, test in enumerate(tests):
        if not is_assertion(test.strip()):
            what = f"{where}: field `tests`[{index}] is not one assert statement: {excerpt(test)}."
            raise DataError(what, fix)
    return tuple(unix_newlines(test).strip() for test in tests)


def _entry_point(row: Mapping[str, Any], tests: tuple[str, ...], solution: str, setup: str, where: str) -> str:
    given = field(row, "entry_point", where, "")
    if given and not given.isidentifier():
        what = f"{where}: field `entry_point` is {given!r}, not the name of a function."
        raise DataError(what, "Give the bare name, as in the tests.")
    name = given or entry_point_of(tests, defined=functions_of(solution), setup=setup)
    if name is None:
        what = f"{where}: no entry point: the tests call no function of the program ({excerpt(tests[0])})."
        raise DataError(what, "Call the function by its name in the tests, or give `entry_point`.")
    return name


def _shown(row: Mapping[str, Any], tests: tuple[str, ...], code: str | None, where: str) -> int:
    """How many tests stand in the prompt: as given; else one, or none if a prompt in code lacks the call."""
    given = row.get("shown")
    if given is None:
        call = tests[0].removeprefix("assert ").partition("==")[0].strip()
        return 1 if code is None or call in code else 0
    most = len(tests) if code is not None else 1
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= most:
        what = f"{where}: field `shown` is {excerpt(given)}, not a whole number from 0 to {most}."
        raise DataError(what, "Words become a prompt with one test at most; for more, give it as code.")
    return given


def _task_id(row: Mapping[str, Any], where: str, default: str) -> str:
    given = row.get("task_id")
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    return field(row, "task_id", where, default)
