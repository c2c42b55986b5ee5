"""`Handle`: in the judge, a live object of the defendant's.

A handle never decides a verdict by its own operators. `==` with plain data compares plain data here, in the
judge; an object that claims to equal everything therefore equals nothing. Its ordering and arithmetic against
plain data are refused unless the statement is already labelled cooperative. Two handles are compared by the
program itself, and the label says so.
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from amenable.sandbox.codec import MUTABLE

if TYPE_CHECKING:
    from amenable.sandbox.session import Session


class Handle:
    """A live object in the defendant.

    `_amenable_plain` holds its plain equal, if it has one (a namedtuple's tuple).
    """

    __slots__ = ("_amenable_kind", "_amenable_number", "_amenable_plain", "_amenable_session")
    _amenable_session: Session
    _amenable_number: int
    _amenable_kind: str
    _amenable_plain: list[Any]

    def __init__(self, session: Session, number: int, kind: str, plain: list[Any]) -> None:
        for name, value in zip(("session", "number", "kind", "plain"), (session, number, kind, plain), strict=True):
            object.__setattr__(self, f"_amenable_{name}", value)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        result = self._amenable_session.ask("call", self, arguments, keywords)
        self._amenable_session.results.append(result)
        return result

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__name__", "__doc__", "__dict__"):
            raise AttributeError(name)
        return self._amenable_session.ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._amenable_session.ask("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._amenable_session.ask("delattr", self, name)

    def __repr__(self) -> str:
        return repr(plain_of(self)) if self._amenable_plain else f"<{self._amenable_kind} object>"

    def __instancecheck__(self, instance: object) -> bool:
        if type(instance) is not Handle:
            return False
        self._amenable_session.cooperative = True
        return bool(self._amenable_session.ask("isinstance", instance, self))

    def __iter__(self) -> Iterator[Any]:
        if self._amenable_plain:
            return iter(plain_of(self))
        return _Remote(self._amenable_session, self._amenable_session.ask("iter", self))

    def __contains__(self, item: object) -> bool:
        return any(each is item or each == item for each in self)

    def __hash__(self) -> int:
        return hash(plain_of(self)) if self._amenable_plain else hash(("handle", self._amenable_number))

    def __eq__(self, other: object) -> bool:
        if type(other) is Handle and not (self._amenable_plain and other._amenable_plain):
            if other._amenable_number == self._amenable_number:
                return True
            self._amenable_session.cooperative = True
            return bool(self._amenable_session.ask("eq", self, other))
        if type(other) is Handle:
            other = plain_of(other)
        return bool(self._amenable_plain) and bool(plain_of(self) == other)

    def __ne__(self, other: object) -> bool:
        return not self == other


class _Remote:
    """Iterates over a handle to an iterator, one item a question, so that endless generators work."""

    def __init__(self, session: Session, iterator: Any) -> None:
        self._session, self._iterator = session, iterator

    def __iter__(self) -> _Remote:
        return self

    def __next__(self) -> Any:
        return self._session.ask("next", self._iterator)


def plain_of(value: Any) -> Any:
    """A handle's plain equal, asked for anew where it can change; anything else as it is."""
    if type(value) is not Handle or not value._amenable_plain:
        return value
    if type(value._amenable_plain[0]) in MUTABLE:
        value._amenable_session.ask("same", value)
    return value._amenable_plain[0]


def _unary(name: str) -> Callable[[Handle], Any]:
    function = getattr(builtins, name, None)

    def method(self: Handle, *arguments: Any) -> Any:
        if self._amenable_plain and function is not None:
            return function(plain_of(self), *arguments)
        return self._amenable_session.ask(name, self, *arguments)

    return method


def _binary(name: str, swapped: bool) -> Callable[[Handle, Any], Any]:
    def method(self: Handle, other: Any) -> Any:
        session = self._amenable_session
        if self._amenable_plain or (type(other) is Handle and other._amenable_plain):
            pair = [plain_of(part) for part in (self, other)]
        elif type(other) is Handle or session.trusting:
            session.cooperative = True
            return session.ask(name, *((other, self) if swapped else (self, other)))
        else:
            return NotImplemented
        if any(type(part) is Handle for part in pair):
            return NotImplemented
        return getattr(operator, name)(*(reversed(pair) if swapped else pair))

    return method


def _item(name: str) -> Callable[..., Any]:
    def method(self: Handle, *arguments: Any) -> Any:
        if self._amenable_plain and name == "getitem":
            return plain_of(self)[arguments[0]]
        return self._amenable_session.ask(name, self, *arguments)

    return method


_UNARY = (
    "len",
    "bool",
    "str",
    "float",
    "int",
    "complex",
    "abs",
    "round",
    "next",
    "index",
    "neg",
    "pos",
    "invert",
)
_ORDERINGS = ("lt", "le", "gt", "ge")
_ARITHMETIC = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"),
    *("and_", "or_", "xor", "lshift", "rshift"),
)


def _equip() -> None:
    for name in _UNARY:
        setattr(Handle, f"__{name}__", _unary(name))
    for name in _ORDERINGS:
        setattr(Handle, f"__{name}__", _binary(name, swapped=False))
    for name in _ARITHMETIC:
        setattr(Handle, f"__{name.rstrip('_')}__", _binary(name, swapped=False))
        setattr(Handle, f"__r{name.rstrip('_')}__", _binary(name, swapped=True))
    for name in ("getitem", "setitem", "delitem"):
        setattr(Handle, f"__{name}__", _item(name))


_equip()
