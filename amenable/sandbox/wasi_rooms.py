"""Rooms: instances of CPython in WebAssembly, each with a memory of its own and one door.

A room reaches the standard library, read-only, and the function `_host.call`: a frame put in there is handed on to
whoever stands at the other end, unread. Every room starts as a copy of one memory image, in which the modules that
a defendant and a judge need are already imported: making one takes milliseconds. The copy is whole because a room at rest
is its memory: nothing is on its stack, and its module's one other variable, the stack's place, is then where it was.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import wasmtime  # type: ignore[import-not-found, unused-ignore]

from amenable.sandbox import wire

STACK = 8 << 20
KILLED = 9  # as a wait status: ended by this signal
_OUTPUT_CAP = 64 << 10
_PAGE = 4096
_FAULT = -2  # _host.call raises OSError
_MASK = 0xFFFFFFFF
_ABORTED, _FAULTED = 6, 11
_MODULES = "wire codec handles session asserts judge defendant".split()


class Over(Exception):
    """The room may do no more."""


class Machine:
    """The compiled Python, and the memory image that rooms are copied from."""

    def __init__(self, folder: Path) -> None:
        self.library = str(folder / "lib")
        self.engine = wasmtime.Engine(config())
        self.module = wasmtime.Module.deserialize_file(self.engine, str(folder / "python.cwasm"))
        self.image: list[tuple[int, bytes]] = []
        self.size = 0

    def boot(self, sources: Path, preload: list[str]) -> str:
        """Makes the image. Returns Python's version, or without an image what went wrong."""
        texts = {name: (sources / f"{name}.py").read_text("utf-8") for name in _MODULES}
        guest = (sources / "wasi_guest.py").read_text("utf-8")
        said = Tail()
        room, fresh = Room(self, 4095, said), Room(self, 4095, None)
        room.run(f"exec({guest!r}, space := {{}}); space['boot']({texts!r}, {preload!r}); del space")
        if not room.status:
            room.run("import sys; print(sys.version.split()[0])")
            self.size, self.image = room.size(), _differences(room.contents(), fresh.contents())
        room.close()
        fresh.close()
        return said.text().strip()


class Tail:
    """The last 64 KiB of what a program printed."""

    def __init__(self) -> None:
        self._bytes, self._cut = bytearray(), False

    def write(self, data: bytes) -> None:
        self._bytes += data
        if len(self._bytes) > _OUTPUT_CAP:
            del self._bytes[: len(self._bytes) - _OUTPUT_CAP]
            self._cut = True

    def text(self) -> str:
        text = bytes(self._bytes).decode("utf-8", "replace")
        return f"[truncated: the last {_OUTPUT_CAP >> 10} KiB]\n{text}" if self._cut else text


