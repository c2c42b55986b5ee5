"""The documents of a corpus, one at a time and in one order: text files, rows with a text, data sets.

    a file, a folder, a glob    each text file is a document, its id its path; .jsonl, .json and .gz hold rows
    rows                        one JSON object a line with a field `text`; the id is the row's `id`, else FILE:LINE
    data sets                   of the hub, saved on the disk, Parquet, CSV: see `task.tables`
    python, python:all, ...     the sources of this machine's Python (`task.corpus`)
    prose, prose:all, ...       what those sources say in English (`task.prose`)
    functions, functions:tests  the standard library's functions of at most 400 characters (`task.functions`), its tests' too

A `Document` is what has to be read, not its text: reading is the work of whoever scores it, in another process perhaps. The
order is that of the paths' names and of the lines, so that a count of documents says where to go on.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import io
import itertools
import json
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from amenable.errors import ConfigError, DataError, nearest
from amenable.task.tables import FOLDER, HUB, SUFFIXES, kind_of, table_rows

ROWS = (".jsonl", ".jsonl.gz", ".json.gz", ".json", ".ndjson")
NAMES = {"codeparrot": "codeparrot/codeparrot-clean", "pile": "monology/pile-uncopyrighted"}
"""Short names of data sets on the hub. The Pile is its part without the sources that were withdrawn."""
_FIELDS = {"codeparrot/codeparrot-clean": "content"}
PYTHON, PROSE, FUNCTIONS = "python", "prose", "functions"


class Missing(Exception):
    """Why a document is not there; what is `told` of this one, besides."""

    def __init__(self, reason: str, told: str = "") -> None:
        super().__init__(reason)
        self.told = told


@dataclass(frozen=True)
class Document:
    """What is to be read: a file at `path`, a row as `line` of JSON, or a `text` that is there. `size`: bytes, about.

    `facts` go with the document wherever it goes (package, licence, split).
    """

    id: str
    size: int
    path: Path | None = None
    line: str | None = None
    text: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Corpus:
    """A corpus that has been found: `files` in order, or a data set's `name`. `total`: bytes on the disk, 0 if unknown.

    `table`: its kind, of a data set that the package `datasets` reads.
    """

    name: str
    files: tuple[Path, ...] = ()
    root: Path = Path()
    field: str = "text"
    split: str = "train"
    total: int = 0
    sources: Sequence[Document] = ()
    table: str = ""

    def fingerprint(self) -> str:
        """A hash of what is there, by names and sizes: a corpus that has changed is no longer the same one."""
        found = [[str(path), path.stat().st_size] for path in self.files] + [[d.id, d.size] for d in self.sources]
        return hashlib.sha256(json.dumps([self.name, self.field, self.split, found]).encode()).hexdigest()[:16]

    def documents(self, start: int = 0) -> Iterator[Document]:
        """Every document from number `start` on. Errors: DataError."""
        if self.sources:
            yield from self.sources[start:]
        elif self.table:
            yield from _of_table(self, start)
        else:
            for number, document in enumerate(self._of_files()):
                if number >= start:
                    yield document

    def _of_files(self) -> Iterator[Document]:
        for path in self.files:
            name = path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.as_posix()
            if path.name.endswith(ROWS):
                yield from _rows(path, name)
            else:
                yield Document(name, path.stat().st_size, path=path)


def find_corpus(
    corpus: str, *, files: Sequence[str] = ("*.py",), field: str = "", split: str = "train", tests: bool = False
) -> Corpus:
    """The corpus that a person names. `files`: patterns of the names that are read in a folder; `field`: of rows.

    Errors: ConfigError for an empty name, DataError for one that is nothing on this disk and no name of a data set.
    """
    if not corpus:
        raise ConfigError("no corpus is named", "amenable score CORPUS task=pep8: a file, a folder, a glob, a name")
    if corpus.split(":")[0] in (PYTHON, PROSE, FUNCTIONS):
        return _of_this_machine(corpus, tests=tests)
    path = Path(corpus).expanduser()
    if table := kind_of(path):
        return _of_tables(str(path), _tables(path), field, split, table)
    if path.is_dir():
        kept = [p for pattern in files for p in path.rglob(pattern)] + [p for p in path.rglob("*") if _is_rows(p)]
        if not kept and (tables := _tables(path)):
            return _of_tables(str(path), tables, field, split, FOLDER)
        return _of_paths(corpus, kept, path, field, f"Name what is to be read: files={','.join(files)} found nothing.")
    if path.is_file():
        return _of_paths(corpus, [path], path.parent, field, "")
    if any(sign in corpus for sign in "*?["):
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]
        if found and (table := kind_of(found[0])) in SUFFIXES.values() and {kind_of(one) for one in found} == {table}:
            return _of_tables(corpus, sorted(found), field, split, table)
        return _of_paths(
            corpus, found, Path(), field, "Check the pattern; quote it, so that the shell leaves it alone."
        )
    name = NAMES.get(corpus, corpus)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", name) or path.suffix in (*ROWS, *SUFFIXES, ".py", ".txt", ".gz"):
        known = nearest(corpus, [*NAMES, PYTHON, PROSE, FUNCTIONS])
        raise DataError(
            f"There is no file or folder {corpus}.", f"Check the path, or name a data set OWNER/NAME; {known}"
        )
    return Corpus(name, field=field or _FIELDS.get(name, "text"), split=split, table=HUB)


def text_of(document: Document, field: str = "text") -> str:
    """The text itself. Errors: Missing with the reason, in a few words that are the same for all of a kind."""
    return text_and_facts(document, field)[0]


def text_and_facts(document: Document, field: str = "text") -> tuple[str, Mapping[str, Any]]:
    """The text, and what goes with it: the document's `facts`, or of a row all that is not its text, id or scores.

    Errors: those of `text_of`.
    """
    if document.text is not None:
        return document.text, document.facts
    if document.line is None:
        return _file_text(document), document.facts
    try:
        row = json.loads(document.line)
    except ValueError:
        raise Missing("the line is not JSON") from None
    value = row.get(field) if isinstance(row, dict) else None
    if not isinstance(value, str):
        raise Missing(f"the row has no text in `{field}`")
    return value, _facts(row, field)


def _file_text(document: Document) -> str:
    assert document.path is not None
    try:
        if document.path.suffix in (".py", ".pyi"):
            with open(document.path, "rb") as file:
                encoding, _ = tokenize.detect_encoding(file.readline)
            return document.path.read_bytes().decode(encoding)
        return document.path.read_bytes().decode("utf-8-sig")
    except (UnicodeDecodeError, SyntaxError, LookupError):
        raise Missing("the file is not in UTF-8, nor in an encoding that it names") from None
    except OSError as error:
        raise Missing(f"the file cannot be read: {error.strerror}") from None


def _of_this_machine(corpus: str, *, tests: bool) -> Corpus:
    """The sources of this machine's Python, their prose, or their functions."""
    kind, _, named = corpus.partition(":")
    packages = tuple(name for name in named.split(",") if name)
    if kind == PROSE:
        from amenable.task.prose import prose_file

        path = prose_file(packages, tests=tests)
        return Corpus(corpus, (path,), path.parent, total=_unpacked(path))
    if kind == FUNCTIONS:
        from amenable.task.functions import rows_of, standard_library

        others = tuple(name for name in packages if name != "tests")
        functions = standard_library(tests=tests or "tests" in packages, packages=others, longest=400)
        texts = tuple(Document(name, len(text), text=text, facts=facts) for name, text, facts in rows_of(functions))
        return Corpus(corpus, sources=texts, total=sum(one.size for one in texts))
    from amenable.task.corpus import python_sources

    sources = [
        Document(one.id, one.size, path=one.path, facts=one.facts()) for one in python_sources(packages, tests=tests)
    ]
    return Corpus(corpus, sources=tuple(sources), total=sum(one.size for one in sources))


