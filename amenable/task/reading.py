"""Rows out of data files as people have them: JSONL, JSON, either gzipped, Parquet, CSV, a run folder, a data set on the hub.

What a file is is told by its content, not by its name. Each row comes with where it stands, for the errors about it.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from amenable.errors import DataError, nearest
from amenable.task.rows import excerpt
from amenable.task.tables import kind_of, table_rows

Row = Mapping[str, Any]

_FORMS = "Give one JSON object a line (JSONL), or one JSON list of objects; either may be gzipped."


def rows_of(path: Path) -> Iterator[tuple[str, Row]]:
    """(where, row) for each row of a file or saved data set, or of the closed stages of a run folder. Errors: DataError."""
    if kind := kind_of(path):
        for number, row in enumerate(table_rows(str(path), kind, [path]), start=1):
            yield f"{path}, row {number}", row
    elif path.is_dir():
        if not (path / "samples.jsonl").is_file():
            raise DataError(f"{path} is a folder without samples.jsonl.", "Give a file of pairs, or a run's folder.")
        yield from _closed(_lines(path / "samples.jsonl", torn=True))
    else:
        yield from _lines(path)


def hub_rows(
    name: str, config: str | None = None, *, data_dir: str | None = None, splits: Any = None
) -> Iterator[tuple[str, Row]]:
    """(where, row) for each row of the published `splits` of a data set on the hub; of all its splits for None.

    Needs the optional package `datasets`, and a network (or what it has cached). Errors: DataError.
    """
    try:
        import datasets
    except ImportError:
        what = f"The data set {name} is fetched by the package `datasets`, and it is not installed."
        raise DataError(what, "pip install 'amenable[hub]', or give a file.") from None
    try:
        try:
            found = datasets.load_dataset(name, config, data_dir=data_dir)
        except RuntimeError as error:  # a data set that is a script: the hub keeps a copy of it as plain tables
            if "no longer supported" not in str(error):
                raise
            found = datasets.load_dataset(name, data_dir=config, revision="refs/convert/parquet")
    except Exception as error:  # whatever the package's many layers raise when there is no network
        what = f"{name} could not be fetched from the hub ({type(error).__name__}: {excerpt(str(error))})."
        raise DataError(what, "Check the name and the network, or give a file of that data set.") from error
    for split in list(found) if splits is None else splits:
        if split not in found:
            raise DataError(
                f"{name} has no published split {split!r}.", nearest(split, [str(known) for known in found])
            )
        for number, row in enumerate(found[split], start=1):
            yield f"{name}, {split}, row {number}", row


def _lines(path: Path, *, torn: bool = False) -> Iterator[tuple[str, Row]]:
    """Rows with "FILE, line N", or "FILE, row N" where the file is one JSON list. `torn`: the last line may be half one."""
    try:
        with _text(path) as file:
            before, line = _first(file)
            if line.lstrip().startswith("["):
                yield from _listed(path, line + file.read())
                return
            number = before
            while line:
                number, following = number + 1, file.readline()
                if line.strip() and (following or not torn or line.endswith("\n")):
                    yield f"{path}, line {number}", _object(line, f"{path}, line {number}")
                line = following
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.", "Check the path.") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.", f"{_FORMS} Text is UTF-8.") from error


def _text(path: Path) -> IO[str]:
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    opened: Any = gzip.open(path, "rb") if packed else open(path, "rb")  # noqa: SIM115 (closed by the wrapper)
    return io.TextIOWrapper(opened, encoding="utf-8-sig")


def _first(file: IO[str]) -> tuple[int, str]:
    """The first line that is not blank, and how many stand before it."""
    before, line = 0, file.readline()
    while line and not line.strip():
        before, line = before + 1, file.readline()
    return before, line


def _listed(path: Path, text: str) -> Iterator[tuple[str, Row]]:
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}).", _FORMS) from None
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {number}: {excerpt(row)} is not a JSON object.", _FORMS)
        yield f"{path}, row {number}", row


def _object(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not valid JSON ({error}): {excerpt(line.rstrip())}", _FORMS) from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: {excerpt(row)} is not a JSON object.", _FORMS)
    return row


def _closed(lines: Iterator[tuple[str, Row]]) -> Iterator[tuple[str, Row]]:
    """Rows of samples.jsonl whose stage was closed; what an interrupted stage left behind is not data yet."""
    pending: list[tuple[str, Row]] = []
    for where, row in lines:
        if set(row) == {"stage", "rows"}:
            yield from pending
            pending = []
        else:
            pending.append((where, {key: value for key, value in row.items() if key != "stage"}))
