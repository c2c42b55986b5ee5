"""The judge's end of the conversation: `Session` asks the defendant, and trusts no answer.

Plain data comes back as data, anything else as a `Handle`. Exceptions of the program come back as the nearest
builtin exception. A conversation that breaks down raises `Ended`, which no test can swallow.
"""

from __future__ import annotations

import builtins
import sys
import types
from typing import Any

from amenable.sandbox import wire
from amenable.sandbox.codec import CodecError, Decoder, Encoder
from amenable.sandbox.handles import Handle

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
