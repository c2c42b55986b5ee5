"""What every recipe says about itself, so that the command line can list, check and run it.

A recipe is a module with a frozen dataclass of settings (each field made with `setting`, which carries its help) and a
function `run(settings, folder) -> Report`. `RECIPES` in `recipes/__init__.py` names them; nothing is looked up by string
magic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amenable.report.page import Report


def setting(default: Any, help: str, choices: tuple[Any, ...] = (), *, also: str = "") -> Any:
    """A dataclass field with a default, a sentence of help, and the values it may take (empty: any of its type).

    also    a second name, for one that Python does not allow (`from`)
    """
    return field(default=default, metadata={"help": help, "choices": choices, "also": also})


@dataclass(frozen=True)
class Recipe:
    """A study by name: `settings` is its dataclass, `plan` says what it will do (lines), `run` does it in `folder`."""

    name: str
    summary: str
    settings: type[Any]
    plan: Callable[[Any], list[str]]
    run: Callable[[Any, Path], Report]
