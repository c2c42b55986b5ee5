"""The judge's end of the conversation: `Session` asks the defendant, and trusts no answer.

Plain data comes back as data, anything else as a `Handle`. Exceptions of the program come back as the nearest
builtin exception. A conversation that breaks down raises `Ended`, which no test can swallow.
"""

from __future__ import annotations

import builtins
import sys
import types
from collections import deque
from contextlib import suppress
from typing import Any, NoReturn

from amenable.sandbox import wire
from amenable.sandbox.codec import DEPTH_CAP, MUTABLE, QUESTION_DEPTH_CAP, CodecError, Decoder, Encoder
from amenable.sandbox.handles import Handle, alike, handle_type, is_handle

_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
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
        self.told: list[set[str]] = []  # what calls were given, in order; see `pieces`
        self.changed = False  # the program has changed an argument, or called back
        self.object_answered = False  # a method of an object of the program's has been called
        self.over: BaseException | None = None  # why nothing more can be asked: a test may have swallowed it
        self._methods: set[int] = set()  # handles that are methods
        self._heard = False  # the program has handed over something of its own

    def _end(self, error: BaseException) -> NoReturn:
        self.over = error
        raise error from None

    def receive(self) -> Any:
        """The next frame from the defendant. Raises Ended."""
        try:
            message = wire.receive(self._descriptor)
        except wire.Closed:
            self._end(Ended("died", "the program's process ended"))
        except wire.ProtocolError as error:
            self._end(Ended("protocol", str(error)))
        if not isinstance(message, list) or len(message) < 2:
            self._end(Ended("protocol", "a frame that is not a message"))
        return message

    def namespace(self) -> Handle:
        """The program's global names: the defendant's object 0."""
        return handle_type(0, "dict")(self, 0, "dict", [])

    def ask(self, operation: str, *arguments: Any) -> Any:
        """Has the defendant do one operation.

        Raises what the program raised, with `amenable_report` on it.
        """
        encoder = Encoder(self._opaque, depth=QUESTION_DEPTH_CAP)
        try:
            nodes = [encoder.node(argument) for argument in arguments]
            wire.send(self._descriptor, ["op", operation, nodes], cap=wire.QUESTION_CAP)
        except (CodecError, wire.FrameTooLarge) as error:
            if self._heard:  # then it may be the program's own answer that is handed back to it
                self._end(Ended("protocol", str(error)))
            self._end(Unsendable(f"an argument in the test: {error}"))
        except Unsendable as error:
            self._end(error)
        except wire.Closed:
            self._end(Ended("died", "the program's process ended"))
        if operation in ("call", "setattr", "setitem"):
            self.told.append(pieces(arguments[1:]))
            self.object_answered |= number_of(arguments[0]) in self._methods
        answer = self._await(operation, encoder.objects)
        if operation == "getattr" and is_handle(answer):
            self._methods.add(number_of(answer))
        return answer

    def _await(self, operation: str, shared: list[Any]) -> Any:
        while True:
            message = self.receive()
            if message[0] == "cb":
                self._called_back(message)
            elif message[0] == "ok":
                answer = self._answer(message, shared)
                self._heard |= operation == "call" or not is_handle(answer)
                return answer
            elif message[0] == "err" and isinstance(message[1], dict):
                raise rebuilt(message[1], operation)
            else:
                self._end(Ended("protocol", "an unknown message"))

    def _answer(self, message: Any, shared: list[Any]) -> Any:
        decoder = Decoder(self._resolve, shared, DEPTH_CAP)
        try:
            for index, content in message[1]:
                self.changed = True
                decoder.update(index, content)
            return decoder.value(message[2])
        except (CodecError, TypeError, ValueError, IndexError, RecursionError) as error:
            self._end(Ended("protocol", str(error)[:200]))

    def _called_back(self, message: Any) -> None:
        self.changed = True
        try:
            decoder = Decoder(self._resolve, depth=DEPTH_CAP)
            arguments, keywords = decoder.value(message[2]), decoder.value(message[3])
            function = self._lent[_natural(message[1])]
        except (CodecError, TypeError, ValueError, IndexError) as error:
            self._end(Ended("protocol", str(error)[:200]))
        try:
            reply = ["ok", Encoder(self._opaque).node(function(*arguments, **keywords))]
            wire.send(self._descriptor, reply)
        except wire.Closed:
            self._end(Ended("died", "the program's process ended"))
        except (Exception, Unsendable) as error:  # also an answer that cannot cross
            try:
                wire.send(self._descriptor, ["err", type(error).__name__, str(error)[:400]])
            except wire.Closed:
                self._end(Ended("died", "the program's process ended"))

    def _opaque(self, value: Any) -> Any:
        if is_handle(value):
            return ["h", number_of(value)]
        if type(value) in _VIEWS:
            return Encoder(self._opaque).node(list(value))
        module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if module in _LENDABLE and name and getattr(sys.modules.get(module), name, None) is value:
            return ["g", module, name]
        if isinstance(value, types.FunctionType):
            self._lent.append(value)
            return ["cb", len(self._lent) - 1]
        raise Unsendable(f"a test hands the program a {type(value).__name__}, which is not plain data")

    def _resolve(self, tag: str, node: list[Any]) -> Any:
        if tag == "cb":
            return self._lent[_natural(node[1])]
        if tag != "h":
            raise CodecError("unknown tag")
        _, number, kind, plain, abilities = node
        if type(number) is not int or type(kind) is not str or type(abilities) is not int:
            raise CodecError("malformed handle")
        handle = self._handles.get(number)
        if handle is None or plain:
            data = [Decoder(self._resolve, depth=DEPTH_CAP).value(item) for item in plain[:1]]
            if handle is not None and type(data[0]) not in MUTABLE and not alike(handle._amenable_plain, data):
                raise CodecError("an object that cannot change has changed")
            if handle is None:
                handle = self._handles[number] = handle_type(abilities, kind[:80])(self, number, kind[:80], data)
            else:
                object.__setattr__(handle, "_amenable_plain", data)
        return handle


