"""The ILF recipe end to end: a real model, real programs, a real sandbox, on tasks of one's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from feedback.fault_server import answer, http, serving
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from amenable.cli import main
from amenable.errors import ConfigError, DataError, ModelError, TrainingError
from amenable.recipes import ilf
from amenable.recipes.ilf import ILFSettings, material
from amenable.report.text import report_text

SMALL = {
    "samples": 6,
    "refinements": 6,
    "k": (1, 6),
    "max_tokens": 24,
    "epochs": 4,
    "learning_rate": 3e-3,
    "threads": 1,
}


def settings_for(model: Path, tasks: Path, **changes: object) -> ILFSettings:
    base = ILFSettings(model=str(model), task=str(tasks), feedback="tests", **SMALL)  # type: ignore[arg-type]
    return replace(base, **changes)  # type: ignore[arg-type]


def stages(folder: Path) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for line in (folder / "samples.jsonl").read_text().splitlines():
        row = json.loads(line)
        name = row.pop("stage")
        if set(row) != {"rows"}:
            found.setdefault(name, []).append(row)
    return found


def test_a_study_on_ones_own_tasks(writer: Path, tasks_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    report = ilf.run(settings_for(writer, tasks_file, rounds=2, precision="float32"), folder)
    made = stages(folder)
    # every arm refined the same failing drafts, six times each
    drafts = made["round 1 drafts/0"]
    failing = [row["task_id"] for row in drafts if row["verdict"]["outcome"] != "pass"]  # type: ignore[index]
    assert 0 < len(failing) < 16
    for arm in ("tests", "shuffled", "none"):
        rows = made[f"round 1 refinements, feedback {arm}/0"]
        assert [row["task_id"] for row in rows] == [task for task in failing for _ in range(6)]
    # no held-out task was trained on, and what was imitated passes its tests
    assert {row["task_id"] for row in made["before/0"]} == {f"own/{i}" for i in range(16, 24)}
    assert not {row["task_id"] for row in made["before/0"]} & {row["task_id"] for row in drafts}
    # the words name the failing call
    words = [row["feedback"] for row in made["round 1 feedback"]]
    assert all("should return" in str(text) for text in words)
    # the saved model loads in plain transformers, and the training moved it
    model = AutoModelForCausalLM.from_pretrained(folder / "round-2" / "model")
    assert AutoTokenizer.from_pretrained(folder / "round-2" / "model").decode([102]) is not None
    before = load_file(writer / "model.safetensors")
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items() if name in before)
    # the report holds the numbers and the page exists
    text = report_text(report)
    assert "another task's feedback" in text
    assert "paired difference" in text
    assert "Verdicts by who judged" in text
    assert "processes+rlimits" in text
    page = (folder / "report.html").read_text()
    assert "own/" in page
    assert "amenable run ilf" in page
    metrics = [json.loads(line) for line in (folder / "round-1" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == list(range(len(metrics)))
    assert all(row["loss"] > 0 and row["gradient_norm"] > 0 for row in metrics)


def test_a_study_killed_at_any_time_resumes_to_the_same_bits(writer: Path, tasks_file: Path, tmp_path: Path) -> None:
    """SIGKILL at several moments through the command line; same model, same samples as a run that was left alone."""
    keys = [f"{key}={','.join(map(str, v)) if isinstance(v, tuple) else v}" for key, v in SMALL.items()]
    keys += [
        f"model={writer}",
        f"task={tasks_file}",
        "controls=false",
        "checkpoint_every=1",
        "epochs=12",
        "feedback=tests",
    ]
    command = [sys.executable, "-m", "amenable", "run", "ilf", *[key for key in keys if key != "epochs=4"]]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True, capture_output=True, env=environment)
    cut, kills = tmp_path / "cut", 0
    watched = (
        "samples.jsonl",
        "round-1/metrics.jsonl",
        "round-1/checkpoint-3",
        "round-1/checkpoint-5",
        "round-1/model",
    )
    for name in watched:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([*command, "--out", str(cut)], env=environment, **quiet)
        deadline = time.monotonic() + 90
        while process.poll() is None and time.monotonic() < deadline and not (cut / name).exists():
            time.sleep(0.002)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 3
    subprocess.run([*command, "--out", str(cut)], check=True, capture_output=True, env=environment)
    for name in ("samples.jsonl", "round-1/metrics.jsonl"):
        assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    ours, theirs = (load_file(folder / "round-1/model/model.safetensors") for folder in (cut, tmp_path / "whole"))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_persons_feedback_on_given_drafts_and_its_controls(writer: Path, tasks_file: Path, tmp_path: Path) -> None:
    rows = [
        {"task_id": f"own/{i}", "draft": f"def f{i}(x):\n    return x\n", "feedback": f"Add {1 + i % 3} to x.",
         "refinement": f"def f{i}(x):\n    return x + {1 + i % 3}\n"}
        for i in range(10)
    ]  # fmt: skip
    feedback = tmp_path / "feedback.jsonl"
    feedback.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "run"
    settings = settings_for(writer, tasks_file, feedback="human", feedback_file=str(feedback))
    ilf.run(settings, folder)
    made = stages(folder)
    assert [row["feedback"] for row in made["round 1 feedback"]] == [row["feedback"] for row in rows]
    assert len(made["given drafts"]) == 10
    # as controls of their own, they refine the same drafts; nothing else than their own arm is drawn
    other = tmp_path / "none"
    ilf.run(replace(settings, feedback="none", controls=False), other)
    assert [name for name in stages(other) if "refinements" in name] == ["round 1 refinements, feedback none/0"]
    # imitating what people wrote, and the solutions, on the tasks that were accepted
    for target in ("human", "solutions"):
        ilf.run(replace(settings, imitate=target, controls=False), tmp_path / target)


def test_a_model_behind_a_server_is_the_critic_and_is_asked_once(
    writer: Path, tasks_file: Path, tmp_path: Path
) -> None:
    settings = settings_for(writer, tasks_file, feedback="llm", controls=False)
    with serving(lambda n, request, _: answer(f" Look at sign {n}. ") if n != 1 else http(503)) as server:
        settings = replace(settings, critic=f"some/model@{server.url}")
        ilf.run(settings, tmp_path / "run")
        asked = len(server.requests)
        words = [str(row["feedback"]) for row in stages(tmp_path / "run")["round 1 feedback"]]
        assert asked == len(words) + 1  # one try failed
        assert all(word.startswith("Look at sign") for word in words)
        assert {request["model"] for request in server.requests} == {"some/model"}
        (tmp_path / "run" / "samples.jsonl").unlink()  # as if the run had died before it wrote anything down
        ilf.run(settings, tmp_path / "run")
        assert len(server.requests) == asked


def test_an_adapter_is_saved_as_one_and_evaluated_by_its_folder(writer: Path, tasks_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ilf.run(settings_for(writer, tasks_file, adapter="lora", controls=False), folder)
    model = folder / "round-1" / "model"
    assert (model / "adapter_config.json").exists()
    assert not (model / "model.safetensors").exists()
    code = main(
        ["evaluate", str(model), f"task={tasks_file}", "n=3", "k=1,3", "max_tokens=24", "--out", str(tmp_path / "e")]
    )
    assert code == 0
    assert (tmp_path / "e" / "report.html").exists()


def test_the_same_seed_gives_the_same_study(writer: Path, tasks_file: Path, tmp_path: Path) -> None:
    settings = settings_for(writer, tasks_file, controls=False)
    for name in ("one", "two"):
        ilf.run(settings, tmp_path / name)
    assert (tmp_path / "one/samples.jsonl").read_bytes() == (tmp_path / "two/samples.jsonl").read_bytes()


# --- bad input: one clear error, exit code not 0, nothing lost


def test_nothing_accepted_is_said(writer: Path, tasks_file: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in tasks_file.read_text().splitlines()]
    for row in rows:
        row["tests"] = [test.split("==")[0] + "== 'never'" for test in row["tests"]]
        del row["solution"]
    tasks_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(TrainingError, match="no refinement was accepted"):
        ilf.run(settings_for(writer, tasks_file, controls=False), tmp_path / "run")
    assert "before/0" in stages(tmp_path / "run")  # what was drawn is kept


def test_a_reference_solution_that_fails_its_tests_is_named(writer: Path, tasks_file: Path, tmp_path: Path) -> None:
    text = tasks_file.read_text().replace("assert f3(5) == 6", "assert f3(5) == 7")
    tasks_file.write_text(text)
    with pytest.raises(DataError, match=r"own/3"):
        ilf.run(settings_for(writer, tasks_file), tmp_path / "run")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (["task=mbpp"], "needs data=DIR"),
        (["task=nothing.jsonl"], "no known task set"),
        (["feedback=human"], "needs what people wrote"),
        (["feedbak=human"], "feedback"),
        (["feedback=humans"], "human"),
        (["test_split=dev"], "no task is in split dev"),
        (["refiner=trained", "feedback_file=FILE"], "split refine"),
    ],
)
def test_settings_that_cannot_be(
    keys: list[str], says: str, tasks_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    feedback = tmp_path / "feedback.jsonl"
    feedback.write_text(json.dumps({"task_id": "own/1", "draft": "d", "feedback": "f"}) + "\n")
    given = [key.replace("FILE", str(feedback)) for key in keys]
    if not any(key.startswith(("feedback=", "feedbak=")) for key in given):
        given.append("feedback=tests")
    task = [] if any(key.startswith("task=") for key in keys) else [f"task={tasks_file}"]
    code = main(["run", "ilf", *task, *given, "--out", str(tmp_path / "out")])
    errors = capsys.readouterr().err
    assert code not in (0, 70)
    assert says in errors
    assert "fix" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


def test_feedback_with_unknown_ids(tasks_file: Path, tmp_path: Path) -> None:
    feedback = tmp_path / "feedback.jsonl"
    feedback.write_text(json.dumps({"task_id": "other/1", "draft": "d", "feedback": "f"}) + "\n")
    settings = ILFSettings(task=str(tasks_file), feedback="human", feedback_file=str(feedback))
    with pytest.raises(DataError, match="other/1"):
        material(settings)


def test_a_model_folder_without_tokenizer(writer: Path, tasks_file: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((writer / name).read_bytes())
    with pytest.raises(ModelError, match="tokenizer"):
        ilf.run(settings_for(bare, tasks_file), tmp_path / "run")


def test_settings_that_do_not_fit_together() -> None:
    with pytest.raises(ConfigError, match="feedback_file"):
        material(ILFSettings(task="embedded-medium", feedback="tests", imitate="human"))
