"""`amenable score` as a user types it: MB of Python a minute of wall clock and of CPU, by number of processes.

    python bench/score.py [corpus=python] [task=pep8] [processes=1,2] [repeats=3] [limit=0]

Each run is a new process and a new folder, in turn; its start, the reading and the JSON that is written are in it. Wall clock
means something only on a machine that does nothing else: the load while it ran is printed beside it.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import given_words

from amenable.task.scored_corpus import SUMMARY

KEYS = ("corpus", "task", "processes", "repeats", "limit")


def once(corpus: str, task: str, processes: int, limit: int) -> tuple[float, float, float]:
    """MB that were scored, seconds of wall clock, CPU seconds of the process and its workers."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "scored"
        command = [
            sys.executable, "-m", "amenable", "score", corpus, f"task={task}", f"processes={processes}", f"limit={limit}",
            "--out", str(folder),
        ]  # fmt: skip
        before, began = spent(), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wall, cpu = time.perf_counter() - began, spent() - before
        size = float(json.loads((folder / SUMMARY).read_text())["sums"]["bytes"])
    return size / 1e6, wall, cpu


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def main() -> None:
    given = given_words(sys.argv[1:], KEYS)
    corpus, task = given.get("corpus", "python"), given.get("task", "pep8")
    counts = [int(part) for part in given.get("processes", "1,2").split(",")]
    repeats, limit = int(given.get("repeats", 3)), int(given.get("limit", 0))
    found: dict[int, list[tuple[float, float, float]]] = {count: [] for count in counts}
    loads: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(repeats):
        for count in counts:
            found[count].append(once(corpus, task, count, limit))
            loads[count].append(os.getloadavg()[0])
            print(f"{count} processes: {found[count][-1]}", file=sys.stderr, flush=True)
    cores = len(os.sched_getaffinity(0))
    print(f"{corpus}, task={task}, {found[counts[0]][0][0]:.1f} MB, {cores} cores, n={repeats} runs of each in turn\n")
    print("| processes | MB a minute | MB a CPU-minute | load average |\n|---|---|---|---|")
    for count, runs in found.items():
        walls, cpus = ([60 * run[0] / run[at] for run in runs] for at in (1, 2))
        print(f"| {count} | {spread(walls)} | {spread(cpus)} | {spread(loads[count])} |")


if __name__ == "__main__":
    main()
