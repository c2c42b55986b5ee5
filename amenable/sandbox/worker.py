"""`Worker`: the provider on this machine. The parent's end of one zygote, which it starts, feeds and replaces.

The zygote is a new process (never a fork of this one, which may hold torch and threads): a bare interpreter
without site-packages, environment or search path, in which `amenable.sandbox` is importable and `amenable`
itself is not run. Where the kernel refuses it namespaces, and bubblewrap is installed, bubblewrap gives it some.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from amenable.errors import SandboxError
from amenable.sandbox import landlock, wire
from amenable.sandbox.provider import Evidence, Limits, stopped_on_failure

_BOOT = """import json, sys, types
for name, path in (("amenable", None), ("amenable.sandbox", sys.argv[3])):
    package = types.ModuleType(name)
    package.__path__ = [path] if path else []
    sys.modules[name] = package
from amenable.sandbox import zygote
zygote.main(int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[4]))
"""
_START_SECONDS = 30.0
_GRACE_SECONDS = 2.0
_EVENT_CAP, _OUTPUT_CAP = 64 << 10, 64 << 10
_LAYERS = {
    "light": ("landlock", "seccomp", "network"),
    "full": ("namespaces", "root", "landlock", "seccomp", "network"),
}
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Worker:
    """One zygote. `mode`: "auto", "full", "light", or "none" (no confinement at all); see `Sandbox`."""

    def __init__(self, mode: str = "auto", preload: Sequence[str] = ()) -> None:
        self._mode, self._preload = mode, list(preload)
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._base = ""
        self.about: dict[str, Any] = {}

    def start(self) -> None:
        """Starts the zygote if it is not running. Raises SandboxError if it cannot be confined as asked."""
        if self._process is not None:
            return
        self._launch([])
        wrapper = shutil.which("bwrap")
        if wrapper and self._mode in ("auto", "full") and not self.about["namespaces"]:
            plain = self.about
            self.stop()
            try:
                self._launch([wrapper])
            except SandboxError:  # bubblewrap is refused too
                self._launch([])
                self.about = plain
        wanted = {"auto": "light", "full": "full", "light": "light"}.get(self._mode)
        if wanted and not self.about[wanted]:
            missing = [name for name in _LAYERS[wanted] if not self.about[name]]
            self.stop()
            raise SandboxError(
                f"this machine cannot confine programs in mode {self._mode!r}: {', '.join(missing)} cannot be had here",
                "run elsewhere: mode='docker', mode='wasi' (pip install 'amenable[wasi]') or the URL of a sandbox server"
                + ("; mode='light' needs no namespaces" if wanted == "full" else ""),
            )

    def _launch(self, wrapper: list[str]) -> None:
        ours, theirs = socket.socketpair()
        self._base = tempfile.mkdtemp(prefix="amenable-sandbox-")
        python = getattr(sys, "_base_executable", None) or sys.executable
        here = str(Path(__file__).resolve().parent)
        path, read = _places(self._preload)
        options = {"mode": self._mode, "preload": self._preload, "path": path, "read": read}
        flags = ["-s", "-S", "-P", "-B", "-X", "utf8", "-c", _BOOT]
        command = [python, *flags, str(theirs.fileno()), self._base, here, json.dumps(options)]
        if wrapper:
            command = [*wrapper, *_bubble(self._base, [*landlock.readable(), *read, here, python]), *command]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PYTHONHASHSEED": "0", **_ONE_THREAD},
            cwd="/",
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        ours.setblocking(False)
        self._control = ours
        try:
            said = wire.receive(ours.fileno(), time.monotonic() + _START_SECONDS)
        except (wire.Closed, wire.ProtocolError, TimeoutError) as error:
            self.stop()
            raise SandboxError(
                f"the sandbox's zygote did not start ({error})",
                f"run `{python} -c 'import sys'`; it must be a working Python >= 3.11",
            ) from None
        if "ready" not in said:
            self.stop()
            raise SandboxError(
                f"the sandbox cannot preload {', '.join(self._preload)}: {said.get('failed')}",
                "name every package that it needs, in order, such as preload=['numpy', 'dateutil', 'pandas']",
            )
        self.about = said["ready"]

    def run(self, program: str, trial: dict[str, Any] | None, limits: Limits) -> Evidence:
        """One check. Raises ProviderFailed after stopping the zygote."""
        self.start()
        deadline = time.monotonic() + limits.seconds + _GRACE_SECONDS
        with stopped_on_failure(self.stop):
            return self._run(program, trial, limits, deadline)

    def _run(self, program: str, trial: dict[str, Any] | None, limits: Limits, deadline: float) -> Evidence:
        assert self._control is not None
        judge, judge_end = socket.socketpair()
        defendant, defendant_end = socket.socketpair()
        with judge, defendant, open(os.memfd_create("output"), "rb") as output:
            with judge_end, defendant_end:
                self._control.setblocking(True)
                ends = [judge_end.fileno(), defendant_end.fileno(), output.fileno()]
                socket.send_fds(self._control, [b"."], ends)
                self._control.setblocking(False)
            judge.setblocking(False)
            defendant.setblocking(False)
            wire.send(self._control.fileno(), asdict(limits) | {"solo": trial is None}, deadline)
            with contextlib.suppress(wire.Closed):
                if trial is not None:
                    wire.send(judge.fileno(), trial, deadline)
                wire.send(defendant.fileno(), program, deadline)
            most = 1 if trial is None else 2 * len(trial["tests"]) + 1
            events = _events(judge.fileno(), most, deadline)
            judge.close()  # whoever still writes to it ends; so does a program on its own
            report = wire.receive(self._control.fileno(), deadline)
            if not isinstance(report, dict):
                raise wire.ProtocolError("the zygote's report is none")
            report["output"] = _tail(output.fileno())
        return Evidence(events, report)

    def stop(self) -> None:
        """Ends the zygote and with it everything it started; removes its folder."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)  # also where a fork of this process still holds a copy
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


