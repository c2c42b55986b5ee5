"""A user's own function by name, and whether it can be called as the selftest will call it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from amenable.errors import ConfigError
from amenable.user_code import as_function, object_named

_PARAMETERS = {"f": "t", "reward": "prompts, completions, **columns", "baseline": "rewards, ratio, groups"}


def load(key: str, text: str, arguments: Sequence[str]) -> Any:
    """What `key`=`text` names. `arguments`: what it is called with, a name that ends in "=" by keyword.

    Errors: ConfigError: no such file or name, a file that cannot be run, something that cannot be called in this way.
    """
    from amenable.objective.divergence import Divergence

    found = object_named(text, key=key)
    if key == "f" and isinstance(found, Divergence):
        return found
    name = text.rpartition(":")[2]
    as_function(found, name, parameters=_PARAMETERS[key])
    _check_call(name, found, arguments, fix=f"write def {name}({_PARAMETERS[key]}): ...")
    return found


def _check_call(name: str, found: Any, arguments: Sequence[str], *, fix: str) -> None:
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
