"""The fast count of style violations is pycodestyle's own, line by line: on real files and on made-up text."""

from __future__ import annotations

import io
import random
import sysconfig
from collections import Counter
from pathlib import Path

import pycodestyle
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from amenable.feedback.pep8_lines import COMPARED, Guarded, Rows, pep8_by_line, reference_rows
from amenable.feedback.python_text import excused, options_of, pep8_violations
from amenable.feedback.segments import line_ends

LIBRARY = Path(sysconfig.get_paths()["stdlib"])


def expected(text: str) -> list[int]:
    """What pycodestyle's own checker says, put on lines as the module promises; texts without null bytes or surrogates."""
    lines = io.StringIO(excused(text), newline=None).readlines()
    rows, stopped = reference_rows(lines, options_of((), (), 79))
    found = [0] * len(lines)
    for row in [*rows, *([stopped] if stopped else [])]:
        found[min(max(row, 1), len(found)) - 1] += 1
    return found


def library_texts(count: int) -> list[tuple[str, str]]:
    """Short files at random out of the whole library, its tests included: some of those are made not to tokenise."""
    files = sorted(path for path in LIBRARY.rglob("*.py") if "site-packages" not in path.parts)
    chosen = random.Random(6).sample(files, 3 * count)
    small = [path for path in chosen if 0 < path.stat().st_size < 12_000][:count]
    bad = [path for path in files if path.name.startswith(("bad", "badsyntax"))]
    return [(path.name, path.read_text(encoding="latin-1")) for path in [*small, *bad]]


def test_it_is_equal_on_the_standard_library() -> None:
    texts = library_texts(100)
    assert len(texts) >= 100
    violations = 0
    for name, text in texts:
        assert pep8_by_line(text) == expected(text), name
        violations += sum(expected(text))
    assert violations > 200  # so that there was something to miss


FRAGMENTS = st.sampled_from(
    "def class async @ if else : elif for in is not and or lambda return import from except try x y l O I 1 'a' \"b\" f'{x}' "
    "r'\\d' '\\d' '''a b''' ( ) [ ] { } , ; = == != += -> := ** * - + / % ~ < >= . ... # #! #: None True type(x) noqa \\ $ ? `"
    .split()
)  # fmt: skip
GAPS = st.sampled_from(
    ["", " ", " ", "  ", "\t", "\n", "\n", "\n    ", "\n        ", "\n\n", "\n\n\n\n", " \n", "\\\n", "\x0c", "\r\n"]
)
PROGRAMS = st.lists(st.tuples(FRAGMENTS, GAPS), max_size=25).map(lambda parts: "".join(a + b for a, b in parts))


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@example(",\x0c")
@example("x,\x0b\n")
@example("def:=\n")
@given(PROGRAMS | st.text(alphabet="ab(): \n\t'\"#=,\\é\x0c", max_size=40))
def test_it_is_equal_on_made_up_text(text: str) -> None:
    found = pep8_by_line(text)
    assert found == expected(text)
    assert len(found) == len(line_ends(text))
    assert sum(found) == pep8_violations(text)


FAULTS = (
    "x = 1\n", "x=1\n", "def f(a, b = 2):\n    return a\n", "import os, sys\n", "if x :\n    pass\n", "    y = [1,2 ]\n",
    "\n", "\n\n", "class A: pass\n", "@d\n", "# c\n", "#c\n", "z = (1,\n  2)\n", "s = '''a \n b'''\n", "l = 1\n",
    "assert x == None\n", "a = b if not c in d else e\n", "print('x' *2)\n", "except:\n", "\ty = 1\n", "f = lambda: 0\n",
    "x = 1;\n", "a = \\\n    1\n", "foo (1)\n", "x  = 1  # noqa\n", "if(x):\n",
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(FAULTS), max_size=12).map("".join))
def test_it_is_equal_on_lines_with_each_fault(text: str) -> None:
    assert pep8_by_line(text) == expected(text)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("x = 1\n", [0]),
        ("x=1\r\ny = 2\r\n", [1, 0]),
        ("x=1 # noqa\n", [2]),  # it does not excuse: E225 and E261
        ("x = (\n", [1]),  # an end that never comes is put on the last line
        ("x = 1\n\n\n", [0, 0, 1]),  # W391
        ("x = 1\ny = '\0'\n", [0, 1]),
        ("x = '\ud800'\n", [1]),
    ],
)
def test_cases_worked_by_hand(text: str, lines: list[int]) -> None:
    assert pep8_by_line(text) == lines
    assert sum(lines) == pep8_violations(text)


def test_a_text_on_which_pycodestyle_breaks_down_has_one_violation_for_it() -> None:
    assert sum(pep8_by_line("b\n")) == pep8_violations("b\n") >= 1


def test_the_conditions_are_in_use_with_this_pycodestyle() -> None:
    assert pycodestyle.__version__.rpartition(".")[0] in COMPARED
    options = options_of((), (), 79)
    text = (LIBRARY / "textwrap.py").read_text()
    ran: Counter[str] = Counter()

    class Watched(Guarded):
        def _run(self, name: str, mapping: object) -> None:
            ran[name] += 1
            super()._run(name, mapping)

    report = Rows(options)
    Watched(text.splitlines(keepends=True), options, report).check_all()
    logical = text.count("\n")
    assert sum(ran.values()) < 6 * logical  # of some twenty checks a line
    assert sorted(report.rows) == sorted(reference_rows(text.splitlines(keepends=True), options)[0])
