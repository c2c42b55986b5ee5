"""What Python and pycodestyle say of a text: the traps one by one, and the laws."""

from __future__ import annotations

import codeop
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from amenable.errors import DataError
from amenable.feedback import python_text
from amenable.feedback.constraints import all_of, compiles, contains, pep8, pep8_violations
from amenable.feedback.feature import NamedScore, Values
from amenable.feedback.python_text import is_program, pep8_codes, silent

TEXTS = st.one_of(st.text("ab \nx=1:(\t", max_size=30), st.text(max_size=20))


def one(feature: NamedScore, completion: str, prompt: str = "", **columns: object) -> float | None:
    [value] = feature([prompt], [completion], **columns)
    return value


PROGRAMS = [
    ("def f():\n return 1", 1),
    ("def f():\n return 1\n", 1),
    ("def f():\n", 0),
    ("def f():\n pass\nx", 1),
    ("x = (1,\n", 0),
    ("x = '''abc\n", 0),
    ("if 1:\n    x\nelse:\n", 0),
    ("print 'hello'\n", 0),
    ("exec 'x'", 0),
    ("return 1", 0),
    ("def f():\n    yield\n  x", 0),
    ("x = '\\d'", 1),
    ("1 is 1", 1),
    ("assert (1, 'x')", 1),
    ("from __future__ import nothing", 0),
    ("from __future__ import annotations\nx: y", 1),
    # an error under `from __future__ import annotations`, as in this file, and for everyone from CPython 3.14
    ("def f():\n    def g(x: (yield)): return x", sys.version_info < (3, 14)),
    ("x = '\0'", 0),
    ("x = '\ud800'", 0),
    ("x = " + "9" * 5000, 0),
    ("x = " + "(" * 5000, 0),
    ("x = " + "-" * 100_000 + "1", 0),
    ("x" + ".b" * 100_000, 0),
    ("x" + "()" * 100_000, 0),
    ("x = " + "2**" * 10_000 + "2", 0),
    ("\n".join(" " * i + "if 1:" for i in range(300)), 0),
    ("x = 'a' * 10**9", 1),
    ("x = 9**9**9", 1),
    ("x = 1\r\ny = 2\r", 1),
]


@pytest.mark.parametrize(("text", "value"), PROGRAMS)
def test_programs(text: str, value: float) -> None:
    assert one(compiles(), text) == value


@given(st.one_of(TEXTS, st.sampled_from([text for text, _ in PROGRAMS if len(text) < 100])))
@example("")
@example("# only a comment")
@example("x = 1\\")
@example("\ufeffx = 1")
@example("\x0cx = 1\n\x0c")
def test_code_is_what_codeop_takes_for_code(text: str) -> None:
    try:
        with silent():
            expected = codeop.compile_command(text, symbol="exec") is not None
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        expected = False
    if any(line.strip() and not line.strip().startswith("#") for line in text.split("\n")):
        assert one(compiles(statements=0), text) == expected
    assert one(compiles(), text) in (0, expected), "statements=1 only takes away"


@pytest.mark.parametrize(
    ("prompt", "completion", "count"),
    [
        ("", "", 0),
        ("", "# a comment\n", 0),
        ("", "'''a docstring'''", 0),
        ("", "pass", 0),
        ("", "...\nNone\n1", 0),
        ("def f():\n", "    pass", 0),
        ("def f():\n", '    """Says."""', 0),
        ("def f():\n    x = 1\n", "    # done", 0),
        ("def f():\n", "    return 1", 1),
        ("def f():\n    return", " 1", 1),
        ("def f():\r\n    x = 'é'\r\n", "    return 1", 1),
        ("x = '\u2028\x0b\x0c'\n", "y = 1", 1),
        ("x = 'é'", "; y = 1", 1),
        ("", "x = 1; y = 2\nif x:\n    y = 3\nelif y:\n    z()\nelse:\n    pass", 4),
        ("", "try:\n  a()\nexcept E:\n  b()\nelse:\n  c()\nfinally:\n  d()", 4),
        ("", "match x:\n  case 1:\n    y = 1\n  case _:\n    pass", 1),
        ("", "class A:\n  def f(self):\n    return lambda: 1", 1),
        ("", "with a:\n  for b in c:\n    while d:\n      del e", 1),
        ("", "x if y else z", 1),
    ],
)
def test_statements_that_the_completion_brings(prompt: str, completion: str, count: int) -> None:
    assert is_program(prompt, completion)
    assert is_program(prompt, completion, statements=count)
    assert not is_program(prompt, completion, statements=count + 1)
    assert one(compiles(), completion, prompt) == float(count > 0)


@given(TEXTS, st.integers(0, 3))
def test_asking_for_more_statements_holds_less_often(text: str, statements: int) -> None:
    fewer, more = (one(compiles(statements=number), text) or 0.0 for number in (statements, statements + 1))
    assert fewer >= more


