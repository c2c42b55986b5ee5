"""Whatever instant a run dies at, it goes on to the same bytes: every method, killed at its operations on the disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from laws.methods import BUILDERS, class_of, methods_of_the_package

CRASH = Path(__file__).with_name("crash.py")


def test_every_method_has_an_instance_here() -> None:
    assert methods_of_the_package() == set(map(class_of, BUILDERS))


# What writes to the disk is the same for every method: what differs is what a method remembers.
CASES = [
    ("Imitation", "kill", 3),
    ("Imitation", "torn", 4),
    ("Imitation", "full", 5),
    ("FDPG/adaptive", "torn", 8),
    ("FDPG/adaptive", "full", 9),
    *((method, "kill", 7) for method in BUILDERS if method != "Imitation"),
]


@pytest.mark.parametrize(("method", "how", "every"), CASES)
def test_cut_short_anywhere_it_ends_in_the_same_bytes(method: str, how: str, every: int, tmp_path: Path) -> None:
    command = [sys.executable, str(CRASH), method, str(tmp_path), str(every), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every time the same bytes" in done.stdout
    assert int(done.stdout.split(" at ")[1].split()[0]) >= 5
