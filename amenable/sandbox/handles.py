"""The judge's end of the conversation: `Session` asks for operations, a `Handle` is a live object there.

A handle never decides a verdict by its own operators. `==` with plain data compares plain data here, in the
judge; an object that claims to equal everything therefore equals nothing. Its ordering and arithmetic against
plain data are refused unless the statement is already labelled cooperative. Two handles are compared by the
program itself, and the label says so.
"""

from __future__ import annotations

import builtins
import operator
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from amenable.sandbox import wire
from amenable.sandbox.codec import MUTABLE, CodecError, Decoder, Encoder

_LENDABLE = frozenset({"builtins", "math", "operator", "cmath", "string", "re", "statistics"})


class Ended(BaseException):
    """The conversation is over: `kind` is "died" or "protocol". Not an Exception: no test may swallow it."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class Unsendable(BaseException):
    """A test hands the program something that cannot cross: the sandbox's fault, not the program's."""


class Session:
    """One conversation with a defendant, over `descriptor`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._handles: dict[int, Handle] = {}
        self._lent: list[Any] = []
        self.cooperative = False  # the program decided a comparison
        self.trusting = False  # the present statement asks the program for its expected value
        self.results: list[Any] = []  # what calls gave, in order, for the failure's "got"

    def receive(self) -> Any:
        """The next frame from the defendant. Raises Ended."""
        try:
            message = wire.receive(self._descriptor)
        except wire.Closed:
            raise Ended("died", "the program's process ended") from None
        except wire.ProtocolError as error:
            raise Ended("protocol", str(error)) from None
        if not isinstance(message, list) or len(message) < 2:
            raise Ended("protocol", "a frame that is not a message")
        return message

    def namespace(self) -> Handle:
        """The program's global names: the defendant's object 0."""
        return Handle(self, 0, "dict", [])

    def ask(self, operation: str, *arguments: Any) -> Any:
        """Has the defendant do one operation.

        Raises what the program raised, with `amenable_report` on it.
        """
        encoder = Encoder(self._opaque)
        try:
            nodes = [encoder.node(argument) for argument in arguments]
            wire.send(self._descriptor, ["op", operation, nodes])
        except (CodecError, wire.FrameTooLarge) as error:
            raise Unsendable(f"an argument in the test: {error}") from None
        except wire.Closed:
            raise Ended("died", "the program's process ended") from None
        while True:
            message = self.receive()
            if message[0] == "cb":
                self._called_back(message)
            elif message[0] == "ok":
                return self._answer(message, encoder.objects)
            elif message[0] == "err" and isinstance(message[1], dict):
                raise rebuilt(message[1])
            else:
                raise Ended("protocol", "an unknown message")

    def _answer(self, message: Any, shared: list[Any]) -> Any:
        decoder = Decoder(self._resolve, shared)
        try:
            for index, content in message[1]:
                decoder.update(index, content)
            return decoder.value(message[2])
        except (CodecError, TypeError, ValueError, IndexError, RecursionError) as error:
            raise Ended("protocol", str(error)[:200]) from None

    def _called_back(self, message: Any) -> None:
        try:
            decoder = Decoder(self._resolve)
            arguments, keywords = decoder.value(message[2]), decoder.value(message[3])
            function = self._lent[message[1]]
        except (CodecError, TypeError, ValueError, IndexError) as error:
            raise Ended("protocol", str(error)[:200]) from None
        try:
            reply = ["ok", Encoder(self._opaque).node(function(*arguments, **keywords))]
        except Exception as error:
            reply = ["err", type(error).__name__, str(error)[:400]]
        wire.send(self._descriptor, reply)

    def _opaque(self, value: Any) -> Any:
        if type(value) is Handle:
            return ["h", object.__getattribute__(value, "_amenable_number")]
        module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if module in _LENDABLE and name and getattr(sys.modules.get(module), name, None) is value:
            return ["g", module, name]
        if isinstance(value, types.FunctionType):
            self._lent.append(value)
            return ["cb", len(self._lent) - 1]
        raise Unsendable(f"a test hands the program a {type(value).__name__}, which is not plain data")

    def _resolve(self, tag: str, node: list[Any]) -> Any:
        if tag == "cb":
            return self._lent[node[1]]
        if tag != "h":
            raise CodecError("unknown tag")
        _, number, kind, plain = node
        if type(number) is not int or type(kind) is not str:
            raise CodecError("malformed handle")
        handle = self._handles.get(number)
        if handle is None or plain:
            data = [Decoder(self._resolve).value(item) for item in plain[:1]]
            if handle is None:
                handle = self._handles[number] = Handle(self, number, kind, data)
            else:
                object.__setattr__(handle, "_amenable_plain", data)
        return handle


def rebuilt(report: dict[str, Any]) -> Exception:
    """The program's exception as the nearest builtin Exception type, with its message and the report."""
    kinds = report.get("kinds")
    names = [name for name in kinds if isinstance(name, str)] if isinstance(kinds, list) else []
    for name in names:
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            break
    else:
        kind = Exception
    error: Exception = kind.__new__(kind)
    error.args = (str(report.get("message", ""))[:400],)
    error.__dict__["amenable_report"] = report
    return error


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
        for name, value in zip(
            ("session", "number", "kind", "plain"), (session, number, kind, plain), strict=True
        ):
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
