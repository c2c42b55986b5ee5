"""Checkpoints of a training: weights and optimiser in safetensors, the rest in JSON, never pickle.

    checkpoint-N/   weights.safetensors   optimizer.safetensors   method.safetensors   method.json   manifest.json

The manifest is written last and holds every file's sha256, the step, the length of metrics.jsonl, and what training this is
(`identity`). The schedule, the order of the data and every random stream are functions of (seed, step), so the step is their
state; samples and feedback are closed stages of the run (`runs.py`); what a method remembers besides is in `method.*`. A
checkpoint that is not what its manifest says is named aloud and not used; the two newest are kept, so that there is one before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from amenable import __version__, durable
from amenable.errors import TrainingError
from amenable.progress import say
from amenable.runs import MetricsLog
from amenable.sampling.proposal import State

KEPT = 2


def save(
    folder: Path,
    names: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    log: MetricsLog,
    *,
    step: int,
    identity: str,
    state: State,
    on_full: str = "continue",
) -> None:
    """Write `folder`/checkpoint-`step`: the state after `step` steps.

    If there is no room, that is said, the checkpoint before is kept, and training goes on; `on_full="stop"` raises instead.
    Errors: StorageError for any other disk error.
    """
    final = folder / f"checkpoint-{step}"
    try:
        facts = {"step": step, "identity": identity, "metrics_bytes": log.flush(), "version": __version__}
        with durable.folder(final, facts) as work:
            weights = {name: value.detach().contiguous() for name, value in names.items()}
            save_file(weights, work / "weights.safetensors")
            moments = {
                f"{name}/{kind}": tensor.contiguous()
                for name, value in names.items()
                for kind, tensor in optimizer.state.get(value, {}).items()
                if kind != "step"
            }
            save_file(moments, work / "optimizer.safetensors")
            save_file({name: value.contiguous() for name, value in state.tensors.items()}, work / "method.safetensors")
            (work / "method.json").write_text(json.dumps(state.facts))
    except Exception as error:
        trouble = durable.as_os_error(error)
        if trouble is None:
            raise
        if trouble.errno not in durable.FULL or on_full == "stop":
            raise durable.storage_error(final, trouble) from error
        say(f"checkpoint {final} was not written: {trouble.strerror}. The one before is kept; training goes on.")
        return
    for path in _newest_first(folder)[KEPT:]:
        durable.delete(path)


def resume(
    folder: Path,
    names: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    log: MetricsLog,
    *,
    identity: str,
) -> tuple[int, State | None]:
    """Put the newest whole checkpoint of `folder` into weights, optimiser and log.

    Returns the step to go on from and what the method remembered (0 and None: there is none).
    """
    for path in _newest_first(folder):
        manifest = durable.manifest_of(path)
        if manifest is not None and log.size() >= manifest["metrics_bytes"]:
            break
        say(f"checkpoint {path} is torn and not used")
    else:
        log.cut(0)
        return 0, None
    weights = load_file(path / "weights.safetensors")
    if manifest["identity"] != identity or set(weights) != set(names):
        raise TrainingError(
            f"{path} belongs to another training: other examples, settings or weights", "give the run a new folder"
        )
    if manifest["version"] != __version__:
        say(f"checkpoint {path} was written by amenable {manifest['version']}, this is {__version__}")
    moments = load_file(path / "optimizer.safetensors")
    with torch.no_grad():
        for name, value in names.items():
            value.copy_(weights[name])
            state: dict[str, Any] = {kind: moments[f"{name}/{kind}"] for kind in ("exp_avg", "exp_avg_sq")}
            optimizer.state[value] = {"step": torch.tensor(float(manifest["step"])), **state}
    log.cut(manifest["metrics_bytes"])
    facts = json.loads((path / "method.json").read_text())
    return int(manifest["step"]), State(load_file(path / "method.safetensors"), facts)


def drop_all(folder: Path) -> None:
    """Delete the checkpoints of a training that has ended."""
    for path in [*_newest_first(folder), *folder.glob(".checkpoint-*.partial")]:
        durable.delete(path)


def _newest_first(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: -int(path.name.removeprefix("checkpoint-")))
