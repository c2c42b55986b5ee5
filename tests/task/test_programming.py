"""The paper's prompt, completions cut and taken back, and one's own task files and what can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amenable.errors import DataError
from amenable.records import Task
from amenable.task.programming import STOP_BODY, completion_of, cut_completion, load_tasks, paper_prompt
from amenable.task.source import (
    body_of,
    entry_point_of,
    same_parameters,
    split_at_header,
    split_imports,
)


def write(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "mine.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def task(prompt: str, entry_point: str = "f") -> Task:
    return Task(task_id="t", prompt=prompt, tests=("assert f(1) == 1",), entry_point=entry_point)


def test_paper_prompt_by_hand() -> None:
    prompt = paper_prompt("Add one.", "assert inc(1) == 2", "import math\ndef inc(x):")
    assert prompt == '"""\nAdd one.\n\n>>> Example: inc(1) = 2\n"""\n\nimport math\ndef inc(x):\n'
    assert paper_prompt("Add.", "", "def inc(x):") == '"""\nAdd.\n"""\n\ndef inc(x):\n'


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("    return 1\n\n\ndef g():\n    pass\n", "    return 1\n"),
        ("    x = 1\n\n    return x", "    x = 1\n\n    return x\n"),
        ("    return [\n        1,\n]\nprint(1)\n", "    return [\n        1,\n]\n"),
        ("\treturn 1   \n# done\n", "\treturn 1\n"),
        ("", "\n"),
    ],
)
def test_cut_completion(text: str, cut: str) -> None:
    assert cut_completion(text) == cut
    assert cut_completion(cut) == cut


def test_stop_strings_end_a_sample_where_cut_completion_does() -> None:
    assert len(set(STOP_BODY)) == 26 * 2 + 1 + 13
    for stop in STOP_BODY:
        assert cut_completion("    return 1" + stop + " = 2") == "    return 1\n"
    for goes_on in ("\n ", "\n\t", "\n\n    ", "\n)", "\n]", "\n}"):
        assert not any(("    a" + goes_on).find(stop) >= 0 for stop in STOP_BODY)


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("def f(a):\n    return 1\n", ("", "def f(a):", "\n    return 1\n")),
        ("import re\ndef f(a: dict[str, int] = {1: 2}) -> int : # c\n  pass", None),
        ("def ff(a):\n    pass\ndef f(\n    a,\n    b,\n):\n    retur n", None),
        ("x = 1\ndef f(x=lambda y: y): return x\n", None),
    ],
)
def test_split_at_header_joins_to_the_source(source: str, parts: tuple[str, str, str] | None) -> None:
    found = split_at_header(source, "f")
    assert found is not None
    assert "".join(found) == source
    assert found[1].startswith("def f(")
    assert found[1].endswith(":")
    if parts:
        assert found == parts


def test_split_at_header_finds_the_name_and_not_one_like_it() -> None:
    assert split_at_header("def ff(a):\n    pass\n", "f") is None
    assert split_at_header("class A:\n    def f(self):\n        pass\n", "f") is None
    assert split_at_header("def f(a\n", "f") is None


def test_body_of_a_one_line_function() -> None:
    assert body_of(" return x\ny = 1\n") == "    return x\ny = 1\n"
    assert body_of("  # why\n    return x\n") == "    return x\n"


def test_same_parameters() -> None:
    assert same_parameters("def f(a, b=1):", "def f( a:int,b = 1 )->int:")
    assert not same_parameters("def f(a, b):", "def f(b, a):")
    assert not same_parameters("def f(a, b=1):", "def f(a, b=2):")


def test_split_imports_keeps_decorators_with_their_functions() -> None:
    source = "import re\nfrom functools import cache\nN = 3\n@cache\ndef g(x):\n    return x\n"
    imports, others = split_imports(source)
    assert imports == "import re\nfrom functools import cache\n"
    assert others == "N = 3\n@cache\ndef g(x):\n    return x\n"


@pytest.mark.parametrize(
    ("test", "name"),
    [
        ("assert f(1) == 2", "f"),
        ("assert set(f(1)) == set(g(2))", "f"),
        ("assert math.isclose(f(2), 1.5)", "f"),
        ("assert not f(3)", "f"),
        ("assert sorted(len(f(x)) for x in range(3)) == []", "f"),
        ("assert 3 == f(g(2))", "f"),
        ("assert len([]) == 0", None),
    ],
)
def test_entry_point_is_the_first_name_called_that_is_no_builtin(test: str, name: str | None) -> None:
    assert entry_point_of([test]) == name


def test_entry_point_prefers_what_the_solution_defines_and_skips_the_setup() -> None:
    assert entry_point_of(["assert sum(1, 2) == 3"], defined=["sum"]) == "sum"
    assert entry_point_of(["assert near(f(1), 2)"], setup="def near(a, b):\n    return a == b\n") == "f"


PROMPT = '"""\nWords.\n"""\n\nimport re\ndef f(a, b):\n'


@pytest.mark.parametrize(
    ("program", "completion"),
    [
        (PROMPT + "    return a\n", "    return a\n"),
        (PROMPT.replace("\n", "\r\n") + "    return a\r\n", "    return a\n"),
        ("def f(a, b):\n    return a\n", "    return a\n"),
        ("import re\n\n\ndef f(a, b):  # note\n    return a\n", "    return a\n"),
        ("def f(a: int, b: int) -> int: return a", "    return a"),
        ("import os\ndef f(a, b):\n    return os.sep\n", None),
        ("def help(a):\n    return a\ndef f(a, b):\n    return help(a)\n", None),
        ("def f(b, a):\n    return a\n", None),
        ("def g(a, b):\n    return a\n", None),
        ("not a program at all", None),
    ],
)
def test_completion_of(program: str, completion: str | None) -> None:
    assert completion_of(task(PROMPT), program) == completion


def test_completion_of_an_open_header_and_of_a_docstring_inside() -> None:
    assert completion_of(task('"""\nW.\n"""\n\ndef f('), "def f(x, y=2):\n    return x\n") == (
        "x, y=2):\n    return x\n"
    )
    inside = 'def f(x):\n    """Words."""\n'
    assert completion_of(task(inside), inside + "    return x\n") == "    return x\n"
    assert completion_of(task(inside), "def f(x):\n    return x\n") is None


def test_load_tasks_from_words_code_and_signature(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"prompt": "Add one.", "tests": ["assert inc(1) == 2", "assert inc(0) == 1"]},
        {"prompt": "def inc(x):", "tests": ["assert inc(1) == 2"], "task_id": 7, "split": "test"},
        "",
        {"prompt": "Add one.", "tests": ["assert inc(1) == 2"], "signature": "def inc(x)", "shown": 0},
        {
            "prompt": "Add one.",
            "tests": ["assert inc(1) == 2"],
            "solution": "import re\ndef inc(x): return x + 1\n",
            "test_setup_code": "y = 1",
        },
        {"prompt": 'def inc(x):\n    """Add one: inc(1) is 2."""\n', "tests": ["assert inc(1) == 2"]},
    )
    words, code, signed, solved, inside = load_tasks(path)
    assert words.prompt == '"""\nAdd one.\n\n>>> Example: inc(1) = 2\n"""\n\ndef inc('
    assert (words.task_id, words.shown, words.text, words.entry_point) == ("mine/1", 1, "Add one.", "inc")
    assert code.prompt == "def inc(x):\n"
    assert (code.task_id, code.split, code.shown, code.text) == ("7", "test", 0, "")
    assert signed.prompt == '"""\nAdd one.\n"""\n\ndef inc(x):\n'
    assert (signed.task_id, signed.shown) == ("mine/4", 0)
    assert solved.prompt.endswith('= 2\n"""\n\nimport re\ndef inc(x):\n')
    assert solved.solution == solved.prompt + "    return x + 1\n"
    assert solved.setup == "y = 1"
    assert inside.prompt.endswith('"""\n')
    assert inside.shown == 1


