"""Python functions out of the source of the running interpreter's standard library: texts to train on, and contexts.

    function = signature + body        signature: the header up to and including its colon and newline
    split    = hash of the module      train 80%, validation 10%, held-out 10% of the modules

Functions and methods are taken from `def` on, dedented, without decorators, docstring or a comment behind the header's
colon; other comments stay. Left out: functions inside functions (they are part of those), bodies that begin on the header's
line or are a docstring alone, and all but the first of equal functions, white space aside. So no function of a held-out
module is trained on, in this spelling. The order is that of module names, then of lines.

The corpus is that of one Python version; `fingerprint` says which. Whoever wants other code gives `packages`.
The conditional task is that of Korbak et al. 2022 (arXiv 2112.00791): a context is a signature, a continuation its body.
Changed from the paper: standard library in place of GitHub (Python150).
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import sysconfig
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path

from amenable.errors import DataError
from amenable.seeding import derive, python_random
from amenable.task.source import is_valid, parse, split_at_header, unix_newlines

SPLITS = ("train", "validation", "held-out")
_TESTS = {"test", "tests", "idle_test", "__phello__"}
_NOT_ITS_OWN = {"site-packages", "dist-packages", "__pycache__"}
_TROUBLE = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)


@dataclass(frozen=True)
class Function:
    """One function. `module` is its dotted name; `signature` ends with ":\\n", `body` with one newline.

    `docstring` is what stood above the body, "" if nothing did; it is not in the text, and two functions with the same text
    are equal.
    """

    module: str
    signature: str
    body: str
    docstring: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        """The whole function."""
        return self.signature + self.body

    def prefix(self, seed: int) -> str:
        """The function cut at random before a space behind its header, where tokens have a border: a context.

        What is left to say differs more than behind a header: an open bracket is hard to get right, a finished line is easy.
        """
        text = self.text
        places = [at for at in range(len(self.signature), len(text)) if text[at] == " " != text[at - 1]]
        return text[: python_random(seed, "prefix", text).choice(places)]

    @property
    def split(self) -> str:
        """ "train", "validation" or "held-out"; the same for all functions of a module."""
        return SPLITS[{0: 2, 1: 1}.get(derive(0, "functions", self.module) % 10, 0)]


def standard_library(
    *, tests: bool = False, packages: tuple[str, ...] = (), longest: int = 1000
) -> tuple[Function, ...]:
    """The functions of at most `longest` characters, in their order.

    `tests`: those of test modules too. `packages`: names of installed packages to read besides, such as "yaml".
    Errors: DataError if the interpreter has no source, or a package is not installed.
    """
    return _all(tests, packages, longest)


@lru_cache(maxsize=4)
def _all(tests: bool, packages: tuple[str, ...], longest: int) -> tuple[Function, ...]:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [(_module_name(path, root), path) for path in root.rglob("*.py") if not _NOT_ITS_OWN & _folders(path, root)]
    if not files:
        raise DataError(
            f"there is no Python source in {root}", "use a Python that was installed with its library's source"
        )
    for package in packages:
        files += _files_of(package)
    if not tests:
        files = [(module, path) for module, path in files if not _is_test(module)]
    found: dict[str, Function] = {}
    for module, path in sorted(set(files)):
        for function in _of_file(path, module, longest):
            found.setdefault(" ".join(function.text.split()), function)
    return tuple(found.values())


@cache
def _of_file(path: Path, module: str, longest: int) -> tuple[Function, ...]:
    return tuple(functions_in(_read(path), module, longest=longest))


def functions_in(source: str, module: str, *, longest: int = 1000) -> Iterator[Function]:
    """The functions and methods of a module's source, in order, of at most `longest` characters; none if it is not Python."""
    source = unix_newlines(source)
    try:
        tree = parse(source)
    except _TROUBLE:
        return
    lines = source.split("\n")
    for node in _outer_functions(tree):
        function = _function(node, lines, module, longest)
        if function is not None:
            yield function


def of_split(functions: Sequence[Function], split: str) -> list[Function]:
    """Those of `split`, in their order."""
    if split not in SPLITS:
        raise DataError(f"there is no split {split!r}", f"use one of {', '.join(SPLITS)}")
    return [function for function in functions if function.split == split]


