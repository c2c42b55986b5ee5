"""Plain data between two processes that do not trust each other: exact builtin types as tagged JSON.

    None, bool, int (under 2^62), float, str    themselves
    everything else                             [tag, content...], numpy's arrays of numbers included (`know_arrays`)

Mutable containers are numbered in the order in which they are met, on both sides alike, so that aliases,
cycles and changes made to an argument survive the crossing: ["r", 3] is "container 3 again". What is not
plain goes to the owner's `opaque` (out) and `resolve` (in) hooks. Types are matched exactly: a subclass is
never plain.
"""

from __future__ import annotations

import base64
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

DEPTH_CAP, QUESTION_DEPTH_CAP = 120, 250  # of answers; of questions, which hold answers
MUTABLE: dict[type, str] = {
    list: "l",
    dict: "d",
    set: "s",
    deque: "q",
    Counter: "C",
    OrderedDict: "O",
    defaultdict: "e",
    bytearray: "B",
}
_BLANK: dict[str, Callable[[], Any]] = {tag: kind for kind, tag in MUTABLE.items()}
_FACTORIES: dict[str, Any] = {kind.__name__: kind for kind in (int, float, str, list, dict, set, tuple, bool)}
_SMALL = 1 << 62
ARITHMETIC = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split()
ABILITIES = (  # the special methods that the judge's handle has if the program's object has them
    *"enter exit hash call iter next len bool float int complex abs round index neg pos invert".split(),
    *"contains getitem setitem delitem".split(),
    *"lt le gt ge".split(),
    *ARITHMETIC,
    *(f"r{name}" for name in ARITHMETIC),
)
_MOMENTS: dict[str, Any] = {"datetime": datetime, "time": time}
_NUMBERS = "biufc"  # the kinds of numpy dtype that cross: booleans, integers, floats, complex numbers
_numpy: Any = None


def know_arrays() -> None:
    """From here on numpy's arrays and scalars are plain data too, if numpy has been imported."""
    global _numpy
    _numpy = sys.modules.get("numpy")
    if _numpy is not None:
        MUTABLE[_numpy.ndarray] = "n"
        _BLANK["n"] = lambda: None


class CodecError(Exception):
    """A value that cannot cross, or a message that is not one of ours."""


class Encoder:
    """Turns values into JSON nodes.

    `objects` are the numbered mutable containers, `known` the first of them.
    """

    def __init__(self, opaque: Callable[[Any], Any], known: Sequence[Any] = (), depth: int = DEPTH_CAP) -> None:
        self.objects: list[Any] = list(known)
        self._depth = depth
        self._index = {id(item): i for i, item in enumerate(self.objects)}
        self._opaque = opaque

    def node(self, value: Any, depth: int = 0) -> Any:
        """The node for a value. Raises CodecError if it is too deep, or what `opaque` raises."""
        kind = type(value)
        if value is None or kind is bool or kind is str or kind is float:
            return value
        if kind is int:
            return value if -_SMALL < value < _SMALL else ["i", hex(value)]
        if depth > self._depth:
            raise CodecError(f"nested more than {self._depth} deep")
        if kind in MUTABLE and (not _is_array(kind) or value.dtype.kind in _NUMBERS):
            index = self._index.get(id(value))
            if index is not None:
                return ["r", index]
            self._index[id(value)] = len(self.objects)
            self.objects.append(value)
            return [MUTABLE[kind], self.content(value, depth)]
        return self._immutable(kind, value, depth)

    def _immutable(self, kind: type, value: Any, depth: int) -> Any:
        if kind is tuple:
            return ["t", [self.node(item, depth + 1) for item in value]]
        if kind is frozenset:
            return ["z", [self.node(item, depth + 1) for item in value]]
        if kind is bytes:
            return ["b", value.decode("latin-1")]
        if kind is complex:
            return ["c", value.real, value.imag]
        if kind is range or kind is slice:
            return [
                "R" if kind is range else "S",
                *(self.node(x, depth + 1) for x in (value.start, value.stop, value.step)),
            ]
        if kind is Decimal:
            return ["D", str(value)]
        if kind is Fraction:
            return ["F", self.node(value.numerator), self.node(value.denominator)]
        if value is Ellipsis or value is NotImplemented:
            return ["E", value is Ellipsis]
        if kind is date:
            return ["T", value.isoformat()]
        if kind is timedelta:
            return ["T", value.days, value.seconds, value.microseconds]
        if (kind is datetime or kind is time) and (value.tzinfo is None or type(value.tzinfo) is timezone):
            return ["T", kind.__name__, value.isoformat()]
        if _numpy is not None and issubclass(kind, _numpy.generic) and getattr(_numpy, kind.__name__, None) is kind:
            return ["N", _array_content(_numpy.asarray(value))]
        return self._opaque(value)

    def content(self, value: Any, depth: int = 0) -> Any:
        """What a mutable container holds, as a node without its tag."""
        kind, deeper = type(value), depth + 1
        if kind is bytearray:
            return value.decode("latin-1")
        if _is_array(kind):
            return _array_content(value)
        if kind is list or kind is set:
            return [self.node(item, deeper) for item in value]
        if kind is deque:
            return [[self.node(item, deeper) for item in value], value.maxlen]
        pairs = [[self.node(key, deeper), self.node(item, deeper)] for key, item in dict.items(value)]
        if kind is defaultdict:
            return [pairs, getattr(value.default_factory, "__name__", None)]
        return pairs


