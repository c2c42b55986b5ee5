"""Asked to stop: a training finishes its step and writes a checkpoint; asked twice, it stops; other work stops at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from amenable import stopping
from amenable.stopping import Stopped

SCRIPT = """
import sys, time, torch
sys.path.insert(0, {tests!r})
from pathlib import Path
from tiny import tiny_policy
torch.set_num_threads(1)
from amenable import cli
from amenable.method.imitation import Example, Imitation
from amenable.method.loop import Optimisation, train

class Slow(Imitation):
    def losses(self, policy, step):
        time.sleep({pause})
        yield from super().losses(policy, step)

def work(arguments, debug):
    folder = Path(arguments[0])
    method = Slow([Example(f"q{{i}}", f"a{{i * i}}") for i in range(9)], epochs=4, batch_size=3, seed=1)
    policy = tiny_policy().trainable_copy()
    train(policy, method, optimisation=Optimisation(learning_rate=1e-3), folder=folder, checkpoint_every=5)
    policy.save(folder / "model")
    return 0

cli.run = work
sys.exit(cli.main(["run", *sys.argv[1:]]))
"""


def start(folder: Path, pause: float) -> subprocess.Popen[str]:
    script = SCRIPT.format(tests=str(Path(__file__).parent), pause=pause)
    return subprocess.Popen([sys.executable, "-c", script, str(folder)], stderr=subprocess.PIPE, text=True)


def wait_for(what: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def lines(folder: Path) -> int:
    file = folder / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def ask_myself(number: int) -> None:
    with stopping.listening():
        os.kill(os.getpid(), number)
        time.sleep(1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_training_stops_after_its_step_with_a_checkpoint_and_goes_on(number: int, code: int, tmp_path: Path) -> None:
    assert start(tmp_path / "whole", 0.0).wait(120) == 0
    cut = tmp_path / "cut"
    process = start(cut, 0.2)
    wait_for(lambda: lines(cut) >= 2)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == code, said
    assert f"stopped ({signal.Signals(number).name})" in said
    (checkpoint,) = cut.glob("checkpoint-*")
    assert checkpoint.name == f"checkpoint-{lines(cut)}"  # the step was finished, and nothing after it begun
    assert start(cut, 0.0).wait(120) == 0
    for name in ("metrics.jsonl", "model/model.safetensors"):
        assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_asked_twice_it_stops_at_once(tmp_path: Path) -> None:
    process = start(tmp_path, 20.0)
    wait_for(lambda: (tmp_path / "metrics.jsonl").exists())
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert time.monotonic() - began < 5
    assert not list(tmp_path.glob("checkpoint-*"))


def test_outside_a_training_the_first_request_is_enough_and_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in stopping.SIGNALS]
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with pytest.raises(Stopped) as stopped:
            ask_myself(number)
        assert stopped.value.exit_code == code
    assert [signal.getsignal(number) for number in stopping.SIGNALS] == before
