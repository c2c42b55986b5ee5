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
    compared_with_itself,
    conditions_in,
    names_in,
    origins,
    own_names,
    reads,
    stored,
    take_apart,
)
from amenable.sandbox.session import Ended, Session, Unsendable, pieces, rebuilt

TRUSTED_MODULES = set(
    """array bisect calendar cmath collections copy dataclasses datetime decimal enum fractions functools heapq itertools
    json math numbers operator random re statistics string sys textwrap typing""".split()
)
_REPR_CAP = 400
_REFLECTION = frozenset({"eval", "exec", "globals", "locals", "vars", "compile"})  # what a test may hide a name in
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
        self._origins: dict[str, set[str]] = {}  # of the names in the tests, in the program's; see `asserts.origins`
        self._deferred: list[ast.expr] = []  # conditions within functions that the tests define
        self._setup_told: list[set[str]] = []
        self._late: set[str] = set()  # names given a value after the program had changed something
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
            self._setup_told = [*self._session.told]
            if self._session.changed:
                self._late |= stored(ast.parse(self._setup))

    def _bind(self, defined: dict[str, tuple[str, bool]]) -> None:
        tree = ast.parse("\n".join([self._setup, *self._tests]))
        used, bases = names_in(tree), attribute_bases(tree)
        allowed = {self._entry}
        if not self._entry and not (used & set(defined)) - _BUILTINS:
            allowed = used & set(defined)  # the function under test is itself called like a builtin
            self._session.cooperative |= len(allowed) > 1
        wanted = {name for name in used if name in allowed or name not in _BUILTINS}
        trusted = {name: found for name in wanted - allowed if (found := _trusted(name, defined, bases)) is not None}
        for source in self._tests:  # a test in which nothing of the program's were left would pass by itself
            names = names_in(ast.parse(source)) & wanted & set(defined)
            if names and names <= set(trusted):
                trusted = {name: value for name, value in trusted.items() if name not in names}
        self._space |= trusted
        namespace = self._session.namespace()
        taken = [name for name in sorted(wanted & set(defined)) if name not in trusted]
        for name in taken:
            self._space[name] = self._session.ask("getitem", namespace, name)
        self._origins = origins(tree, set(taken) - own_names(tree))
        self._session.cooperative |= compared_with_itself(tree, self._origins) or bool(used & _REFLECTION)

    # --- tests ---
    def run(self, source: str) -> None:
        """Runs one test. Raises Failed, or whatever the program raised."""
        session = self._session
        session.results.clear()
        session.told.clear()
        session.over = None
        for statement in ast.parse(source).body:
            if isinstance(statement, ast.Assert):
                self._assert(statement.test)
            else:
                self._execute(statement)
            if session.over is not None:  # and the test has swallowed it
                raise session.over

    def _execute(self, statement: ast.stmt) -> None:
        """A statement that is no assertion, but may hold some, or call what holds some."""
        own = conditions_in(statement)
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            self._deferred += own
        conditions = [(condition, self._apart(condition)) for condition in {*own, *self._deferred}]
        leaning = [self._leans(condition, parts) for condition, parts in conditions]
        self._session.trusting, self._session.object_answered = any(leaning), False
        module = ast.Module(body=[statement], type_ignores=[])
        exec(compile(module, "<test>", "exec", dont_inherit=True), self._space)
        for condition, parts in conditions:
            self._label(condition, parts, told=self._many(parts))
        if self._session.changed:
            self._late |= stored(statement)

    def _assert(self, condition: ast.expr) -> None:
        if isinstance(condition, ast.BoolOp) and isinstance(condition.op, ast.And):
            for part in condition.values:
                self._assert(part)
            return
        parts = self._apart(condition)
        self._session.trusting, self._session.object_answered = self._leans(condition, parts), False
        if parts.left is not None and parts.right is not None and parts.compare is not None:
            left = self._evaluate(parts.left)
            shown = bounded(left) if parts.swapped else ""
            got = "" if parts.swapped else bounded(left)
            right = self._evaluate(parts.right)
            self._label(condition, parts, told=self._was_told(left if parts.swapped else right))
            if not parts.compare(left, right):
                got, expected = (bounded(right), shown) if parts.swapped else (got, bounded(right))
                raise self._failed(parts, got, expected)
            return
        value = self._evaluate(condition)
        self._label(condition, parts, told=self._many(parts))
        if not value:
            raise self._failed(parts, "", parts.wanted)

    # --- who decides ---
    def _apart(self, condition: ast.expr) -> Assertion:
        return take_apart(condition, self._origins, self._entry)

    def _flow(self, names: Iterable[str]) -> set[str]:
        """The program's names that have a part in these."""
        return {origin for name in names for origin in self._origins.get(name, ())}

    def _leans(self, condition: ast.expr, parts: Assertion) -> bool:
        """True if what is expected comes from the program as well."""
        leans = bool(self._flow(reads(condition, parts.subject)))
        self._session.cooperative |= leans
        return leans

    def _label(self, condition: ast.expr, parts: Assertion, told: bool) -> None:
        """After an assertion: could the program have decided it? `told`: it may have been told what is expected."""
        session = self._session
        if session.changed and any(map(self._movable, reads(condition, parts.subject))):
            session.cooperative = True
        if told:
            session.cooperative = True
        if session.object_answered and (parts.compare is None or _says_little(parts)):
            session.cooperative = True

    def _many(self, parts: Assertion) -> bool:
        """True if several of the program's functions have a part in what is under test."""
        return len(self._flow(reads(parts.subject))) > 1

    def _movable(self, name: str) -> bool:
        """True if a name may stand for something that the program has changed, or that was made of it since."""
        if name not in self._space:
            return name not in _BUILTINS  # a name within a function
        value = self._space[name]
        if name in self._late or isinstance(value, types.FunctionType) or type(value) is type:
            return value not in vars(builtins).values() if type(value) is type else True
        return not (value is None or callable(value) or isinstance(value, str | bytes | int | float | types.ModuleType))

    def _was_told(self, expected: object) -> bool:
        """True if an earlier call in this test, or in the setup, was given what is now expected, or some of it."""
        wanted = pieces(expected)
        return any(wanted & given for given in [*self._setup_told, *self._session.told[:-1]])

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
            call = call_under_test(statement, self._origins, self._entry)
            if isinstance(statement, ast.Assert) and isinstance(statement.test, ast.Compare):
                right = statement.test.comparators[0]
                if not self._flow(names_in(right)) and not any(isinstance(node, ast.Call) for node in ast.walk(right)):
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


def _trusted(name: str, defined: dict[str, tuple[str, bool]], bases: set[str]) -> Any:
    """What the judge itself has under a name that the tests use: a module, or something from one. None if nothing."""
    if name in TRUSTED_MODULES and name in bases:
        return importlib.import_module(name)
    origin, is_module = defined.get(name, ("", False))
    module = sys.modules.get(origin.removeprefix("_")) if origin.removeprefix("_") in TRUSTED_MODULES else None
    if is_module and name in bases:  # import numpy as np
        return module
    return getattr(module, name, None) if module is not None else None


def _says_little(parts: Assertion) -> bool:
    """True if what is expected is one of the few values that any object would answer with."""
    expected = parts.left if parts.swapped else parts.right
    return isinstance(expected, ast.Constant) and expected.value in (None, True, False, 0, 1)


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
        kind = kind_of(session.over or error)
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
            kind, failure = kind_of(session.over or error), judge.describe(source, error)
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
