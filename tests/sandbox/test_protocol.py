"""2,000 fuzzed dialogues: whatever a program says to the judge, or a judge to the parent, ends in time as a verdict.

The other side of each conversation is played here, over real sockets, by what hypothesis thinks up.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amenable.sandbox import judge, wire
from amenable.sandbox.outcome import verdict_of
from amenable.sandbox.provider import Evidence, Limits, ProviderFailed
from amenable.sandbox.worker import Worker

DIALOGUES = settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
LIMITS = Limits(0.2, 0.2, 64)
MOST_BYTES = 5 << 20  # that a dialogue may take in the parent
TESTS = [
    "assert f([1, 2], k={'a': 3}) == 'not to be guessed 5b1e'",
    "assert list(f(lambda v: v + 1)) == ['not to be guessed 5b1e']",
    "s = f(2)\nassert s.method(1) + s[0] == 'not to be guessed 5b1e' and len(s) == 1",
]
TAGS = st.sampled_from(
    [*"ldsqCOeBtzibcRSDFErhNngQ", "cb", "ok", "err", "op", "loaded", "done", "start", "end", "pass", "died"]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | TAGS
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.text(max_size=5) | st.sampled_from(["type", "kinds", "message", "line"]), inner, max_size=4
        )
        | st.tuples(TAGS, inner, inner).map(list)
    ),
    max_leaves=20,
)
HANDLE = st.tuples(
    st.just("h"), st.integers(-1, 5), st.text(max_size=5), st.lists(JSON, max_size=2), st.integers(0, 2**60)
)
NODE = JSON | HANDLE.map(list)
SAID = st.one_of(
    st.tuples(st.just("ok"), st.lists(st.tuples(st.integers(-2, 4), NODE), max_size=2), NODE),
    st.tuples(st.just("ok"), st.just([]), HANDLE.map(list)),
    st.tuples(st.just("cb"), st.integers(-1, 2), NODE, NODE),
    st.tuples(st.just("cb"), st.just(0), st.just(["t", [1]]), st.just(["d", []])),
    st.tuples(st.just("err"), st.dictionaries(st.sampled_from(["type", "kinds", "message", "line", "source"]), JSON)),
    JSON,
)
LOADED = st.one_of(
    st.just(["loaded", [["f", "program", False]]]),
    st.tuples(st.just("loaded"), st.lists(st.tuples(st.sampled_from(["f", "s", "math", "list"]), JSON, JSON))),
    JSON,
)
FRAMES = st.lists(SAID.map(json.dumps).map(str.encode), max_size=8)
BROKEN = st.binary(max_size=40) | st.just(b"\xff\xff\xff\xff") | st.just((3 << 20).to_bytes(4, "big"))
NESTED = b"[" * 200_000
WIDE = b"[" + b"[]," * 20_000 + b"1]"


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def judged(said: list[bytes], rest: bytes) -> list[Any]:
    """The judge's events, when a defendant says `said`, each as a frame, and then `rest`."""
    rpc, defendant = socket.socketpair()
    control, parent = socket.socketpair()
    with rpc, defendant, control, parent:
        parent.settimeout(5.0)
        wire.send(parent.fileno(), {"setup": "", "tests": TESTS, "entry_point": "f"})
        judging = threading.Thread(target=_judge, args=(rpc, control), daemon=True)
        judging.start()
        drained = threading.Thread(target=_drain, args=(defendant,), daemon=True)
        drained.start()
        for part in [*map(framed, said), rest]:
            try:
                defendant.sendall(part)
            except OSError:
                break
        defendant.shutdown(socket.SHUT_WR)
        events = []
        deadline = time.monotonic() + 5.0
        parent.setblocking(False)
        with contextlib.suppress(wire.Closed):
            while True:  # not longer than the deadline: TimeoutError
                events.append(wire.receive(parent.fileno(), deadline, 64 << 10))
        judging.join(5.0)
        assert not judging.is_alive()
        defendant.shutdown(socket.SHUT_RD)
        drained.join(5.0)
    return events


def _judge(rpc: socket.socket, control: socket.socket) -> None:
    try:
        judge.main(rpc.fileno(), control.fileno())
    except wire.Closed:  # as the zygote's child takes it
        pass
    finally:
        rpc.shutdown(socket.SHUT_RDWR)
        control.shutdown(socket.SHUT_RDWR)


