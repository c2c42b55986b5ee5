"""Checkpoints of a training: weights and optimiser in safetensors, the rest in JSON, never pickle.

A checkpoint is written under a temporary name and renamed when it is whole, its manifest last; a folder without a manifest
whose sizes agree is torn and ignored aloud. One is kept: the one before is deleted after the new one is in place.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from amenable.errors import StorageError, TrainingError
from amenable.progress import say
from amenable.runs import MetricsLog

MANIFEST = "manifest.json"


def save(
    folder: Path,
    names: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    log: MetricsLog,
    *,
    step: int,
    steps: int,
) -> None:
    """Write `folder`/checkpoint-`step`. A full disk is said aloud, the checkpoint before is kept, training goes on."""
    final, work = folder / f"checkpoint-{step}", folder / f".checkpoint-{step}.partial"
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        save_file({name: value.detach().contiguous() for name, value in names.items()}, work / "weights.safetensors")
        moments = {
            f"{name}/{kind}": tensor.contiguous()
            for name, value in names.items()
            for kind, tensor in optimizer.state.get(value, {}).items()
            if kind != "step"
        }
        save_file(moments, work / "optimizer.safetensors")
        for path in work.iterdir():
            _sync(path)
        manifest = {
            "step": step,
            "steps": steps,
            "metrics_bytes": log.flush(),
            "files": {path.name: path.stat().st_size for path in sorted(work.iterdir())},
        }
        (work / MANIFEST).write_text(json.dumps(manifest, indent=1))
        _sync(work / MANIFEST)
        shutil.rmtree(final, ignore_errors=True)
        work.rename(final)
        _sync(folder)
    except OSError as error:
        shutil.rmtree(work, ignore_errors=True)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageError(
                f"checkpoint {final} could not be written: {error.strerror}", "make the run folder writable"
            ) from error
        say(f"checkpoint {final} was not written: {error.strerror}. The one before is kept; training goes on.")
        return
    for other in _complete(folder):
        if other != final:
            shutil.rmtree(other, ignore_errors=True)


def resume(
    folder: Path,
    names: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    log: MetricsLog,
    *,
    steps: int,
) -> int:
    """Put the newest whole checkpoint of `folder` into weights, optimiser and log; the step to go on from (0: none)."""
    found = _complete(folder)
    if not found:
        log.cut(0)
        return 0
    manifest = json.loads((found[-1] / MANIFEST).read_text())
    weights = load_file(found[-1] / "weights.safetensors")
    if manifest["steps"] != steps or set(weights) != set(names):
        raise TrainingError(
            f"{found[-1]} belongs to another training ({manifest['steps']} steps, {len(weights)} tensors; this one has "
            f"{steps} and {len(names)})",
            "give the run a new folder",
        )
    moments = load_file(found[-1] / "optimizer.safetensors")
    with torch.no_grad():
        for name, value in names.items():
            value.copy_(weights[name])
            state: dict[str, Any] = {kind: moments[f"{name}/{kind}"] for kind in ("exp_avg", "exp_avg_sq")}
            optimizer.state[value] = {"step": torch.tensor(float(manifest["step"])), **state}
    log.cut(manifest["metrics_bytes"])
    return int(manifest["step"])


def drop_all(folder: Path) -> None:
    """Delete the checkpoints of a training that has ended."""
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path, ignore_errors=True)


def _complete(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first; torn ones are named aloud."""
    whole = []
    for path in folder.glob("checkpoint-*"):
        try:
            files = json.loads((path / MANIFEST).read_text())["files"]
            intact = all((path / name).stat().st_size == size for name, size in files.items())
        except (OSError, ValueError, KeyError):
            intact = False
        if intact:
            whole.append(path)
        else:
            say(f"checkpoint {path} is torn and not used")
    return sorted(whole, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
