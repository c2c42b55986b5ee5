"""What a verdict says: which tests held, what the first failure got and expected, how far to trust it."""

# ruff: noqa: E501  (a program stands on one line)

from __future__ import annotations

from collections.abc import Iterator

import pytest

from amenable.errors import SandboxError
from amenable.records import Failure, Verdict
from amenable.sandbox import Job, Sandbox
from amenable.sandbox.outcome import verdict_of
from amenable.sandbox.provider import Evidence, Limits


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(timeout=2.0, workers=2) as sandbox:
        yield sandbox


def failure_of(verdict: Verdict) -> Failure:
    assert verdict.failure is not None
    return verdict.failure


def test_every_test_is_run_and_the_first_failure_described(box: Sandbox) -> None:
    program = "def f(a):\n    return sorted(a)[::-1]\n"
    verdict = box.check(program, ["assert f([]) == []", "assert f([1, 2]) == [1, 2]", "assert f([1]) == [1]"])
    assert verdict.outcome == "fail"
    assert verdict.passed == (True, False, True)
    failure = failure_of(verdict)
    assert (failure.call, failure.got, failure.expected) == ("f([1, 2])", "[2, 1]", "[1, 2]")
    assert failure.test == "assert f([1, 2]) == [1, 2]"
    assert (failure.error, failure.line) == ("", None)


def test_an_exception_says_where_in_the_program(box: Sandbox) -> None:
    verdict = box.check("def f(x):\n    y = x + 1\n    return y / 0\n", ["assert f(1) == 2"])
    failure = failure_of(verdict)
    assert failure.error == "ZeroDivisionError: division by zero"
    assert (failure.line, failure.source) == (3, "return y / 0")
    assert (failure.call, failure.got, failure.expected) == ("f(1)", "", "2")


@pytest.mark.parametrize(
    ("program", "error", "line"),
    [
        ("def f(x):\n  return (", "SyntaxError", 2),
        ("x = 1\nimport nonesuch", "ModuleNotFoundError: No module named 'nonesuch'", 2),
        ("def g(x): return x", "NameError: name 'f' is not defined", None),
        ("", "NameError: name 'f' is not defined", None),
        ("def f(x):\n\x00", "", None),
        ("import numpy", "ModuleNotFoundError", 1),
    ],
)
def test_a_program_that_does_not_load_fails(box: Sandbox, program: str, error: str, line: int | None) -> None:
    verdict = box.check(program, ["assert f(1) == 2", "assert f(2) == 2"])
    assert (verdict.outcome, verdict.passed) == ("fail", (False, False))
    assert failure_of(verdict).error.startswith(error)
    assert failure_of(verdict).line == line


@pytest.mark.parametrize(
    ("test", "got", "expected"),
    [
        ("assert f(1) == 5", "2", "5"),
        ("assert 5 == f(1)", "2", "5"),
        ("assert tuple(f([1])) == (1,)", "(1, 1)", "(1,)"),
        ("assert f(1) != 2", "2", "2"),
        ("assert f(1) > 3", "2", "3"),
        ("assert f(1) in (5, 6)", "2", "(5, 6)"),
        ("assert f(0)", "0", "a true value"),
        ("assert not f(1)", "2", "a false value"),
        ("assert math.isclose(f(1.0), 2.5, abs_tol=0.1)", "2.0", "close to 2.5"),
        ("assert abs(f(1.0) - 2.5) < 0.1", "2.0", "close to 2.5"),
        ("assert f(1) == 2 and f(2) == 3", "4", "3"),
        ("assert f('a' * 999) == 1", repr("a" * 1998)[:399] + "…", "1"),
        ("assert 1 < f(1) < 2", "2", "a true value"),
    ],
)
def test_got_and_expected(box: Sandbox, test: str, got: str, expected: str) -> None:
    failure = failure_of(box.check("def f(x): return x * 2", [test]))
    assert (failure.got, failure.expected) == (got, expected)
    assert failure.call.startswith("f(")


