"""How near a seed of a batch is to the seed alone."""

from __future__ import annotations

from pathlib import Path


def tolerance() -> float:
    """0: the same bits. Not on an Intel MKL multiplies one matrix by other code than a batch of them: rounding."""
    facts = Path("/proc/cpuinfo")
    return 0.0 if facts.is_file() and "GenuineIntel" in facts.read_text() else 1e-5