def contexts(
    functions: Sequence[Function],
    split: str,
    n: int,
    *,
    longest_body: int = 160,
    longest_signature: int = 80,
    seed: int = 0,
) -> list[Function]:
    """`n` short functions of `split` at random, whose signatures are the contexts of the conditional task.

    Lengths in characters. No two have the same signature, and no signature of another split's function is among them, so
    that contexts of different splits have neither module nor signature in common.
    Errors: DataError if there are fewer than `n`.
    """
    elsewhere = {function.signature for function in functions if function.split != split}
    fitting: dict[str, Function] = {}
    for function in of_split(functions, split):
        short = len(function.body) <= longest_body and len(function.signature) <= longest_signature
        if short and function.signature not in elsewhere:
            fitting.setdefault(function.signature, function)
    if len(fitting) < n:
        raise DataError(
            f"{n} contexts were asked for, and split {split} has {len(fitting)} short functions with a signature of their own",
            "ask for fewer, allow longer bodies, or read more packages",
        )
    return python_random(seed, "contexts", split).sample(list(fitting.values()), n)


def rows_of(functions: Sequence[Function]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Each function as a document: id, text, and facts (`package`, here its module, and `split`)."""
    counts: dict[str, int] = {}
    for function in functions:
        number = counts[function.module] = counts.get(function.module, 0) + 1
        yield f"{function.module}/{number}", function.text, {"package": function.module, "split": function.split}


def fingerprint(functions: Sequence[Function]) -> str:
    """SHA-256 over every function, its module and the order, as 64 hexadecimal digits."""
    rows = [[function.module, function.signature, function.body] for function in functions]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _outer_functions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
        elif not isinstance(child, ast.expr):
            yield from _outer_functions(child)


def _function(
    node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str], module: str, longest: int
) -> Function | None:
    """The record of one function, or None if it is one of those that are left out."""
    statements = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    if not statements:
        return None
    first, last = node.lineno - 1, node.end_lineno or node.lineno
    kept = lines[first:last]
    if len(statements) < len(node.body):
        docstring = node.body[0]
        above, below = docstring.lineno - 1 - first, (docstring.end_lineno or docstring.lineno) - first
        if statements[0].lineno - 1 - first < below:  # another statement stands behind the docstring, on its line
            return None
        kept = kept[:above] + kept[below:]
    text = _dedented(kept, node.col_offset)
    parts = None if text is None or len(text) >= longest else split_at_header(text, node.name)  # a newline is to come
    if parts is None or parts[0]:
        return None
    comment, newline, rest = parts[2].partition("\n")
    if not newline or (comment.strip() and not comment.lstrip().startswith("#")):
        return None
    body = "\n".join(rest.strip("\n").split("\n")) + "\n"
    function = Function(module, parts[1] + "\n", body, ast.get_docstring(node) or "")
    return function if is_valid(function.text) else None


def _dedented(lines: list[str], indent: int) -> str | None:
    """The lines less their common indentation; None where one of them is not indented as far (a text in quotes)."""
    if any(line[:indent].strip() for line in lines):
        return None
    return "\n".join(line[indent:].rstrip() if not line.strip() else line[indent:] for line in lines)


def _read(path: Path) -> str:
    """A source file's text in the encoding that it names; "" if it cannot be read."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (OSError, *_TROUBLE):
        return ""


def _module_name(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _folders(path: Path, root: Path) -> set[str]:
    return set(path.relative_to(root).parts[:-1])


def _is_test(module: str) -> bool:
    return any(part in _TESTS or part.startswith("test_") for part in module.split("."))


def _files_of(package: str) -> list[tuple[str, Path]]:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise DataError(f"there is no installed package {package!r}", "install it, or leave it out of packages")
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    if not places:
        return [(package, Path(spec.origin))] if spec.origin and spec.origin.endswith(".py") else []
    found = [(f"{package}.{_module_name(path, place)}", path) for place in places for path in place.rglob("*.py")]
    return [(module.removesuffix(".__init__"), path) for module, path in found]
