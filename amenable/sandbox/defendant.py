"""The defendant: the process that runs the candidate program, and nothing else of the check.

It holds one socket, to the judge, who asks for operations ("call this with these arguments") and gets plain
data or handles back. Neither tests nor expected values ever enter this process, so nothing in here needs to
be protected from the program: whatever it forges, it forges without knowing what would be right.
"""

from __future__ import annotations

import builtins
import linecache
import operator
import os
import sys
import types
from collections import deque
from collections.abc import Callable, ItemsView, KeysView
from typing import Any

from amenable.sandbox import wire
from amenable.sandbox.codec import ABILITIES, CodecError, Decoder, Encoder

PROGRAM = "<program>"
_HANDLES_CAP = 200_000
_OPERATORS = (
    "getitem setitem delitem contains eq ne lt le gt ge neg pos invert index "
    "add sub mul truediv floordiv mod pow matmul and_ or_ xor lshift rshift"
).split()
_BASES: tuple[Any, ...] = (
    *(bool, int, float, complex, str, bytes, bytearray),
    *(tuple, list, dict, set, frozenset, deque),
)
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.items()))


def _same(value: Any) -> Any:
    return value


def _call(function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    return function(*arguments, **keywords)


def _enter(manager: Any) -> Any:
    return type(manager).__enter__(manager)


def _exit(manager: Any, kind: str | None, message: str) -> Any:
    error = None if kind is None else getattr(builtins, kind, Exception)(message)
    return bool(type(manager).__exit__(manager, type(error) if error else None, error, None))


OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": _call,
    "same": _same,
    "getattr": getattr,
    "setattr": setattr,
    "delattr": delattr,
    "isinstance": isinstance,
    "enter": _enter,
    "exit": _exit,
    **{f.__name__: f for f in (len, iter, next, bool, str, repr, float, int, complex, abs, round, dir)},
    **{name: getattr(operator, name) for name in _OPERATORS},
}


class Callback:
    """A function of the judge's that a test passed as an argument."""

    def __init__(self, room: Room, number: int) -> None:
        self._room, self._number = room, number

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._room.call_back(self._number, arguments, keywords)


