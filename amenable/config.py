"""A recipe's settings: its defaults, then a YAML file, then `key=value` arguments; the last wins.

The dataclass is the schema: names and types come from its annotations, help and choices from the fields'
metadata (`recipes.settings.setting`). Types: int, float, str, bool, Path, `Literal`, tuples of one of these
(commas between the items), and `X | None` ("none"). Nothing is guessed and nothing ignored: a key that does
not exist, a value of another type and a key given twice are errors that name the key, the value and what was
expected.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from amenable.errors import ConfigError
from amenable.errors import nearest as nearest

Settings = TypeVar("Settings")

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_NONE = ("none", "null", "~")
_EXPECTED: dict[Any, str] = {
    int: "a whole number, such as 8",
    float: "a number, such as 0.7 or 1e-5",
    bool: "true or false",
    str: "text",
    Path: "a path",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One key of a recipe, as help shows it. `choices` is empty where any value of the type will do."""

    name: str
    type: str
    default: str
    choices: tuple[str, ...]
    help: str


class _Unfit(Exception):
    """A value that cannot be of a type; the message says what was expected."""


def resolve(
    settings_class: type[Settings],
    *,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    resumed: Path | None = None,
) -> Settings:
    """`settings_class` with the values of `resumed` (a run's config.yaml), `file`, `overrides` ("key=value").

    Errors: ConfigError (unknown or repeated key, wrong type, no such choice, unreadable file).
    """
    values: dict[str, Any] = {}
    for source in (resumed, file):
        if source is not None:
            for given_key, value in read_yaml(source).items():
                key = _own_name(settings_class, given_key)
                values[key] = _checked(settings_class, key, value, f"in {source}")
    given: set[str] = set()
    for override in overrides:
        key, value = split_override(override)
        key = _own_name(settings_class, key)
        if key in given:
            raise ConfigError(f"{key} is given twice on the command line", f"keep one {key}=value")
        given.add(key)
        values[key] = _checked(settings_class, key, value, "on the command line")
    for field in _fields(settings_class):
        if field.name not in values and _default(field) is dataclasses.MISSING:
            raise ConfigError(f"{field.name} has no default and was not given", f"add {field.name}=value")
    return settings_class(**values)


def describe(settings_class: type[Any]) -> list[Row]:
    """One row a key, in the dataclass's order."""
    hints = typing.get_type_hints(settings_class)
    return [
        Row(
            name=field.name,
            type=_type_name(hints[field.name]),
            default="(required)" if (default := _default(field)) is dataclasses.MISSING else value_text(default),
            choices=tuple(value_text(choice) for choice in _choices(field, hints[field.name])),
            help=str(field.metadata.get("help", "")),
        )
        for field in _fields(settings_class)
    ]


def to_yaml(settings: Any) -> str:
    """Every setting of an instance as YAML, in order; `resolve` reads the same values back."""
    plain = {field.name: _plain(getattr(settings, field.name)) for field in _fields(type(settings))}
    for readable in (True, False):  # PyYAML leaves a few line separators bare and reads them as spaces
        text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=readable, width=110)
        if yaml.safe_load(text) == plain:
            break
    return text


def read_yaml(file: Path) -> dict[str, Any]:
    """The top-level keys of a YAML file; an empty file has none. Errors: ConfigError, with the line."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {file}", "check the path given to --config") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}", "give a UTF-8 YAML file") from error
    try:
        loaded = yaml.load(text, Loader=_OnceLoader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not YAML: {error}", "write one `key: value` a line") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise ConfigError(f"{file} does not hold keys and values", "write one `key: value` a line")
    return loaded


def split_override(text: str) -> tuple[str, str]:
    """("key", "value") of "key=value". Errors: ConfigError."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{text!r} is not a setting: it has no key=value", "write key=value, such as seed=1")
    return key.strip(), value.strip()


def value_text(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, tuple | list):
        return ",".join(value_text(item) for item in value)
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _own_name(settings_class: type[Any], key: str) -> str:
    """The name of the setting that `key` is another name of (its metadata's `also`); any other key as it is."""
    return next((field.name for field in _fields(settings_class) if key and key == field.metadata.get("also")), key)


