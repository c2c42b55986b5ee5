"""CPU seconds of a process by phase, for the workers of the benches. No peer's code is changed: functions are wrapped.

Imported in the peers' environments too, so nothing of amenable is needed here. A step lies between the ends of two optimiser
steps. A worker prints one JSON line a step ("STEP {...}"), and at its end its peak memory in GiB ("PEAK 1.2").
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any


class Clock:
    """CPU seconds of this process by phase; `ended` prints those of a step. A phase inside another counts for the inner one."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self.inner = [0.0]
        self.began = time.process_time()

    def start(self) -> None:
        """What came before was loading."""
        self.phases, self.began = {}, time.process_time()

    def watch(self, owner: Any, name: str, phase: str | Callable[..., str]) -> None:
        """Count the time in `owner.name` for `phase`, or for what `phase(*arguments)` says."""
        whole = getattr(owner, name)

        def timed(*arguments: Any, **settings: Any) -> Any:
            label = phase if isinstance(phase, str) else phase(*arguments, **settings)
            began = time.process_time()
            self.inner.append(0.0)
            try:
                return whole(*arguments, **settings)
            finally:
                took = time.process_time() - began
                self.phases[label] = self.phases.get(label, 0.0) + took - self.inner.pop()
                self.inner[-1] += took

        setattr(owner, name, timed)

    def watch_optimiser(self, kind: Any) -> None:
        """A step of an optimiser of this kind ends a step; call it before a scheduler takes hold of the optimiser."""
        self.watch(kind, "step", "optimiser")
        stepped = kind.step

        def step(optimiser: Any, *arguments: Any, **settings: Any) -> Any:
            found = stepped(optimiser, *arguments, **settings)
            self.ended()
            return found

        kind.step = step

    def ended(self) -> None:
        """Print the step, and begin the next."""
        now = time.process_time()
        step = now - self.began
        phases = dict(self.phases)
        phases["other"] = step - sum(phases.values())
        print("STEP " + json.dumps({"step": step, **phases}), flush=True)
        self.phases, self.began = {}, time.process_time()


def work(systems: Mapping[str, Callable[[dict[str, Any], Clock], None]]) -> None:
    """What a worker's process does: the order in its first argument (JSON, with `system` and `seed`), on one thread."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    given = json.loads(sys.argv[1])
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(given["seed"])
    systems[given["system"]](given, Clock())
    print("PEAK " + json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2), flush=True)
