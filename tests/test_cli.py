"""The command line as a user meets it: commands, plans, folders, errors with a fix, no tracebacks."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from amenable import recipes
from amenable.cli import explain, main
from amenable.config import describe, resolve, to_yaml
from amenable.doctor import Finding, examine, memory
from amenable.errors import ConfigError, DataError, ModelError, StorageError
from amenable.policy import zoo
from amenable.recipes.settings import Recipe, setting
from amenable.report.page import Report
from amenable.stopping import Stopped


@dataclass(frozen=True)
class Small:
    model: str = setting("tiny", "which model")
    steps: int = setting(3, "how many steps")
    kind: str = setting("fast", "how it is done", ("fast", "exact"))


class Study:
    """A recipe that writes down how it was called; `does` is what its run does besides."""

    def __init__(self) -> None:
        self.ran: list[tuple[Small, Path]] = []
        self.does: Callable[[Path], Any] = lambda folder: None

    def run(self, settings: Small, folder: Path) -> Report:
        self.ran.append((settings, folder))
        (folder / "config.yaml").write_text(to_yaml(settings))
        self.does(folder)
        (folder / "report.html").write_text("<p>done</p>")
        return Report("The study", ["It worked."], "amenable run small", [])

    def recipe(self, name: str) -> Recipe:
        plan = lambda settings: [f"{settings.steps} steps with {settings.model}"]
        return Recipe(name, f"the {name} study", Small, plan, self.run)


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Study:
    """In an empty folder, with the recipes `small` and `evaluate`, both of one Study."""
    study = Study()
    monkeypatch.setattr(recipes, "RECIPES", {name: study.recipe(name) for name in ("small", "evaluate")})
    monkeypatch.chdir(tmp_path)
    return study


# --- run


def test_run_alone_lists_the_recipes(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  small     the small study",
        "  evaluate  the evaluate study",
    ]


def test_a_run_shows_its_plan_then_its_report_and_where_it_is(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    study.does = lambda folder: print("(working)")
    assert main(["run", "small", "steps=5"]) == 0
    folder = Path("runs/small-1")
    assert study.ran == [(Small(steps=5), folder)]
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert lines[:3] == ["5 steps with tiny", f"writes to {folder}", "(working)"]
    assert lines[3:] == [
        "The study",
        "It worked.",
        "again: amenable run small",
        f"report: {folder}/report.html",
    ]


def test_runs_are_numbered_and_options_may_stand_anywhere(study: Study, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("steps: 7\nkind: exact\n")
    assert main(["run", "small"]) == 0
    assert main(["run", "small", "--config", "mine.yaml", "kind=fast"]) == 0
    assert main(["run", "steps=1", "--out", "elsewhere", "model=m"]) == 2  # no recipe named
    assert main(["run", "small", "steps=1", "--out", "elsewhere", "model=m"]) == 0
    assert study.ran == [
        (Small(), Path("runs/small-1")),
        (Small(steps=7), Path("runs/small-2")),
        (Small(steps=1, model="m"), Path("elsewhere")),
    ]


def test_a_run_that_is_named_with_out_goes_on_with_its_own_settings(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "small", "steps=9", "kind=exact"]) == 0
    assert main(["run", "small", "--out", "runs/small-1"]) == 0
    assert study.ran[1] == study.ran[0]
    assert "resumes runs/small-1" in capsys.readouterr().out


def test_a_dry_run_shows_plan_and_settings_and_touches_nothing(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "small", "--dry-run", "steps=4"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("4 steps with tiny\nwrites to runs/small-1\n")
    assert to_yaml(Small(steps=4)) in shown
    assert study.ran == []
    assert list(tmp_path.iterdir()) == []


def test_evaluate_takes_the_model_first(study: Study) -> None:
    assert main(["evaluate", "org/model", "steps=2"]) == 0
    assert study.ran == [(Small(model="org/model", steps=2), Path("runs/evaluate-1"))]


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["rnu"], ["there is no command 'rnu'", "did you mean 'run'?"]),
        (["run", "smal"], ["there is no recipe 'smal'", "did you mean 'small'?"]),
        (["run", "small", "stepps=1"], ["there is no setting 'stepps'", "did you mean 'steps'?"]),
        (["run", "small", "steps=x"], ["steps=x", "a whole number", "the default is 3"]),
        (["run", "small", "kind=fsat"], ["is not one of fast, exact", "did you mean 'fast'?"]),
        (["run", "small", "--steps=4"], ["has no option --steps=4", "key=value, without dashes"]),
        (["run", "small", "--ot", "x"], ["has no option --ot", "did you mean '--out'?"]),
        (["run", "small", "--out"], ["expected one argument"]),
        (["run", "small", "--config", "none.yaml"], ["there is no file none.yaml"]),
        (["evaluate"], ["no model is named"]),
        (["evaluate", "steps=3"], ["no model is named"]),
        (["evaluate", "m", "model=n"], ["model is given twice"]),
        (["models", "fetch"], ["no model is named"]),
        (["models", "fetch", "smollm3"], ["there is no named model 'smollm3'", "did you mean 'smollm2-135m'?"]),
        (["models", "fecth"], ["invalid choice"]),
        (["doctor", "--all"], ["has no option --all"]),
        (["report"], ["RUN_DIR"]),
        (["report", "nowhere"], ["there is no report in nowhere"]),
    ],
)
def test_a_wrong_command_is_answered_with_what_to_type(
    study: Study, capsys: pytest.CaptureFixture[str], arguments: list[str], messages: list[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert "Traceback" not in captured.err
    for message in messages:
        assert message in captured.err
    assert captured.out == ""
    assert study.ran == []
    assert not Path("runs").exists()


def test_a_folder_that_is_no_run_is_left_alone(study: Study, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("all of it")
    assert main(["run", "small", "--out", "thesis"]) == 2
    assert main(["run", "small", "--out", "thesis/chapter.tex"]) == 2
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "all of it"
    (tmp_path / "empty").mkdir()
    assert main(["run", "small", "--out", "empty"]) == 0


# --- errors


def raising(error: BaseException) -> Callable[[Path], Any]:
    def raise_it(folder: Path) -> None:
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ModelError("the index did not answer", "try later"), 4, "error: the index did not answer\n  fix: try"),
        (OSError(errno.ENOSPC, "No space left on device"), 8, "the disk is full"),
        (RuntimeError("safetensors: No space left on device (os error 28)"), 8, "the disk is full"),
        (MemoryError(), 1, "there is not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 GB"), 1, "there is not enough memory"),
        (
            ZeroDivisionError("division by zero"),
            70,
            "error: ZeroDivisionError: division by zero\n  fix: run it again",
        ),
        (BrokenPipeError(), 70, "error: BrokenPipeError"),  # of a worker, not of our reader
        (KeyboardInterrupt(), 130, "stopped"),
        (Stopped(15), 143, "stopped (SIGTERM)"),
    ],
)
def test_an_error_in_a_run_is_told_without_a_traceback_and_with_how_to_go_on(
    study: Study, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, message: str
) -> None:
    study.does = raising(error)
    assert main(["run", "small"]) == code
    told = capsys.readouterr().err
    assert message in told
    assert told.endswith("\nto go on: amenable run small --out runs/small-1\n")
    assert "Traceback" not in told


def test_an_error_that_would_come_again_does_not_say_to_go_on(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    study.does = raising(DataError("line 3 has no prompt", "add one"))
    assert main(["run", "small"]) == 3
    assert capsys.readouterr().err == "error: line 3 has no prompt\n  fix: add one\n"


def test_debug_shows_the_traceback(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    study.does = raising(ZeroDivisionError("division by zero"))
    assert main(["--debug", "run", "small"]) == 70
    assert main(["run", "small", "--debug"]) == 70
    assert capsys.readouterr().err.count("Traceback (most recent call last)") == 2


def test_a_run_that_wrote_nothing_leaves_nothing(
    study: Study, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(settings: Small, folder: Path) -> Report:
        assert folder.is_dir()
        raise DataError("no tasks")

    monkeypatch.setattr(study, "run", fail)
    monkeypatch.setattr(recipes, "RECIPES", {"small": study.recipe("small")})
    assert main(["run", "small"]) == 3
    assert list(Path("runs").iterdir()) == []
    assert "to go on" not in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_a_storage_error(study: Study, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert main(["run", "small", "--out", "locked/run"]) == StorageError.exit_code


def test_a_folder_under_a_file_is_a_storage_error(study: Study, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert main(["run", "small", "--out", "file/run"]) == StorageError.exit_code


def test_an_errors_exit_code_and_message_are_its_own() -> None:
    assert explain(ConfigError("a", "b")) == ("a\n  fix: b", 2)
    assert explain(ValueError("first\nsecond"))[0].startswith("ValueError: first\n  fix:")


# --- models, doctor, report


def test_models_lists_the_named_models_and_whether_they_are_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMENABLE_CACHE", str(tmp_path))
    assert main(["models"]) == 0
    listed = capsys.readouterr().out
    for entry in zoo.ENTRIES:
        assert entry.aliases[0] in listed
        assert entry.hub_id in listed
        assert entry.licence in listed
    assert listed.count("not cached; fetches") == len(zoo.ENTRIES)
    assert main(["models", "check"]) == 0
    assert "no named model is in the cache" in capsys.readouterr().out
    assert main(["models", "check", "smollm2"]) == ModelError.exit_code
    assert "is not in the cache" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_models_fetch_prints_the_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(zoo, "ensure", lambda entry: asked.append(entry) or tmp_path)
    assert main(["models", "fetch", "SmolLM2"]) == 0
    assert asked == [zoo.ENTRIES[0]]
    assert capsys.readouterr().out == f"{tmp_path}\n"


def test_doctor_tells_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor"])
    told = capsys.readouterr().out
    for name in (
        "python",
        "torch",
        "transformers",
        "cores",
        "AMX bfloat16",
        "memory",
        "model cache",
        "sandbox",
    ):
        assert any(line.startswith(name) for line in told.splitlines())
    assert code == int("  ! " in told)


def test_doctor_shows_remedies(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = [Finding("memory", "1 GB", "buy more"), Finding("cores", "2")]
    monkeypatch.setattr("amenable.doctor.examine", lambda: found)
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out == "memory  1 GB\n        ! buy more\ncores   2\n"


def test_doctor_says_when_disk_or_memory_will_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amenable.doctor.LEAST_DISK", 1e18)
    monkeypatch.setattr("amenable.doctor.LEAST_MEMORY", 1e18)
    remedies = {finding.name for finding in examine() if finding.remedy}
    assert {"memory", "model cache"} <= remedies


def test_memory_is_what_the_control_group_grants(tmp_path: Path) -> None:
    assert memory(tmp_path) == (0, 0)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 600 kB\nHugePages: 0\n")
    assert memory(tmp_path) == (600 * 1024, 1000 * 1024)
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.current").write_text("102400\n")
    (group / "memory.max").write_text("max\n")
    assert memory(tmp_path) == (600 * 1024, 1000 * 1024)
    (group / "memory.max").write_text("204800\n")
    assert memory(tmp_path) == (100 * 1024, 200 * 1024)


def test_report_prints_where_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("")
    assert main(["report", str(tmp_path)]) == 2
    assert "finish the run" in capsys.readouterr().err
    (tmp_path / "report.html").write_text("")
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"


# --- the real recipes


@pytest.mark.parametrize("name", ["ilf", "evaluate"])
def test_help_shows_every_setting_with_default_and_choices(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", name, "--help"]) == 0
    shown = capsys.readouterr().out
    words = " ".join(shown.split())
    for row in describe(recipes.RECIPES[name].settings):
        assert f"\n  {row.name}={row.default}" in shown
        assert row.help, f"{row.name} has no help"
        assert " ".join(row.help.split()) in words
        for choice in row.choices:
            assert choice in shown
    for option in ("--config FILE", "--out DIR", "--dry-run", "--debug"):
        assert option in shown


@pytest.mark.parametrize("name", ["ilf", "evaluate"])
def test_the_defaults_of_the_real_recipes_survive_their_own_config_file(name: str, tmp_path: Path) -> None:
    settings = recipes.RECIPES[name].settings()
    (tmp_path / "config.yaml").write_text(to_yaml(settings))
    assert resolve(type(settings), resumed=tmp_path / "config.yaml") == settings


@pytest.mark.parametrize("arguments", [["run", "ilf"], ["evaluate", "smollm2"]])
def test_the_real_recipes_plan_without_touching_anything(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--dry-run", "seed=3"]) == 0
    assert "seed: 3" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


# --- as a process


def amenable(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "amenable", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def test_help_and_version_are_quick_and_load_no_torch() -> None:
    for arguments in ([], ["--help"], ["--version"], ["nonsense"], ["run", "--nonsense"]):
        code = f"import sys; from amenable.cli import main; main({arguments}); print('torch' in sys.modules)"
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert shown.stdout.splitlines()[-1] == "False", arguments
    assert amenable("--version").stdout.startswith("amenable 0.")
    shown = amenable("--help")
    assert shown.returncode == 0
    assert "evaluate MODEL" in shown.stdout


def test_the_process_ends_with_the_errors_exit_code(tmp_path: Path) -> None:
    ended = amenable("run", "ilf", "seeds=1", cwd=tmp_path)
    assert ended.returncode == 2
    assert "did you mean 'seed'?" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_reader_who_leaves_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "amenable", "models"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")
