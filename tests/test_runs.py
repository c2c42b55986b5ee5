"""The run folder: closed stages are read, torn ones are redone, other settings are refused, a full disk loses nothing."""

from __future__ import annotations

import errno
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from amenable import durable
from amenable.durable import storage_error
from amenable.errors import ConfigError, StorageError
from amenable.runs import MetricsLog, Run, read_stages

SETTINGS = {"model": "m", "k": (1, 10), "rate": 1e-05}


def never() -> list[dict[str, Any]]:
    raise AssertionError("a closed stage was computed again")


def test_a_closed_stage_is_read_and_not_computed(tmp_path: Path) -> None:
    rows = [{"task_id": "a", "passed": (True, None)}, {"task_id": "b", "passed": ()}]
    first = Run(tmp_path, SETTINGS)
    made = first.stage("drafts", lambda: rows)
    assert first.stage("empty", list) == []
    first.close()
    again = Run(tmp_path, SETTINGS)
    assert again.has("drafts")
    assert (
        again.stage("drafts", never)
        == made
        == [{"task_id": "a", "passed": [True, None]}, {"task_id": "b", "passed": []}]
    )
    assert again.stage("empty", never) == []


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_stage_is_cut_off_and_runs_again_to_the_same_bytes(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "samples.jsonl"
    run = Run(tmp_path, SETTINGS)
    run.stage("one", lambda: [{"n": 1}])
    run.stage("two", lambda: [{"n": 2}, {"n": 3}])
    run.close()
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    again = Run(tmp_path, SETTINGS)
    assert again.stage("one", never) == [{"n": 1}]
    assert not again.has("two")
    again.stage("two", lambda: [{"n": 2}, {"n": 3}])
    again.close()
    assert file.read_bytes() == whole


def test_a_setting_that_a_folder_does_not_know_yet_counts_as_its_default(tmp_path: Path) -> None:
    @dataclass
    class Old:
        rate: float = 0.1

    @dataclass
    class New(Old):
        where: str = "here"
        ks: tuple[int, ...] = (1, 5)

    Run.of(tmp_path, Old(rate=0.2)).close()
    before = (tmp_path / "config.yaml").read_bytes()
    Run.of(tmp_path, New(rate=0.2)).close()
    assert (tmp_path / "config.yaml").read_bytes() == before
    with pytest.raises(ConfigError, match=r"other settings: where \('here' there, 'there' now\)"):
        Run.of(tmp_path, New(rate=0.2, where="there"))


def test_a_folder_is_resumed_only_with_its_own_settings(tmp_path: Path) -> None:
    Run(tmp_path, SETTINGS).close()
    Run(tmp_path, dict(SETTINGS)).close()
    with pytest.raises(ConfigError, match=r"other settings: rate \(1e-05 there, 0.1 now\)"):
        Run(tmp_path, {**SETTINGS, "rate": 0.1})


def test_what_only_adds_stages_may_change(tmp_path: Path) -> None:
    """A study gets another arm: the folder is opened with it, keeps what it has, and says so from then on."""

    @dataclass
    class Study:
        arms: tuple[str, ...] = ("one",)
        rate: float = 0.1

    first = Run.of(tmp_path, Study(), free=("arms",))
    first.stage("one", lambda: [{"n": 1}])
    first.close()
    second = Run.of(tmp_path, Study(arms=("one", "two")), free=("arms",))
    assert second.stage("one", lambda: pytest.fail("computed again")) == [{"n": 1}]
    second.close()
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == {"arms": ["one", "two"], "rate": 0.1}
    with pytest.raises(ConfigError, match=r"other settings: rate"):
        Run.of(tmp_path, Study(arms=("one",), rate=0.2), free=("arms",))


def test_a_full_disk_is_said_and_keeps_the_closed_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path, SETTINGS)
    run.stage("one", lambda: [{"n": 1}])

    def full(operation: str, path: Path) -> None:
        if operation == "sync":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable, "hook", full)
    with pytest.raises(StorageError, match="disk is full"):
        run.stage("two", lambda: [{"n": 2}])
    monkeypatch.undo()
    again = Run(tmp_path, SETTINGS)
    assert again.stage("one", never) == [{"n": 1}]
    assert not again.has("two")


def test_a_damaged_line_before_closed_stages_is_not_cut_off_with_them(tmp_path: Path) -> None:
    run = Run(tmp_path, SETTINGS)
    for name in ("one", "two", "three"):
        run.stage(name, lambda: [{"n": 1}])
    run.close()
    file = tmp_path / "samples.jsonl"
    damaged = file.read_bytes().replace(b'"stage": "two", "n"', b'"stage": "two" \x00 "n"')
    file.write_bytes(damaged)
    with pytest.raises(StorageError, match=r"damaged at byte \d+, and whole stages stand after"):
        Run(tmp_path, SETTINGS)
    assert file.read_bytes() == damaged


def test_two_processes_do_not_write_the_same_run(tmp_path: Path) -> None:
    run = Run(tmp_path, SETTINGS)
    other = f"from pathlib import Path; from amenable.runs import Run; Run(Path({str(tmp_path)!r}), {SETTINGS!r})"
    done = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True)
    assert "in use: another process" in done.stderr
    run.close()
    assert subprocess.run([sys.executable, "-c", other]).returncode == 0


def test_the_stages_of_a_run_that_goes_on_are_read_and_nothing_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    assert read_stages(path) == ({}, 0)
    run = Run(tmp_path, SETTINGS)
    run.stage("drafts", lambda: [{"text": "a"}])
    whole = path.stat().st_size
    with open(path, "a") as file:
        file.write('{"stage": "after", "text": "half')
    before = path.read_bytes()
    assert read_stages(path) == ({"drafts": [{"text": "a"}]}, whole)
    assert path.read_bytes() == before
    run.close()


def test_a_read_only_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        Run(tmp_path / "file" / "run", SETTINGS)
    assert "--out" in storage_error(tmp_path, PermissionError(errno.EACCES, "Permission denied")).fix


def test_metrics_are_cut_back_to_a_checkpoint(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write({"step": 0}, began=0.0)
    size = log.flush()
    log.write({"step": 1}, began=0.0)
    log.close()
    again = MetricsLog(tmp_path / "metrics.jsonl")
    again.cut(size)
    again.write({"step": 1, "again": True}, began=0.0)
    again.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert lines == ['{"step": 0}', '{"step": 1, "again": true}']