@pytest.mark.parametrize(
    "value",
    [
        *(
            "None",
            "True",
            "-7",
            "2**200",
            "-2**63",
            "1.5",
            "-0.0",
            "float('inf')",
            "3+4j",
            "'é\\ud800'",
            "b'\\x00\\xff'",
        ),
        *(
            "bytearray(b'a')",
            "[]",
            "[[1],[2]]",
            "(1,(2,))",
            "{1:'a',(1,2):[3]}",
            "{1,2}",
            "frozenset({1})",
            "...",
        ),
        *("range(3)", "slice(1,None)", "deque([1],3)", "Counter('aab')", "OrderedDict(a=1)"),
        *("defaultdict(list,a=[1])", "Decimal('1.10')", "Fraction(1,3)"),
    ],
)
def test_plain_data_crosses_unchanged(box: Sandbox, value: str) -> None:
    setup = "from collections import *\nfrom decimal import Decimal\nfrom fractions import Fraction\n"
    tests = [f"assert repr(f({value})) == repr({value})", f"assert f({value}) == {value}"]
    verdict = box.check("def f(x): return x", tests, setup)
    assert verdict.ok, verdict
    assert verdict.integrity == "enforced"


def test_changed_arguments_come_back(box: Sandbox) -> None:
    program = """
def push(a): a.append(4)
def deep(d): d['k'][0].add(9)
def same(a): return a
def loop(a): a.append(a)
def clear(d): d.clear(); d['new'] = [1]
"""
    tests = [
        "a = [1]\nassert push(a) is None and a == [1, 4]",
        "d = {'k': [{1}]}\ndeep(d)\nassert d == {'k': [{1, 9}]}",
        "b = [1]\nassert same(b) is b",
        "c = []\nloop(c)\nassert c[0] is c",
        "x = []\ny = [x, x]\nx2 = same(y)\nassert x2[0] is x2[1] is x",
        "e = {'old': 1}\nclear(e)\nassert e == {'new': [1]}",
    ]
    assert box.check(program, tests).passed == (True,) * len(tests)


@pytest.mark.parametrize(
    ("program", "test"),
    [
        ("def f(n):\n    for i in range(n): yield i", "assert list(f(3)) == [0, 1, 2]"),
        ("def f(n):\n    while True: yield n", "assert next(f(3)) == 3"),
        ("def f(a): return map(str, a)", "assert list(f([1, 2])) == ['1', '2']"),
        ("def f(a, b): return zip(a, b)", "assert dict(f([1], [2])) == {1: 2}"),
        ("def f(d): return d.keys()", "assert f({'a': 1}) == {'a'}"),
        ("def f(d): return d.values()", "assert sorted(f({'a': 2, 'b': 1})) == [1, 2]"),
        ("from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(): return P(1, 2)", "assert f() == (1, 2)"),
        ("from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(): return P(1, 2)", "assert f().y == 2"),
        ("from enum import IntEnum\nclass E(IntEnum):\n    A = 3\ndef f(): return E.A", "assert f() == 3 and f() + 1 == 4"),
        ("class Pair:\n    def __init__(s, a, b): s.a, s.b = a, b\ndef f(ps): return sum(p.a - p.b for p in ps)",
         "assert f([Pair(5, 1), Pair(4, 2)]) == 6"),
        ("class Stack(list):\n    def push(s, x): s.append(x); return s", "s = Stack()\ns.push(1)\nassert s == [1] and len(s) == 1"),
        ("def f(g, a): return [g(x) for x in a]", "assert f(lambda v: v + 1, [1, 2]) == [2, 3]"),
        ("def f(g, a): return g(a)", "assert f(len, [1, 2]) == 2"),
        ("class S:\n    def __init__(s): s.a = []\n    def push(s, x): s.a.append(x)\n    def pop(s): return s.a.pop()",
         "s = S()\ns.push(3)\nassert s.pop() == 3 and not s.a"),
        ("def f(n): return lambda x: x + n", "assert f(1)(2) == 3"),
        ("def sum(a, b): return a * b", "assert sum(3, 4) == 12"),
        ("import math\ndef f(x): return x / 3", "assert math.isclose(f(1), 0.3333333333333333)"),
        ("from math import isclose\ndef f(x): return x / 3", "assert isclose(f(1), 0.3333333333333333)"),
        ("from dataclasses import dataclass\n@dataclass\nclass A:\n    x: 'int'\ndef f(): return A(2)", "assert f().x == 2"),
        ("import datetime\ndef f(y): return datetime.date(y, 1, 1)", "import datetime\nassert f(2020) == datetime.date(2020, 1, 1)"),
        ("def f(d): return d.year", "import datetime\nassert f(datetime.datetime(2020, 1, 1, 3)) == 2020"),
        ("def f(a, b): return b - a", "import datetime\nassert f(datetime.date(2020, 1, 1), datetime.date(2020, 1, 3)) == datetime.timedelta(2)"),
        ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n    y: int", "assert repr(P(1, 2)) == 'P(x=1, y=2)'"),
        ("class T:\n    def __enter__(s): return 5\n    def __exit__(s, *a): return False", "with T() as x:\n    assert x == 5"),
        ("from contextlib import contextmanager\n@contextmanager\ndef f(a):\n    yield a * 2", "with f(2) as y:\n    assert y == 4"),
        ("class S:\n    def __enter__(s): return s\n    def __exit__(s, k, e, t): return k is ValueError", "with S():\n    raise ValueError('x')\nassert callable(S)"),
        ("class A: pass\ndef f(): return A()", "assert type(f()).__name__ == 'A' and not hasattr(f(), '__len__')"),
        ("def f(x):\n    'doc'\n    return x", "assert f.__doc__ == 'doc'"),
        ("def f(x): raise ValueError('bad', 3)", "try:\n    f(1)\n    args = ()\nexcept ValueError as e:\n    args = e.args\nassert args == ('bad', 3)"),
        ("if __name__ == '__main__':\n    raise SystemExit\ndef f(): return input", "assert callable(f())"),
    ],
)  # fmt: skip
def test_live_objects_are_handled_and_the_verdict_enforced(box: Sandbox, program: str, test: str) -> None:
    verdict = box.check(program, [test])
    assert verdict.ok, verdict
    assert verdict.integrity == "enforced"


