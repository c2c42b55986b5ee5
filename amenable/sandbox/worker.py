"""The parent's end of one zygote: starts it, gives it one check at a time, and replaces it when it fails.

The zygote is a new process (never a fork of this one, which may hold torch and threads): a bare interpreter
without site-packages, environment or search path, in which `amenable.sandbox` is importable and `amenable`
itself is not run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amenable.errors import SandboxError
from amenable.sandbox import wire

_BOOT = """import sys, types
for name, path in (("amenable", None), ("amenable.sandbox", sys.argv[3])):
    package = types.ModuleType(name)
    package.__path__ = [path] if path else []
    sys.modules[name] = package
from amenable.sandbox import zygote
zygote.main(int(sys.argv[1]), sys.argv[2])
"""
_START_SECONDS = 30.0
_GRACE_SECONDS = 2.0


class WorkerFailed(Exception):
    """The machinery failed, not the program."""


@dataclass
class Evidence:
    """All that one check left behind: the judge's events and the zygote's report."""

    events: list[list[Any]] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)


class Worker:
    """One zygote. Not for use by two threads at once."""

    def __init__(self, memory_mb: int) -> None:
        self._memory_mb = memory_mb
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._base = ""
        self.about: dict[str, Any] = {}

    def start(self) -> None:
        """Starts the zygote if it is not running. Raises SandboxError."""
        if self._process is not None:
            return
        ours, theirs = socket.socketpair()
        self._base = tempfile.mkdtemp(prefix="amenable-sandbox-")
        python = getattr(sys, "_base_executable", None) or sys.executable
        here = str(Path(__file__).resolve().parent)
        self._process = subprocess.Popen(
            [
                python,
                "-s",
                "-S",
                "-P",
                "-B",
                "-X",
                "utf8",
                "-c",
                _BOOT,
                str(theirs.fileno()),
                self._base,
                here,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PYTHONHASHSEED": "0"},
            cwd="/",
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        ours.setblocking(False)
        self._control = ours
        try:
            self.about = wire.receive(ours.fileno(), time.monotonic() + _START_SECONDS)["ready"]
        except (wire.Closed, wire.ProtocolError, TimeoutError) as error:
            self.stop()
            raise SandboxError(
                f"the sandbox's zygote did not start ({error})",
                f"run `{python} -c 'import sys'`; it must be a working Python >= 3.11",
            ) from None

    def run(self, program: str, job: dict[str, Any], timeout: float) -> Evidence:
        """Holds one trial. Raises WorkerFailed after stopping the zygote."""
        self.start()
        deadline = time.monotonic() + timeout + _GRACE_SECONDS
        try:
            return self._run(program, job, timeout, deadline)
        except (OSError, wire.Closed, wire.ProtocolError, TimeoutError) as error:
            self.stop()
            raise WorkerFailed(f"{type(error).__name__}: {error}") from None
        except BaseException:
            self.stop()
            raise

    def _run(self, program: str, job: dict[str, Any], timeout: float, deadline: float) -> Evidence:
        assert self._control is not None
        evidence = Evidence()
        judge, judge_end = socket.socketpair()
        defendant, defendant_end = socket.socketpair()
        with judge, defendant:
            with judge_end, defendant_end:
                self._control.setblocking(True)
                socket.send_fds(self._control, [b"."], [judge_end.fileno(), defendant_end.fileno()])
                self._control.setblocking(False)
            judge.setblocking(False)
            defendant.setblocking(False)
            order = {"timeout": timeout, "memory_mb": self._memory_mb}
            wire.send(self._control.fileno(), order, deadline)
            with contextlib.suppress(wire.Closed):
                wire.send(judge.fileno(), job, deadline)
                wire.send(defendant.fileno(), program, deadline)
            with contextlib.suppress(wire.Closed):
                while True:
                    evidence.events.append(wire.receive(judge.fileno(), deadline))
        evidence.report = wire.receive(self._control.fileno(), deadline)
        return evidence

    def stop(self) -> None:
        """Ends the zygote and with it everything it started; removes its folder."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.shutdown(
                    socket.SHUT_RDWR
                )  # also where a fork of this process still holds a copy
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(timeout=1.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._base:
            shutil.rmtree(self._base, ignore_errors=True)
            self._base = ""

    @property
    def process_id(self) -> int | None:
        """The operating system's id of the zygote's outer process; None if it is not running."""
        return None if self._process is None else self._process.pid


def fits(value: object) -> bool:
    """True if the value can be given to a zygote in one frame."""
    try:
        wire.pack(value)
    except wire.FrameTooLarge:
        return False
    return True


def default_workers() -> int:
    """One a core that this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