def _events(descriptor: int, most: int, deadline: float) -> list[Any]:
    """What the judge says, until it ends or breaks the protocol. Raises TimeoutError."""
    events: list[Any] = []
    with contextlib.suppress(wire.Closed, wire.ProtocolError):
        while len(events) < most:
            events.append(wire.receive(descriptor, deadline, _EVENT_CAP))
    return events


def _tail(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    text = os.pread(descriptor, _OUTPUT_CAP, max(0, size - _OUTPUT_CAP)).decode("utf-8", "replace")
    return f"[truncated: the last {_OUTPUT_CAP >> 10} KiB]\n{text}" if size > _OUTPUT_CAP else text


def _places(modules: Sequence[str]) -> tuple[list[str], list[str]]:
    """Where modules to preload are found, and what has to be readable for them. Raises SandboxError."""
    path, read = [], []
    for name in modules:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        if spec is None or spec.origin is None:
            raise SandboxError(
                f"preload={name!r}: there is no such module here", f"pip install {name}, or leave it out"
            )
        place = Path(spec.origin).resolve()
        place = place.parent if spec.submodule_search_locations else place
        path.append(str(place.parent))
        read += [str(found) for found in (place, place.with_name(f"{place.name}.libs")) if found.exists()]
    return list(dict.fromkeys(path)), read


def _bubble(base: str, read: Sequence[str]) -> list[str]:
    """bubblewrap's arguments: new namespaces, of the host's files only `read`, a small folder in memory to write in."""
    binds = [part for path in read for part in ("--ro-bind", path, path) if not path.startswith("/dev/")]
    return [
        *("--unshare-all", "--die-with-parent", "--as-pid-1", "--new-session", "--dev", "/dev"),
        *binds,
        *("--size", str(16 << 20), "--tmpfs", base, "--chdir", "/", "--"),
    ]
