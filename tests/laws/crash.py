"""Kill a training at its k-th operation on the disk, go on in a new process, and compare with one that was left alone.

    python tests/laws/crash.py METHOD FOLDER [EVERY] [torn|full]

METHOD is a name of `methods.BUILDERS`. Every EVERY-th operation (default 1) is tried. "torn": a write that is killed leaves
half of itself; "full": instead of being killed, the process finds the disk full there, and goes on later with room.
Processes are forked from one that has imported everything, so that a try takes less than a second.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["OMP_NUM_THREADS"] = "1"

import torch
from laws.methods import BUILDERS, PAIRS
from tiny import tiny_policy

from amenable import durable
from amenable.errors import StorageError
from amenable.feedback.reward_model import RewardModel, new_reward_model
from amenable.game.text import World, scenes_of
from amenable.method.loop import Optimisation
from amenable.policy.packed import PackedLM
from amenable.policy.quiet import quiet
from amenable.recipes.reward_training import trained_reward_model
from amenable.recipes.text_game import TextGameSettings, load_players, training
from amenable.recipes.training import trained
from amenable.records import Decoding
from amenable.runs import Run

LOG = Path(tempfile.gettempdir()) / f"crash-{os.getpid()}.log"  # what the last child said
KEPT = ("samples.jsonl", "round-1/metrics.jsonl", "config.yaml")


def study(method: str, folder: Path) -> None:
    """Two stages with a training between them."""
    run = Run(folder, {"method": method})
    run.stage("before", lambda: [{"n": 1}, {"n": 2}])
    settings: dict[str, Any] = {
        "optimisation": Optimisation(learning_rate=1e-2, precision="float32"), "folder": folder / "round-1", "record": run,
        "checkpoint_every": 2, "on_full": "stop",
    }  # fmt: skip
    if method == "RewardModelling":
        model, metrics = trained_reward_model(
            untrained(), BUILDERS[method](), adapter="full", centre_on=PAIRS, **settings
        )
        said = [str(score) for score in model(["ab"], ["cd"])]
    elif method == "BothPlay":
        metrics, said = played(BUILDERS[method](), folder / "round-1", run)
    else:
        prior = tiny_policy()
        if method.startswith("Pretraining"):
            prior = PackedLM.of(prior, value=method.endswith("awr"))
        policy, metrics = trained(prior, BUILDERS[method](), adapter="none", **settings)
        said = policy.sample(["ab"], n=2, seed=3, decoding=Decoding(max_tokens=8)).texts
    run.stage("after", lambda: [{"text": text, "metrics": metrics[-1]} for text in said])
    run.close()


def played(settings: TextGameSettings, folder: Path, run: Run) -> tuple[list[dict[str, Any]], list[str]]:
    """Speaker and listener, as `amenable run text-game` trains them, and what the speaker says then."""
    world, prior = World(), tiny_policy(context=1024)
    scenes = scenes_of(world.split(0.25, seed=0)[0], 4, candidates=2, seed=0)
    training(settings, prior, world, scenes, True, 0.05, 3, folder, run)
    players = load_players(settings, prior, True, folder)
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return metrics, list(players.speaker.sample(["ab"], n=2, seed=3, decoding=settings.decoding).texts)


def untrained() -> RewardModel:
    """A reward model on the tiny policy's body."""
    with tempfile.TemporaryDirectory() as body:
        tiny_policy().save(Path(body))
        return new_reward_model(Path(body), dtype="float32", name="tiny")


def in_child(work: Callable[[], None]) -> int:
    """The exit status of `work` in a process of its own; a negative number is a signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 2)
        try:
            work()
            code = 0
        except StorageError:
            code = 8
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def failing(at: int, how: str) -> Callable[[str, Path], None]:
    seen = 0

    def hook(operation: str, path: Path) -> None:
        nonlocal seen
        seen += how != "full" or operation != "delete"  # a full disk still deletes
        if seen != at:
            return
        if how == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if how == "torn" and operation == "write" and path.suffix == ".jsonl":
            with open(path, "ab") as file:
                file.write(b'{"stage": "af')
        os.kill(os.getpid(), signal.SIGKILL)

    return hook


def main(method: str, folder: Path, every: int, how: str) -> int:
    quiet()
    torch.set_num_threads(1)
    assert in_child(lambda: study(method, folder / "whole")) == 0, LOG.read_text()
    tries = at = 0
    while True:
        at += every
        cut = folder / "cut"
        shutil.rmtree(cut, ignore_errors=True)

        def dying(at: int = at, cut: Path = cut) -> None:
            durable.hook = failing(at, how)
            study(method, cut)

        status = in_child(dying)
        if status == 0:
            break
        assert status == (8 if how == "full" else -signal.SIGKILL), (at, status, LOG.read_text())
        assert in_child(lambda cut=cut: study(method, cut)) == 0, f"operation {at}: {LOG.read_text()}"  # type: ignore[misc]
        models = [str(path.relative_to(folder / "whole")) for path in (folder / "whole").rglob("*.safetensors")]
        assert models
        for name in (*KEPT, *models):
            same = (cut / name).read_bytes() == (folder / "whole" / name).read_bytes()
            assert same, f"{name} differs after operation {at}"
        left = [str(path) for path in cut.rglob("*") if "checkpoint" in path.name or "partial" in path.name]
        assert not left, f"left after operation {at}: {left}"
        tries += 1
    LOG.unlink()
    print(f"{method}: {how} at {tries} of {at // every * every} operations, every time the same bytes")
    return tries


if __name__ == "__main__":
    every = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    main(sys.argv[1], Path(sys.argv[2]), every, sys.argv[4] if len(sys.argv) > 4 else "kill")
