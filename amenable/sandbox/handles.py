"""`Handle`: in the judge, a live object of the defendant's.

A handle never decides a verdict by its own operators. `==` with plain data compares plain data here, in the
judge; an object that claims to equal everything therefore equals nothing. Its ordering and arithmetic against
plain data are refused unless the statement is already labelled cooperative. Two handles are compared by the
program itself, and the label says so.

It has the special methods that the program's object has and no others, so that `callable`, `isinstance` and
`hasattr` say of it what they would say of the object.
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from amenable.sandbox.codec import ABILITIES, ARITHMETIC, MUTABLE

if TYPE_CHECKING:
    from amenable.sandbox.session import Session

_CHANGING = frozenset(
    """add append appendleft clear difference_update discard extend extendleft insert intersection_update pop popitem
    popleft remove reverse rotate setdefault sort symmetric_difference_update update""".split()
)


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

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__name__", "__doc__", "__dict__"):
            raise AttributeError(name)
        if self._amenable_plain and name not in _CHANGING and hasattr(type(self._amenable_plain[0]), name):
            return getattr(plain_of(self), name)
        return self._amenable_session.ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._amenable_session.ask("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._amenable_session.ask("delattr", self, name)

    def __repr__(self) -> str:
        return str(self._amenable_session.ask("repr", self))

    def __instancecheck__(self, instance: object) -> bool:
        if not is_handle(instance):
            return False
        self._amenable_session.cooperative = True
        return bool(self._amenable_session.ask("isinstance", instance, self))

    def __hash__(self) -> int:
        return hash(plain_of(self)) if self._amenable_plain else hash(("handle", self._amenable_number))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Handle) and not (self._amenable_plain and other._amenable_plain):
            if other._amenable_number == self._amenable_number:
                return True
            self._amenable_session.cooperative = True
            return bool(self._amenable_session.ask("eq", self, other))
        if isinstance(other, Handle):
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


def is_handle(value: object) -> bool:
    """True for a handle; asks nothing of the value itself."""
    return issubclass(type(value), Handle)


@lru_cache(maxsize=256)
def handle_type(abilities: int, kind: str) -> type[Handle]:
    """The type of handle for objects of a type called `kind` that have these `ABILITIES`, given as bits."""
    methods = {f"__{name}__": _METHODS[name] for i, name in enumerate(ABILITIES) if abilities >> i & 1}
    name = kind if kind.isidentifier() else "Handle"
    return type(name, (Handle,), {"__slots__": (), "__doc__": property(_doc), **methods})


def plain_of(value: Any) -> Any:
    """A handle's plain equal, asked for anew where it can change; anything else as it is.

    An object that is another at each look, though nobody has changed it, makes the verdict cooperative.
    """
    if not is_handle(value) or not value._amenable_plain:
        return value
    before = value._amenable_plain[0]
    if type(before) in MUTABLE and value._amenable_session.ask("same", value) is not None:
        value._amenable_session.cooperative |= not alike(before, value._amenable_plain[0])
    return value._amenable_plain[0]


def alike(before: object, after: object) -> bool:
    """True if two plain values are the same."""
    try:
        return type(before) is type(after) and bool(before == after)
    except ValueError:  # numpy's arrays have no single answer
        return repr(before) == repr(after)


def _call(self: Handle, *arguments: Any, **keywords: Any) -> Any:
    result = self._amenable_session.ask("call", self, arguments, keywords)
    self._amenable_session.results.append(result)
    return result


def _iterate(self: Handle) -> Iterator[Any]:
    if self._amenable_plain:
        return iter(plain_of(self))
    return _Remote(self._amenable_session, self._amenable_session.ask("iter", self))


def _doc(self: Handle) -> Any:
    return self._amenable_session.ask("getattr", self, "__doc__")


def _enter(self: Handle) -> Any:
    return self._amenable_session.ask("enter", self)


def _exit(self: Handle, kind: Any, error: Any, trace: Any) -> bool:
    return bool(self._amenable_session.ask("exit", self, kind and kind.__name__, str(error or "")))


def _hash(self: Handle) -> int:
    """The same for all objects of a kind that has a hash of its own, so that its `==` decides."""
    return hash(plain_of(self)) if self._amenable_plain else hash(self._amenable_kind)


def _contains(self: Any, item: object) -> bool:
    if isinstance(self, Iterable):
        return any(each is item or each == item for each in self)
    self._amenable_session.cooperative = True
    return bool(self._amenable_session.ask("contains", self, item))


def _unary(name: str) -> Callable[..., Any]:
    function = getattr(builtins, name, None)

    def method(self: Handle, *arguments: Any) -> Any:
        if self._amenable_plain and function is not None:
            return function(plain_of(self), *arguments)
        return self._amenable_session.ask(name, self, *arguments)

    return method


def _binary(name: str, swapped: bool = False) -> Callable[[Handle, Any], Any]:
    def method(self: Handle, other: Any) -> Any:
        session = self._amenable_session
        if self._amenable_plain or (is_handle(other) and other._amenable_plain):
            pair = [plain_of(part) for part in (self, other)]
        elif is_handle(other) or session.trusting:
            session.cooperative = True
            return session.ask(name, *((other, self) if swapped else (self, other)))
        else:
            return NotImplemented
        if any(map(is_handle, pair)):
            return NotImplemented
        return getattr(operator, name)(*(reversed(pair) if swapped else pair))

    return method


def _item(name: str) -> Callable[..., Any]:
    def method(self: Handle, *arguments: Any) -> Any:
        if self._amenable_plain and name == "getitem":
            return plain_of(self)[arguments[0]]
        return self._amenable_session.ask(name, self, *arguments)

    return method


_METHODS: dict[str, Callable[..., Any]] = {"call": _call, "iter": _iterate, "contains": _contains}
_METHODS |= {"enter": _enter, "exit": _exit, "hash": _hash}
_METHODS |= {name: _item(name) for name in ("getitem", "setitem", "delitem")}
_METHODS |= {name: _binary(name) for name in ("lt", "le", "gt", "ge")}
for _name in ARITHMETIC:
    _function = f"{_name}_" if _name in ("and", "or") else _name
    _METHODS |= {_name: _binary(_function), f"r{_name}": _binary(_function, swapped=True)}
_METHODS |= {name: _unary(name) for name in ABILITIES if name not in _METHODS}
Handle.__str__ = _unary("str")  # type: ignore[method-assign]
