"""The embedded tasks: right, decided by their hidden tests, all different, and from no benchmark."""

from __future__ import annotations

import ast
import copy
import itertools
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amenable.errors import ConfigError
from amenable.task.embedded import LEVELS, embedded_rows, load_embedded
from amenable.task.mbpp import load_mbpp
from amenable.task.programming import completion_of, cut_completion

ROWS = embedded_rows()
IDS = [row["task_id"] for row in ROWS]


def passes(program: str, tests: list[str]) -> bool:
    """For our own programs and small changes of them; half a second each, as a changed loop may not end."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        names: dict[str, object] = {}
        exec(program, names)
        for test in tests:
            exec(test, names)
    except Exception:
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return True


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def overlap(first: set[str], second: set[str]) -> float:
    return len(first & second) / len(first | second)


SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add,
}  # fmt: skip


class WithoutCall(ast.NodeTransformer):
    """Puts in place of call number `index` what it is called on: `f(x)` and `x.f()` become `x`."""

    def __init__(self, index: int) -> None:
        self.left = index

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.left -= 1
        if self.left == -1:
            return node.func.value if isinstance(node.func, ast.Attribute) else next(iter(node.args), node)
        return self.generic_visit(node)


def mutants(program: str) -> Iterator[str]:
    """The program with one comparison, sign, connective, constant, min or max changed, or a call left out."""
    tree = ast.parse(program)
    for index in range(len(list(ast.walk(tree)))):
        changed = copy.deepcopy(tree)
        node: Any = list(ast.walk(changed))[index]
        operator = node.ops[0] if isinstance(node, ast.Compare) else getattr(node, "op", None)
        if type(operator) in SWAPPED:
            swapped = SWAPPED[type(operator)]()
            if isinstance(node, ast.Compare):
                node.ops[0] = swapped
            else:
                node.op = swapped
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            node.value += 1
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value += "~"
        elif isinstance(node, ast.Name) and node.id in ("min", "max"):
            node.id = "max" if node.id == "min" else "min"
        else:
            continue
        yield ast.unparse(changed)
    calls = sum(isinstance(node, ast.Call) for node in ast.walk(tree))
    yield from (ast.unparse(WithoutCall(index).visit(copy.deepcopy(tree))) for index in range(calls))


def nameless(program: str) -> str:
    """The program's shape: its syntax tree with all names replaced by the order of their first appearance."""
    tree = ast.parse(program)
    numbers: dict[str, str] = {}
    for node in ast.walk(tree):
        for attribute in ("id", "arg", "name"):
            if isinstance(value := getattr(node, attribute, None), str):
                setattr(node, attribute, numbers.setdefault(value, f"v{len(numbers)}"))
    return ast.dump(tree)


def test_counts_splits_and_fields() -> None:
    assert len(ROWS) >= 132
    splits = Counter(row["split"] for row in ROWS)
    assert set(splits) == {"train", "test"}
    for level in LEVELS:
        levels = Counter(row["split"] for row in ROWS if row["level"] == level)
        assert levels["train"] >= 75
        assert levels["test"] >= 50
    assert all(set(row) == {"task_id", "text", "solution", "tests", "split", "level"} for row in ROWS)
    assert {row["level"] for row in ROWS} == set(LEVELS)
    assert len(set(IDS)) == len(IDS)
    assert all(re.fullmatch(r"embedded/[a-z]+(-[a-z]+)*", task_id) for task_id in IDS)


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_solution_passes_and_tests_are_plain(row: dict[str, Any]) -> None:
    assert passes(row["solution"], row["tests"])
    assert row["solution"].count("\n") <= 25
    assert 4 <= len(row["tests"]) <= 5
    assert len(set(row["tests"])) == len(row["tests"])
    assert not [piece for piece in ('"""', "\\", "\n") if piece in row["text"]]
    name = load_embedded()[IDS.index(row["task_id"])].entry_point
    for test in row["tests"]:
        assert "\n" not in test
        (statement,) = ast.parse(test).body
        assert isinstance(statement, ast.Assert)
        compared = statement.test
        assert isinstance(compared, ast.Compare)
        assert [type(operator) for operator in compared.ops] == [ast.Eq]
        call = compared.left
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Name)
        assert call.func.id == name
        for value in (*call.args, compared.comparators[0]):
            ast.literal_eval(value)


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_a_small_mistake_fails_a_hidden_test(row: dict[str, Any]) -> None:
    assert any(not passes(mutant, row["tests"][1:]) for mutant in mutants(row["solution"]))


def test_most_tasks_have_a_mistake_that_only_the_hidden_tests_see() -> None:
    seen = sum(
        any(passes(m, row["tests"][:1]) and not passes(m, row["tests"]) for m in mutants(row["solution"]))
        for row in ROWS
    )
    assert seen >= 0.7 * len(ROWS)


def test_no_two_tasks_repeat_each_other() -> None:
    texts = [(row["task_id"], words(row["text"])) for row in ROWS]
    alike = [(a, b) for (a, x), (b, y) in itertools.combinations(texts, 2) if overlap(x, y) >= 0.6]
    assert alike == []
    shapes = Counter(nameless(row["solution"]) for row in ROWS)
    assert shapes.most_common(1)[0][1] == 1
    names = [task.entry_point for task in load_embedded()]
    assert len(set(names)) == len(names)


def test_no_task_is_one_of_mbpp() -> None:
    places = [parent / "shared" / "data" for parent in Path(__file__).resolve().parents]
    data = next((place for place in places if (place / "mbpp.jsonl").exists()), None)
    if data is None:
        pytest.skip("no shared/data beside the repository")
    theirs = load_mbpp(data)
    ours = load_embedded()
    assert {task.entry_point for task in ours} & {task.entry_point for task in theirs} == set()
    their_words = [words(task.text) for task in theirs]
    assert max(overlap(words(task.text), other) for task in ours for other in their_words) < 0.6


def test_tasks_are_loaded_in_the_papers_format() -> None:
    tasks = load_embedded()
    assert [task.task_id for task in tasks] == IDS
    for task, row in zip(tasks, ROWS, strict=True):
        assert task.prompt.startswith(f'"""\n{row["text"]}\n\n>>> Example: ')
        assert task.prompt.endswith(":\n")
        assert task.solution is not None
        assert task.solution.startswith(task.prompt)
        completion = completion_of(task, row["solution"])
        assert completion is not None
        assert cut_completion(completion) == completion
        assert passes(task.prompt + completion, list(task.tests))
        assert (task.shown, task.split, task.setup) == (1, row["split"], "")


def test_splits_by_name() -> None:
    train, test = load_embedded("train"), load_embedded("test")
    assert {task.split for task in train} == {"train"}
    assert len(train) + len(test) == len(load_embedded())
    with pytest.raises(ConfigError, match="'trian'"):
        load_embedded("trian")


def test_levels_by_name() -> None:
    easy = {row["task_id"] for row in ROWS if row["level"] == "easy" and row["split"] == "test"}
    assert {task.task_id for task in load_embedded("test", level="easy")} == easy
    assert len(load_embedded(level="easy")) + len(load_embedded(level="medium")) == len(ROWS)
    with pytest.raises(ConfigError, match="'hard'"):
        load_embedded(level="hard")
