"""Reading test statements: which call is under test, what is expected of it, and who would decide.

A test is Python source with `assert` statements. Every assertion is taken apart so that a failure can say
what was got and what was expected, and so that one can see whether the expected value itself comes from the
program (`assert f(1) == Pair(1, 2)`): then the program could deceive its test, and the verdict is labelled
cooperative.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection
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


def call_under_test(tree: ast.AST, program: Collection[str], entry_point: str) -> ast.Call | None:
    """The outermost call of the entry point, or else of any name of the program, in reading order."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    for wanted in ({entry_point}, program):
        for node in calls:  # ast.walk goes breadth first: outer before inner
            if isinstance(node.func, ast.Name) and node.func.id in wanted:
                return node
    return None


def leans_on_program(tree: ast.AST, subject: ast.expr, program: Collection[str]) -> bool:
    """True if the condition uses the program anywhere outside the part of it that is under test."""
    inside = {id(node) for node in ast.walk(subject)}
    return any(isinstance(node, ast.Name) and node.id in program and id(node) not in inside for node in ast.walk(tree))


def shared_arguments(tree: ast.AST, call: ast.Call | None) -> set[str]:
    """Names handed to the call that are read again outside it: the program may have changed them."""
    if call is None:
        return set()
    inside = {id(node) for node in ast.walk(call)}
    handed = {name for part in (*call.args, *call.keywords) for name in names_in(part)}
    return {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id in handed and id(node) not in inside
    }


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
