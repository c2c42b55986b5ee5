"""One small instance of every training method in the package; a method without one fails the laws."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import amenable.method
from amenable.method.imitation import Example, Imitation

BUILDERS: dict[str, Callable[[], Any]] = {
    "Imitation": lambda: Imitation([Example(f"q{i}", f"a{i * i}") for i in range(6)], epochs=3, batch_size=3, seed=1),
}


def methods_of_the_package() -> set[str]:
    """Names of the classes under amenable.method that follow its protocol: `steps`, `identity`, `losses`."""
    found = set()
    for module in pkgutil.iter_modules(amenable.method.__path__, "amenable.method."):
        for name, thing in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if thing.__module__.startswith("amenable.method.") and hasattr(thing, "losses") and name != "Method":
                found.add(name)
    return found
