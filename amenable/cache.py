"""Where amenable keeps what can be had again: models it has fetched and converted, a Python it has compiled."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(cache: Path | None = None) -> Path:
    """The cache: `cache`, or `$AMENABLE_CACHE`, or `~/.cache/amenable`."""
    return cache or Path(os.environ.get("AMENABLE_CACHE") or "~/.cache/amenable").expanduser()
