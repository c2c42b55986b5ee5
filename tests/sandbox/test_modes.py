"""Where programs run: full, light, through bubblewrap, or not at all. What cannot be had is refused, never replaced by less."""

# ruff: noqa: E501  (a program stands on one line)

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from amenable.errors import SandboxError
from amenable.records import Verdict
from amenable.sandbox import Job, Sandbox, worker, zygote

TESTS = ["assert f(2) == 4"]
RIGHT = "def f(x): return x * 2"
NO_NAMESPACES = "zygote.confine.enter_namespaces = lambda: False\n"
NO_LANDLOCK = "zygote.confine.landlock.abi = lambda: 0\n"


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A kernel that refuses what `patch` says, in the zygotes started from now on; no bubblewrap."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    return monkeypatch


def _kernel(monkeypatch: pytest.MonkeyPatch, patch: str) -> None:
    monkeypatch.setattr(worker, "_BOOT", worker._BOOT.replace("zygote.main(", patch + "zygote.main("))


def error_of(verdict: Verdict) -> str:
    assert verdict.failure is not None, verdict
    return verdict.failure.error


def test_the_modes_differ_in_namespaces_and_the_verdict_names_them() -> None:
    with Sandbox(workers=1, mode="full") as full, Sandbox(workers=1, mode="light") as light:
        assert full.report()["namespaces"]
        assert full.report()["root"]
        assert not light.report()["namespaces"]
        assert full.check(RIGHT, TESTS).isolation == full.report()["isolation"] != light.report()["isolation"]
        assert light.check(RIGHT, TESTS).isolation == "processes+rlimits+landlock{landlock}+seccomp".format(
            **light.report()
        )


def test_auto_is_light_where_namespaces_are_refused_and_full_is_an_error(refused: pytest.MonkeyPatch) -> None:
    _kernel(refused, NO_NAMESPACES)
    with Sandbox(workers=1) as box:
        assert box.check(RIGHT, TESTS).ok
        assert not box.report()["namespaces"]
    with Sandbox(workers=1, mode="full") as box, pytest.raises(SandboxError, match="'full': namespaces, root"):
        box.check(RIGHT, TESTS)


@pytest.mark.parametrize("mode", ["auto", "full", "light"])
def test_without_landlock_nothing_is_run(refused: pytest.MonkeyPatch, mode: str, tmp_path: Path) -> None:
    _kernel(refused, NO_LANDLOCK)
    refused.setattr("tempfile.tempdir", str(tmp_path))
    with Sandbox(workers=1, mode=mode) as box, pytest.raises(SandboxError, match="landlock") as error:
        box.check(f"open({str(tmp_path / 'mark')!r}, 'w')\n" + RIGHT, TESTS)
    assert "mode='docker'" in error.value.fix
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_bubblewrap_gives_the_namespaces_that_the_kernel_refused_us(monkeypatch: pytest.MonkeyPatch) -> None:
    _kernel(monkeypatch, NO_NAMESPACES)
    with Sandbox(workers=1, mode="full") as box:
        assert box.check(RIGHT, TESTS).ok
        assert box.report()["namespaces"]
        assert box.report()["root"]
        program = "import os\nopen('x', 'w').write('x')\ndef f(x): return [os.path.exists(p) for p in ('/proc', '/etc/passwd', '/home')]"
        assert box.check(program, ["assert f(0) == [False] * 3"]).ok
        assert box.check("while True: pass", TESTS, timeout=1.0).outcome == "timeout"


def test_a_full_jail_has_no_host_in_it() -> None:
    program = "import os\ndef f(x): return [p for p in ('/proc', '/sys', '/home', '/etc/passwd', '/tmp/x', '/usr/bin') if os.path.exists(p)]"
    with Sandbox(workers=1, mode="full") as box:
        assert box.check(program, ["assert f(0) == []"]).ok


