"""JSONL files: their rows and fields, with errors that name the file, the line and the field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from amenable.errors import DataError


def read_rows(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) for each line of a JSONL file that is not blank. Raises DataError."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.", "Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.", "Give a JSONL file in UTF-8.") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            what = f"{path}, line {number}: not valid JSON ({error}): {excerpt(line)}"
            raise DataError(what, "Write one complete JSON object on each line (JSONL).") from None
        if not isinstance(row, dict):
            what = f"{path}, line {number}: {excerpt(line)} is not a JSON object."
            raise DataError(what, 'Write one object a line: {"prompt": ..., "tests": [...]}.')
        yield number, row


def field(row: Mapping[str, Any], name: str, where: str, default: str | None = None) -> str:
    """The string `row[name]`; `default` if it is missing or null. Raises DataError if there is no default."""
    value = row.get(name)
    if value is None and default is not None:
        return default
    if value is None:
        has = ", ".join(row) or "none"
        raise DataError(f"{where}: field `{name}` is missing (fields: {has}).", f"Add `{name}` to the row.")
    if not isinstance(value, str):
        what = f"{where}: field `{name}` is {excerpt(value)}, not a string."
        raise DataError(what, f"Make `{name}` a string.")
    return value


def excerpt(value: object) -> str:
    """The repr of a value, shortened for an error."""
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