def _unknown(tag: str, node: list[Any]) -> Any:
    raise CodecError("not plain data")


def _natural(index: Any) -> int:
    if type(index) is not int or index < 0:
        raise CodecError("a number that is none of ours")
    return index


def number_of(value: Any) -> int:
    """The defendant's number for the object of a handle; -1 for anything else."""
    return object.__getattribute__(value, "_amenable_number") if is_handle(value) else -1


def pieces(value: Any, depth: int = 0) -> set[str]:
    """What of a value is not easily guessed, as text: long texts and numbers, and containers, whatever their order."""
    if depth > 20:
        return set()
    if isinstance(value, str | bytes):
        return {repr(value)[:1000]} if len(value) > 1 else set()
    if isinstance(value, int) and not isinstance(value, bool):
        return {f"{value:x}"[:1000]} if abs(value) > 999 else set()
    if isinstance(value, float):
        return {repr(value)} if value != value or abs(value) > 999 or value % 1 else set()
    if not isinstance(value, list | tuple | dict | set | frozenset | deque):
        return set()
    items = [*value, *(value.values() if isinstance(value, dict) else ())][:1000]
    found = {piece for item in items for piece in pieces(item, depth + 1)}
    return found | {str(sorted(map(_shown, items)))[:1000]} if len(items) > 1 else found


def _shown(value: Any) -> str:
    """A value as text, without asking a handle, and without decimal digits, of which a long integer has none."""
    if is_handle(value):
        return f"<{number_of(value)}>"
    if type(value) is int:
        return f"{value:x}"
    if isinstance(value, list | tuple | dict | set | frozenset | deque):
        return str(sorted(map(_shown, value)))[:1000]
    return repr(value)[:1000] if isinstance(value, str | bytes | float | bool | None) else type(value).__name__


def rebuilt(report: dict[str, Any], operation: str = "") -> Exception:
    """The program's exception as the nearest builtin Exception type, with its message and the report.

    A StopIteration that is not the answer to `next` is a RuntimeError: it would end the test's own loops.
    """
    kinds = report.get("kinds")
    names = [name for name in kinds if isinstance(name, str)] if isinstance(kinds, list) else []
    for name in names:
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            if issubclass(kind, StopIteration | StopAsyncIteration) and operation != "next":
                kind = RuntimeError
            break
    else:
        kind = Exception
    error: Exception = kind.__new__(kind)
    error.args = (str(report.get("message", ""))[:400],)
    with suppress(CodecError):
        given = Decoder(_unknown, depth=DEPTH_CAP).value(report.get("args"))
        error.args = given if isinstance(given, tuple) else error.args
    error.__dict__["amenable_report"] = report
    return error