def test_no_confinement_only_for_who_accepts_it(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="all that you may do yourself"):
        Sandbox(mode="none")
    with pytest.raises(SandboxError, match="mode='jail' is no sandbox"):
        Sandbox(mode="jail")
    mark = tmp_path / "alive"
    orphan = f"import os, time\nif os.fork() == 0:\n    os.setsid()\n    while True: open({str(mark)!r}, 'a').write('x'); time.sleep(0.02)\n"
    with Sandbox(workers=1, timeout=2.0, mode="none", unsafe="I accept") as box:
        assert box.check(orphan + "time.sleep(0.2)\n" + RIGHT, TESTS).isolation == "processes"
        size = mark.stat().st_size  # written: nothing was confined; and no longer: what it left is dead
        time.sleep(0.2)
        assert mark.stat().st_size == size
        assert box.check("import os\ndef f(x): os._exit(0)", TESTS).passed == (False,)
        assert box.check("class A:\n    __eq__ = lambda *a: True\ndef f(x): return A()", TESTS).passed == (False,)


SPRAWL = {
    "threads": "import threading, time\nthreading.stack_size(32768)\ndef f(x):\n    while True: threading.Thread(target=time.sleep, args=(9,)).start()",
    "folders": "import os\ndef f(x):\n    while True: os.mkdir('d'); os.chdir('d')",
    "files": "def f(x):\n    i = 0\n    while True:\n        i += 1\n        open(str(i), 'w')",
    "long paths": "import os\ndef f(x):\n    for i in range(17): os.mkdir('d' * 255); os.chdir('d' * 255)\n    i = 0\n    while True:\n        i += 1\n        open(str(i), 'wb').write(b'x' * 4000000)",
    "bytes": "def f(x):\n    i = 0\n    while True:\n        i += 1\n        open(str(i), 'wb').write(b'x' * 4000000)",
}


@pytest.mark.parametrize("name", SPRAWL)
def test_a_light_jail_counts_threads_and_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Sandbox(workers=1, mode="light", timeout=5.0) as box:
        verdict = box.check(SPRAWL[name], TESTS)
        assert verdict.outcome in ("crash", "fail", "memory")
        if verdict.outcome == "crash":
            assert error_of(verdict) == "the program's process was killed: too many threads or files"
        assert verdict.seconds < 2.0
        assert box.check(RIGHT, TESTS).ok
        assert [list(base.iterdir()) for base in tmp_path.iterdir()] == [[]]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_removed_whatever_is_in_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    folder = tmp_path / "scratch"
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    (folder / "locked").mkdir()
    (folder / "locked" / "file").touch()
    (folder / "locked").chmod(0)
    here = os.getcwd()
    try:
        os.chdir(folder)
        for _ in range(3000):  # a path far longer than the kernel takes
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    zygote.empty(str(folder))
    assert list(folder.iterdir()) == []
    assert (outside / "kept").exists()


def test_what_counts_is_computing_not_waiting() -> None:
    with Sandbox(workers=1, timeout=5.0) as box:
        spins = box.check("def f(x):\n    while True: pass", TESTS, cpu_seconds=0.2)
        assert (spins.outcome, spins.passed) == ("timeout", (None,))
        assert error_of(spins) == "timeout: more than 0.2 s of computing"
        assert 0.2 <= spins.cpu_seconds < spins.seconds < 2.0
        waits = box.check("import time\ndef f(x):\n    time.sleep(0.5)\n    return 4", TESTS, cpu_seconds=0.2)
        assert waits.ok
        assert waits.cpu_seconds < 0.2 < waits.seconds
        threads = "import threading, hashlib\ndef spin():\n    while True: hashlib.sha256(b'x' * 9999999)\ndef f(x):\n    for _ in range(4): threading.Thread(target=spin).start()\n    spin()"
        assert error_of(box.check(threads, TESTS, cpu_seconds=0.3)) == "timeout: more than 0.3 s of computing"
        assert (
            error_of(box.check("import time\ntime.sleep(9)", TESTS, timeout=0.3)) == "timeout: no answer within 0.3 s"
        )


