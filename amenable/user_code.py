"""What a user wrote in a Python file of their own, by name: FILE.py:NAME, or PACKAGE.MODULE:NAME.

The file is run as it is: whoever names it trusts it. Its folder is importable while it runs, so that it may be split in two. It
is run once: named again, unchanged, it is the same module, and a model that it loads is not loaded again.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from amenable.errors import ConfigError, nearest

_STAMP = "__amenable_stamp__"


def object_named(text: str, *, key: str = "") -> Any:
    """What `text` names, whatever it is. `key`: the setting that it was given as, for the errors.

    Errors: ConfigError: no such file, module or name; a file that cannot be run, with its line.
    """
    given, example = (f"{key}={text}", f"{key}=my_file.py:my_{key}") if key else (text, "my_file.py:my_function")
    place, colon, name = text.rpartition(":")
    if not colon or not place or not name:
        raise ConfigError(f"{given} does not name a function", f"write {example}")
    module = _module(place, given, example)
    if not hasattr(module, name):
        own = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
        raise ConfigError(f"{place} has no {name!r}", nearest(name, own) if own else "define it there")
    return getattr(module, name)


def function_named(text: str, *, parameters: str, key: str = "") -> Callable[..., Any]:
    """The function that `text` names. `parameters`: what it is to take, for the error about something else; `key`: as above.

    Errors: ConfigError: those of `object_named`; something that is no function.
    """
    return as_function(object_named(text, key=key), text.rpartition(":")[2], parameters=parameters)


def as_function(found: Any, name: str, *, parameters: str) -> Callable[..., Any]:
    """`found`, if it is a function. Errors: ConfigError that says what it is, and how to write one."""
    if not callable(found) or inspect.isclass(found):
        kind = "class" if inspect.isclass(found) else type(found).__name__
        raise ConfigError(f"{name} is a {kind}, no function", f"write def {name}({parameters}): ...")
    function: Callable[..., Any] = found
    return function


def _module(place: str, given: str, example: str) -> ModuleType:
    path = Path(place).expanduser()
    if path.suffix == ".py":
        return _run(path, place, given)
    try:
        return importlib.import_module(place)
    except ImportError as error:
        raise ConfigError(f"there is no module {place!r}: {error}", f"for a file write {example}") from None


def _run(path: Path, place: str, given: str) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"there is no file {place}", f"check the path in {given}")
    file = path.resolve()
    name = f"_user_{path.stem}_{zlib.crc32(str(file).encode()):08x}"
    stamp = (file.stat().st_mtime_ns, file.stat().st_size)
    known = sys.modules.get(name)
    if known is not None and vars(known).get(_STAMP) == stamp:
        return known
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{place} cannot be imported", "give a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up there
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        what = f"{place} cannot be run: {type(error).__name__}: {error}{_line(error, file)}"
        raise ConfigError(what, "mend it first") from error
    finally:
        sys.path.remove(str(file.parent))
    setattr(module, _STAMP, stamp)
    return module


def _line(error: Exception, file: Path) -> str:
    """Where in the user's file it went wrong."""
    trace, line = error.__traceback__, getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" (line {line})" if line else ""
