"""The zygote: a warm, clean interpreter that forks a defendant and a judge for every check, and buries both.

Started by `worker` as a fresh process with only the standard library. It never sees a program or a test:
those come over descriptors that it hands on unread, and so does what a program prints, so that nothing about one
check is in the memory from which the next is forked.

    parent -> zygote   one byte with three descriptors (judge's, defendant's, output), then a frame: `Limits` and "solo"
    zygote -> parent   first {"ready": layers...}; then a frame a check: how both processes ended

A *solo* program has no judge: it runs to its end, and says itself, on the judge's socket, how it went.
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
import signal
import socket
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

from amenable.sandbox import codec, confine, defendant, judge, landlock, wire
from amenable.sandbox.confine import Layers

_TURN = 0.025  # seconds between two looks at what a program without namespaces holds
_MOST_THREADS, _MOST_FILES, _MOST_BYTES = 64, 512, 16 << 20
_WARM = """abc array ast bisect calendar cmath collections collections.abc contextlib copy dataclasses datetime decimal
enum fractions functools heapq itertools json math numbers operator queue random re statistics string struct sys textwrap
threading time traceback types typing unicodedata""".split()


class Zygote:
    """`control` is the socket to the parent; `scratch` the only folder that programs may write to."""

    def __init__(self, control: socket.socket, scratch: str, layers: Layers, read: list[str]) -> None:
        self._control, self._scratch, self._layers, self._read = control, scratch, layers, read
        self._first = os.getpid() == 1
        self._rules = dict.fromkeys(("defendant", "judge"), -1)
        if layers.landlock:
            self._rules["judge"] = landlock.rules(read, None)
        self._allow_scratch()

    def _allow_scratch(self) -> None:
        if self._layers.landlock:
            if self._rules["defendant"] >= 0:
                os.close(self._rules["defendant"])
            self._rules["defendant"] = landlock.rules(self._read, self._scratch)

    def serve(self) -> None:
        """Checks until the parent hangs up."""
        while True:
            data, descriptors, _, _ = socket.recv_fds(self._control, 1, 3)
            if not data:
                return
            order = wire.receive(self._control.fileno())
            report = self._check(order, *descriptors)
            wire.send(self._control.fileno(), report)

    def _check(self, order: dict[str, Any], judge_end: int, program_end: int, output: int) -> dict[str, Any]:
        alive, alive_writer = os.pipe()
        ready, ready_writer = os.pipe()
        started = time.monotonic()
        cpu, memory = float(order["cpu_seconds"]), int(order["memory_mb"])
        children = {}
        if order["solo"]:
            kept = [judge_end, program_end, alive_writer]
            children["defendant"] = self._fork("defendant", kept, ready_writer, output, cpu, memory)
        else:
            left, right = socket.socketpair()
            kept = [right.fileno(), program_end]
            children["defendant"] = self._fork("defendant", kept, ready_writer, output, cpu, memory)
            kept = [left.fileno(), judge_end, alive_writer]
            children["judge"] = self._fork("judge", kept, ready_writer, None, max(cpu, 1.0), max(memory, 1024))
            left.close()
            right.close()
        for end in (judge_end, program_end, output, alive_writer, ready_writer):
            os.close(end)
        scratch = "" if self._first else self._scratch
        watch = Watch(children["defendant"], started + float(order["seconds"]), cpu, scratch)
        stopped = watch.run(alive, self._control.fileno())
        elapsed = time.monotonic() - started
        endings = self._bury(children)
        confined = len(os.read(ready, 2)) == len(children)
        os.close(alive)
        os.close(ready)
        self._clean()
        return {
            "defendant": endings["defendant"][0],
            "judge": endings["judge"][0] if "judge" in endings else None,
            "cpu_seconds": endings["defendant"][1],
            "confined": confined,
            "stopped": stopped,
            "seconds": elapsed,
        }

    def _fork(self, role: str, keep: list[int], ready: int, output: int | None, cpu_seconds: float, memory: int) -> int:
        """A confined child that has `keep` as 3, 4, ...; it writes a byte to `ready` before it reads what to run."""
        child = os.fork()
        if child:
            return child
        status = 1
        try:
            os.setsid()
            devnull = os.open("/dev/null", os.O_RDWR)
            for target, source in enumerate((devnull, *(output or devnull,) * 2)):
                os.dup2(source, target)
            kept = [os.dup2(end, 100 + i, inheritable=False) for i, end in enumerate([*keep, ready])]
            kept = [os.dup2(end, 3 + i, inheritable=False) for i, end in enumerate(kept)]
            if role == "defendant":
                os.chdir(self._scratch)
            if self._layers.rlimits:
                confine.limit(memory, cpu_seconds)
            confine.restrict(self._layers, self._rules[role])
            os.write(kept[-1], b".")
            os.closerange(kept[-1], 256)
            random.seed(0)  # after the fork, which seeds it anew: same program, same verdict
            (judge.main if role == "judge" else defendant.main)(kept[0], kept[1])
            status = 0
        except wire.Closed:
            status = 0
        except BaseException as error:
            with contextlib.suppress(BaseException):
                os.write(2, f"{type(error).__name__}: {error}"[:200].encode())
        finally:
            os._exit(status)

    def _bury(self, children: dict[str, int]) -> dict[str, tuple[int, float]]:
        """Ends what is left; how each ended, and the seconds of CPU it took."""
        for child in reversed(children.values()):  # the judge first: the other's end is not for it to see
            for kill in (os.kill, os.killpg):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    kill(child, signal.SIGKILL)
        endings = {}
        for name, child in children.items():
            _, status, usage = os.wait4(child, 0)
            endings[name] = (status, usage.ru_utime + usage.ru_stime)
        if self._first:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)  # everything else in this process-id namespace
            with contextlib.suppress(ChildProcessError):
                while True:
                    os.waitpid(-1, 0)
        elif not self._layers.seccomp:
            _bury_orphans()
        return endings

    def _clean(self) -> None:
        if not os.listdir(self._scratch):
            return
        if self._layers.tmpfs:
            confine.unmount(self._scratch)
            if confine.mount_scratch(self._scratch):
                self._allow_scratch()  # it is another folder now
                return
        empty(self._scratch)


class Watch:
    """Looks after one program until its check is over, and ends what uses more than it may.

    `deadline` is wall clock, only the backstop; what counts is `cpu_seconds` of computing by all its threads. Without
    namespaces there is no limit of the kernel's on threads and files that concerns one program only: then they are
    counted here, the files in `scratch`, every 25 ms.
    """

    def __init__(self, process: int, deadline: float, cpu_seconds: float, scratch: str) -> None:
        self._process, self._deadline, self._cpu_seconds, self._scratch = process, deadline, cpu_seconds, scratch
        self._clock = (~process << 3) | 2  # the kernel's name for the CPU clock of a process

    def run(self, alive: int, control: int) -> str:
        """Until `alive` is closed by all who hold it or `control` hangs up: "". Else what was used up: wall, cpu, room."""
        poller = select.poll()
        for end in (alive, control):
            poller.register(end, select.POLLIN | select.POLLHUP)
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                return "wall"
            cpu_left = self._cpu_seconds - self._used()
            if cpu_left <= 0:
                return "cpu"
            if self._scratch and self._sprawls():
                return "room"
            wait = min(left, max(cpu_left, 0.002), _TURN if self._scratch else left)
            if poller.poll(wait * 1000 + 1):
                return ""

    def _used(self) -> float:
        try:
            return time.clock_gettime(self._clock)
        except OSError:  # it has ended
            return 0.0

    def _sprawls(self) -> bool:
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{self._process}/stat") as file:
            if int(file.read().rpartition(")")[2].split()[17]) > _MOST_THREADS:
                return True
        count = size = 0
        try:
            for _, folders, files, here in os.fwalk(self._scratch, onerror=_look_again):
                count += len(folders) + len(files)
                for name in files:
                    with contextlib.suppress(FileNotFoundError):
                        size += os.lstat(name, dir_fd=here).st_size
                if count > _MOST_FILES or size > _MOST_BYTES:
                    return True
        except (OSError, RecursionError):  # what cannot be looked at is not kept
            return True
        return False


def _look_again(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # gone since it was listed
        raise error


def _removed(folder: str) -> bool:
    try:
        os.rmdir(folder)
    except OSError:  # there is something in it
        return False
    return True


def empty(folder: str) -> None:
    """Empties a folder whatever a program has put there: paths longer than the kernel takes, folders without rights.

    Goes down and up by single steps; nobody else may be at work in it. Raises OSError for what cannot be removed.
    """
    os.chdir(folder)
    above: list[str] = []
    try:
        while True:
            below = ""
            for entry in os.scandir("."):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name)
                elif not _removed(entry.name):
                    below = entry.name
                    break
            if below:
                os.chmod(below, 0o700)
                os.chdir(below)
                above.append(below)
            elif above:
                os.chdir("..")
                os.rmdir(above.pop())
            else:
                return
    finally:
        os.chdir("/")


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


def _warm_up(preload: list[str], path: list[str]) -> None:
    sys.path[:0] = path
    for name in (*_WARM, *preload):
        importlib.import_module(name)
    del sys.path[: len(path)]
    judge.trust(preload)
    codec.know_arrays()
    "".encode("idna")
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        raw = io.FileIO(descriptor, "w", closefd=False)
        stream = io.TextIOWrapper(
            io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    threading.stack_size(1 << 20)  # of the address space that a program may have, for each of its threads
    gc.collect()
    gc.freeze()


def main(descriptor: int, base: str, options: dict[str, Any]) -> None:
    """The process's whole life. `options`: "mode", and "preload" with the modules' names, "path" where they are.

    Enters the namespaces first: the zygote proper is then their process 1. Under bubblewrap it is that already.
    """
    os.environ.clear()
    sys.argv[:] = [""]
    confine.hide_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    control = socket.socket(fileno=descriptor)
    mode, wrapped = options["mode"], os.getpid() == 1
    read = landlock.readable() + options["read"]
    if not wrapped and mode in ("auto", "full") and confine.enter_namespaces():
        child = os.fork()
        if child:  # stays in the host's mounts, to remove the folder
            control.close()
            os.waitpid(child, 0)
            with contextlib.suppress(OSError):
                os.rmdir(base)
            os._exit(0)
        confine.die_with_parent()
    elif not wrapped:
        confine.adopt_orphans()
    first = os.getpid() == 1
    mounts = wrapped or (first and confine.own_mounts())
    root = wrapped or (mounts and confine.private_root(base, read))
    tmpfs = mounts and confine.mount_scratch(base)
    try:
        _warm_up(options["preload"], options["path"])
    except Exception as error:
        wire.send(descriptor, {"failed": f"{type(error).__name__}: {error}"[:400]})
        os._exit(1)
    layers = Layers(rlimits=False) if mode == "none" else confine.probe(first, root, tmpfs, read)
    about = asdict(layers) | {
        "isolation": layers.names(),
        "full": layers.full,
        "light": layers.light,
        "python": platform.python_version(),
        "preload": options["preload"],
    }
    with contextlib.suppress(wire.Closed, ConnectionError):
        wire.send(descriptor, {"ready": about})
        Zygote(control, base, layers, read).serve()
    if not first:
        with contextlib.suppress(OSError):
            empty(base)
            os.rmdir(base)
    os._exit(0)