class Room:
    """The live objects the judge holds handles to, and the loop that answers the judge."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}

    # --- crossing ---
    def _opaque(self, value: Any) -> Any:
        if type(value) is Callback:
            return ["cb", value._number]
        number = self._numbers.get(id(value))
        if number is None:
            if len(self._objects) >= _HANDLES_CAP:
                raise CodecError("too many objects that are not plain data")
            number = self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)
        plain: list[Any] = []
        base = _plain_base(value)
        if base is not None:
            plain = [Encoder(self._opaque).node(base)]
        return ["h", number, type(value).__name__[:80], plain, _abilities(type(value))]

    def _resolve(self, tag: str, node: list[Any]) -> Any:
        if tag == "h":
            return self._objects[node[1]]
        if tag == "cb":
            return Callback(self, node[1])
        if tag == "g":
            return getattr(sys.modules[node[1]], node[2])
        raise CodecError(f"unknown tag {tag!r}")

    # --- answering ---
    def announce(self, namespace: dict[str, Any]) -> None:
        """Tells the judge which names the program defined, the module that each comes from, and which are modules."""
        names = []
        for name, value in list(namespace.items()):
            if isinstance(name, str) and not (name.startswith("__") and name.endswith("__")):
                module = type(value) is types.ModuleType
                names.append([name[:200], _origin(value, module)[:200], module])
        self._objects.append(namespace)
        try:
            wire.send(self._descriptor, ["loaded", names])
        except wire.FrameTooLarge:
            self._send_error({"type": "ValueError", "message": f"the program defines {len(names)} names"})

    def serve(self) -> None:
        """Answers operations until the judge is gone."""
        while True:
            self._answer(wire.receive(self._descriptor, cap=wire.QUESTION_CAP))

    def _answer(self, message: Any) -> None:
        _, name, nodes = message
        decoder = Decoder(self._resolve)
        arguments = [decoder.value(node) for node in nodes]
        shared = decoder.objects
        before = Encoder(self._opaque, shared) if shared else None
        contents = [before.content(item) for item in shared] if before else []
        try:
            result = OPERATIONS[name](*arguments)
        except BaseException as error:
            self.reply_error(error)
            return
        finally:
            _flush()
        try:
            after = Encoder(self._opaque, shared)
            updates: list[Any] = []
            if before:
                again = Encoder(self._opaque, shared)
                changed = [i for i, item in enumerate(shared) if again.content(item) != contents[i]]
                updates = [[i, after.content(shared[i])] for i in changed]
            wire.send(self._descriptor, ["ok", updates, after.node(result)])
        except (CodecError, wire.FrameTooLarge, RecursionError) as error:
            self._send_error({"type": "ValueError", "message": f"the result cannot be handed over: {error}"[:300]})
        except MemoryError as error:
            self.reply_error(error)

    def call_back(self, number: int, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Asks the judge to call one of its functions; answers its questions meanwhile."""
        encoder = Encoder(self._opaque)
        wire.send(self._descriptor, ["cb", number, encoder.node(arguments), encoder.node(keywords)])
        while True:
            message = wire.receive(self._descriptor, cap=wire.QUESTION_CAP)
            if message[0] == "op":
                self._answer(message)
            elif message[0] == "ok":
                return Decoder(self._resolve).value(message[1])
            else:
                kind = getattr(builtins, message[1], Exception)
                raise kind(message[2])

    def reply_error(self, error: BaseException) -> None:
        """Reports an exception as text: type, its builtin base types, message, line of the program."""
        kinds = [kind.__name__ for kind in type(error).__mro__ if getattr(builtins, kind.__name__, None) is kind]
        line = _line_of(error)
        error.__traceback__ = None
        try:
            message = str(error)[:400]
        except BaseException:
            message = ""
        self._send_error(
            {
                "args": self._plain(error.args),
                "type": type(error).__name__[:80],
                "kinds": kinds,
                "message": message,
                "line": line,
                "source": linecache.getline(PROGRAM, line).strip()[:200] if line else "",
            }
        )

    def _plain(self, value: Any) -> Any:
        """The node of plain data that is short, else None."""
        try:
            node = Encoder(_refuse).node(value)
            return node if len(repr(node)) <= 2000 else None
        except Exception:
            return None

    def _send_error(self, description: dict[str, Any]) -> None:
        wire.send(self._descriptor, ["err", description])


def _refuse(value: Any) -> Any:
    raise CodecError("not plain data")


def _origin(value: Any, module: bool) -> str:
    try:
        return str(getattr(value, "__name__" if module else "__module__", "") or "")
    except BaseException:  # the program's own attribute access
        return ""


def _abilities(kind: type) -> int:
    """Which of `ABILITIES` a type has, as bits."""
    names = {
        name
        for base in kind.__mro__
        if base is not object
        for name, found in base.__dict__.items()
        if found is not None
    }
    return sum((f"__{name}__" in names) << i for i, name in enumerate(ABILITIES))


def _plain_base(value: Any) -> Any:
    """A subclass of a builtin as that builtin, a dict view as a set; None for the rest."""
    try:
        if isinstance(value, KeysView | ItemsView) and type(value) in _VIEWS:
            return set(value)
        for base in _BASES:
            if isinstance(value, base):
                return str.__getitem__(value, slice(None)) if base is str else base(value)
    except Exception:
        return None
    return None


def _line_of(error: BaseException) -> int | None:
    if isinstance(error, SyntaxError) and error.filename == PROGRAM:
        return error.lineno
    line, frame = None, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == PROGRAM:
            line = frame.tb_lineno
        frame = frame.tb_next
    return line


def _flush() -> None:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        return


def main(rpc: int, source: int) -> None:
    """Reads the program from `source`, runs it, then answers the judge on `rpc` until it hangs up."""
    program = wire.receive(source)
    os.close(source)
    room = Room(rpc)
    module = types.ModuleType("program")
    sys.modules["program"] = module
    linecache.cache[PROGRAM] = (len(program), None, program.splitlines(True), PROGRAM)
    try:
        exec(compile(program, PROGRAM, "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        _flush()
        room.reply_error(error)
        return
    _flush()
    room.announce(module.__dict__)
    room.serve()