def _of_paths(corpus: str, paths: Sequence[Path], root: Path, field: str, fix: str) -> Corpus:
    """Errors: DataError if there is nothing to read."""
    files = tuple(sorted({path for path in paths if path.is_file()}, key=lambda path: path.as_posix()))
    if not files:
        raise DataError(f"{corpus} holds no file to read.", fix)
    return Corpus(corpus, files, root, field or "text", total=sum(map(_unpacked, files)))


def _of_tables(name: str, files: Sequence[Path], field: str, split: str, table: str) -> Corpus:
    total = sum(path.stat().st_size for path in files)
    return Corpus(name, tuple(files), field=field or "text", split=split, total=total, table=table)


def _tables(path: Path) -> list[Path]:
    return sorted(one for one in path.rglob("*") if kind_of(one)) if path.is_dir() else [path]


def _unpacked(path: Path) -> int:
    """Bytes of a file, of a gzipped one those that it says it holds (right for one of a single part below 4 GB)."""
    with open(path, "rb") as file:
        size = path.stat().st_size
        if file.read(2) != b"\x1f\x8b" or size < 18:
            return size
        file.seek(-4, io.SEEK_END)
        return max(size, int.from_bytes(file.read(4), "little"))


def _is_rows(path: Path) -> bool:
    return path.name.endswith(ROWS) and path.is_file()


def _rows(path: Path, name: str) -> Iterator[Document]:
    """The lines of a file of rows; nothing is read but the `id`. Errors: DataError for a file that cannot be read."""
    try:
        with _opened(path) as file:
            first = file.readline()
            lines: Iterable[str] = itertools.chain([first], file)
            if first.lstrip().startswith("["):  # one list of objects
                lines = map(json.dumps, json.loads(first + file.read()))
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield Document(_id_of(line) or f"{name}:{number}", len(line), line=line)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {error}.", "Give JSONL, or a list, in UTF-8, gzipped or not."
        ) from error


def _opened(path: Path) -> IO[str]:
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    opened: Any = gzip.open(path, "rb") if packed else open(path, "rb")  # noqa: SIM115 (closed by the wrapper)
    return io.TextIOWrapper(opened, encoding="utf-8-sig", newline="\n")


def _id_of(line: str) -> str:
    """The row's own id, "" if it has none that is a text or a number."""
    if '"id"' not in line:
        return ""
    try:
        row = json.loads(line)
    except ValueError:
        return ""
    value = row.get("id") if isinstance(row, dict) else None
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _of_table(corpus: Corpus, start: int) -> Iterator[Document]:
    """The rows of a data set, with all that is plain in them."""
    rows = table_rows(corpus.name, corpus.table, corpus.files, split=corpus.split, start=start)
    for number, row in enumerate(rows, start=start):
        value, name = row.get(corpus.field), row.get("id")
        text = value if isinstance(value, str) else None
        line = None if text is not None else json.dumps({})
        known = str(name) if isinstance(name, str | int) else f"{corpus.name}:{number}"
        facts = {key: kept for key, kept in row.items() if isinstance(kept, str | int | float | bool)}
        yield Document(known, len(text or ""), text=text, line=line, facts=_facts(facts, corpus.field))


def _facts(row: Mapping[str, Any], field: str) -> dict[str, Any]:
    """What goes with a row's text."""
    return {key: kept for key, kept in row.items() if key not in (field, "text", "id", "ends", "scores")}
