"""Reading test statements: which call is under test, what is expected of it, and who would decide.

A test is Python source with `assert` statements. Every assertion is taken apart so that a failure can say
what was got and what was expected, and so that one can see whether the expected value itself comes from the
program (`assert f(1) == Pair(1, 2)`): then the program could deceive its test, and the verdict is labelled
cooperative.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}
_CLOSE = ("isclose", "allclose", "approx", "is_close", "assertAlmostEqual")


def names_in(tree: ast.AST) -> set[str]:
    """Every name that the tree reads."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def attribute_bases(tree: ast.AST) -> set[str]:
    """Names used as in `math.isclose`: the thing before the dot."""
    return {
        node.value.id for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }


def conditions_in(tree: ast.AST) -> list[ast.expr]:
    """Everything in a statement that decides about the program: asserts, `if ...: raise`, and calls of unittest's kind."""
    found: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) or (isinstance(node, ast.If | ast.While) and _raises(node)):
            found.append(node.test)
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("assert")
        ):
            found += [ast.Compare(node.args[0], [ast.Eq()], [node.args[1]])] if len(node.args) > 1 else node.args
    return found


def _raises(tree: ast.AST) -> bool:
    return any(isinstance(node, ast.Raise) for node in ast.walk(tree))


def stored(tree: ast.AST) -> set[str]:
    """The names that a tree gives a value to, also to a part of it: `a`, `a.b`, `a[0]`."""
    targets = (node for node in ast.walk(tree) if isinstance(getattr(node, "ctx", None), ast.Store))
    return {_root(node) for node in targets if isinstance(node, ast.Name | ast.Attribute | ast.Subscript)}


def _own(tree: ast.AST) -> set[str]:
    """Names that the tree gives to its own use: what comprehensions and lambdas bind."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.comprehension):
            found |= stored(node.target)
        elif isinstance(node, ast.Lambda):
            found |= {argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)}
    return found


def reads(tree: ast.AST, subject: ast.AST | None = None) -> set[str]:
    """The names that a tree reads from outside itself, those within `subject` left out."""
    inside = {id(node) for node in ast.walk(subject)} if subject else set()
    loaded = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))
    return {node.id for node in loaded if id(node) not in inside} - _own(tree)


def own_names(tree: ast.AST) -> set[str]:
    """Names that the tests set before they read them: theirs, although the program may have one called so."""
    found: dict[str, bool] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            found |= dict.fromkeys(stored(node) & reads(node.value), False)
        elif isinstance(node, ast.AugAssign):
            found |= dict.fromkeys(stored(node), False)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    for node in sorted(names, key=lambda node: (node.lineno, node.col_offset)):
        found.setdefault(node.id, isinstance(node.ctx, ast.Store))
    return {name for name, own in found.items() if own}


def origins(tree: ast.AST, program: Collection[str]) -> dict[str, set[str]]:
    """For each name in the tests: the program's names that have, or may have, a part in its value.

    A name that the tests give away themselves in a comprehension is not the program's, whatever the program defines.
    """
    found = {name: {name} for name in program}
    functions: dict[str, ast.FunctionDef | ast.Lambda] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            functions[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
            functions |= dict.fromkeys(stored(node), node.value)
    edges: list[tuple[set[str], ast.AST]] = []  # (names that get, what they get it from)
    for node in ast.walk(tree):
        match node:
            case ast.Assign():
                edges.append((stored(node), node.value))
            case ast.AnnAssign() | ast.AugAssign() | ast.NamedExpr() if node.value is not None:
                edges.append((stored(node.target), node.value))
            case ast.For():
                edges.append((stored(node.target), node.iter))
            case ast.withitem() if node.optional_vars is not None:
                edges.append((stored(node.optional_vars), node.context_expr))
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                edges.append(({name}, node))
            case ast.Expr(value=ast.Call(func=ast.Attribute()) as call):  # a.append(f(x))
                edges += [({_root(call.func)}, argument) for argument in call.args]
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in functions:
                taken = {argument.arg for argument in ast.walk(functions[name].args) if isinstance(argument, ast.arg)}
                edges += [(taken, given) for given in (*node.args, *(keyword.value for keyword in node.keywords))]
    for _ in edges:
        before = sum(map(len, found.values()))
        for names, value in edges:
            flow = set().union(*(found.get(name, ()) for name in reads(value)))
            for name in names if flow else ():
                found.setdefault(name, set()).update(flow)
        if sum(map(len, found.values())) == before:
            break
    return found


def compared_with_itself(tree: ast.AST, found: Mapping[str, Collection[str]]) -> bool:
    """True if a function of the tests' compares something of the program's with something of the program's."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.Lambda)]
    compared = (node for function in functions for node in ast.walk(function) if isinstance(node, ast.Compare))
    return any(
        sum(any(found.get(name) for name in reads(side)) for side in (node.left, *node.comparators)) > 1
        for node in compared
    )