def test_a_timeout_counts_only_if_it_comes_again_with_nothing_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox(workers=2, timeout=0.4) as box:
        running: set[str] = set()
        beside: list[tuple[str, set[str]]] = []
        lock, run = threading.Lock(), worker.Worker.run

        def watched(self: worker.Worker, program: str, trial: object, limits: object) -> object:
            with lock:
                beside.append((program, set(running)))
                running.add(program)
            try:
                return run(self, program, trial, limits)  # type: ignore[arg-type]
            finally:
                with lock:
                    running.discard(program)

        monkeypatch.setattr(worker.Worker, "run", watched)
        slow = [f"import time\ntime.sleep(9)\nx = {i}" for i in range(3)]
        verdicts = box.check_many([Job(program, TESTS) for program in [*slow, *[RIGHT] * 30, *slow]])
        assert [v.outcome for v in verdicts] == ["timeout"] * 3 + ["pass"] * 30 + ["timeout"] * 3
        for program in slow:
            tries = [others for tried, others in beside if tried == program]
            assert len(tries) == 4  # two checks, each tried twice
            assert sum(not others for others in tries) >= 2


def test_a_program_alone_runs_to_its_end_or_does_not() -> None:
    with Sandbox(workers=1, timeout=1.0) as box:
        verdict = box.run("print('hello')\nx = 1")
        assert (verdict.outcome, verdict.passed, verdict.output, verdict.integrity) == (
            "pass",
            (),
            "hello\n",
            "cooperative",
        )
        assert verdict.isolation == box.report()["isolation"]
        for program, outcome, error in (
            ("x = 1 / 0", "fail", "ZeroDivisionError: division by zero"),
            ("x = (", "fail", "SyntaxError: '(' was never closed (<program>, line 1)"),
            ("import sys\nsys.exit(0)", "fail", "SystemExit: 0"),
            ("import os\nos._exit(0)", "crash", "the program ended its process (exit status 0) instead of returning"),
            ("raise MemoryError", "memory", "MemoryError"),
            ("while True: pass", "timeout", "timeout: no answer within 1 s"),
            ("import os\nos.fork()", "fail", "PermissionError: [Errno 1] Operation not permitted"),
        ):
            verdict = box.run(program)
            assert (verdict.outcome, error_of(verdict)) == (outcome, error)


def test_modules_are_preloaded_on_request_and_no_others() -> None:
    program = "import numpy as np\ndef f(x): return np.asarray(x) * 2\ndef fill(a):\n    a[:] = 7"
    with Sandbox(workers=1, preload=["numpy"], memory_mb=1024) as box:
        for test in (
            "assert np.array_equal(f([1, 2]), [2, 4])",  # the judge's own numpy, whatever the program's np is
            "import numpy\nassert f(numpy.arange(3.0)).dtype == numpy.float64",
            "import numpy as np\na = np.zeros((2, 2))\nfill(a)\nassert a.tolist() == [[7.0, 7.0], [7.0, 7.0]]",
            "assert f(3) == 6 and type(f(3)).__name__ == 'int64'",
            "assert f([]).shape == (0,)",
            "assert f(1 + 2j) == 2 + 4j",
        ):
            verdict = box.check(program, [test])
            assert verdict.ok, verdict
        assert box.check(program, ["assert np.array_equal(f([1, 2]), [2, 4])"]).integrity == "enforced"
        cheat = "import numpy as np\nnp.array_equal = np.allclose = lambda *a: True\ndef f(x): return 0"
        assert box.check(cheat, ["assert np.array_equal(f([1, 2]), [2, 4])"]).passed == (False,)
        assert error_of(box.check("import torch\n" + RIGHT, TESTS)) == "ModuleNotFoundError: No module named 'torch'"
    with Sandbox(workers=1, preload=["nonesuch"]) as box, pytest.raises(SandboxError, match="preload='nonesuch'"):
        box.check(RIGHT, TESTS)