@pytest.mark.parametrize(
    ("program", "test"),
    [
        ("class P:\n    def __init__(s, a): s.a = a\n    def __eq__(s, o): return s.a == o.a\ndef f(a): return P(a)",
         "assert f(1) == P(1)"),
        ("LIMIT = 3\ndef f(): return 2", "assert f() == LIMIT - 1"),
        ("class N:\n    d = 1\ndef f(n): return n.d", "n = N()\nassert f(n) == n.d"),
        ("def f(a): return a", "assert f([1]) == f([1])"),
        ("def f(a): return a", "assert isinstance(f(1), int) and f(2) == f(2)"),
        ("def f(a):\n    a.sort()\n    return a", "a = [2, 1]\nassert f(a) == sorted(a)"),
        ("class V:\n    def __init__(s, a): s.a = a\n    def __mul__(s, k): return V(s.a * k)\n"
         "    def __eq__(s, o): return s.a == o.a", "assert V(2) * 3 == V(6)"),
    ],
)  # fmt: skip
def test_a_program_that_supplies_the_expected_value_is_labelled(box: Sandbox, program: str, test: str) -> None:
    verdict = box.check(program, [test])
    assert verdict.ok, verdict
    assert verdict.integrity == "cooperative"


def test_setup_may_use_the_program_and_define_helpers(box: Sandbox) -> None:
    program = "class Node:\n    def __init__(s, d): s.d, s.left = d, None\ndef depth(n): return 0 if n is None else 1 + depth(n.left)"
    setup = "root = Node(1)\nroot.left = Node(2)\ndef check(candidate):\n    assert candidate(root) == 2\n"
    verdict = box.check(program, ["assert depth(root) == 2", "check(depth)", "assert root.left.d == 2"], setup)
    assert verdict.ok, verdict


def test_a_hang_leaves_its_test_and_the_rest_without_a_verdict(box: Sandbox) -> None:
    program = "def f(x):\n    while x: pass\n    return x"
    verdict = box.check(program, ["assert f(0) == 0", "assert f(1) == 1", "assert f(0) == 0"], timeout=0.5)
    assert (verdict.outcome, verdict.passed) == ("timeout", (True, None, None))
    assert failure_of(verdict).error == "timeout: no answer within 0.5 s"
    assert failure_of(verdict).test == "assert f(1) == 1"
    assert 0.4 < verdict.seconds < 1.0


