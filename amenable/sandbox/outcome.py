"""From the evidence of a check to its verdict: a pure function, so that every ending can be tested by itself.

the first test that did not pass decides the outcome
assertion false, or an exception from the program    fail, False
the program's process ended by itself or by a signal crash, False; the tests after it None
out of memory                                        memory, False
a frame that is none, a result too large to hand over  protocol, False
time was up (CPU, or wall clock)                      timeout: None for that test and the ones after it
anything else                                         infra: None
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from amenable.records import Failure, Outcome, Verdict
from amenable.sandbox.provider import Evidence, Limits

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")
_SIGXCPU = 24  # by number, and statuses taken apart by hand: Windows has neither
_OUT_OF_TIME = ("wall", "cpu")
_KINDS: dict[str, tuple[Outcome, bool | None]] = {
    "pass": ("pass", True),
    "fail": ("fail", False),
    "memory": ("memory", False),
    "protocol": ("protocol", False),
    "unjudged": ("infra", None),
}


@dataclass
class _Trial:
    """What the judge's events say, read in order; an event that is none ends the reading."""

    tests: Sequence[str]
    report: dict[str, Any]
    limits: Limits

    def __post_init__(self) -> None:
        self.passed: list[bool | None] = [None] * len(self.tests)
        self.outcomes: list[Outcome | None] = [None] * len(self.tests)
        self.failures: list[dict[str, Any]] = [{} for _ in self.tests]
        self.cooperative, self.ended, self.at = False, False, 0

    def read(self, events: Sequence[Any]) -> None:
        for event in events:
            match event:
                case ["start", int(i)] if i == self.at < len(self.tests):
                    pass
                case ["done", int(i), str(kind), dict(failure)] if i == self.at < len(self.tests):
                    self.outcomes[i], self.passed[i] = (
                        _death(self.report, self.limits) if kind == "died" else _KINDS.get(kind, ("protocol", False))
                    )
                    self.failures[i] = failure
                    self.at = i + 1
                case ["end", bool(cooperative)]:
                    self.cooperative, self.ended = cooperative, True
                    return
                case _:
                    return


def verdict_of(
    tests: Sequence[str], evidence: Evidence, *, isolation: str, limits: Limits, confined: bool = True
) -> Verdict:
    """The verdict on one check; never raises, whatever the evidence is. Without tests: did the program run to its end?

    Where nothing was `confined` the program could have reached the judge: the verdict is cooperative.
    """
    report = evidence.report if isinstance(evidence.report, dict) else {}
    if not tests:
        return _of_solo(evidence.events, report, isolation, limits)
    trial = _Trial(tests, report, limits)
    trial.read(evidence.events)
    if not trial.ended and trial.at < len(tests):
        trial.outcomes[trial.at], trial.passed[trial.at] = _interrupted(report, bool(evidence.events))
    first = next((i for i, outcome in enumerate(trial.outcomes) if outcome != "pass"), None)
    outcome: Outcome = "pass" if first is None else trial.outcomes[first] or "infra"
    failure = None
    if first is not None:
        failure = _failure(trial.failures[first], tests[first], outcome, report, limits)
    return _verdict(outcome, tuple(trial.passed), failure, report, isolation, trial.cooperative or not confined)


def _of_solo(events: Sequence[Any], report: dict[str, Any], isolation: str, limits: Limits) -> Verdict:
    found: dict[str, Any] = {}
    outcome: Outcome
    match events:
        case [["loaded", *_], *_]:
            outcome = "pass"
        case [["err", dict(found)], *_]:
            kind, message = str(found.get("type"))[:80], str(found.get("message", ""))[:400]
            outcome = "memory" if kind == "MemoryError" else "fail"
            found["error"] = f"{kind}: {message}" if message else kind
        case _:
            outcome = _death(report, limits)[0]
    failure = None if outcome == "pass" else _failure(found, "", outcome, report, limits)
    return _verdict(outcome, (), failure, report, isolation, cooperative=True)


def _verdict(
    outcome: Outcome,
    passed: tuple[bool | None, ...],
    failure: Failure | None,
    report: dict[str, Any],
    isolation: str,
    cooperative: bool,
) -> Verdict:
    return Verdict(
        outcome=outcome,
        passed=passed,
        failure=failure,
        output=_lasting(report.get("output", "")),
        seconds=_number(report.get("seconds")),
        cpu_seconds=_number(report.get("cpu_seconds")),
        isolation=isolation,
        integrity="cooperative" if cooperative else "enforced",
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _lasting(text: object) -> str:
    """Without memory addresses: the same check, done again in another process, has the same record.

    Control characters and what is no character are written out, so that a terminal shows them and a file holds them.
    """
    shown = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", _ADDRESS.sub("at 0x…", str(text)))
    return shown.encode("utf-8", "backslashreplace").decode()


def _death(report: dict[str, Any], limits: Limits) -> tuple[Outcome, bool | None]:
    status = report.get("defendant")
    if report.get("stopped") in _OUT_OF_TIME:
        return "timeout", None  # killed by the zygote, and the judge saw it
    if not isinstance(status, int) or not report.get("confined"):
        return "infra", None
    if _out_of_cpu(status) and _number(report.get("cpu_seconds")) > 0.9 * limits.cpu_seconds:
        return "timeout", None
    return "crash", False


def _out_of_cpu(status: int) -> bool:
    return status & 0x7F == _SIGXCPU


def _interrupted(report: dict[str, Any], judging: bool) -> tuple[Outcome, bool | None]:
    """Why the judge did not finish."""
    status = report.get("judge")
    if report.get("stopped") in _OUT_OF_TIME or (isinstance(status, int) and _out_of_cpu(status)):
        return "timeout", None
    if report.get("stopped") == "room":
        return "crash", False
    return ("protocol", None) if judging else ("infra", None)  # a judge that breaks was broken by what it was sent


def _failure(found: dict[str, Any], test: str, outcome: Outcome, report: dict[str, Any], limits: Limits) -> Failure:
    error, line = str(found.get("error", "")), found.get("line")
    if outcome == "timeout":
        error = f"timeout: no answer within {limits.seconds:g} s"
        if report.get("stopped") != "wall" and limits.cpu_seconds < limits.seconds:
            error = f"timeout: more than {limits.cpu_seconds:g} s of computing"
    elif outcome == "crash":
        error = _obituary(cast(int, report["defendant"]), report.get("stopped") == "room")
    elif outcome == "infra" and not error:
        error = "the sandbox failed; see Verdict.output"
    elif outcome == "protocol" and not error:
        error = "protocol: the judge could not read what the program returned"
    return Failure(
        test=test,
        call=_lasting(found.get("call", "")),
        got=_lasting(found.get("got", "")),
        expected=_lasting(found.get("expected", "")),
        error=_lasting(error),
        line=line if type(line) is int and 0 < line < 10**6 else None,
        source=_lasting(found.get("source", ""))[:200],
    )


def _obituary(status: int, sprawled: bool) -> str:
    if sprawled:
        return "the program's process was killed: too many threads or files"
    if status & 0x7F:
        try:
            name = signal.Signals(status & 0x7F).name
        except ValueError:
            name = f"signal {status & 0x7F}"
        return f"the program's process was killed by {name}"
    return f"the program ended its process (exit status {status >> 8 & 0xFF}) instead of returning"
