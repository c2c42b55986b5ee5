"""MBPP and the published feedback on it: splits, the 174 published prompts, programs taken there and back."""

from __future__ import annotations

import json
import sys
import types
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from amenable.errors import DataError
from amenable.records import Task
from amenable.task.critiques import load_critiques
from amenable.task.mbpp import load_mbpp
from amenable.task.programming import completion_of, cut_completion

PLACES = [parent / "shared" / "data" for parent in Path(__file__).resolve().parents]
DATA = next((place for place in PLACES if (place / "mbpp.jsonl").exists()), None)

needs_data = pytest.mark.skipif(DATA is None, reason="no shared/data beside the repository")

ROW = {
    "task_id": 12,
    "text": "Add one.",
    "code": "import re\r\nN = 1\r\ndef inc(x):\r\n\treturn x + N\r\n",
    "test_list": ["assert inc(1) == 2", "assert inc(2) == 3"],
    "test_setup_code": "",
}

# The bytes of one dash and one apostrophe were lost in the published prompts.
DAMAGED = {"mbpp/260", "mbpp/679"}


def write(tmp_path: Path, name: str, *rows: dict[str, Any]) -> Path:
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def fails(program: str, task: Task) -> str:
    """ "" if the program passes; these are MBPP's own programs, so they are run as they are."""
    names: dict[str, object] = {}
    try:
        for code in (program, task.setup, *task.tests):
            exec(code, names)
    except BaseException as error:
        return f"{task.task_id}: {error!r}"
    return ""


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    assert DATA is not None
    return load_mbpp(DATA)


@needs_data
def test_splits_are_the_papers(tasks: list[Task]) -> None:
    assert Counter(task.split for task in tasks) == {"prompt": 10, "test": 100, "refine": 200, "train": 664}
    ids = {split: [int(t.task_id[5:]) for t in tasks if t.split == split] for split in ("test", "refine", "train")}
    assert (min(ids["test"]), max(ids["test"])) == (11, 110)
    assert (min(ids["refine"]), max(ids["refine"])) == (111, 310)
    assert (min(ids["train"]), max(ids["train"])) == (311, 974)


@needs_data
def test_prompts_equal_the_published_ones(tasks: list[Task]) -> None:
    assert DATA is not None
    known = {task.task_id: task for task in tasks}
    lines = (DATA / "mbpp_human_feedback.jsonl").read_text(encoding="utf-8").splitlines()
    published = {f"mbpp/{row['task_id']}": row["prompt"] for row in map(json.loads, lines)}
    assert len(published) == 174
    different = {task_id for task_id, prompt in published.items() if prompt != known[task_id].prompt}
    assert different == DAMAGED
    for task_id in DAMAGED:
        assert known[task_id].prompt.encode().decode("ascii", errors="replace") == published[task_id]


@needs_data
def test_completion_goes_there_and_back_for_every_task(tasks: list[Task]) -> None:
    assert DATA is not None
    codes = {f"mbpp/{row['task_id']}": row["code"] for row in map(json.loads, (DATA / "mbpp.jsonl").open())}
    for task in tasks:
        assert task.solution is not None
        completion = completion_of(task, task.solution)
        assert completion is not None
        assert completion.strip()
        assert task.prompt + completion == task.solution
        assert completion_of(task, codes[task.task_id]) == completion
        assert "\r" not in task.prompt + task.solution


@needs_data
@pytest.mark.parametrize("strip_context", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_reference_programs_pass_their_tests(strip_context: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert DATA is not None
    tasks = [task for task in load_mbpp(DATA, strip_context=strip_context) if task.split in ("prompt", "test")]
    assert [why for task in tasks if (why := fails(task.solution or "", task))] == []


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("strip_context", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_all_reference_programs_pass_their_tests(strip_context: bool) -> None:
    assert DATA is not None
    tasks = load_mbpp(DATA, strip_context=strip_context)
    assert [why for task in tasks if (why := fails(task.solution or "", task))] == []


@needs_data
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_few_reference_programs_need_more_than_a_completion_cut_short(tasks: list[Task]) -> None:
    cut = {t.task_id: t.prompt + cut_completion(completion_of(t, t.solution or "") or "") for t in tasks}
    failing = {task.task_id for task in tasks if fails(cut[task.task_id], task)}
    assert failing == {"mbpp/223", "mbpp/717", "mbpp/940"}  # their helpers stand below the function


def test_strip_context_keeps_imports_and_moves_helpers_below(tmp_path: Path) -> None:
    path = write(tmp_path, "mbpp.jsonl", ROW)
    (task,) = load_mbpp(tmp_path)
    assert task.prompt.endswith("import re\nN = 1\ndef inc(x):\n")
    assert (task.task_id, task.split, task.entry_point) == ("mbpp/12", "test", "inc")
    (stripped,) = load_mbpp(path, strip_context=True)
    assert stripped.prompt.endswith('"""\n\nimport re\ndef inc(x):\n')
    assert stripped.solution == stripped.prompt + "\treturn x + N\n\nN = 1\n"
    assert fails(stripped.solution, stripped) == ""


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"task_id": "12"}, "`task_id`"),
        ({"test_list": []}, "`test_list`"),
        ({"code": None}, "`code`"),
        ({"code": "x = 1"}, "no function"),
    ],
)
def test_rows_that_are_not_mbpp_are_refused(tmp_path: Path, change: dict[str, Any], part: str) -> None:
    with pytest.raises(DataError, match=part):
        load_mbpp(write(tmp_path, "mbpp.jsonl", ROW, {**ROW, **change}))
    with pytest.raises(DataError, match="twice"):
        load_mbpp(write(tmp_path, "mbpp.jsonl", ROW, ROW))
    with pytest.raises(DataError, match="no file"):
        load_mbpp(tmp_path / "else")


