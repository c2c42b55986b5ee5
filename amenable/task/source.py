"""Python source as text: where a function's header ends, what is called, what stands above.

It works on programs that models and people wrote, so what follows a header need not be valid Python. Nothing
is run.
"""

from __future__ import annotations

import ast
import builtins
import io
import re
import tokenize
import warnings
from collections.abc import Collection, Iterator


def unix_newlines(text: str) -> str:
    """`text` with CRLF and lone CR as LF."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def split_at_header(source: str, name: str) -> tuple[str, str, str] | None:
    """(code above, `def name(...):`, what follows) at the first unindented `def name`; None if there is none.

    The three parts joined are `source`, which need not be valid Python after the header.
    """
    found = re.search(rf"^(async[ \t]+)?def[ \t]+{re.escape(name)}\b", source, re.MULTILINE)
    if found is None:
        return None
    depth = 0
    lines = source[found.start() :].splitlines(keepends=True)
    try:
        for token in tokenize.generate_tokens(io.StringIO("".join(lines), newline="").readline):
            if token.type != tokenize.OP:
                continue
            depth += (token.string in "([{") - (token.string in ")]}")
            if token.string == ":" and depth == 0:
                row, column = token.end
                end = found.start() + sum(len(line) for line in lines[: row - 1]) + column
                return source[: found.start()], source[found.start() : end], source[end:]
    except (tokenize.TokenError, SyntaxError):
        pass
    return None


def body_of(rest: str) -> str:
    """What follows a header's colon, as whole lines: `def f(x): return x` has the body `    return x`."""
    first, newline, others = rest.partition("\n")
    if not first.strip() or first.lstrip().startswith("#"):
        return others
    return f"    {first.strip()}{newline}{others}"


def entry_point_of(tests: Collection[str], *, defined: Collection[str] = (), setup: str = "") -> str | None:
    """The function under test: the first name that `tests` call and that is in `defined` (by a solution).

    Without a solution: the first that is neither a builtin nor made by `setup`. None if there is none.
    """
    called = [name for test in tests for name in _called_names(test)]
    if defined:
        return next((name for name in called if name in defined), None)
    taken = set(_bound_names(setup)) | set(dir(builtins))
    return next((name for name in called if name not in taken), None)


def functions_of(source: str) -> list[str]:
    """The names of the functions that `source` defines unindented, in order; [] if it is not valid Python."""
    try:
        body = parse(source).body
    except (SyntaxError, ValueError):
        return []
    return [node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def is_assertion(test: str) -> bool:
    """True if `test` is exactly one assert statement."""
    try:
        body = parse(test).body
    except (SyntaxError, ValueError):
        return False
    return len(body) == 1 and isinstance(body[0], ast.Assert)


def is_valid(source: str) -> bool:
    """True if `source` is a Python program, as far as can be said without running it."""
    try:
        parse(source)
    except (SyntaxError, ValueError):
        return False
    return True


def parse(source: str) -> ast.Module:
    """`ast.parse` without the warnings that other people's backslashes cause."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def same_parameters(header: str, other: str) -> bool:
    """True if two headers `def name(...):` take the same parameters, annotations and spacing aside."""
    return header == other or _parameters(header) == _parameters(other)


def statements_of(source: str) -> list[str]:
    """The statements of `source` in one spelling, without docstrings or comments; its lines if not Python."""
    try:
        body = parse(source).body
    except (SyntaxError, ValueError):
        return [line.strip() for line in source.splitlines() if line.strip()]
    return [ast.unparse(node) for node in body if not _is_docstring(node)]


def split_imports(source: str) -> tuple[str, str]:
    """(the unindented imports of `source`, its other statements), as written, each on lines of its own."""
    imports, others = "", ""
    for node in parse(source).body:
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
        piece = "\n".join(source.split("\n")[first - 1 : node.end_lineno]) + "\n"
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports += piece
        else:
            others += piece
    return imports, others


def _parameters(header: str) -> str:
    try:
        node = parse(f"{header} pass").body[0]
    except (SyntaxError, ValueError):
        return re.sub(r"\s+", "", header.partition("(")[2])
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return header
    for parameter in ast.walk(node.args):
        if isinstance(parameter, ast.arg):
            parameter.annotation = None
    return f"{type(node).__name__}({ast.unparse(node.args)})"


def _called_names(test: str) -> Iterator[str]:
    try:
        tree = parse(test)
    except (SyntaxError, ValueError):
        return
    called = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    names = [node for node in called if isinstance(node, ast.Name)]
    yield from (node.id for node in sorted(names, key=lambda node: (node.lineno, node.col_offset)))


def _bound_names(setup: str) -> Iterator[str]:
    try:
        body = parse(setup).body
    except (SyntaxError, ValueError):
        return
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _is_docstring(node: ast.stmt) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