class Decoder:
    """Turns nodes into values. `known` are the containers that the other side numbered first."""

    def __init__(
        self, resolve: Callable[[str, list[Any]], Any], known: Sequence[Any] = (), depth: int = QUESTION_DEPTH_CAP
    ) -> None:
        self.objects: list[Any] = list(known)
        self._depth = depth + 2
        self._resolve = resolve

    def value(self, node: Any) -> Any:
        """The value of a node from an untrusted side. Raises CodecError for anything malformed."""
        try:
            return self._node(node)
        except (CodecError, MemoryError):
            raise
        except Exception as error:
            raise CodecError(f"malformed message: {type(error).__name__}: {str(error)[:80]}") from None

    def update(self, index: int, content: Any) -> None:
        """Replaces what container `index` holds, in place."""
        try:
            self._fill(self.objects[index], content)
        except (CodecError, MemoryError):
            raise
        except Exception as error:
            raise CodecError(f"malformed update: {type(error).__name__}: {str(error)[:80]}") from None

    def _node(self, node: Any, depth: int = 0) -> Any:
        if not isinstance(node, list):
            if isinstance(node, dict):
                raise CodecError("malformed message: a JSON object is no value")
            return node
        if depth > self._depth:
            raise CodecError(f"nested more than {self._depth - 2} deep")
        tag = node[0]
        if tag == "r":
            return self.objects[_natural(node[1])]
        blank = _BLANK.get(tag)
        if blank is not None:
            if tag == "n":
                self.objects.append(_array(node[1]))
                return self.objects[-1]
            value = blank() if tag != "q" else deque(maxlen=node[1][1])
            self.objects.append(value)
            self._fill(value, node[1], depth)
            return value
        return self._immutable(tag, node, depth)

    def _immutable(self, tag: str, node: list[Any], depth: int) -> Any:
        if tag == "t":
            return tuple([self._node(item, depth + 1) for item in node[1]])
        if tag == "z":
            return frozenset([self._node(item, depth + 1) for item in node[1]])
        if tag == "i":
            return int(node[1], 16)
        if tag == "b":
            return node[1].encode("latin-1")
        if tag == "c":
            return complex(float(node[1]), float(node[2]))
        if tag == "R" or tag == "S":
            parts = [self._node(part, depth + 1) for part in node[1:4]]
            return range(*parts) if tag == "R" else slice(*parts)
        if tag == "D":
            return Decimal(node[1])
        if tag == "F":
            return Fraction(self._node(node[1]), self._node(node[2]))
        if tag == "N" and _numpy is not None:
            return _array(node[1])[()]
        if tag == "T":
            return _moment(*node[1:])
        if tag == "E":
            return Ellipsis if node[1] else NotImplemented
        return self._resolve(tag, node)

    def _fill(self, target: Any, content: Any, depth: int = 0) -> None:
        kind = type(target)
        if kind is bytearray:
            target[:] = content.encode("latin-1")
        elif _is_array(kind):
            changed = _array(content)
            if changed.dtype != target.dtype or changed.shape != target.shape:
                raise CodecError("an array that changed its type or shape")
            target[...] = changed
        elif kind is list:
            target[:] = [self._node(item, depth + 1) for item in content]
        elif kind is set:
            items = [self._node(item, depth + 1) for item in content]
            target.clear()
            target.update(items)
        elif kind is deque:
            items = [self._node(item, depth + 1) for item in content[0]]
            target.clear()
            target.extend(items)
        elif kind in MUTABLE:
            if kind is defaultdict:
                content, factory = content
                if target.default_factory is None:
                    target.default_factory = _FACTORIES.get(factory)
            pairs = [(self._node(key, depth + 1), self._node(item, depth + 1)) for key, item in content]
            target.clear()
            for key, item in pairs:
                target[key] = item
        else:
            raise CodecError("only a container can be updated")


def _moment(*parts: Any) -> Any:
    if len(parts) == 3:
        return timedelta(*map(_whole, parts))
    return date.fromisoformat(parts[0]) if len(parts) == 1 else _MOMENTS[parts[0]].fromisoformat(parts[1])


def _whole(number: Any) -> int:
    if type(number) is not int:
        raise CodecError("malformed message: a part of a duration that is no integer")
    return number


def _is_array(kind: type) -> bool:
    """True for numpy's own array type, where numpy is known."""
    return _numpy is not None and kind is _numpy.ndarray


def _array_content(array: Any) -> list[Any]:
    return [array.dtype.str, list(array.shape), base64.b64encode(array.tobytes()).decode()]


def _array(content: Any) -> Any:
    kind, shape, data = content
    dtype = _numpy.dtype(kind)
    if dtype.kind not in _NUMBERS:
        raise CodecError("an array that is not plain data")
    shape = [_natural(extent) for extent in shape]
    return _numpy.ndarray(tuple(shape), dtype, base64.b64decode(data, validate=True)).copy()


def _natural(index: Any) -> int:
    if type(index) is not int or index < 0:
        raise CodecError("malformed message: a reference that is no index")
    return index
