"""Where and with what a run was made: threads, versions, machine, minutes. Goes into every report."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import time
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import amenable
from amenable.config import value_text


@dataclass
class Clock:
    """Minutes by stage: `lap(name)` closes the stage that began at the lap before."""

    laps: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.monotonic)

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = self.laps.get(name, 0.0) + (now - self.last) / 60
        self.last = now

    def minutes(self) -> dict[str, float]:
        """Minutes of each stage; a resumed run counts only its last session."""
        return {name: round(minutes, 2) for name, minutes in self.laps.items()}


def prepare(threads: int) -> Clock:
    """Set the number of CPU threads (0: all cores) and start the clock."""
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    return Clock()


def versions() -> dict[str, Any]:
    """Versions of what was run, for a Report."""
    names = ("torch", "transformers", "tokenizers", "numpy", "peft")
    found = {"amenable": amenable.__version__, "commit": _commit(), "python": platform.python_version()}
    return {**found, **{name: metadata.version(name) for name in names}}


def machine(isolation: dict[str, Any]) -> dict[str, Any]:
    """The machine and what confined the programs (`Sandbox.report()`), for a Report."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "AMX bfloat16": torch.cpu._is_amx_tile_supported(),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "sandbox": isolation.get("isolation", ""),
    }


def command_of(recipe: str, settings: Any) -> str:
    """The command that makes this run again: every key that is not at its default."""
    plain = type(settings)()
    keys = [
        f"{name}={shlex.quote(value_text(value))}"
        for name, value in asdict(settings).items()
        if value != getattr(plain, name)
    ]
    return " ".join(["amenable run", recipe, *keys])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str:
    """The commit of a source checkout, "-" for an installed package."""
    root = Path(amenable.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return "-"
    found = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "-"
