"""`Sandbox`: checks programs nobody trusts against their tests, a few at a time, and answers with verdicts.

Two processes a check. The *defendant* runs the program and nothing else; the *judge* runs the tests, in which
the program's names are remote calls. Expected values never enter the defendant, only plain data comes out of
it, and the verdict is the judge's: see `defendant`, `session`, `judge`, `confine` for each part, and
`outcome` for what a verdict says.
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
from amenable.sandbox.worker import Worker, WorkerFailed, default_workers, fits


@dataclass(frozen=True)
class Job:
    """One check: a whole program, test statements, code that the tests need.

    `timeout` in seconds, None for the sandbox's own.

    `entry_point` names the function under test, if known; only it may have the name of a builtin.
    """

    program: str
    tests: Sequence[str]
    setup: str = ""
    entry_point: str = ""
    timeout: float | None = None


class Sandbox:
    """A few warm workers that check programs; use it as a context manager.

    `timeout` is in seconds of wall clock for all the tests of one check; `memory_mb` is the program's address
    space.
    """

    def __init__(self, *, timeout: float = 3.0, memory_mb: int = 512, workers: int | None = None) -> None:
        if timeout <= 0 or memory_mb < 64 or (workers is not None and workers < 1):
            raise SandboxError(
                f"timeout={timeout}, memory_mb={memory_mb}, workers={workers} cannot work",
                "timeout > 0 seconds, memory_mb >= 64, workers >= 1 or None for one a core",
            )
        self._timeout, self._memory_mb = timeout, memory_mb
        self._workers = [Worker(memory_mb) for _ in range(workers or default_workers())]
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in reversed(self._workers):
            self._idle.put(worker)
        self._closed = False
        self._lock = threading.Lock()

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
    ) -> Verdict:
        """The verdict on one program. Raises SandboxError if the tests are not Python or there are none."""
        job = Job(program, tests, setup, entry_point, timeout)
        _validate(job)
        return self._checked(job)

    def check_many(
        self, jobs: Sequence[Job], progress: Callable[[int, int], None] | None = None
    ) -> list[Verdict]:
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

    def _take(self) -> Worker:
        if self._closed:
            raise SandboxError("the sandbox is closed", "use it inside its `with` block")
        return self._idle.get()

    def _checked(self, job: Job) -> Verdict:
        """One check; what the sandbox itself failed at is tried once more, then it is `infra`."""
        verdict = self._once(job)
        return self._once(job) if verdict.missing else verdict

    def _once(self, job: Job) -> Verdict:
        timeout = job.timeout or self._timeout
        tests = list(job.tests)
        trial = {"setup": job.setup, "tests": tests, "entry_point": job.entry_point}
        if not fits(job.program):
            return _unheld(tests, "protocol", "protocol: the program is longer than 1 MiB")
        worker = self._take()
        try:
            evidence = worker.run(job.program, trial, timeout)
            isolation = str(worker.about.get("isolation", ""))
        except WorkerFailed as error:
            return _unheld(tests, "infra", f"the sandbox failed: {error}")
        finally:
            self._idle.put(worker)
        return verdict_of(tests, evidence.events, evidence.report, isolation=isolation, timeout=timeout)


def _unheld(tests: Sequence[str], outcome: Any, error: str) -> Verdict:
    passed = (None if outcome == "infra" else False,) * len(tests)
    return Verdict(outcome, passed, Failure(test=tests[0], error=error))


def _validate(job: Job) -> None:
    if not job.tests:
        raise SandboxError("a check without tests would pass anything", "give at least one assert statement")
    for source in (*job.tests, job.setup):
        problem = _problem(source)
        if problem:
            raise SandboxError(
                f"a test is not Python: {source[:80]!r}: {problem}", "correct the test or leave it out"
            )
    if not fits({"setup": job.setup, "tests": list(job.tests), "entry_point": job.entry_point}):
        raise SandboxError("the tests are longer than 1 MiB", "split them into several checks")


@lru_cache(maxsize=4096)
def _problem(source: str) -> str:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return str(error)
    return ""