def _checked(settings_class: type[Any], key: str, value: Any, where: str) -> Any:
    """`value` in the type of the setting `key`, one of its choices."""
    fields = {field.name: field for field in _fields(settings_class)}
    if key not in fields:
        raise ConfigError(f"there is no setting {key!r} ({where})", nearest(key, fields))
    annotation = typing.get_type_hints(settings_class)[key]
    default = _default(fields[key])
    usual = "" if default is dataclasses.MISSING else f"; the default is {value_text(default) or 'empty'}"
    try:
        converted = _convert(value, annotation)
    except _Unfit as expected:
        what = f"{key}={value_text(value)} ({where}) is not {expected}"
        raise ConfigError(what, f"give {key} {expected}{usual}") from None
    choices = _choices(fields[key], annotation)
    for item in converted if isinstance(converted, tuple) else (converted,):
        if choices and item is not None and item not in choices:
            listed = ", ".join(value_text(choice) for choice in choices)
            close = difflib.get_close_matches(str(item), [str(choice) for choice in choices], n=1, cutoff=0.5)
            meant = f"did you mean {close[0]!r}? " if close else ""
            what = f"{key}={value_text(item)} ({where}) is not one of {listed}"
            raise ConfigError(what, f"{meant}choose {listed}{usual}")
    return converted


def _convert(value: Any, annotation: Any) -> Any:
    """`value` (text from the command line, or what YAML read) as `annotation`. Raises _Unfit."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, typing.get_args(annotation))
    if origin is typing.Literal:
        return _convert(value, type(typing.get_args(annotation)[0]))  # which one is checked as a choice
    if origin is tuple:
        item = typing.get_args(annotation)[0]
        try:
            return tuple(_convert(part, item) for part in _parts(value))
        except _Unfit as expected:
            raise _Unfit(f"a list with commas, each of {expected}") from None
    if annotation not in _CONVERTERS:
        raise ConfigError(f"settings of type {_type_name(annotation)} cannot be read", "report this as a bug")
    try:
        return _CONVERTERS[annotation](value)
    except (ValueError, TypeError, OverflowError):
        raise _Unfit(_EXPECTED[annotation]) from None


def _convert_union(value: Any, options: tuple[Any, ...]) -> Any:
    optional = type(None) in options
    if optional and (value is None or (isinstance(value, str) and value.lower() in _NONE)):
        return None
    expected = []
    for option in options:
        if option is not type(None):
            try:
                return _convert(value, option)
            except _Unfit as unfit:
                expected.append(str(unfit))
    raise _Unfit(", or ".join([*expected, *(["none"] if optional else [])]))


def _parts(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, str):
        inner = value.removeprefix("[").removesuffix("]") if value.startswith("[") else value
        return [part.strip() for part in inner.split(",")] if inner.strip() else []
    return [value]


def _int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError
    return int(value)


def _float(value: Any) -> float:
    """A number; YAML reads 1e-5 as text, so text is converted too. nan would fail far from here: refused."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or math.isnan(float(value)):
        raise ValueError
    return float(value)


def _bool(value: Any) -> bool:
    text = str(value).lower() if isinstance(value, bool | str) else ""
    if text not in (*_TRUE, *_FALSE):
        raise ValueError
    return text in _TRUE


def _str(value: Any) -> str:
    if not isinstance(value, str):  # an unquoted no, 1.0 or date in YAML is no longer what was written
        raise ValueError
    return value


def _path(value: Any) -> Path:
    return Path(_str(value)).expanduser()


_CONVERTERS: dict[Any, Callable[[Any], Any]] = {int: _int, float: _float, bool: _bool, str: _str, Path: _path}


def _fields(settings_class: type[Any]) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(settings_class) if field.init]


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _choices(field: dataclasses.Field[Any], annotation: Any) -> tuple[Any, ...]:
    literal = typing.get_args(annotation) if typing.get_origin(annotation) is typing.Literal else ()
    return tuple(field.metadata.get("choices", ())) or literal


def _type_name(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type_name(option) for option in typing.get_args(annotation))
    if origin is tuple:
        return f"{_type_name(typing.get_args(annotation)[0])},..."
    if origin is typing.Literal:
        return type(typing.get_args(annotation)[0]).__name__
    return "none" if annotation is type(None) else str(getattr(annotation, "__name__", annotation))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


class _OnceLoader(yaml.SafeLoader):
    """A SafeLoader that refuses a key given twice instead of keeping the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.value in seen and isinstance(key_node, yaml.ScalarNode):
                problem = f"the key {key_node.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key_node.value if isinstance(key_node, yaml.ScalarNode) else id(key_node))
        return super().construct_mapping(node, deep)
