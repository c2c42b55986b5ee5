"""Progress: when a line is due, what time is left, and that a reader who has gone stops nothing."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from amenable import progress
from amenable.progress import Pace, bar, duration, say


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (89.4, "89 s"),
        (90, "1.5 min"),
        (684, "11.4 min"),
        (5400, "1.5 h"),
        (9000, "2.5 h"),
    ],
)
def test_a_duration_reads_in_the_unit_a_person_would_use(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_time_left_is_the_pace_times_what_is_left() -> None:
    pace = Pace()
    assert pace.left(0) is None
    pace.see(0, 10, now=0)
    assert pace.left(5) is None  # nothing done: nobody can know
    pace.see(4, 10, now=8)
    assert pace.left(8) == pytest.approx(12)  # 2 s a piece, 6 pieces
    assert pace.left(10) == pytest.approx(15)  # while the fifth takes its time, the estimate grows
    pace.see(10, 10, now=20)
    assert pace.left(20) is None


def test_resumed_work_is_not_taken_for_fast_work() -> None:
    pace = Pace()
    pace.see(90, 100, now=0)  # 90 were done before
    assert pace.left(1) is None
    pace.see(91, 100, now=60)
    assert pace.left(60) == pytest.approx(540)


def test_a_new_count_begins_a_new_pace() -> None:
    pace = Pace()
    for done, now in ((0, 0), (10, 1000)):
        pace.see(done, 10, now=now)
    pace.see(0, 10, now=1000)  # the next part
    pace.see(1, 10, now=1001)
    assert pace.left(1001) == pytest.approx(9)
    pace.see(2, 20, now=1100)  # another total
    assert pace.left(1100) is None


def test_without_a_terminal_a_line_is_said_at_the_start_every_half_minute_and_at_the_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with bar("drafts") as tell:
        assert capsys.readouterr().err == "drafts ...\n"
        for done in range(1001):
            clock.now = 100 + done * 0.1
            tell(done, 1000)
        lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "drafts: 300 of 1,000 after 30 s, about 70 s left",
        "drafts: 600 of 1,000 after 60 s, about 40 s left",
        "drafts: 900 of 1,000 after 1.5 min, about 10 s left",
    ]
    captured = capsys.readouterr()
    assert captured.err == "drafts: 1,000 of 1,000 in 1.7 min\n"
    assert captured.out == ""  # results only


def test_a_bar_that_is_never_told_anything_still_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("loading"):
        pass
    assert capsys.readouterr().err == "loading ...\nloading: in 0 s\n"


def test_work_that_fails_says_where_and_its_error_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with bar("drafts") as tell:
            tell(3, 9)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert capsys.readouterr().err.splitlines()[-1] == "drafts: stopped at 3 of 9 after 0 s"


class Broken(io.StringIO):
    """An error output whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


class BrokenTerminal(Broken):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [None, "closed", Broken(), BrokenTerminal()])
def test_an_error_output_that_is_gone_stops_nothing(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    told = 0
    with bar("drafts") as tell:
        say("a line")
        for done in range(5):
            tell(done, 5)
            told += 1
    assert told == 5


def test_it_can_be_told_from_many_threads_and_often(capsys: pytest.CaptureFixture[str]) -> None:
    began = time.perf_counter()
    with bar("checks") as tell:
        threads = [threading.Thread(target=lambda: [tell(i, 5000) for i in range(5000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert time.perf_counter() - began < 5  # 20,000 calls: far under a millisecond each
    assert capsys.readouterr().err.startswith("checks ...\n")


PROGRAM = """
from amenable.progress import bar, say
with bar("drafts [bold]") as tell:
    tell(0, 40)
    for done in range(1, 41):
        __import__("time").sleep(0.02)
        tell(done, 40)
        if done == 20:
            say("half")
"""


def on_a_terminal(program: str, term: str) -> str:
    """What `program` writes to an error output that is a terminal."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": term, "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", program], stderr=follower, env=environment)
    os.close(follower)
    text = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not part:
            break
        text += part
    os.close(leader)
    assert process.wait() == 0
    return text.decode()


def test_on_a_terminal_a_bar_with_count_and_time_left_is_drawn_and_replaced_by_one_line() -> None:
    text = on_a_terminal(PROGRAM, "xterm-256color")
    assert "drafts [bold]" in text  # a description is text, not markup
    assert "/40" in text
    assert "s left" in text
    assert "\x1b[2Khalf\r\n" in text  # a line that is said stands above the bar
    assert text.endswith("drafts [bold]: 40 of 40 in 1 s\r\n")


def test_a_dumb_terminal_gets_plain_lines() -> None:
    text = on_a_terminal(PROGRAM, "dumb")
    assert "\x1b" not in text
    assert text.splitlines() == ["drafts [bold] ...", "half", "drafts [bold]: 40 of 40 in 1 s"]
