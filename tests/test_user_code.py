"""A user's own functions by name: what is found, what is run, and what is said about what is not there."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from amenable.errors import ConfigError
from amenable.user_code import function_named, object_named

FILE = """
from dataclasses import dataclass
from beside import two

@dataclass(frozen=True)
class Kept:
    value: int = 1

CONSTANT = Kept()

def double(x):
    return two * x
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("two = 2\n")
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def test_a_function_of_a_file_that_imports_what_stands_beside_it(file: Path) -> None:
    assert function_named(f"{file}:double", parameters="x")(21) == 42
    assert object_named(f"{file}:CONSTANT").value == 1
    file.write_text("def double(x):\n    return 3 * x\n")
    assert function_named(f"{file}:double", parameters="x")(2) == 6  # the file as it is now


def test_a_function_of_a_module() -> None:
    assert function_named("math:sqrt", parameters="x") is math.sqrt


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("mine.py:doubel", "did you mean 'double'"),
        ("mine.py:CONSTANT", "CONSTANT is a Kept, no function"),
        ("mine.py:Kept", "Kept is a class, no function"),
        ("none.py:f", "there is no file"),
        ("no_such_module_at_all:f", "there is no module 'no_such_module_at_all'"),
        ("double", "does not name a function"),
        (":double", "does not name a function"),
    ],
)
def test_what_is_not_there_is_said_with_a_fix(file: Path, text: str, complaint: str) -> None:
    named = str(file.parent / text) if ".py" in text else text
    with pytest.raises(ConfigError, match=complaint):
        function_named(named, parameters="x")


def test_an_error_in_the_file_is_told_with_its_line(file: Path) -> None:
    file.write_text("x = 1\n\ny = x / 0\n")
    with pytest.raises(ConfigError, match=r"ZeroDivisionError: division by zero \(line 3\)"):
        object_named(f"{file}:y")
    file.write_text("x = 1\ndef f(:\n")
    with pytest.raises(ConfigError, match=r"SyntaxError: .*\(line 2\)"):
        object_named(f"{file}:f")


def test_a_file_is_run_once_until_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "heavy.py"
    file.write_text("ran = []\ndef f(texts):\n    return ran\n")
    first = object_named(f"{file}:f")
    assert object_named(f"{file}:f") is first
    assert object_named(f"{file}:ran") is first([])
    file.write_text("def f(texts):\n    return 'mended'\n")
    assert object_named(f"{file}:f")([]) == "mended"
    file.write_text("def f(texts:\n")
    with pytest.raises(ConfigError, match="cannot be run"):
        object_named(f"{file}:f")
    with pytest.raises(ConfigError, match="cannot be run"):
        object_named(f"{file}:f")