def test_hub_without_the_package_or_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"amenable\[hub\]"):
        load_mbpp("hub")

    def unreachable(name: str, config: str) -> None:
        raise ConnectionError(f"no route to {name}/{config}")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=unreachable))
    with pytest.raises(DataError, match=r"no route to google-research-datasets/mbpp/full"):
        load_mbpp("hub")


def test_hub_rows_of_all_splits_are_taken_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {"train": [{**ROW, "task_id": 700}], "prompt": [{**ROW, "task_id": 2}]}
    fake = types.SimpleNamespace(load_dataset=lambda name, config: splits)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    assert [(task.task_id, task.split) for task in load_mbpp("hub")] == [
        ("mbpp/2", "prompt"),
        ("mbpp/700", "train"),
    ]


@needs_data
def test_published_critiques(tasks: list[Task]) -> None:
    assert DATA is not None
    critiques = load_critiques(DATA, tasks)
    known = {task.task_id: task for task in tasks}
    assert len(critiques) == 174
    splits = Counter(known[task_id].split for task_id in critiques)
    assert splits == {"refine": 44, "train": 128, "prompt": 2}  # the paper's counts, and none on a test task
    assert all(c.feedback and c.draft and "\r" not in c.draft + c.feedback for c in critiques.values())
    # Two refinements import something above the header, which a continuation of the prompt cannot do.
    said = {i for i, c in critiques.items() if completion_of(known[i], c.refinement or "") is not None}
    assert set(critiques) - said == {"mbpp/469", "mbpp/659"}
    assert all(completion_of(known[i], c.draft) for i, c in critiques.items())


@needs_data
@pytest.mark.filterwarnings("ignore")
def test_published_drafts_fail(tasks: list[Task]) -> None:
    assert DATA is not None
    known = {task.task_id: task for task in tasks}
    critique = load_critiques(DATA, tasks)["mbpp/1"]
    assert fails(critique.draft, known["mbpp/1"])
    assert not fails(critique.refinement or "", known["mbpp/1"])


def own_task(task_id: str) -> Task:
    return Task(task_id=task_id, prompt="def f(x):\n", tests=("assert f(1) == 1",), entry_point="f")


def test_own_critiques_and_bare_numbers(tmp_path: Path) -> None:
    rows = [
        {"task_id": 5, "draft": "def f(x):\r\n    pass", "feedback": " wrong "},
        {"task_id": "mine", "draft": "d", "feedback": "f", "refinement": "r"},
        {"task_id": "6", "draft": "d", "feedback": "f", "refinement": None},
    ]
    path = write(tmp_path, "mbpp_human_feedback.jsonl", *rows)
    tasks = [own_task("mbpp/5"), own_task("mine"), own_task("6"), own_task("other")]
    critiques = load_critiques(tmp_path, tasks)
    assert critiques == load_critiques(path, tasks)
    assert list(critiques) == ["mbpp/5", "mine", "6"]
    assert critiques["mbpp/5"].draft == "def f(x):\n    pass"
    assert (critiques["mbpp/5"].feedback, critiques["mbpp/5"].refinement) == ("wrong", None)
    assert critiques["mine"].refinement == "r"


def test_critiques_on_unknown_tasks_are_named_and_counted(tmp_path: Path) -> None:
    rows = [{"task_id": f"t{i}", "draft": "d", "feedback": "f"} for i in range(8)]
    path = write(tmp_path, "c.jsonl", *rows)
    with pytest.raises(DataError, match=r"7 critiques .* t1, t2, t3, t4, t5, \.\.\.") as caught:
        load_critiques(path, [own_task("t0")])
    assert caught.value.fix
    with pytest.raises(DataError, match="already"):
        load_critiques(write(tmp_path, "d.jsonl", rows[0], rows[0]), [own_task("t0")])
    with pytest.raises(DataError, match="`feedback`"):
        load_critiques(write(tmp_path, "e.jsonl", {"task_id": "t0", "draft": "d"}), [own_task("t0")])
    with pytest.raises(DataError, match="`task_id`"):
        load_critiques(write(tmp_path, "g.jsonl", {"draft": "d", "feedback": "f"}), [own_task("t0")])
