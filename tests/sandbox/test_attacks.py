"""Programs that try to pass without being right, to harm the host, or to break the box: none may, in full and in light mode.

The catalogue is bench/attacks.py; here are also the attacks that one program cannot hold.
"""

# ruff: noqa: E501  (a program stands on one line)

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import attacks
import pytest

from amenable.sandbox import Sandbox

TESTS = ["assert f(2) == 4", "assert f([1, 2]) == [1, 2, 1, 2]"]
RIGHT = "def f(x):\n    return x * 2\n"
SLOWEST = 10.0  # seconds: the limit of 1 twice, and the removal of what it made, on a machine that others use too


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a canary in it, and one that has to stay empty; the canary is in the environment too."""
    folder = tmp_path_factory.mktemp("host")
    (folder / "canary").write_text(attacks.CANARY)
    (folder / "outside").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(attacks.CANARY_VARIABLE, attacks.CANARY)
        yield folder


@pytest.fixture(scope="module", params=["full", "light"])
def box(request: pytest.FixtureRequest, host: Path) -> Iterator[Sandbox]:
    with Sandbox(timeout=1.0, memory_mb=256, workers=1, mode=request.param) as sandbox:
        yield sandbox


def named(attack: attacks.Attack) -> str:
    return f"{attack.kind}-{attack.name}"


@pytest.mark.parametrize("attack", attacks.ATTACKS, ids=named)
def test_every_attack_is_survived(box: Sandbox, host: Path, attack: attacks.Attack) -> None:
    if attack.needs_namespaces and not box.report()["namespaces"]:
        pytest.skip("Landlock does not govern this; docs/security.md says so")
    aimed = attacks.planted(attack, str(host / "canary"), str(host / "outside"))
    began = time.monotonic()
    verdict = box.check(aimed.program, aimed.tests)
    assert time.monotonic() - began < SLOWEST
    assert verdict.outcome in attack.outcomes, verdict
    assert verdict.ok == (attack.outcomes == attacks.PASS) or "pass" in attack.outcomes
    assert (host / "canary").read_text() == attacks.CANARY
    assert list((host / "outside").iterdir()) == []
    assert box.check(RIGHT, TESTS).ok


@pytest.mark.parametrize("attack", attacks.LABELS, ids=named)
def test_a_test_that_the_program_can_decide_is_labelled(box: Sandbox, attack: attacks.Attack) -> None:
    verdict = box.check(attack.program, attack.tests)
    assert not verdict.ok or verdict.integrity == "cooperative"


def test_the_catalogue_is_as_large_as_promised() -> None:
    kinds = [attack.kind for attack in attacks.ATTACKS]
    least = {"benign": 7, "resources": 21, "host": 17, "verdict": 23, "robustness": 4}
    assert all(kinds.count(kind) >= count for kind, count in least.items())
    assert len({attack.name for attack in (*attacks.ATTACKS, *attacks.LABELS)}) == len(kinds) + len(attacks.LABELS)


YES_MAN = (
    attacks.ALWAYS_EQUAL
    + """
def f(x): return Any()
x = y = candidate = Any()
class math:
    isclose = staticmethod(lambda *a: True)
