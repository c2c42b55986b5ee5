"""The judge: the process that runs the tests. The program is in another process; its names are handles here.

    events to the parent, one frame each:  ["start", i]   ["done", i, kind, failure]   ["end", cooperative]
    kind: "pass", "fail", "memory", "died", "protocol", or "unjudged" (the sandbox cannot carry out this test)

Tests see builtins, the standard modules below, and the program's names, in that order of trust: a program
cannot replace `abs`, `sorted`, `set` or `math` in the test of another function, because those mean the
judge's own. Only the entry point may have such a name.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import sys
import types
from collections.abc import Iterable
from typing import Any

from amenable.sandbox import wire
from amenable.sandbox.asserts import (
    Assertion,
    attribute_bases,
    call_under_test,
    leans_on_program,
    names_in,
    shared_arguments,
    take_apart,
)
from amenable.sandbox.handles import Handle
from amenable.sandbox.session import Ended, Session, Unsendable, rebuilt

TRUSTED_MODULES = set(
    """array bisect calendar cmath collections copy dataclasses datetime decimal enum fractions functools heapq itertools
    json math numbers operator random re statistics string sys textwrap typing""".split()
)
_REPR_CAP = 400
_BUILTINS = frozenset(dir(builtins))


def trust(modules: Iterable[str]) -> None:
    """Lets tests use these modules too, the judge's own: those that the sandbox was asked to preload."""
    TRUSTED_MODULES.update(modules)


def bounded(value: object) -> str:
    """repr, cut at 400 characters; never raises."""
    try:
        text = repr(value)
    except Ended:
        raise
    except BaseException as error:
        text = f"<{type(value).__name__}: no repr, {type(error).__name__}>"
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= _REPR_CAP else text[: _REPR_CAP - 1] + "…"


class Failed(Exception):
    """An assertion that did not hold, with what a person needs to see."""

    def __init__(self, call: str, got: str, expected: str) -> None:
        super().__init__()
        self.failure = {"call": call, "got": got, "expected": expected}


