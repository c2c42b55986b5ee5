"""From the evidence of a check to its verdict: a pure function, so that every ending can be tested by itself.

the first test that did not pass decides the outcome
assertion false, or an exception from the program    fail, False
the program's process ended by itself or by a signal crash, False; the tests after it None
out of memory                                        memory, False
a frame that is none, a result too large to hand over  protocol, False
time was up (wall clock, or CPU)                      timeout: None for that test and the ones after it
anything else                                         infra: None
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence
from typing import Any, cast

from amenable.records import Failure, Outcome, Verdict

_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")
_KINDS: dict[str, tuple[Outcome, bool | None]] = {
    "pass": ("pass", True),
    "fail": ("fail", False),
    "memory": ("memory", False),
    "protocol": ("protocol", False),
    "unjudged": ("infra", None),
}


def verdict_of(
    tests: Sequence[str],
    events: Sequence[Sequence[Any]],
    report: dict[str, Any],
    *,
    isolation: str,
    timeout: float,
) -> Verdict:
    """The verdict on one check. `events` are the judge's frames, `report` is the zygote's."""
    passed: list[bool | None] = [None] * len(tests)
    outcomes: list[Outcome | None] = [None] * len(tests)
    failures: list[dict[str, Any]] = [{} for _ in tests]
    cooperative, ended, at = False, False, 0
    for event in events:
        if event[0] == "start":
            at = event[1]
        elif event[0] == "done":
            _, i, kind, failures[i] = event
            outcomes[i], passed[i] = _death(report) if kind == "died" else _KINDS[kind]
            at = i + 1
        elif event[0] == "end":
            cooperative, ended = bool(event[1]), True
    if not ended and at < len(tests):
        outcomes[at] = _interrupted(report, bool(events))
        failures[at] = {"test": tests[at]}
    first = next((i for i, outcome in enumerate(outcomes) if outcome != "pass"), None)
    outcome: Outcome = "pass" if first is None else outcomes[first] or "infra"
    return Verdict(
        outcome=outcome,
        passed=tuple(passed),
        failure=None if first is None else _failure(failures[first], tests[first], outcome, report, timeout),
        output=_lasting(report.get("output", "")),
        seconds=float(report.get("seconds", 0.0)),
        isolation=isolation,
        integrity="cooperative" if cooperative else "enforced",
    )


def _lasting(text: object) -> str:
    """Without memory addresses: the same check, done again in another process, has the same record."""
    return _ADDRESS.sub("at 0x…", str(text))


def _death(report: dict[str, Any]) -> tuple[Outcome, bool | None]:
    status = report.get("defendant")
    if not isinstance(status, int) or (
        os.WIFEXITED(status) and os.WEXITSTATUS(status) == report.get("unconfined")
    ):
        return "infra", None
    if _out_of_cpu(status):
        return "timeout", None
    return "crash", False


def _out_of_cpu(status: int) -> bool:
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU


def _interrupted(report: dict[str, Any], judging: bool) -> Outcome:
    """Why the judge did not finish."""
    status = report.get("judge")
    if report.get("timed_out") or (isinstance(status, int) and _out_of_cpu(status)):
        return "timeout"
    return "protocol" if judging else "infra"  # a judge that breaks was broken by what it was sent


def _failure(
    found: dict[str, Any], test: str, outcome: Outcome, report: dict[str, Any], timeout: float
) -> Failure:
    error = str(found.get("error", ""))
    if outcome == "timeout":
        error = f"timeout: no answer within {timeout:g} s"
    elif outcome == "crash":
        error = _obituary(cast(int, report["defendant"]))
    elif outcome == "infra" and not error:
        error = "the sandbox failed; see Verdict.output"
    elif outcome == "protocol" and not error:
        error = "protocol: the judge could not read what the program returned"
    return Failure(
        test=test,
        call=str(found.get("call", "")),
        got=_lasting(found.get("got", "")),
        expected=str(found.get("expected", "")),
        error=_lasting(error),
        line=found.get("line"),
        source=str(found.get("source", "")),
    )


def _obituary(status: int) -> str:
    if os.WIFSIGNALED(status):
        try:
            name = signal.Signals(os.WTERMSIG(status)).name
        except ValueError:
            name = f"signal {os.WTERMSIG(status)}"
        return f"the program's process was killed by {name}"
    return f"the program ended its process (exit status {os.WEXITSTATUS(status)}) instead of returning"