def test_what_cannot_be_handed_over_is_missing_and_never_a_zero(box: Sandbox) -> None:
    verdict = box.check("def f(x): return 1", ["assert f(object()) == 1", "assert f(1) == 1"])
    assert verdict.missing
    assert verdict.passed == (None, True)
    assert "not plain data" in failure_of(verdict).error


def test_many_come_back_in_order_with_progress(box: Sandbox) -> None:
    jobs = [
        Job(
            f"import time\ndef f():\n    time.sleep({0.05 if i % 3 == 0 else 0})\n    return {i}",
            [f"assert f() == {i - i % 2}"],
        )
        for i in range(20)
    ]
    seen: list[tuple[int, int]] = []
    verdicts = box.check_many(jobs, progress=lambda done, total: seen.append((done, total)))
    assert [verdict.ok for verdict in verdicts] == [i % 2 == 0 for i in range(20)]
    assert seen == [(i + 1, 20) for i in range(20)]
    assert box.check_many([]) == []


def test_programs_are_the_same_from_run_to_run(box: Sandbox) -> None:
    program = "import random\ndef f(): return [random.random(), list({'a', 'b', 'c', 'd'}), hash('x')]"
    gots = {failure_of(box.check(program, ["assert f() == 0"])).got for _ in range(4)}
    assert len(gots) == 1


def test_bad_questions_are_refused(box: Sandbox) -> None:
    with pytest.raises(SandboxError, match="without tests"):
        box.check("x = 1", [])
    with pytest.raises(SandboxError, match="not Python"):
        box.check("x = 1", ["assert f( =="])
    with pytest.raises(SandboxError, match="memory_mb=1"):
        Sandbox(memory_mb=1)
    closed = Sandbox(workers=1)
    closed.close()
    with pytest.raises(SandboxError, match="closed"):
        closed.check("x = 1", ["assert x == 1"])


def test_the_report_says_what_holds(box: Sandbox) -> None:
    report = box.report()
    assert {"namespaces", "tmpfs", "landlock", "seccomp", "rlimits", "network", "python"} <= set(report)
    assert box.check("x = 1", ["assert x == 1"]).isolation == report["isolation"]


def test_outcomes_follow_from_the_evidence() -> None:
    def outcome(events: list[list[object]], **report: object) -> tuple[str, tuple[bool | None, ...]]:
        base = {"defendant": 9, "judge": 0, "confined": True, "stopped": ""}
        evidence = Evidence(events, base | report)
        verdict = verdict_of(["a", "b"], evidence, isolation="", limits=Limits(1, 1, 64))
        return verdict.outcome, verdict.passed

    ok, end = ["done", 0, "pass", {}], ["end", False]
    assert outcome([ok, ["done", 1, "pass", {}], end]) == ("pass", (True, True))
    assert outcome([ok, ["done", 1, "died", {}], end], defendant=11) == ("crash", (True, False))
    assert outcome([ok, ["done", 1, "died", {}]], stopped="wall") == ("timeout", (True, None))
    assert outcome([ok, ["done", 1, "died", {}]], stopped="room") == ("crash", (True, False))
    assert outcome([ok], stopped="room") == ("crash", (True, False))
    assert outcome([["done", 0, "died", {}], end], confined=False) == ("infra", (None, None))
    assert outcome([ok, ["start", 1]], stopped="wall") == ("timeout", (True, None))
    assert outcome([ok, ["start", 1]], judge=9) == ("protocol", (True, None))
    assert outcome([], confined=False) == ("infra", (None, None))
    assert outcome([["done", 0, "fail", {}], ["start", 1]], stopped="wall") == ("fail", (False, None))


def test_no_address_of_an_object_is_in_the_record() -> None:
    program = "def f(x):\n    print(object())\n    raise ValueError(object())"
    with Sandbox(workers=1) as sandbox:
        verdict = sandbox.check(program, ["assert f(1) == 1"])
    assert "<object object at 0x…>" in verdict.output
    assert verdict.failure is not None
    assert verdict.failure.error == "ValueError: <object object at 0x…>"