GOOD = {"prompt": "Add one.", "tests": ["assert inc(1) == 2"]}


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ('{"prompt": ', ["line 2", "not valid JSON"]),
        ("[1, 2]", ["line 2", "not a JSON object"]),
        ({"tests": ["assert f(1) == 1"]}, ["line 2", "`prompt`", "missing"]),
        ({"prompt": "  ", "tests": ["assert f(1) == 1"]}, ["line 2", "`prompt`", "empty"]),
        ({"prompt": "Words."}, ["line 2", "`tests`", "missing"]),
        ({"prompt": "Words.", "test_list": ["assert f(1) == 1"]}, ["line 2", "`tests`", "`test_list`"]),
        ({"prompt": "Words.", "tests": []}, ["line 2", "`tests`", "empty"]),
        ({"prompt": "Words.", "tests": "assert f(1) == 1"}, ["line 2", "`tests`", "list"]),
        ({"prompt": "Words.", "tests": ["f(1) == 1"]}, ["line 2", "`tests`[0]", "f(1) == 1"]),
        (
            {"prompt": "Words.", "tests": ["assert f(1", "assert f(1)"]},
            ["line 2", "`tests`[0]"],
        ),
        ({"prompt": "Words.", "tests": ["assert f(1)\nassert f(2)"]}, ["line 2", "`tests`[0]"]),
        ({"prompt": "Words.", "tests": ["assert len([]) == 0"]}, ["line 2", "entry point"]),
        ({**GOOD, "entry_point": "in c"}, ["line 2", "`entry_point`", "'in c'"]),
        ({**GOOD, "task_id": "mine/1"}, ["line 2", "mine/1", "line 1"]),
        ({**GOOD, "task_id": ["x"]}, ["line 2", "`task_id`"]),
        ({**GOOD, "shown": 2}, ["line 2", "`shown`", "2"]),
        ({**GOOD, "split": 3}, ["line 2", "`split`", "3"]),
        ({**GOOD, "signature": "def other(x):"}, ["line 2", "`signature`", "other"]),
        ({**GOOD, "prompt": 'Say """hi""".', "signature": "def inc(x)"}, ["line 2", "`prompt`"]),
        (
            {**GOOD, "solution": "def dec(x):\n    pass", "entry_point": "inc"},
            ["line 2", "`solution`", "inc"],
        ),
    ],
)
def test_load_tasks_names_file_line_field_and_fix(tmp_path: Path, row: object, parts: list[str]) -> None:
    path = write(tmp_path, GOOD, row)
    with pytest.raises(DataError) as caught:
        load_tasks(path)
    assert "mine.jsonl" in caught.value.what
    assert [part for part in parts if part not in caught.value.what] == []
    assert caught.value.fix


def test_load_tasks_refuses_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no file"):
        load_tasks(tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match="holds no task"):
        load_tasks(write(tmp_path, ""))
    bad = tmp_path / "latin.jsonl"
    bad.write_bytes(b'{"prompt": "caf\xe9"}\n')
    with pytest.raises(DataError, match="cannot be read"):
        load_tasks(bad)