def _root(expression: ast.expr) -> str:
    """The name with which `a.b(c)[d].e` begins."""
    while not isinstance(expression, ast.Name):
        inner = getattr(expression, "func", getattr(expression, "value", None))
        if not isinstance(inner, ast.expr):
            return ""
        expression = inner
    return expression.id


def call_under_test(tree: ast.AST, program: Collection[str], entry_point: str) -> ast.Call | None:
    """The outermost call of the entry point, or else of anything of the program's, in reading order."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for wanted in ({entry_point}, program):
        for node in calls:  # ast.walk goes breadth first: outer before inner
            if _root(node.func) in wanted:
                return node
    return None


@dataclass(frozen=True)
class Assertion:
    """One assertion taken apart.

    `left`/`right` where it is a plain comparison; `target` where it is "close to".
    """

    condition: ast.expr
    call: ast.Call | None
    left: ast.expr | None = None
    right: ast.expr | None = None
    compare: Callable[[Any, Any], Any] | None = None
    swapped: bool = False  # the call under test stands on the right
    target: ast.expr | None = None
    wanted: str = "a true value"

    @property
    def subject(self) -> ast.expr:
        """What is under test: the call, or else the side on which the program stands, or else all of it."""
        side = self.right if self.swapped else self.left
        return self.call or side or self.condition


def take_apart(condition: ast.expr, program: Collection[str], entry_point: str) -> Assertion:
    """The parts of one asserted condition."""
    call = call_under_test(condition, program, entry_point)
    if isinstance(condition, ast.Compare) and len(condition.ops) == 1:
        left, right = condition.left, condition.comparators[0]
        compare = COMPARISONS[type(condition.ops[0])]
        target = _difference(left) if isinstance(condition.ops[0], ast.Lt | ast.LtE) else None
        swapped = bool(names_in(right) & set(program)) and not names_in(left) & set(program)
        return Assertion(condition, call, left, right, compare, swapped, target)
    if isinstance(condition, ast.UnaryOp) and isinstance(condition.op, ast.Not):
        return Assertion(condition, call, wanted="a false value")
    if isinstance(condition, ast.Call) and len(condition.args) >= 2:
        name = condition.func.attr if isinstance(condition.func, ast.Attribute) else getattr(condition.func, "id", "")
        if name in _CLOSE and call is not None and call is not condition:
            first = any(node is call for node in ast.walk(condition.args[0]))
            return Assertion(condition, call, target=condition.args[1 if first else 0])
    return Assertion(condition, call)


def _difference(left: ast.expr) -> ast.expr | None:
    """y in `abs(f(x) - y) < eps`."""
    if isinstance(left, ast.Call) and len(left.args) == 1:
        inner = left.args[0]
        if isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Sub):
            calls = any(isinstance(node, ast.Call) for node in ast.walk(inner.right))
            return inner.left if calls else inner.right
    return None
