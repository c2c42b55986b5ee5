"""Random streams by name: the same seed and name give the same bits, whatever ran before.

A run never shares one generator between its parts. Each part derives its own stream from the run's seed and a path
of names (`derive(seed, "round", 1, "drafts", 3)`), so a part that is skipped on resume does not shift the others.
The mixing is SHA-256 over the path, so streams of different paths are independent for every practical purpose.
"""

from __future__ import annotations

import hashlib
import random

import torch


def derive(seed: int, *path: str | int) -> int:
    """A 63-bit seed for the stream named by `path`; deterministic across machines and Python versions."""
    text = "/".join([str(seed), *(f"{type(part).__name__}:{part}" for part in path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_generator(seed: int, *path: str | int) -> torch.Generator:
    """A CPU generator for the stream named by `path`."""
    return torch.Generator().manual_seed(derive(seed, *path))


def python_random(seed: int, *path: str | int) -> random.Random:
    """A `random.Random` for the stream named by `path` (choices and shuffles of Python objects)."""
    return random.Random(derive(seed, *path))