def _drain(end: socket.socket) -> None:
    try:
        while end.recv(1 << 16):
            pass
    except OSError:
        pass


@DIALOGUES
@given(LOADED.map(json.dumps).map(str.encode), FRAMES, BROKEN)
def test_a_program_can_say_what_it_likes_to_the_judge(loaded: bytes, said: list[bytes], rest: bytes) -> None:
    events = judged([loaded, *said], rest)
    report = {"defendant": 0, "judge": 0, "confined": True, "stopped": "", "seconds": 0.1}
    verdict = verdict_of(TESTS, Evidence(events, report), isolation="", limits=LIMITS)
    assert not verdict.ok
    assert verdict.outcome in ("fail", "crash", "protocol", "memory")


@pytest.mark.parametrize("said", [NESTED, WIDE, b'["ok", [], ' + WIDE + b"]", b'["ok", [], ' + NESTED])
def test_nesting_and_width_are_bounded(said: bytes) -> None:
    assert judged([b'["loaded", [["f", "", false]]]', said], b"")[-1][0] == "end"


class Played(Worker):
    """A worker whose zygote is played: it writes `events` as the judge and `report` as itself."""

    def __init__(self, events: bytes, report: bytes) -> None:
        super().__init__("light")
        self._said = events, report

    def start(self) -> None:
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        threading.Thread(target=self._play, args=(theirs,), daemon=True).start()

    def _play(self, control: socket.socket) -> None:
        with control:
            _, descriptors, _, _ = socket.recv_fds(control, 1, 3)
            wire.receive(control.fileno())
            ends = [socket.socket(fileno=descriptor) for descriptor in descriptors[:2]]
            with contextlib.suppress(OSError):
                ends[0].sendall(self._said[0])
            for end in ends:
                end.close()
            with open(descriptors[2], "wb") as output:
                output.write(b"\xff\x00printed")
            with contextlib.suppress(OSError):
                control.sendall(self._said[1])


EVENT = st.one_of(
    st.tuples(
        st.sampled_from(["start", "done", "end"]), st.integers(-1, 3), st.sampled_from(["pass", "fail", "x"]), JSON
    ),
    st.tuples(st.just("done"), st.integers(0, 2), st.just("pass"), st.just({})),
    st.tuples(st.just("end"), JSON),
    JSON,
)
EVENTS = st.tuples(st.lists(EVENT.map(json.dumps).map(str.encode).map(framed), max_size=12).map(b"".join), BROKEN)
REPORT = st.one_of(
    st.fixed_dictionaries({"defendant": JSON, "judge": JSON, "stopped": JSON, "seconds": JSON, "confined": JSON}), JSON
)


@DIALOGUES
@given(EVENTS, REPORT.map(json.dumps).map(str.encode).map(framed) | BROKEN)
def test_a_judge_or_a_zygote_can_say_what_it_likes_to_the_parent(events: tuple[bytes, bytes], report: bytes) -> None:
    worker = Played(b"".join(events), report)
    began = time.monotonic()
    tracemalloc.start()
    try:
        evidence = worker.run("x = 1", {"setup": "", "tests": TESTS, "entry_point": ""}, LIMITS)
    except ProviderFailed:
        return
    finally:
        worker.stop()
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
        tracemalloc.stop()
        assert time.monotonic() - began < LIMITS.seconds + 3.0
    verdict = verdict_of(TESTS, evidence, isolation="", limits=LIMITS)
    assert len(verdict.passed) == len(TESTS)
    json.dumps(verdict.as_row())


def test_what_is_too_long_for_the_parent_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for said in (framed(NESTED), framed(b'"' + b"x" * (1 << 20)), b"\x00\x00\x00\x02[]" * 100_000):
        worker = Played(said, framed(b"{}"))
        tracemalloc.start()
        evidence = worker.run("x = 1", {"setup": "", "tests": TESTS, "entry_point": ""}, LIMITS)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
        tracemalloc.stop()
        worker.stop()
        assert len(evidence.events) <= 2 * len(TESTS) + 1
        assert not verdict_of(TESTS, evidence, isolation="", limits=LIMITS).ok
