"""What runs first inside an instance of WebAssembly, before its memory becomes the image: it is sent there as text.

Imports what programs are likely to want, builds `amenable.sandbox` from the sources it is given, and lays `wire` upon
the one function that leads outside: `_host.call(channel)` waits for a frame, `_host.call(channel + frame)` sends one.
"""

from __future__ import annotations

import gc
import importlib
import os
import random
import sys
import types
from collections.abc import Callable
from typing import Any

import _host

_WARM = """abc array ast bisect calendar cmath collections collections.abc contextlib copy dataclasses datetime decimal
enum fractions functools heapq itertools json linecache math numbers operator queue random re statistics string struct sys
textwrap time traceback types typing unicodedata""".split()
_kept: dict[int, bytes] = {}


class Door:
    """Stands in for `os` in `wire`: descriptors are channels."""

    @staticmethod
    def write(channel: int, data: bytes) -> int:
        _host.call(bytes((channel,)) + data)
        return len(data)

    @staticmethod
    def read(channel: int, size: int) -> bytes:
        data: bytes = _kept.pop(channel, b"") or _host.call(bytes((channel,)))
        _kept[channel] = data[size:]
        return data[:size]

    @staticmethod
    def close(channel: int) -> None:
        return None


class Known:
    """Hides the packages that come with this Python but were not asked for."""

    def __init__(self) -> None:
        self._names = set(sys.stdlib_module_names) | {name.partition(".")[0] for name in sys.modules}
        self._names.add("tzdata")

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Knows no module; says of some that there is none."""
        if name.partition(".")[0] not in self._names and not name.startswith("_"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def boot(sources: dict[str, str], preload: list[str]) -> None:
    """`sources` are the modules of `amenable.sandbox`, in the order in which they import each other."""
    for name in (*_WARM, *preload):
        importlib.import_module(name)
    sys.meta_path.insert(0, Known())
    outer, package = types.ModuleType("amenable"), types.ModuleType("amenable.sandbox")
    for module in (outer, package):
        sys.modules[module.__name__] = module
    here: Any = package
    for name, text in sources.items():
        module = types.ModuleType(f"amenable.sandbox.{name}")
        sys.modules[module.__name__] = module
        setattr(here, name, module)
        exec(compile(text, f"<{name}>", "exec", dont_inherit=True), module.__dict__)
    here.wire.os = here.defendant.os = Door
    here.judge.trust(preload)
    here.codec.know_arrays()
    here.enter = _enter
    os.environ.clear()
    gc.collect()
    gc.freeze()


def _enter(main: Callable[[int, int], None]) -> None:
    """A room's life: channel 3 leads to the other room, 4 outside."""
    random.seed(0)  # same program, same verdict
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    status = 0
    try:
        main(3, 4)
    except BaseException as error:
        if type(error).__name__ != "Closed":
            status = 1
            sys.stderr.write(f"{type(error).__name__}: {error}"[:200])
    os._exit(status)
