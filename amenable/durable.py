"""Files of a run, written so that a process may die at any instant.

A file or folder appears whole or not at all: it is written under a temporary name, brought to the disk, renamed, and its
folder brought to the disk. Whatever a run keeps is written through this module, so that one place can be tested: before each
operation `hook(operation, path)` is called, and a test's hook kills the process there, or raises as a full disk does.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from amenable.errors import StorageError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No room: the disk, the user's share of it, or the longest file that is allowed."""

MANIFEST = "manifest.json"

hook: Callable[[str, Path], None] = lambda operation, path: None
"""Called before every "write", "sync", "rename" and "delete"; the tests' way in."""


def append(file: FileIO, data: bytes) -> None:
    """Add `data` to a file that is open without a buffer. Not on the disk before `sync`."""
    hook("write", Path(file.name))
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def sync(path: Path) -> None:
    """Bring a file's content, or a folder's list of names, to the disk."""
    hook("sync", path)
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rename(old: Path, new: Path) -> None:
    """Give `old` the name `new`, at one instant, and bring the folder to the disk."""
    hook("rename", new)
    os.replace(old, new)
    sync(new.parent)


def delete(folder: Path) -> None:
    """Remove a folder and what is in it, whatever is left of it."""
    if folder.exists():
        hook("delete", folder)
        shutil.rmtree(folder, ignore_errors=True)


def write_file(path: Path, text: str) -> None:
    """`path` with content `text`, whole or not at all."""
    work = path.with_name(f".{path.name}.partial")
    hook("write", path)
    work.write_text(text, encoding="utf-8")
    sync(work)
    rename(work, path)


@contextmanager
def folder(path: Path, facts: dict[str, Any]) -> Iterator[Path]:
    """A folder to write files into; it becomes `path`, with a manifest of `facts` and every file's sha256, at the end.

    If the body raises, nothing is left. A folder that was at `path` is replaced.
    """
    work = path.with_name(f".{path.name}.partial")
    delete(work)
    try:
        hook("write", work)
        work.mkdir(parents=True)
        yield work
        files = sorted(entry for entry in work.rglob("*") if entry.is_file())
        for file in files:
            sync(file)
        manifest = {**facts, "files": {str(file.relative_to(work)): _sha256(file) for file in files}}
        hook("write", work / MANIFEST)
        (work / MANIFEST).write_text(json.dumps(manifest, indent=1))
        sync(work / MANIFEST)
        sync(work)
        delete(path)
        rename(work, path)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def manifest_of(path: Path) -> dict[str, Any] | None:
    """The facts a folder was written with, or None if a file of it is missing or is not what was written."""
    try:
        found: dict[str, Any] = json.loads((path / MANIFEST).read_text())
        whole = all(_sha256(path / name) == digest for name, digest in found["files"].items())
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return found if whole else None


def as_os_error(error: Exception) -> OSError | None:
    """The system's error in `error`, also where a library (safetensors) put it into words of its own; None if there is none."""
    if isinstance(error, OSError):
        return error
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None


def storage_error(path: Path, error: OSError) -> StorageError:
    """What to tell a user whose run folder cannot be written."""
    if error.errno in FULL:
        return StorageError(
            f"{path}: the disk is full ({error.strerror})",
            "make room and run the same command again: finished stages and the last checkpoint are kept",
        )
    return StorageError(f"{path} cannot be written: {error.strerror}", "give a folder you may write to with --out")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
