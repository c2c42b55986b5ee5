"""A user's own function by name: "my_file.py:my_f", or "package.module:my_f"."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from amenable.config import nearest
from amenable.errors import ConfigError


def load(key: str, text: str, arguments: Sequence[str]) -> Any:
    """What `key`=`text` names. `arguments`: what it is called with, a name that ends in "=" by keyword.

    Errors: ConfigError: no such file or name, a file that cannot be run, something that cannot be called in this way.
    """
    place, colon, name = text.rpartition(":")
    if not colon or not place or not name:
        raise ConfigError(f"{key}={text} does not name a function", f"write {key}=my_file.py:my_{key}")
    module = _module(key, place)
    if not hasattr(module, name):
        own = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
        raise ConfigError(f"{place} has no {name!r}", nearest(name, own) if own else "define it there")
    found = getattr(module, name)
    _check_signature(key, name, found, arguments)
    return found


def _module(key: str, place: str) -> ModuleType:
    path = Path(place).expanduser()
    if path.suffix == ".py":
        if not path.is_file():
            raise ConfigError(f"there is no file {place}", f"check the path in {key}={place}:...")
        name = f"_selftest_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path.resolve())
        if spec is None or spec.loader is None:
            raise ConfigError(f"{place} cannot be imported", "give a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look themselves up there
        sys.path.insert(0, str(path.resolve().parent))
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise ConfigError(
                f"{place} cannot be run: {type(error).__name__}: {error}{_line(error, path)}", "mend it first"
            ) from error
        finally:
            sys.path.remove(str(path.resolve().parent))
        return module
    try:
        return importlib.import_module(place)
    except ImportError as error:
        raise ConfigError(
            f"there is no module {place!r}: {error}", f"for a file write {key}=my_file.py:my_{key}"
        ) from None


def _line(error: Exception, path: Path) -> str:
    """Where in the user's file it went wrong."""
    trace, line = error.__traceback__, getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path.resolve()):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" (line {line})" if line else ""


def _check_signature(key: str, name: str, found: Any, arguments: Sequence[str]) -> None:
    from amenable.objective.divergence import Divergence

    if key == "f" and isinstance(found, Divergence):
        return
    shown = {"f": "t", "reward": "prompts, completions, **columns", "baseline": "rewards, ratio, groups"}[key]
    fix = f"write def {name}({shown}): ..."
    if not callable(found) or inspect.isclass(found):
        raise ConfigError(
            f"{name} is a {'class' if inspect.isclass(found) else type(found).__name__}, no function", fix
        )
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # some built-in functions do not say
        return
    by_keyword = {argument[:-1]: None for argument in arguments if argument.endswith("=")}
    try:
        signature.bind(*[argument for argument in arguments if not argument.endswith("=")], **by_keyword)
    except TypeError as error:
        called = ", ".join(arguments)
        raise ConfigError(f"{name}{signature} cannot be called as {name}({called}): {error}", fix) from None
