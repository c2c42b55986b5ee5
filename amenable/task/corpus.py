"""The corpus that every machine has: the sources of the Python standard library, and of packages that are installed.

    split      = hash of the package    train 80%, validation 10%, held-out 10% of the packages
    duplicate  = equal but for white space, or J(lines) >= 0.7 with a file before it

    J(A, B) = |A & B| / |A | B|         A, B: the sets of the files' lines, stripped, without blank ones

A package is one of the standard library's top-level modules ("json", "argparse") or an installed distribution ("rich"), so
that a held-out file comes from a package that is never trained on; and of two files that are alike only the first stays, so
that no copy of a held-out file is trained on either. Candidates are found by MinHash (64 permutations, 16 bands of 4: a pair
of J = 0.7 is missed with probability 0.01) and settled by J itself. Left out: test modules unless asked for, vendored copies,
files of white space alone, files that cannot be decoded. The licence is what the distribution says of itself, "unknown" if
it says nothing: it is noted, not judged. The order is that of package and path; the same machine gives the same corpus.

Source: MinHash, Broder 1997. Splitting by repository: Korbak et al. 2022, arXiv 2112.00791.
"""

from __future__ import annotations

import sysconfig
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amenable.errors import DataError, nearest
from amenable.seeding import derive
from amenable.task.functions import _NOT_ITS_OWN, _is_test, _read
from amenable.task.functions import SPLITS as SPLITS

ALIKE = 0.7
_BANDS, _BAND = 16, 4
_VENDORED = {"_vendor", "vendor", "_vendored", "vendored", "third_party", "externals", "_distutils"}
_PRIME = np.uint64((1 << 31) - 1)
PYTHON_LICENCE = "PSF-2.0"


@dataclass(frozen=True)
class SourceFile:
    """One file of source. `id` is package/path; `size` in bytes."""

    id: str
    path: Path
    package: str
    licence: str
    size: int

    @property
    def split(self) -> str:
        """ "train", "validation" or "held-out"; the same for all files of a package."""
        return split_of(self.package)

    def facts(self) -> dict[str, Any]:
        """What goes with the text, for a row."""
        return {"package": self.package, "licence": self.licence, "split": self.split}


def split_of(package: str) -> str:
    """The split of a package, by a hash of its name."""
    return SPLITS[{0: 2, 1: 1}.get(derive(0, "corpus", package) % 10, 0)]


@lru_cache(maxsize=4)
def python_sources(packages: tuple[str, ...] = (), *, tests: bool = False) -> tuple[SourceFile, ...]:
    """The files of the standard library, and of installed distributions by name (("all",): of all), without duplicates.

    Errors: DataError if the interpreter has no source, or a distribution is not installed.
    """
    found = [*_standard_library(tests), *_distributions(packages, tests)]
    return tuple(without_duplicates(sorted(found, key=lambda one: one.id)))


def without_duplicates(files: Sequence[SourceFile]) -> list[SourceFile]:
    """Those that are not alike a file before them; files without any line of text are left out."""
    kept: list[SourceFile] = []
    texts: set[int] = set()
    lines_of: list[frozenset[int]] = []
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for one in files:
        text = _read(one.path)
        lines = frozenset(
            zlib.crc32(line.encode("utf-8", "replace")) for line in map(str.strip, text.split("\n")) if line
        )
        whole = hash(" ".join(text.split()))  # within one process: nothing is kept of it
        if not lines or whole in texts:
            continue
        bands = [(band, part.tobytes()) for band, part in enumerate(_minhash(lines).reshape(_BANDS, _BAND))]
        near = {index for band in bands for index in buckets.get(band, ())}
        if any(_alike(lines, lines_of[index]) for index in near):
            continue
        texts.add(whole)
        for band in bands:
            buckets[band].append(len(kept))
        lines_of.append(lines)
        kept.append(one)
    return kept


def _alike(one: frozenset[int], other: frozenset[int]) -> bool:
    common = len(one & other)
    return common >= ALIKE * (len(one) + len(other) - common)


def _minhash(lines: frozenset[int]) -> NDArray[np.uint64]:
    """The least of each of 64 permutations (a x + b modulo a prime) over the lines' hashes: (64,)."""
    values = np.fromiter(lines, dtype=np.uint64, count=len(lines)) % _PRIME
    permuted: NDArray[np.uint64] = (_FACTORS[:, None] * values[None, :] + _SHIFTS[:, None]) % _PRIME
    least: NDArray[np.uint64] = permuted.min(axis=1)
    return least


_DRAWN = [np.uint64(derive(0, "minhash", index) % (2**31 - 2) + 1) for index in range(2 * _BANDS * _BAND)]
_FACTORS, _SHIFTS = np.array(_DRAWN[: _BANDS * _BAND]), np.array(_DRAWN[_BANDS * _BAND :])


def _standard_library(tests: bool) -> Iterator[SourceFile]:
    root = Path(sysconfig.get_paths()["stdlib"])
    none = True
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).parts
        if _NOT_ITS_OWN & set(parts[:-1]) or _VENDORED & set(parts[:-1]) or (not tests and _tested(parts)):
            continue
        none = False
        package = parts[0].removesuffix(".py")
        yield SourceFile("/".join(parts), path, package, PYTHON_LICENCE, path.stat().st_size)
    if none:
        raise DataError(f"there is no Python source in {root}", "use a Python that was installed with its source")


def _distributions(packages: Sequence[str], tests: bool) -> Iterator[SourceFile]:
    if not packages:
        return
    known = {_plain(found.name): found for found in metadata.distributions() if found.name}
    for name in sorted(known) if "all" in packages else sorted(set(map(_plain, packages))):
        if name not in known:
            raise DataError(f"there is no installed distribution {name!r}", nearest(name, known))
        yield from _files_of(name, known[name], tests)


def _files_of(name: str, distribution: metadata.Distribution, tests: bool) -> Iterator[SourceFile]:
    licence = licence_of(distribution)
    for file in distribution.files or ():
        parts = file.parts
        if file.suffix != ".py" or ".." in parts or _VENDORED & set(parts) or (not tests and _tested(parts)):
            continue
        path = Path(str(file.locate()))
        if path.is_file():
            yield SourceFile(f"{name}/{file.as_posix()}", path, name, licence, path.stat().st_size)


def licence_of(distribution: metadata.Distribution) -> str:
    """What a distribution says of its licence: an expression, a classifier or a short text; "unknown" for nothing."""
    about: Any = distribution.metadata
    expression = about.get("License-Expression")
    if expression:
        return str(expression)
    lines = about.get_all("Classifier") or ()
    classifiers = [line.rpartition(" :: ")[2] for line in lines if line.startswith("License ::")]
    given = str(about.get("License") or "").strip()
    if given and "\n" not in given and len(given) <= 60:
        return given
    return " OR ".join(classifiers) or "unknown"


def _tested(parts: Sequence[str]) -> bool:
    return _is_test(".".join(parts).removesuffix(".py"))


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
