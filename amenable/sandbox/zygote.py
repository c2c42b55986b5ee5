"""The zygote: a warm, clean interpreter that forks a defendant and a judge for every check, and buries both.

Started by `worker` as a fresh process with only the standard library. It never sees a program or a test:
those come over descriptors that it hands on unread, so that nothing about one check is in the memory from
which the next is forked.

    parent -> zygote   one byte with two descriptors (judge's, defendant's), then a frame {"timeout",
    "memory_mb"} zygote -> parent   first {"ready", layers...}; then a frame a check: how both processes ended
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import platform
import random
import resource
import select
import shutil
import signal
import socket
import sys
import time
from dataclasses import asdict
from typing import Any

from amenable.sandbox import confine, defendant, judge, landlock, wire
from amenable.sandbox.confine import Layers

_OUTPUT_CAP = 64 << 10
_WARM = (
    *(
        "abc",
        "array",
        "ast",
        "bisect",
        "calendar",
        "cmath",
        "collections",
        "collections.abc",
        "contextlib",
        "copy",
    ),
    *(
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "fractions",
        "functools",
        "heapq",
        "itertools",
        "json",
        "math",
    ),
    *(
        "numbers",
        "operator",
        "queue",
        "random",
        "re",
        "statistics",
        "string",
        "struct",
        "textwrap",
        "threading",
    ),
    *("time", "traceback", "types", "typing", "unicodedata", "sys"),
)
_UNCONFINED = 77  # exit status of a child that could not be confined


class Zygote:
    """`control` is the socket to the parent; `base` the folder that scratch folders are made in."""

    def __init__(self, control: socket.socket, base: str) -> None:
        self._control, self._base = control, base
        self._first = os.getpid() == 1
        self._tmpfs = self._first and confine.mount_scratch(base)
        self._layers: Layers = confine.probe(self._first, self._tmpfs)
        self._read = landlock.readable()
        self._count = 0

    def serve(self) -> None:
        """Checks until the parent hangs up."""
        about = asdict(self._layers) | {
            "isolation": self._layers.names(),
            "python": platform.python_version(),
        }
        wire.send(self._control.fileno(), {"ready": about})
        while True:
            data, descriptors, _, _ = socket.recv_fds(self._control, 1, 2)
            if not data:
                return
            order = wire.receive(self._control.fileno())
            report = self._check(descriptors[0], descriptors[1], order)
            wire.send(self._control.fileno(), report)

    def _check(self, judge_end: int, program_end: int, order: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        scratch = os.path.join(self._base, f"{self._count}")
        os.mkdir(scratch, 0o700)
        left, right = socket.socketpair()
        alive, alive_writer = os.pipe()
        output, output_writer = os.pipe()
        started = time.monotonic()
        seconds, memory = float(order["timeout"]), int(order["memory_mb"])
        defending = self._fork([right.fileno(), program_end], output_writer, scratch, seconds, memory)
        judging = self._fork([left.fileno(), judge_end, alive_writer], None, None, seconds, max(memory, 1024))
        for end in (judge_end, program_end, alive_writer, output_writer):
            os.close(end)
        left.close()
        right.close()
        tail, cut, timed_out = self._watch(alive, output, started + seconds)
        elapsed = time.monotonic() - started
        statuses = self._bury(defending, judging)
        more, _ = _drain(output, tail)
        os.close(alive)
        os.close(output)
        self._clean(scratch)
        text = bytes(tail).decode("utf-8", "replace")
        return {
            "defendant": statuses.get(defending),
            "judge": statuses.get(judging),
            "unconfined": _UNCONFINED,
            "timed_out": timed_out,
            "output": f"[truncated: the last {_OUTPUT_CAP >> 10} KiB]\n{text}" if cut or more else text,
            "seconds": elapsed,
        }

    def _fork(
        self, keep: list[int], output: int | None, scratch: str | None, seconds: float, memory: int
    ) -> int:
        child = os.fork()
        if child:
            return child
        status = _UNCONFINED
        try:
            os.setsid()
            devnull = os.open("/dev/null", os.O_RDWR)
            for target, source in enumerate((devnull, *(output or devnull,) * 2)):
                os.dup2(source, target)
            kept = [os.dup2(end, 100 + i, inheritable=False) for i, end in enumerate(keep)]
            kept = [os.dup2(end, 3 + i, inheritable=False) for i, end in enumerate(kept)]
            os.closerange(3 + len(kept), 256)
            if scratch is not None:
                os.chdir(scratch)
            confine.limit(memory, seconds)
            confine.restrict(self._layers, self._read, scratch)
            random.seed(0)  # after the fork, which seeds it anew: same program, same verdict
            status = 1
            (judge.main if scratch is None else defendant.main)(kept[0], kept[1])
            status = 0
        except wire.Closed:
            status = 0
        except BaseException as error:
            with contextlib.suppress(BaseException):
                os.write(2, f"{type(error).__name__}: {error}"[:200].encode())
        finally:
            os._exit(status)

    def _watch(self, alive: int, output: int, deadline: float) -> tuple[bytearray, bool, bool]:
        """Collects output until the judge ends, the deadline passes, or the parent is gone."""
        os.set_blocking(output, False)
        poller = select.poll()
        for end in (alive, output, self._control.fileno()):
            poller.register(end, select.POLLIN | select.POLLHUP)
        tail, cut = bytearray(), False
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return tail, cut, True
            ready = dict(poller.poll(left * 1000 + 1))
            if output in ready:
                more, ended = _drain(output, tail)
                cut |= more
                if ended:
                    poller.unregister(output)
            if alive in ready or self._control.fileno() in ready:
                return tail, cut, False

    def _bury(self, *children: int) -> dict[int, int]:
        for child in children:
            for kill in (os.kill, os.killpg):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    kill(child, signal.SIGKILL)
        statuses: dict[int, int] = {}
        for child in children:
            statuses[child] = os.waitpid(child, 0)[1]
        if self._first:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)  # everything else in this process-id namespace
            with contextlib.suppress(ChildProcessError):
                while True:
                    os.waitpid(-1, 0)
        elif not self._layers.seccomp:
            _bury_orphans()
        return statuses

    def _clean(self, scratch: str) -> None:
        try:
            os.rmdir(scratch)
        except OSError:
            if self._tmpfs:
                confine.unmount(self._base)
                self._tmpfs = confine.mount_scratch(self._base)
            else:
                shutil.rmtree(scratch, ignore_errors=True)


def _bury_orphans() -> None:
    """Without namespaces and seccomp a program can leave processes behind: they are our children now."""
    for _ in range(100):
        try:
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                children = [int(word) for word in file.read().split()]
        except OSError:
            return
        if not children:
            return
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _drain(output: int, tail: bytearray) -> tuple[bool, bool]:
    """Reads what is there, at most 1 MiB a turn, keeps the tail. Returns (something was cut, end of file)."""
    cut = False
    for _ in range(16):
        try:
            part = os.read(output, 1 << 16)
        except BlockingIOError:
            return cut, False
        if not part:
            return cut, True
        tail += part
        if len(tail) > _OUTPUT_CAP:
            del tail[: len(tail) - _OUTPUT_CAP]
            cut = True
    return cut, False


def _warm_up() -> None:
    for name in _WARM:
        importlib.import_module(name)
    "".encode("idna")
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        raw = io.FileIO(descriptor, "w", closefd=False)
        stream = io.TextIOWrapper(
            io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    gc.collect()
    gc.freeze()


def main(descriptor: int, base: str) -> None:
    """The process's whole life. Enters the namespaces first: the zygote proper is then their process 1."""
    os.environ.clear()
    sys.argv[:] = [""]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    control = socket.socket(fileno=descriptor)
    if confine.enter_namespaces():
        child = os.fork()
        if child:
            control.close()
            os.waitpid(child, 0)
            confine.unmount(base)
            with contextlib.suppress(OSError):
                os.rmdir(base)
            os._exit(0)
        confine.die_with_parent()
    else:
        confine.adopt_orphans()
    _warm_up()
    with contextlib.suppress(wire.Closed, ConnectionError):
        Zygote(control, base).serve()
    os._exit(0)