class Judge:
    """One check: `job` has "setup", "tests" and "entry_point"."""

    def __init__(self, job: dict[str, Any], session: Session) -> None:
        self._session = session
        self._setup: str = job["setup"]
        self._tests: list[str] = job["tests"]
        self._entry: str = job["entry_point"]
        self._program: frozenset[str] = frozenset()
        self._bound: dict[str, Any] = {}
        self._space: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}

    # --- names ---
    def prepare(self) -> None:
        """Waits for the program to load, gives the tests their names, runs the setup."""
        message = self._session.receive()
        if message[0] == "err" and isinstance(message[1], dict):
            raise rebuilt(message[1])
        if message[0] != "loaded" or not isinstance(message[1], list):
            raise Ended("protocol", "the first message is not the program's names")
        defined: dict[str, tuple[str, bool]] = {}
        for entry in message[1]:
            match entry:
                case [str(name), str(origin), bool(module)]:
                    defined[name] = origin, module
        self._bind(defined)
        if self._setup.strip():
            exec(compile(self._setup, "<setup>", "exec", dont_inherit=True), self._space)
            self._session.cooperative |= any(
                not (result is None or type(result) is Handle) for result in self._session.results
            )

    def _bind(self, defined: dict[str, tuple[str, bool]]) -> None:
        tree = ast.parse("\n".join([self._setup, *self._tests]))
        used, bases = names_in(tree), attribute_bases(tree)
        if not self._entry and not (used & set(defined)) - _BUILTINS:
            allowed = used & set(defined)  # the function under test is itself called like a builtin
        else:
            allowed = {self._entry}
        namespace = self._session.namespace()
        taken = set()
        for name in used:
            if name not in allowed:
                if name in _BUILTINS:
                    continue
                if name in TRUSTED_MODULES and name in bases:
                    self._space[name] = importlib.import_module(name)
                    continue
                origin, is_module = defined.get(name, ("", False))
                module = origin.removeprefix("_")
                if module in TRUSTED_MODULES and is_module and name in bases:  # import numpy as np
                    self._space[name] = importlib.import_module(module)
                    continue
                if module in TRUSTED_MODULES and hasattr(sys.modules.get(module), name):
                    self._space[name] = getattr(sys.modules[module], name)
                    continue
            if name in defined:
                self._space[name] = self._session.ask("getitem", namespace, name)
                taken.add(name)
        self._bound = {name: self._space[name] for name in taken}
        self._program = frozenset(taken)

    def _owned(self) -> frozenset[str]:
        """The names that now stand for something of the program's: its globals, and its live objects."""
        globals_ = {name for name, value in self._bound.items() if self._space.get(name) is value}
        return frozenset(globals_ | {name for name, value in self._space.items() if type(value) is Handle})

    # --- tests ---
    def run(self, source: str) -> None:
        """Runs one test. Raises Failed, or whatever the program raised."""
        self._session.results.clear()
        for statement in ast.parse(source).body:
            self._program = self._owned()
            self._session.trusting = False
            if isinstance(statement, ast.Assert):
                self._assert(statement.test)
            else:
                module = ast.Module(body=[statement], type_ignores=[])
                exec(compile(module, "<test>", "exec", dont_inherit=True), self._space)

    def _assert(self, condition: ast.expr) -> None:
        if isinstance(condition, ast.BoolOp) and isinstance(condition.op, ast.And):
            for part in condition.values:
                self._assert(part)
            return
        parts = take_apart(condition, self._program, self._entry)
        self._session.trusting = leans_on_program(condition, parts.subject, self._program)
        shared = (self._space.get(name) for name in shared_arguments(condition, parts.call))
        self._session.cooperative |= self._session.trusting or any(map(_changeable, shared))
        if parts.left is not None and parts.right is not None and parts.compare is not None:
            left = self._evaluate(parts.left)
            shown = bounded(left) if parts.swapped else ""
            got = "" if parts.swapped else bounded(left)
            right = self._evaluate(parts.right)
            if not parts.compare(left, right):
                got, expected = (bounded(right), shown) if parts.swapped else (got, bounded(right))
                raise self._failed(parts, got, expected)
            return
        if not self._evaluate(condition):
            raise self._failed(parts, "", parts.wanted)

    def _failed(self, parts: Assertion, got: str, expected: str) -> Failed:
        if parts.target is not None:
            if not any(isinstance(node, ast.Call) for node in ast.walk(parts.target)):
                expected = "close to " + bounded(self._evaluate(parts.target))
            got = ""
        if not got and self._session.results:
            got = bounded(self._session.results[-1])
        return Failed(_cut(ast.unparse(parts.call)) if parts.call else "", got, expected)

    def _evaluate(self, expression: ast.expr) -> Any:
        return eval(compile(ast.Expression(expression), "<test>", "eval", dont_inherit=True), self._space)

    def describe(self, source: str, error: BaseException) -> dict[str, Any]:
        """A failure as plain data."""
        failure: dict[str, Any] = {}
        if isinstance(error, Failed):
            return failure | error.failure
        try:
            statement = ast.parse(source).body[-1]
            call = call_under_test(statement, self._program, self._entry)
            if isinstance(statement, ast.Assert) and isinstance(statement.test, ast.Compare):
                right = statement.test.comparators[0]
                if not any(isinstance(node, ast.Call) for node in ast.walk(right)):
                    failure["expected"] = bounded(self._evaluate(right))
            failure["call"] = _cut(ast.unparse(call)) if call else ""
        except Exception:
            failure.setdefault("call", "")
        report = getattr(error, "amenable_report", {})
        line, line_source = report.get("line"), report.get("source")
        failure["error"] = _said(report.get("type") or type(error).__name__, report.get("message", str(error)))
        failure["line"] = line if type(line) is int else None
        failure["source"] = line_source[:200] if isinstance(line_source, str) else ""
        return failure


def _changeable(value: object) -> bool:
    """True for what a program could change through an argument."""
    return not (value is None or callable(value) or isinstance(value, str | bytes | int | float | types.ModuleType))


def _said(kind: object, message: object) -> str:
    return (f"{str(kind)[:80]}: {str(message)[:_REPR_CAP]}" if message else str(kind)[:80])[:_REPR_CAP]


def kind_of(error: BaseException) -> str:
    """Which kind of event an exception is."""
    if isinstance(error, Ended):
        return error.kind
    if isinstance(error, Unsendable):
        return "unjudged"
    if isinstance(error, MemoryError):
        return "memory"
    if str(getattr(error, "amenable_report", {}).get("message", "")).startswith("the result cannot be handed over"):
        return "protocol"
    return "fail"


def main(rpc: int, control: int) -> None:
    """Reads the job from `control`, holds the trial over `rpc`, writes events to `control`."""
    job = wire.receive(control)
    session = Session(rpc)
    judge = Judge(job, session)
    tests: list[str] = job["tests"]
    try:
        judge.prepare()
    except BaseException as error:
        kind = kind_of(error)
        for i in range(len(tests) if kind in ("fail", "memory") else 1):
            wire.send(control, ["done", i, kind, judge.describe(tests[0], error) if i == 0 else {}])
        wire.send(control, ["end", session.cooperative])
        return
    for i, source in enumerate(tests):
        wire.send(control, ["start", i])
        kind, failure = "pass", {}
        try:
            judge.run(source)
        except BaseException as error:
            kind, failure = kind_of(error), judge.describe(source, error)
        wire.send(control, ["done", i, kind, failure])
        if kind in ("died", "protocol") and _over(session):
            break
    wire.send(control, ["end", session.cooperative])


def _over(session: Session) -> bool:
    """True if the program's process can no longer be asked."""
    try:
        session.ask("same", None)
    except (Exception, Ended):
        return True
    return False
