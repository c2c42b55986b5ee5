"""`Sandbox`: checks programs nobody trusts against their tests, a few at a time, and answers with verdicts.

Two processes a check. The *defendant* runs the program and nothing else; the *judge* runs the tests, in which
the program's names are remote calls. Expected values never enter the defendant, only plain data comes out of
it, and the verdict is the judge's: see `defendant`, `session`, `judge`, `confine` for each part, `outcome` for
what a verdict says, and `provider` for the places where this can happen. docs/security.md says what it protects.
"""

from __future__ import annotations

import ast
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

from amenable.errors import SandboxError
from amenable.records import Failure, Verdict
from amenable.sandbox.outcome import verdict_of
from amenable.sandbox.provider import Limits, Provider, ProviderFailed, default_workers, fits

MODES = ("auto", "full", "light", "wasi", "docker[:IMAGE]", "podman[:IMAGE]", "https://HOST:PORT", "none")
_ACCEPTED = "I accept"


@dataclass(frozen=True)
class Job:
    """One check: a whole program, test statements, code that the tests need.

    `timeout` in seconds of wall clock, None for the sandbox's own; `cpu_seconds` of computing, None for as many.
    `entry_point` names the function under test, if known; only it may have the name of a builtin.
    """

    program: str
    tests: Sequence[str]
    setup: str = ""
    entry_point: str = ""
    timeout: float | None = None
    cpu_seconds: float | None = None


class Sandbox:
    """A few warm workers that check programs; use it as a context manager.

    `timeout` is in seconds of wall clock for all the tests of one check; `memory_mb` is the program's address
    space in MiB. `preload` names modules, such as "numpy", that programs and tests may import although they are not
    of the standard library; each worker imports them once.

    `mode` says where programs run; what cannot be had is refused, never replaced by less:

        "auto"     full where this kernel grants it, else light
        "full"     namespaces with a file system of their own, Landlock, seccomp, limits
        "light"    Landlock, seccomp, limits: rootless also where namespaces are forbidden
        "wasi"     Python compiled to WebAssembly, on any system: pip install 'amenable[wasi]'
        "docker"   a container without a network; "docker:IMAGE", "podman" and "container" (either) too
        "https://HOST:PORT"  an `amenable sandbox` on another machine
        "none"     nothing: only with unsafe="I accept"
    """

    def __init__(
        self,
        *,
        timeout: float = 3.0,
        memory_mb: int = 512,
        workers: int | None = None,
        mode: str = "auto",
        preload: Sequence[str] = (),
        unsafe: str = "",
    ) -> None:
        if timeout <= 0 or memory_mb < 64 or (workers is not None and workers < 1):
            raise SandboxError(
                f"timeout={timeout}, memory_mb={memory_mb}, workers={workers} cannot work",
                "timeout > 0 seconds, memory_mb >= 64, workers >= 1 or None for one a core",
            )
        self._timeout, self._memory_mb = timeout, memory_mb
        self._workers = [provider(mode, preload, unsafe) for _ in range(workers or default_workers())]
        self._idle: queue.SimpleQueue[Provider] = queue.SimpleQueue()
        for worker in reversed(self._workers):
            self._idle.put(worker)
        self._closed = False
        self._lock, self._alone = threading.Lock(), threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends every process and removes every file of this sandbox. May be called again."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for _ in self._workers:
            self._idle.get().stop()

    def check(
        self,
        program: str,
        tests: Sequence[str],
        setup: str = "",
        timeout: float | None = None,
        *,
        entry_point: str = "",
        cpu_seconds: float | None = None,
    ) -> Verdict:
        """The verdict on one program. Raises SandboxError if the tests are not Python or there are none."""
        job = Job(program, tests, setup, entry_point, timeout, cpu_seconds)
        _validate(job)
        return self._checked(job)

    def run(self, program: str, timeout: float | None = None, *, cpu_seconds: float | None = None) -> Verdict:
        """Whether a program runs to its end, in one confined process: "pass" means without an exception, in time.

        There are no tests to deceive, but it is the program itself that says it has ended: the verdict is cooperative.
        """
        return self._checked(Job(program, (), timeout=timeout, cpu_seconds=cpu_seconds))

    def check_many(self, jobs: Sequence[Job], progress: Callable[[int, int], None] | None = None) -> list[Verdict]:
        """The verdicts on many programs, in order, all workers busy. `progress(done, total)` after each."""
        for job in jobs:
            _validate(job)
        done, lock = 0, threading.Lock()

        def one(job: Job) -> Verdict:
            nonlocal done
            verdict = self._checked(job)
            if progress is not None:
                with lock:
                    done += 1
                    progress(done, len(jobs))
            return verdict

        with ThreadPoolExecutor(len(self._workers), thread_name_prefix="sandbox") as pool:
            futures = [pool.submit(one, job) for job in jobs]
            try:
                return [future.result() for future in futures]
            except BaseException:
                for future in futures:
                    future.cancel()
                raise

    def report(self) -> dict[str, Any]:
        """Which layers hold on this kernel (each was tried), and Python's version."""
        worker = self._take()
        try:
            worker.start()
            return dict(worker.about) | {"workers": len(self._workers), "memory_mb": self._memory_mb}
        finally:
            self._idle.put(worker)

    def _take(self) -> Provider:
        if self._closed:
            raise SandboxError("the sandbox is closed", "use it inside its `with` block")
        return self._idle.get()

    def _checked(self, job: Job) -> Verdict:
        """One check. What the sandbox failed at is tried once more; so is, with nothing else running, a timeout."""
        verdict = self._once(job)
        if verdict.missing:
            return self._once(job)
        if verdict.outcome != "timeout":
            return verdict
        with self._alone:
            others: list[Provider] = []
            try:
                others.extend(self._take() for _ in self._workers[1:])
                again = self._once(job)
                return verdict if again.missing else again
            finally:
                for worker in others:
                    self._idle.put(worker)

    def _once(self, job: Job) -> Verdict:
        timeout = job.timeout or self._timeout
        limits = Limits(timeout, min(timeout, job.cpu_seconds or timeout), self._memory_mb)
        tests = list(job.tests)
        trial = {"setup": job.setup, "tests": tests, "entry_point": job.entry_point}
        if not fits(job.program):
            return _unheld(tests, "protocol", "protocol: the program is longer than 1 MiB")
        worker = self._take()
        try:
            evidence = worker.run(job.program, trial if tests else None, limits)
            isolation, confined = str(worker.about.get("isolation", "")), bool(worker.about.get("light"))
        except ProviderFailed as error:
            return _unheld(tests, "infra", f"the sandbox failed: {error}")
        finally:
            self._idle.put(worker)
        return verdict_of(tests, evidence, isolation=isolation, limits=limits, confined=confined)


