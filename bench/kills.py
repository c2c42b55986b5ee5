"""SIGKILL a whole study at 50 random instants, go on each time: in the end it has the same bytes as one left alone.

    python bench/kills.py OUT [kills=50] [seed=0] [key=value of `amenable run ilf` ...]

A study is started in a folder, killed after a random time, started again in the same folder, and so on until it ends; then the
next study begins, until there were so many kills. The default is a small ILF study with a real model: written feedback, all
stages, training with checkpoints. One thread, so that a number is the same bits every time.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

SMALL = dict(
    item.split("=")
    for item in (
        "model=qwen2.5-coder-0.5b train_limit=12 test_limit=4 refinements=2 samples=1 k=1 epochs=2 max_tokens=64 batch_size=2 "
        "checkpoint_every=1 threads=1"
    ).split()
)
KEPT = ("config.yaml", "samples.jsonl", "round-1/metrics.jsonl", "round-1/model/model.safetensors")


def start(folder: Path, keys: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "amenable",
        "run",
        "ilf",
        "--out",
        str(folder),
        *(f"{k}={v}" for k, v in keys.items()),
    ]
    log = (folder.parent / f"{folder.name}.log").open("ab")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)


def digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()[:16] for name in KEPT}


def main() -> None:
    out, given = Path(sys.argv[1]), dict(item.split("=", 1) for item in sys.argv[2:])
    wanted, rng = int(given.pop("kills", 50)), random.Random(int(given.pop("seed", 0)))
    keys = SMALL | given
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    shutil.rmtree(out / "whole", ignore_errors=True)
    assert start(out / "whole", keys).wait() == 0, f"see {out / 'whole.log'}"
    whole = time.monotonic() - began
    right = digests(out / "whole")
    print(f"left alone: {whole:.0f} s, {right}", flush=True)
    kills = studies = 0
    per_study: list[int] = []
    while kills < wanted:
        folder = out / f"cut-{studies}"
        shutil.rmtree(folder, ignore_errors=True)
        here = 0
        while True:
            process = start(folder, keys)
            try:
                code = process.wait(timeout=rng.uniform(0.02, 0.35) * whole)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                here += 1
                continue
            assert code == 0, f"it did not go on after kill {here}: see {folder}.log"
            break
        found = digests(folder)
        assert found == right, f"study {studies}, {here} kills: {found} is not {right}"
        kills, studies = kills + here, studies + 1
        per_study.append(here)
        shutil.rmtree(folder)
        print(f"study {studies}: killed {here} times, the same bytes; {kills} kills so far", flush=True)
    minutes = (time.monotonic() - began) / 60
    print(f"{kills} kills in {studies} studies ({per_study}), every one ended in the same bytes; {minutes:.0f} minutes")


if __name__ == "__main__":
    main()