"""
)


@pytest.mark.parametrize(
    "test",
    [
        "assert abs(f(2) - 4) < 1e-6",
        "assert math.isclose(f(2), 4)",
        "assert sorted(f(2)) == [1, 2]",
        "assert set(f(2)) == {1, 2}",
        "assert f(2) < 0",
        "assert 4 == f(2)",
        "assert f(2) in (4, 5)",
        "assert 4 in f(2)",
        "assert not f(2) != 4",
        "assert f(2) is True",
        "assert (f(2), 1) == (4, 1)",
        "assert {'a': f(2)} == {'a': 4}",
        "assert all(f(x) == y for x, y in [(2, 4)])",
        "for x, y in [(2, 4)]:\n    assert abs(f(x) - y) < 1e-6",
        "def check(candidate):\n    assert candidate(2) == 4\ncheck(f)",
        "try:\n    assert f(2) == 4\nexcept TypeError:\n    pass",
    ],
)
@pytest.mark.parametrize("base", ["object", "list", "str"])
def test_no_form_of_test_is_won_by_operators(box: Sandbox, base: str, test: str) -> None:
    assert box.check(YES_MAN.replace("BASE", base), [test]).passed == (False,)


@pytest.mark.parametrize(
    ("setup", "tests"),
    [
        ("want = LIMIT", ["assert f(2) == want"]),
        ("DATA = [3, 1, 2]\nCOPY = DATA", ["assert empty(DATA) == sorted(COPY)"]),
        ("def same(a, b):\n    return f(a) == f(b)", ["assert same(f(2), 5)"]),
    ],
)
def test_what_the_setup_does_counts_for_the_label(box: Sandbox, setup: str, tests: list[str]) -> None:
    program = "LIMIT = 5\ndef f(x): return 5\ndef empty(a):\n    a.clear()\n    return []"
    verdict = box.check(program, tests, setup)
    assert verdict.ok, verdict
    assert verdict.integrity == "cooperative"


def test_a_program_that_dies_while_its_failure_is_described_fails(box: Sandbox) -> None:
    program = "import os\nclass P:\n    def __getattr__(self, name): os._exit(0)\np = P()\ndef init(): raise ValueError\ndef f(x): return 0"
    assert box.check(program, ["assert f(2) == p.x"], "init()").outcome == "fail"
    verdict = box.check(program, ["assert f(2) == p.x"])
    assert (verdict.outcome, verdict.passed) == ("crash", (False,))


def test_nothing_of_one_check_is_in_the_memory_of_the_next(box: Sandbox) -> None:
    """Everything readable in the program's own heap is searched, by writing it to a file."""
    box.check("print('tell' + 'tale' * 3)\ndef f(x): return 'tell' + 'tale' * 3", ["assert f(1) == 1"])
    search = """
import os
word = bytes(reversed(b'elatelatelatllet'))
def f(x):
    found, step = [], 1 << 16
    here = id(object()) & ~0xffffff
    for start in range(here - (8 << 20), here + (8 << 20), step):
        with open('page', 'wb', buffering=0) as page:
            try:
                import ctypes
                n = os.write(page.fileno(), (ctypes.c_char * step).from_address(start))
            except OSError:
                continue
        if word in open('page', 'rb').read():
            found.append(start)
    return len(found) - bool(found)  # its own copy
"""
    verdict = box.check(search, ["assert f(1) == 0"], timeout=5.0)
    assert verdict.ok, verdict


def test_output_is_kept_at_its_end(box: Sandbox) -> None:
    flood = "def f(x):\n    for i in range(200000): print('flood', i)\n    print('the end')\n    return x * 2"
    verdict = box.check(flood, TESTS[:1], timeout=5.0)
    assert verdict.ok
    assert verdict.output.startswith("[truncated")
    assert verdict.output.endswith("the end\n")
    assert len(verdict.output) < (64 << 10) + 100


@pytest.mark.parametrize("mode", ["full", "light"])
def test_nothing_is_left_behind(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    threads = [threading.Thread(target=time.sleep, args=(2,), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    before, descriptors = _descendants(), len(os.listdir("/proc/self/fd"))
    with Sandbox(timeout=0.5, workers=2, mode=mode) as sandbox:
        sandbox.check("open('left', 'w').write('x')\ndef f(x): return x * 2", TESTS)
        sandbox.check(
            "import os\ndef f(x):\n    try: os.setsid()\n    except OSError: pass\n    while True: pass", TESTS
        )
        assert _descendants() > before
    assert _descendants() == before
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert list(tmp_path.iterdir()) == []


def _descendants() -> set[int]:
    found, queue = set(), [os.getpid()]
    while queue:
        process = queue.pop()
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            try:
                below = {int(word) for word in children.read_text().split()}
            except OSError:
                continue
            queue += below - found
            found |= below
    return found


def test_a_killed_worker_is_replaced() -> None:
    with Sandbox(workers=1) as sandbox:
        assert sandbox.check(RIGHT, TESTS).ok
        process = sandbox._workers[0].process_id
        assert process is not None
        os.kill(process, 9)
        assert sandbox.check(RIGHT, TESTS).ok
        assert sandbox._workers[0].process_id != process