def test_what_was_cut_off_does_not_compile() -> None:
    texts = ["x = 1"] * 3
    assert compiles()([""] * 3, texts, ended=["eos", "stop", "length"]) == [1, 1, 0]
    assert compiles()([""] * 3, texts, ended="length") == [0, 0, 0]
    assert compiles()([""] * 3, texts) == [1, 1, 1]
    assert compiles(finished=False)([""] * 3, texts, ended=["eos", "stop", "length"]) == [1, 1, 1]
    both_ways = all_of(compiles(), contains("x"))
    assert both_ways([""] * 3, texts, ended=["eos", "stop", "length"], other=[1, 2, 3]) == [1, 1, 0]
    for wrong in (["eos", "stop", "max"], ["eos", "stop", None], ["eos"], 3):
        with pytest.raises(DataError, match="the column ended"):
            compiles()([""] * 3, texts, ended=wrong)


def test_compiling_neither_warns_nor_turns_warnings_into_errors() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error")
        before = warnings.filters[:]
        assert one(compiles(), "x = '\\d'; 1 is 1") == 1.0
        assert one(pep8(ignore=["W", "E"]), "x = '\\d'") == 1.0
        assert warnings.filters == before
    assert caught == []


def test_deep_nesting_is_survived_in_a_thread_too() -> None:
    results: list[Values] = []
    texts = [text for text, _ in PROGRAMS]
    thread = threading.Thread(target=lambda: results.append(compiles()([""] * len(texts), texts)))
    thread.start()
    thread.join()
    assert results == [[float(value) for _, value in PROGRAMS]]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("x = 1\n", 0),
        ("x=1\n", 1),
        ("x = 1 \n", 1),
        ("x = 1\n\n", 1),
        ("", 0),
        ("def f():\n    return 1\n", 0),
        ("def f():\n  return 1\n", 1),
        (f"x = '{'a' * 80}'\n", 1),
        (f"x = '{'a' * 80}'  # noqa\n", 1),
        ("if x == None:  # NOQA\n    pass\n", 1),
        (f"# {'a' * 71} noqa\n", 0),
        (f"# {'a' * 70} # noqa\n", 0),
        ("x = 'a\u2028b'\n", 0),
        (f"{'x' * 50} = 1\r{'y' * 50} = 2\r\n", 0),
        ("x = '\0'\n", 1),
        ("x = '\ud800'\n", 1),
        ("print 'style is not grammar'\n", 0),
    ],
)
def test_violations_by_hand(text: str, count: int) -> None:
    if "\0" in text or "\ud800" in text:
        assert pep8_violations(text) >= count  # CPython 3.12's tokenizer refuses them as well
    else:
        assert pep8_violations(text) == count


@settings(deadline=None)
@given(TEXTS)
@example("x = (")
@example("\\")
@example("'''")
@example("\tx\n x\n\\\n")
def test_pep8_never_raises_and_ignoring_only_helps(text: str) -> None:
    count = pep8_violations(text)
    assert 0 <= pep8_violations(text, ignore=("W",)) <= count
    assert pep8_violations(text, max_line_length=200) <= count
    assert one(pep8(), text) == float(pep8_violations(text.removesuffix("\n") + "\n") == 0)


def test_pep8_looks_at_the_whole_program() -> None:
    assert one(pep8(), "    return x", "def f(x):\n") == 1.0
    assert one(pep8(), "    return x", "def f( x ):\n") == 0.0
    assert one(pep8(), "    return x\n", "def f(x):\n") == 1.0, "a line that ends is not ended again"
    assert one(pep8(), "    return x\n\n", "def f(x):\n") == 0.0, "an empty line at the end of a file"
    assert one(pep8(ignore=["E201", "E202"]), "    return x", "def f( x ):\n") == 1.0
    assert one(pep8(select=["W"]), "    return x", "def f( x ):\n") == 1.0
    assert one(pep8(), "(x +\n     1)", "y = ") == 1.0, "pycodestyle's own exceptions stay with `ignore` and without"
    assert one(pep8(ignore=["E501"]), "(x +\n     1)", "y = ") == 1.0


def test_a_users_settings_of_pycodestyle_have_no_say(tmp_path: Path) -> None:
    (tmp_path / "pycodestyle").write_text("[pycodestyle]\nmax-doc-length = 5\nindent-size = 2\nselect = E9\n")
    (tmp_path / "setup.cfg").write_text("[pycodestyle]\nselect = E9\nignore = W\n")
    code = (
        "from amenable.feedback.python_text import pep8_violations as v\n"
        "print(v('def f():\\n    return 1  # a longer comment\\n'), v('x=1\\n'), v('if x:\\n  y\\n'))"
    )
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == "0 1 1\n", done.stderr


def test_codes_are_those_of_pycodestyle_and_their_sum_is_the_count() -> None:
    assert pep8_codes("x=1\ny = 2 \n") == {"E225": 1, "W291": 1}
    assert pep8_codes("") == {}
    for text in ("x=1  # noqa\n", "def f(:\n", "import os, sys\n" * 3, "a = [1,2]\n\n\n\n"):
        assert sum(pep8_codes(text).values()) == python_text.pep8_violations(text)
