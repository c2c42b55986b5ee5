"""Prose that every machine has: what Python's own library and installed packages say in English, as rows of text.

    {"id": "json/decoder.py", "text": "...", "package": "json", "licence": "PSF-2.0", "split": "train"}

A document is the prose of one source file, in its order: string literals (docstrings among them) and comments; a
distribution's own description (README) is one more. Kept are paragraphs of sentences: five words or more, a capital at the
start, a full stop at the end, three of four words plain, no prompt and no drawing. Markup of code is taken off, lines are
joined, a blank line stands between paragraphs. Each sentence is kept once, where it stands first (letters alone are
compared), so that no sentence of a held-out package stands in the training part; documents under `SHORTEST` characters go.
Files, licences and the split by package are those of `task/corpus.py`. The texts are their authors': the licence goes with
each row, it is noted and not judged, and names and addresses in them are real.

The rows are kept in the cache, made at the first use: the same machine gives the same rows.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import inspect
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from amenable.cache import cache_folder
from amenable.progress import bar
from amenable.task.corpus import SourceFile, licence_of, python_sources, split_of
from amenable.task.functions import _NOT_ITS_OWN, _read

SHORTEST = 200
_LONGEST = 3000  # characters of a paragraph: more is a table, or data
_VERSION = 1  # of what is kept, for the cache's name
_NOT_PROSE = re.compile(r">>>|^\s*(?:\.\.\.|\.\. |[|+=~^#*-]{2})|[{}\\|]|={3}|-{4}", re.MULTILINE)
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_MARKUP = (
    (re.compile(r":[\w:+-]+:`~?\.?([^`<]*?)(?: *<[^`>]*>)?`"), r"\1"),  # :class:`~a.B`
    (re.compile(r"!?\[([^\]\[]*)\]\([^)\s]*\)"), r"\1"),  # [words](address)
    (re.compile(r"`{1,3}([^`]*)`{1,3}_{0,2}"), r"\1"),
    (re.compile(r"\*\*([^*\s][^*]*)\*\*"), r"\1"),
)
_PLAIN = re.compile(r"[\"'(\[]*[A-Za-z]+(?:['-][A-Za-z]+)*[\"')\].,;:!?]*")
_COMMENT = re.compile(r"[ \t]*#+[!: ]?(.*)")


def prose_file(packages: tuple[str, ...] = (), *, tests: bool = False) -> Path:
    """The rows of the standard library, and of installed distributions by name (("all",): of all), as JSONL, gzipped.

    Errors: DataError if the interpreter has no source, or a distribution is not installed.
    """
    sources = python_sources(packages, tests=tests)
    facts = [_VERSION, sys.version, [[one.id, one.size] for one in sources]]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    path = cache_folder() / "prose" / f"prose-{key}.jsonl.gz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        work = path.with_name(f".{path.name}.{os.getpid()}")
        with open(work, "wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
            for row in _rows(sources):
                file.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
        os.replace(work, path)
    return path


def _rows(sources: Sequence[SourceFile]) -> Iterator[dict[str, str]]:
    seen: set[str] = set()
    with bar("reading prose, files") as progress:
        for number, one in enumerate(sources, start=1):
            text = once(paragraphs_of_source(_read(one.path)), seen)
            if len(text) >= SHORTEST:
                yield {"id": one.id, "text": text, **one.facts()}
            progress(number, len(sources))
    for name in sorted({one.package for one in sources if _NOT_ITS_OWN & set(one.path.parts)}):
        distribution = metadata.distribution(name)
        described = str(distribution.metadata.get_payload() or "")  # type: ignore[attr-defined]
        text = once(paragraphs(_FENCE.sub("\n\n", described)), seen)
        if len(text) >= SHORTEST:
            facts = {"package": name, "licence": licence_of(distribution), "split": split_of(name)}
            yield {"id": f"{name}/README", "text": text, **facts}


def once(found: Iterator[str], seen: set[str]) -> str:
    """The paragraphs as one text, without the sentences that are in `seen`; those that are new are added to it."""
    kept = []
    for paragraph in found:
        fresh = []
        for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", paragraph):
            letters = "".join(re.findall(r"[a-z]+", sentence.lower()))
            if letters and letters not in seen:
                seen.add(letters)
                fresh.append(sentence)
        if fresh:
            kept.append(" ".join(fresh))
    return "\n\n".join(kept)


def paragraphs_of_source(source: str) -> Iterator[str]:
    """The paragraphs in string literals and comments of a Python source, in their order; none if it is not Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the source: invalid escapes
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    found: list[tuple[int, str]] = []
    inside: set[int] = set()  # lines of literals, where a "#" begins no comment
    for node in _outside_of_f_strings(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append((node.lineno, node.value))
            inside.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    found += _comments(source, inside)
    for _, text in sorted(found, key=lambda one: one[0]):
        if text.count(" ") >= 4:
            yield from paragraphs(text)


def _outside_of_f_strings(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but the parts of f-strings, which are pieces of sentences."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.JoinedStr)]


def _comments(source: str, inside: set[int]) -> Iterator[tuple[int, str]]:
    """Comments that stand on lines of their own, those on neighbouring lines together, with the first's number."""
    block: list[str] = []
    lines = source.split("\n")
    for number, line in enumerate([*lines, ""], start=1):
        found = None if number in inside else _COMMENT.fullmatch(line)
        if found:
            block.append(found[1])
        elif block:
            yield number - len(block), "\n".join(block)
            block = []


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of `text` that are prose, each on one line, without the markup of code."""
    for part in re.split(r"\n[ \t]*\n", inspect.cleandoc(text)):
        if len(part) > _LONGEST or _NOT_PROSE.search(part) or part.startswith(("  ", "\t")):
            continue
        line = " ".join(part.split())
        for pattern, put in _MARKUP:
            line = pattern.sub(put, line)
        words = line.split()
        plain = sum(_PLAIN.fullmatch(word) is not None for word in words)
        if len(words) >= 5 and plain >= 0.75 * len(words) and re.match(r"[\"'(]?[A-Z]", line) and _ends(line):
            yield line


def _ends(line: str) -> bool:
    return re.search(r"[.!?][\"')]?$", line) is not None
