"""Where the kernel grants fewer layers the sandbox says so, keeps every verdict honest, and still leaves nothing behind."""

# ruff: noqa: E501  (a program stands on one line)

from __future__ import annotations

import time
from pathlib import Path

import pytest

from amenable.sandbox import Sandbox, worker

TESTS = ["assert f(2) == 4"]
NO_NAMESPACES = "zygote.confine.enter_namespaces = lambda: False\n"
NO_KERNEL_HELP = NO_NAMESPACES + (
    "zygote.confine.landlock.abi = lambda: 0\nzygote.confine.seccomp.supported = lambda: False\n"
)


def _without(monkeypatch: pytest.MonkeyPatch, patch: str) -> None:
    monkeypatch.setattr(worker, "_BOOT", worker._BOOT.replace("zygote.main(", patch + "zygote.main("))


def test_without_namespaces_landlock_and_seccomp_carry_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _without(monkeypatch, NO_NAMESPACES)
    with Sandbox(workers=1) as box:
        report = box.report()
        if not (report["landlock"] and report["seccomp"]):
            pytest.skip("needs Landlock and seccomp")
        assert not report["namespaces"]
        assert report["network"]
        assert box.check("def f(x): return x * 2", TESTS).isolation == report["isolation"]
        for program in (
            "import os\ndef f(x): os.fork()",
            "def f(x): open('/etc/passwd')",
            "import socket\ndef f(x): socket.socket()",
        ):
            failure = box.check(program, TESTS).failure
            assert failure is not None
            assert failure.error.startswith("PermissionError")


def test_with_processes_and_limits_alone_verdicts_hold_and_orphans_die(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _without(monkeypatch, NO_KERNEL_HELP)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mark = tmp_path / "alive"
    orphan = f"import os, time\nif os.fork() == 0:\n    os.setsid()\n    while True: open({str(mark)!r}, 'a').write('x'); time.sleep(0.02)\n"
    with Sandbox(workers=1, timeout=1.0) as box:
        assert box.report()["isolation"] == "processes+rlimits"
        assert box.check(orphan + "time.sleep(0.1)\ndef f(x): return x * 2", TESTS).ok
        size = mark.stat().st_size
        time.sleep(0.2)
        assert mark.stat().st_size == size
        mark.unlink()
        assert box.check("import os\ndef f(x): os._exit(0)", TESTS).passed == (False,)
        assert box.check("class A:\n    __eq__ = lambda *a: True\ndef f(x): return A()", TESTS).passed == (
            False,
        )
    assert list(tmp_path.iterdir()) == []
