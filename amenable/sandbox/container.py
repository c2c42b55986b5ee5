"""`ContainerProvider`: programs run in a container without a network, made by docker or podman, in two jails as here.

The container holds a bare Python and `amenable.sandbox`, read-only; in it a light `Worker` confines the defendant and the
judge from each other. Orders and answers are frames on the container's standard input and output.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from amenable.errors import SandboxError
from amenable.sandbox import wire
from amenable.sandbox.provider import Evidence, Limits, ProviderFailed, stopped_on_failure

_BOOT = """import sys, types
for name in ("amenable", "amenable.sandbox"):
    package = types.ModuleType(name)
    package.__path__ = ["/" + name.replace(".", "/")]
    sys.modules[name] = package
from amenable.sandbox import server, worker
server.over_standard_input(worker.Worker("light"))
"""
_COMMANDS = ("docker", "podman")
_START_SECONDS, _PULL_SECONDS, _GRACE_SECONDS = 60.0, 600.0, 4.0


class ContainerProvider:
    """`command` is docker or podman, or whichever answers; `image` has a Python >= 3.11, by default python:3.N-slim."""

    def __init__(self, command: str = "", image: str = "", preload: Sequence[str] = ()) -> None:
        if preload:
            raise SandboxError(
                f"preload={list(preload)} cannot be had in a container", "mode='auto', or a server with preload="
            )
        self._wanted = command
        self._image = image or f"docker.io/library/python:3.{sys.version_info.minor}-slim"
        self._process: subprocess.Popen[bytes] | None = None
        self.about: dict[str, Any] = {}

    def start(self) -> None:
        """Starts the container if it is not running. Raises SandboxError; nothing is run outside one."""
        if self._process is not None:
            return
        command = self._command()
        if _quiet([command, "image", "inspect", self._image], 30.0).returncode:
            done = _quiet([command, "pull", self._image], _PULL_SECONDS)
            if done.returncode:
                raise SandboxError(
                    f"{command} has no image {self._image} and cannot pull it: {_last(done.stderr)}",
                    f"load an image with a Python >= 3.11 and name it: mode='{command}:IMAGE'",
                )
        self._process = subprocess.Popen(
            [command, *_arguments(self._image)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        try:
            said = self._receive(time.monotonic() + _START_SECONDS)
        except (wire.Closed, wire.ProtocolError, TimeoutError) as error:
            self.stop()
            raise SandboxError(
                f"{self._image} did not start in {command}: {error}", f"try {command} run --rm {self._image} python -V"
            ) from None
        if "ready" not in said:
            self.stop()
            raise SandboxError(f"in {command}: {said.get('failed')}", "use a newer kernel or container runtime")
        self.about = said["ready"] | {"isolation": f"{command}+{said['ready']['isolation']}"}

    def run(self, program: str, trial: dict[str, Any] | None, limits: Limits) -> Evidence:
        """One check. Raises ProviderFailed after stopping the container."""
        self.start()
        assert self._process is not None and self._process.stdin is not None  # noqa: PT018
        order = {"program": program, "trial": trial, "limits": asdict(limits)}
        with stopped_on_failure(self.stop):
            wire.send(self._process.stdin.fileno(), order, cap=wire.QUESTION_CAP)
            answer = self._receive(time.monotonic() + limits.seconds + _GRACE_SECONDS)
        if "report" not in answer:
            raise ProviderFailed(str(answer.get("failed"))[:400])
        return Evidence(answer["events"], answer["report"])

    def stop(self) -> None:
        """Ends the container: its first process ends with its standard input."""
        if self._process is not None:
            process, self._process = self._process, None
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            try:
                process.wait(timeout=10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _receive(self, deadline: float) -> Any:
        assert self._process is not None and self._process.stdout is not None  # noqa: PT018
        descriptor = self._process.stdout.fileno()
        os.set_blocking(descriptor, False)
        return wire.receive(descriptor, deadline, wire.QUESTION_CAP)

    def _command(self) -> str:
        for command in (self._wanted,) if self._wanted else _COMMANDS:
            if shutil.which(command) and not _quiet([command, "info"], 30.0).returncode:
                return command
        asked = self._wanted or " or ".join(_COMMANDS)
        raise SandboxError(
            f"no {asked} answers here", "start it, or choose another mode: auto, wasi, or a server's URL"
        )


def _arguments(image: str) -> list[str]:
    here = Path(__file__).resolve().parent
    mounts = {here: "/amenable/sandbox", here.parent / "errors.py": "/amenable/errors.py"}
    return [
        *("run", "--rm", "--interactive", "--network=none", "--read-only", "--cap-drop=ALL"),
        *("--security-opt=no-new-privileges", "--pids-limit=256", "--user=65534:65534"),
        *("--tmpfs=/scratch:rw,size=64m,mode=1777", "--env=TMPDIR=/scratch"),
        *(f"--volume={place}:{target}:ro" for place, target in mounts.items()),
        *(image, "python3", "-I", "-B", "-c", _BOOT),
    ]


def _quiet(command: list[str], seconds: float) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(command, capture_output=True, timeout=seconds, stdin=subprocess.DEVNULL, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, b"", b"no answer in time")


def _last(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:200] if lines else "it says nothing"
