"""The run folder: what was done, line by line, so that a run that dies loses nothing.

    config.yaml      the resolved settings; a folder is resumed only with the same ones (a frontier may get more methods)
    samples.jsonl    every sample, feedback and verdict, written stage by stage
    <training>/metrics.jsonl, checkpoint-N/

A *stage* is a piece of work whose result is a list of plain rows. Its rows are appended to samples.jsonl and closed by a line
{"stage": name, "rows": n}. Asked for again, a closed stage is read and not computed. Whatever stands after the last closing
line is the rest of a stage that was interrupted: it is cut off when the folder is opened, and the stage runs again with the
same seed to the same rows.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from amenable import durable
from amenable.durable import FULL, storage_error
from amenable.errors import ConfigError, StorageError

Row = dict[str, Any]


class Run:
    """An open run folder. `settings` are plain values; opening an old folder with others is refused."""

    @classmethod
    def of(cls, folder: Path, settings: Any, *, free: Sequence[str] = ()) -> Run:
        """The run of a recipe: `settings` is its dataclass, every field of which has a default; `free` as below."""
        return cls(folder, asdict(settings), asdict(type(settings)()), free)

    def __init__(self, folder: Path, settings: Row, defaults: Row | None = None, free: Sequence[str] = ()) -> None:
        """`defaults`: what a setting counts as in a folder whose version of amenable did not have it yet.

        `free`: settings that say which stages there are, and change none of them; a folder may be opened with others.
        """
        self.folder, self._free = folder, set(free)
        self._defaults = json.loads(json.dumps(defaults or {}))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._check_settings(settings)
            self._take()
            self._file = open(folder / "samples.jsonl", "ab", buffering=0)  # noqa: SIM115 (open as long as the run)
            self._stages, whole = read_stages(folder / "samples.jsonl")
            self._file.truncate(whole)
        except OSError as error:
            raise storage_error(folder, error) from error

    def stage(self, name: str, compute: Callable[[], list[Row]]) -> list[Row]:
        """The rows of stage `name`: read if it was closed before, else computed, written, synced and closed."""
        if name not in self._stages:
            rows = [json.loads(json.dumps(row)) for row in compute()]  # what a resumed run would read
            lines = [json.dumps({"stage": name, **row}) for row in rows]
            lines.append(json.dumps({"stage": name, "rows": len(rows)}))
            path = self.folder / "samples.jsonl"
            before = path.stat().st_size
            try:
                durable.append(self._file, ("\n".join(lines) + "\n").encode())
                durable.sync(path)
            except OSError as error:
                if error.errno in FULL:
                    os.truncate(path, before)
                raise storage_error(self.folder, error) from error
            self._stages[name] = rows
        return self._stages[name]

    def has(self, name: str) -> bool:
        """Whether stage `name` is closed."""
        return name in self._stages

    def close(self) -> None:
        self._file.close()
        self._lock.close()

    def _take(self) -> None:
        """One process at a time: two would write the same stages twice."""
        self._lock = open(self.folder / ".lock", "wb")  # noqa: SIM115
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return  # a file system without locks
            raise ConfigError(
                f"{self.folder} is in use: another process is writing this run",
                "wait for it, or give this run a new folder with --out",
            ) from error

    def _check_settings(self, settings: Row) -> None:
        path = self.folder / "config.yaml"
        now = json.loads(json.dumps(settings))
        if not path.exists():
            durable.write_file(path, yaml.safe_dump(now, sort_keys=False, allow_unicode=True))
            return
        then = {**self._defaults, **(yaml.safe_load(path.read_text()) or {})}
        differing = [
            f"{key} ({then.get(key)!r} there, {now.get(key)!r} now)"
            for key in {**then, **now}
            if then.get(key) != now.get(key) and key not in self._free
        ]
        if differing:
            raise ConfigError(
                f"{self.folder} holds a run with other settings: {', '.join(differing[:5])}",
                "resume it with its own settings, or give this run a new folder with --out",
            )
        if then != now:
            durable.write_file(path, yaml.safe_dump(now, sort_keys=False, allow_unicode=True))


def read_stages(path: Path) -> tuple[dict[str, list[Row]], int]:
    """The rows of each closed stage of a samples.jsonl, and the number of bytes up to the last closing line.

    What an interrupted stage left behind is not among them; no file is no stage. The file is only read: a run may go on.
    Errors: StorageError for a line that cannot be read and has closed stages after it.
    """
    stages: dict[str, list[Row]] = {}
    pending: list[Row] = []
    whole = at = 0
    if not path.exists():
        return stages, 0
    with open(path, "rb") as lines:
        for line in lines:
            at += len(line)
            try:
                row = json.loads(line)
                name = row.pop("stage")
            except (ValueError, KeyError, AttributeError):
                _only_a_torn_end(path, at - len(line), lines.read())
                break
            if not line.endswith(b"\n"):
                break
            if set(row) == {"rows"} and row["rows"] == len(pending):
                stages[name], pending, whole = pending, [], at
            else:
                pending.append(row)
    return stages, whole


def _only_a_torn_end(path: Path, at: int, rest: bytes) -> None:
    """A line that cannot be read is the rest of an interrupted stage, unless closed stages follow it: they must not go."""
    if any(b'"rows": ' in line and line.endswith(b"}") for line in rest.split(b"\n")[:-1]):
        raise StorageError(
            f"{path} is damaged at byte {at:,}, and whole stages stand after that",
            "mend the line from a copy; or cut the file there (truncate -s) to do again what follows",
        )


class MetricsLog:
    """metrics.jsonl: one line a step. Wall-clock seconds go to a file of their own, so that the metrics stay reproducible."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115
        self._times = open(path.with_name("seconds.jsonl"), "ab")  # noqa: SIM115

    def write(self, row: Row, *, began: float) -> None:
        """Append a step's numbers; `began` is its `time.perf_counter()` start."""
        durable.append(self._file, (json.dumps(row) + "\n").encode())
        seconds = {"step": row.get("step"), "seconds": round(time.perf_counter() - began, 3)}
        self._times.write((json.dumps(seconds) + "\n").encode())

    def flush(self) -> int:
        """Bring every line to the disk; the length of the file in bytes."""
        durable.sync(self.path)
        return self.size()

    def size(self) -> int:
        """Bytes on the disk."""
        return self.path.stat().st_size

    def cut(self, size: int) -> None:
        """Forget everything after the first `size` bytes."""
        self._file.truncate(size)

    def close(self) -> None:
        self._file.close()
        self._times.close()