def provider(mode: str, preload: Sequence[str] = (), unsafe: str = "") -> Provider:
    """One place for programs to run in; see `Sandbox`. Raises SandboxError for a mode that there is not."""
    kind, _, rest = mode.partition(":")
    if mode == "none" and unsafe != _ACCEPTED:
        raise SandboxError(
            "mode='none' runs programs nobody trusts with all that you may do yourself",
            f"mode='auto'; or, if you really mean it, unsafe={_ACCEPTED!r}",
        )
    if mode in ("auto", "full", "light", "none"):
        from amenable.sandbox.worker import Worker  # which only Linux can import

        return Worker(mode, preload)
    if mode == "wasi":
        from amenable.sandbox.wasi import WasiProvider

        return WasiProvider(preload)
    if kind in ("docker", "podman", "container"):
        from amenable.sandbox.container import ContainerProvider

        return ContainerProvider("" if kind == "container" else kind, rest, preload)
    if kind in ("http", "https"):
        from amenable.sandbox.remote import RemoteProvider

        return RemoteProvider(mode, preload)
    raise SandboxError(f"mode={mode!r} is no sandbox", f"one of {', '.join(MODES)}")


def _unheld(tests: Sequence[str], outcome: Any, error: str) -> Verdict:
    passed = (None if outcome == "infra" else False,) * len(tests)
    return Verdict(outcome, passed, Failure(test=tests[0] if tests else "", error=error))


def _validate(job: Job) -> None:
    if not job.tests:
        raise SandboxError("a check without tests would pass anything", "give at least one assert statement")
    if not any(word in source for source in (*job.tests, job.setup) for word in ("assert", "raise")):
        raise SandboxError(
            f"a check whose tests assert nothing would pass anything: {job.tests[0][:80]!r}",
            "write what must hold as an assert statement",
        )
    for source in (*job.tests, job.setup):
        problem = _problem(source)
        if problem:
            raise SandboxError(f"a test is not Python: {source[:80]!r}: {problem}", "correct the test or leave it out")
    if not fits({"setup": job.setup, "tests": list(job.tests), "entry_point": job.entry_point}):
        raise SandboxError("the tests are longer than 1 MiB", "split them into several checks")


@lru_cache(maxsize=4096)
def _problem(source: str) -> str:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return str(error)
    return ""
