"""What Python and its style guide say about a text, without running it.

    compiles    compile(text, "exec") succeeds: what `codeop.compile_command(text, symbol="exec")` returning code means
    statements  simple statements that do something: not `pass`, not a constant such as a docstring or `...`
    violations  what pycodestyle reports, and one more for a text that cannot be a file of source at all

`compile_command` returns code, returns None for an incomplete program and raises for a wrong one; only the first is a yes
here, so that the differences between CPython 3.11, 3.12 and 3.13 in telling the other two apart do not matter. What a text
could do to the process is done to nobody: warnings are off (under `-W error` a SyntaxWarning is otherwise a SyntaxError),
and null bytes, lone surrogates, nesting beyond the parser's depth and numbers beyond its length are a plain no. How deep
is too deep (hundreds of levels) is up to CPython, to the version as to the depth of the call. The table of traps in the
tests holds on CPython 3.11.7 and, without its texts of over 10,000 characters, on 3.15.0 in WebAssembly, whose small stack
a chain of 100,000 attributes overflows.

Source: Korbak et al. 2021, arXiv 2106.04985, and Korbak et al. 2022, arXiv 2112.00791 (both constraints).
Changed from the papers: statements are counted, because the empty text compiles; `# noqa` does not excuse a line, or it
would be the cheapest way to please; a null byte is a violation on every Python (3.11's tokenizer lets it pass); a newline
is added only where a text does not end with one (CDPG adds one always).
"""

from __future__ import annotations

import ast
import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import pycodestyle

_EXCUSE = re.compile(r"(?<=# )no(?=(?:qa|pep8)\b)", re.IGNORECASE)
_SURROGATE = re.compile("[\ud800-\udfff]")
_FILTERS = threading.RLock()  # warning filters belong to the process: two threads must not restore each other's


@contextmanager
def silent() -> Iterator[None]:
    """No warnings from compiling somebody else's text; enter it once around a whole batch."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def parse(text: str) -> ast.Module | None:
    """The syntax tree, or None if there is none; `silent()` is the caller's."""
    try:
        return compile(text, "<text>", "exec", ast.PyCF_ONLY_AST, dont_inherit=True)  # type: ignore[return-value]
    except Exception:  # SyntaxError, ValueError, OverflowError, RecursionError, MemoryError: whatever it is, no tree
        return None


def is_program(prompt: str, completion: str, *, statements: int = 0) -> bool:
    """Whether CPython makes code of prompt + completion, and the completion brings so many statements.

    `silent()` is the caller's.
    """
    text = prompt + completion
    tree = parse(text)  # first, as the quicker no
    if tree is None or count_statements(tree, after=prompt) < statements:
        return False
    try:
        compile(text, "<text>", "exec", dont_inherit=True)  # dont_inherit: not this file's own `from __future__`
    except Exception:
        return False
    return True


def count_statements(tree: ast.Module, *, after: str = "") -> int:
    """Simple statements that do something, among those that end behind the first part `after` of the text.

    `def`, `if`, `for` and the like count by what stands in them; `pass` and bare constants (docstrings, `...`, numbers) do
    not count. A statement that `after` begins and the rest ends is counted.
    """
    lines = re.split("\r\n|\r|\n", after)
    end = (
        len(lines),
        len(lines[-1].encode("utf-8", "surrogatepass")),
    )  # as the tree counts: lines from 1, bytes from 0
    return sum(
        1
        for node in _statements(tree)
        if not hasattr(node, "body")
        and not isinstance(node, ast.Pass | ast.Match)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        and (node.end_lineno or 0, node.end_col_offset or 0) > end
    )


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """All statements at all levels, without walking into expressions; a stack, so that depth does not matter."""
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.stmt):
            yield node
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(node, name, None)
            if isinstance(inner, list):  # an expression's body (lambda, x if y else z) is no list
                waiting.extend(inner)


def ended(text: str) -> str:
    """`text` as a file: its last line ends. A generated program that ends its own lines gets no empty line more (W391)."""
    return text if text.endswith("\n") else text + "\n"


def pep8_violations(
    text: str, *, select: tuple[str, ...] = (), ignore: tuple[str, ...] = (), max_line_length: int = 79
) -> int:
    """How many violations pycodestyle finds in `text`, taken as a whole file (`ended` ends it with a newline).

    `select` and `ignore` are prefixes of codes ("E501", "W6"). Without `select` everything counts but pycodestyle's own
    default exceptions and `ignore`. A user's pycodestyle settings and `# noqa` have no say. One violation is added for what
    no tokenizer may see: null bytes, lone surrogates, a text on which pycodestyle itself fails. Violations are about
    style: `print "x"` has none, so ask for `compiles` as well.
    """
    options = options_of(select, ignore, max_line_length)
    report = pycodestyle.BaseReport(options)
    lines = io.StringIO(excused(text), newline=None).readlines()  # universal newlines and no others
    bad = unreadable(text)
    try:
        with silent():
            pycodestyle.Checker(lines=lines, options=options, report=report).check_all()
    except Exception:
        bad = True
    return int(report.file_errors) + bad


def pep8_codes(text: str, *, max_line_length: int = 79) -> dict[str, int]:
    """Code ("E225") -> how often pycodestyle reports it in `text`, taken as a whole file; as `pep8_violations` counts."""
    options = options_of((), (), max_line_length)
    report = pycodestyle.BaseReport(options)
    with silent(), suppress(Exception):
        pycodestyle.Checker(
            lines=io.StringIO(excused(text), newline=None).readlines(), options=options, report=report
        ).check_all()
    return {code: count for code, count in report.counters.items() if code in report.messages}


def excused(text: str) -> str:
    """`text` with every `# noqa` made a comment like any other, of the same length."""
    return _EXCUSE.sub("--", text)


def unreadable(text: str) -> bool:
    """Whether `text` holds what no tokenizer may see: null bytes, lone surrogates."""
    return "\0" in text or _SURROGATE.search(text) is not None


@lru_cache(maxsize=32)
def options_of(select: tuple[str, ...], ignore: tuple[str, ...], max_line_length: int) -> Any:
    """pycodestyle's settings, each given by name: what is not given it takes from the user's own configuration file."""
    default = tuple(pycodestyle.DEFAULT_IGNORE.split(","))
    guide = pycodestyle.StyleGuide(
        select=select,
        ignore=() if select else default + ignore,
        max_line_length=max_line_length,
        max_doc_length=None,
        indent_size=4,
        hang_closing=False,
        verbose=0,
        quiet=2,
        reporter=pycodestyle.BaseReport,
    )
    return guide.options
