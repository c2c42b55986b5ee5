"""MBPP's own reference solutions pass, enforced: the sandbox adds no failures of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amenable.sandbox import Job, Sandbox

MBPP = Path(__file__).resolve().parents[3] / "shared" / "data" / "mbpp.jsonl"


def _jobs(step: int) -> list[tuple[int, Job]]:
    if not MBPP.exists():
        pytest.skip(f"{MBPP} is not here")
    rows = [json.loads(line) for line in MBPP.read_text().splitlines()]
    needed = {342, 367, 596, 601, 927}  # classes, setup code, sys.getsizeof
    chosen = [row for i, row in enumerate(rows) if i % step == 0 or row["task_id"] in needed]
    return [(row["task_id"], Job(row["code"], row["test_list"], row["test_setup_code"])) for row in chosen]


@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_reference_solutions_pass(step: int) -> None:
    jobs = _jobs(step)
    with Sandbox(timeout=20.0) as box:
        verdicts = box.check_many([job for _, job in jobs])
    failed = [(task, verdict) for (task, _), verdict in zip(jobs, verdicts, strict=True) if not verdict.ok]
    assert not failed
    assert all(verdict.integrity == "enforced" for verdict in verdicts)
