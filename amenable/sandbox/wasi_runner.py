"""The process in which `wasi.WasiProvider` runs programs: two rooms for every check, and a line between them.

    provider -> here   {"limits"...}, the program, then the trial unless it is solo
    here -> provider   first {"ready": about} or {"failed": why}; a check: {"event": text}..., {"report": ...}

Nothing that the rooms say is read here, only handed on and counted. An instance that computes or sleeps cannot be
stopped; the report then says "spent", and the process ends itself.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import wasmtime  # type: ignore[import-not-found, unused-ignore]

from amenable.sandbox import wire
from amenable.sandbox.wasi_rooms import KILLED, STACK, Machine, Room, Tail, config

_EVENT_CAP = 64 << 10
_WAITING = 8  # frames under way in one direction
_JUDGE_MB = 1024
_ENTER = "import sys as _s; _s = _s.modules['amenable.sandbox']; _s.enter(_s.{}.main)"


class Line:
    """Frames on their way from one room to another; `put` waits while too many are."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._open = True

    def put(self, frame: bytes) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._frames) < _WAITING or not self._open)
            if self._open:
                self._frames.append(frame)
                self._changed.notify_all()

    def get(self) -> bytes:
        """The next frame; b"" at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or not self._open)
            frame = self._frames.popleft() if self._frames else b""
            self._changed.notify_all()
            return frame

    def close(self) -> None:
        with self._changed:
            self._open = False
            self._changed.notify_all()


def _once(frame: bytes) -> Callable[[], bytes]:
    frames = [frame]
    return lambda: frames.pop() if frames else b""


class Check:
    """One check; its rooms are made beforehand, for the memory limit that the next order is likely to have."""

    def __init__(self, machine: Machine, memory_mb: int) -> None:
        self.memory_mb, self.tail = memory_mb, Tail()
        self._defendant = Room(machine, memory_mb, self.tail)
        self._judge = Room(machine, max(memory_mb, _JUDGE_MB), None)
        self._started = time.monotonic()

    def run(self, order: dict[str, Any], program: bytes, trial: bytes | None) -> dict[str, Any]:
        """The report, after the events have been sent on."""
        self._started = time.monotonic()
        left, right, events = Line(), Line(), Line()
        defendant, judge = self._defendant, self._judge
        relay = threading.Thread(target=_relay, args=(events, int(order["most"])), daemon=True)
        relay.start()
        defendant.read[4] = _once(program)
        if trial is None:
            defendant.read[3], defendant.write[3] = lambda: b"", events.put
            last = defendant
        else:
            defendant.read[3], defendant.write[3] = right.get, left.put
            judge.read[3], judge.write[3] = left.get, right.put
            judge.read[4], judge.write[4] = _once(trial), events.put
            judge.start(_ENTER.format("judge"), lambda: None)
            last = judge
        defendant.start(_ENTER.format("defendant"), left.close)
        stopped = self._watch(last, float(order["seconds"]), float(order["cpu_seconds"]))
        elapsed = time.monotonic() - self._started
        defendant.over = not stopped
        for line in (left, right, events):
            line.close()
        relay.join(1.0)
        spent = bool(stopped) or not defendant.ended(0.05)
        return {
            "defendant": KILLED if defendant.status is None else defendant.status,
            "judge": None if trial is None else KILLED if judge.status is None else judge.status,
            "cpu_seconds": defendant.used(),
            "confined": True,
            "stopped": stopped,
            "output": self.tail.text(),
            "seconds": elapsed,
            "spent": spent or relay.is_alive(),
        }

    def _watch(self, last: Room, seconds: float, cpu_seconds: float) -> str:
        """Until `last` has ended: "". Else what was used up: wall or cpu."""
        while True:
            left = self._started + seconds - time.monotonic()
            cpu_left = cpu_seconds - self._defendant.used()
            if left <= 0 or cpu_left <= 0:
                return "wall" if left <= 0 else "cpu"
            if last.ended(min(left, max(cpu_left, 0.005))):
                return ""

    def close(self) -> None:
        self._defendant.close()
        self._judge.close()


def _relay(events: Line, most: int) -> None:
    for _ in range(most):
        frame = events.get()
        if not frame or len(frame) > _EVENT_CAP + 4:
            break
        wire.send(1, {"event": frame[4:].decode("utf-8", "replace")})
    events.close()


def compile_to(wasm: str, target: str) -> None:
    """Compiles Python for this machine: a minute or two, once."""
    module = wasmtime.Module.from_file(wasmtime.Engine(config()), wasm)
    Path(target).write_bytes(module.serialize())


def main(folder: str, sources: str, preload: list[str], memory_mb: int) -> None:
    """The process's whole life."""
    threading.stack_size(STACK + (4 << 20))
    try:
        machine = Machine(Path(folder))
        said = machine.boot(Path(sources), preload)
    except wasmtime.WasmtimeError as error:
        wire.send(1, {"failed": str(error)[:400]})
        return
    if not machine.image:
        wire.send(1, {"failed": said[-400:]})
        return
    wire.send(1, {"ready": {"python": said, "preload": preload, "wasmtime": version("wasmtime")}})
    check = Check(machine, memory_mb)
    while True:
        try:
            order = wire.receive(0)
            program = wire.pack(wire.receive(0))
            trial = None if order["solo"] else wire.pack(wire.receive(0))
        except wire.Closed:
            os._exit(0)
        if check.memory_mb != order["memory_mb"]:
            check.close()
            check = Check(machine, int(order["memory_mb"]))
        report = check.run(order, program, trial)
        wire.send(1, {"report": report})
        if report["spent"]:
            os._exit(0)
        check.close()
        check = Check(machine, int(order["memory_mb"]))