class Room:
    """One instance, and the thread it runs on. `read` and `write` are what its door leads to, by channel."""

    def __init__(self, machine: Machine, memory_mb: int, output: Tail | None) -> None:
        self.read: dict[int, Callable[[], bytes]] = {}
        self.write: dict[int, Callable[[bytes], None]] = {}
        self.status: int | None = None  # as of a process that was waited for
        self.over = False  # it may do no more
        self._cpu, self._entered = 0.0, -1.0
        self._store = wasmtime.Store(machine.engine)
        self._store.set_limits(memory_size=memory_mb << 20)
        wasi = wasmtime.WasiConfig()
        wasi.argv, wasi.env = ["python"], [("PYTHONTZPATH", "")]
        wasi.preopen_dir(machine.library, "/usr/local/lib", False)
        if output is not None:
            wasi.stdout_custom = wasi.stderr_custom = output.write
        self._store.set_wasi(wasi)
        self._linker = wasmtime.Linker(machine.engine)
        self._linker.define_wasi()
        word = wasmtime.ValType.i32()
        self._linker.define_func("host", "call", wasmtime.FuncType([word] * 4, [word]), self._door, True)
        self._exports = self._linker.instantiate(self._store, machine.module).exports(self._store)
        self._memory = self._exports["memory"]
        missing = machine.size - self.size()
        if missing > 0:
            self._memory.grow(self._store, missing >> 16)
        start = ctypes.addressof(self._memory.data_ptr(self._store).contents)
        for offset, data in machine.image:
            ctypes.memmove(start + offset, data, len(data))
        self._thread: threading.Thread | None = None

    def size(self) -> int:
        return int(self._memory.data_len(self._store))

    def contents(self) -> bytes:
        return ctypes.string_at(self._memory.data_ptr(self._store), self.size())

    def close(self) -> None:
        self._store.close()
        self._linker.close()

    def start(self, source: str, then: Callable[[], None]) -> None:
        """Runs Python source on the room's thread; `then` is called when it has ended."""
        self._thread = threading.Thread(target=self._run, args=(source, then), daemon=True)
        self._thread.start()

    def run(self, source: str) -> None:
        """Runs Python source to its end."""
        self.start(source, lambda: None)
        self.ended(None)

    def ended(self, seconds: float | None) -> bool:
        """Waits that long at most."""
        assert self._thread is not None
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def used(self) -> float:
        """Seconds of CPU so far: exact at the door, between times this process's, which then does nothing else."""
        entered = self._entered
        return self._cpu + (time.process_time() - entered if entered >= 0 else 0.0)

    def _run(self, source: str, then: Callable[[], None]) -> None:
        begun = time.thread_time()
        self._cpu_begun, self._entered = begun, time.process_time()
        try:
            data = source.encode("utf-8", "surrogatepass")
            place = self._exports["host_alloc"](self._store, len(data)) & _MASK
            self._memory.write(self._store, data, place)
            self.status = (self._exports["turn"](self._store, place, len(data)) & 0xFF) << 8
        except wasmtime.ExitTrap as trap:
            self.status = (trap.code & 0xFF) << 8
        except wasmtime.Trap as trap:
            self.status = _ABORTED if trap.trap_code == wasmtime.TrapCode.UNREACHABLE else _FAULTED
        except BaseException:
            self.status = KILLED
        self._cpu, self._entered = time.thread_time() - begun, -1.0
        then()

    def _door(self, caller: Any, start: int, length: int, place: int, place_of_length: int) -> int:
        self._cpu, self._entered = time.thread_time() - self._cpu_begun, -1.0
        try:
            return self._exchange(caller, start & _MASK, length & _MASK, place & _MASK, place_of_length & _MASK)
        finally:
            self._entered = time.process_time()

    def _exchange(self, caller: Any, start: int, length: int, place: int, place_of_length: int) -> int:
        memory, answer = caller["memory"], b""
        size = memory.data_len(caller)
        if not length or max(start + length, place + 4, place_of_length + 4) > size:
            return _FAULT
        channel = memory.read(caller, start, start + 1)[0]
        if length == 1:
            if channel not in self.read:
                return _FAULT
            answer = self.read[channel]()
        elif channel not in self.write:
            return _FAULT
        elif length > wire.QUESTION_CAP + 5:
            self.write[channel](b"\xff" * 4)  # a length that the reader refuses
        else:
            self.write[channel](bytes(memory.read(caller, start + 1, start + length)))
        if self.over:
            raise Over  # a trap: it runs no further
        target = caller["host_alloc"](caller, len(answer)) & _MASK
        if not target or target + len(answer) > memory.data_len(caller):
            return _FAULT
        memory.write(caller, answer, target)
        memory.write(caller, target.to_bytes(4, "little"), place)
        memory.write(caller, len(answer).to_bytes(4, "little"), place_of_length)
        return 0


def config() -> Any:
    """How Python is compiled and run."""
    made = wasmtime.Config()
    room = getattr(wasmtime._ffi, "wasmtime_config_async_stack_size_set", None)
    if room is not None:  # wasmtime refuses a stack larger than this one, which has no public name
        room(made.ptr(), STACK)
        made.max_wasm_stack = STACK
    return made


def _differences(new: bytes, old: bytes) -> list[tuple[int, bytes]]:
    """The runs of pages in which `new` is not `old`; what `old` does not have is zero."""
    old = old.ljust(len(new), b"\0")
    runs: list[tuple[int, bytes]] = []
    begun: int | None = None
    for offset in range(0, len(new) + _PAGE, _PAGE):
        if new[offset : offset + _PAGE] != old[offset : offset + _PAGE]:
            begun = offset if begun is None else begun
        elif begun is not None:
            runs.append((begun, new[begun:offset]))
            begun = None
    return runs
