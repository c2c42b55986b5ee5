"""`amenable run text-game` on a small real model: played, measured, said; a run that was cut short goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_policy

from amenable.cli import main
from amenable.errors import ConfigError
from amenable.game.text import LanguageListener, World
from amenable.policy.loading import load_policy
from amenable.recipes.text_game import TextGameSettings, check
from amenable.recipes.text_game_report import Training, difference, measures_of, named

COMMON = [
    "steps=3", "scenes_per_step=2", "samples_per_scene=3", "evaluation=24", "evaluation_scenes=12", "scenes=12", "threads=1",
    "precision=float32", "seeds=1", "checkpoint_every=1", "max_tokens=6",
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama over bytes that can read the players' prompts."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tiny_policy(scale=1.0, context=1024).save(folder)
    return folder


def rows_of(folder: Path, stage: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return [row for row in lines if row["stage"] == stage and "rows" not in row]


def test_it_plays_measures_and_a_finished_run_is_only_read(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    command = ["run", "text-game", f"model={model}", "taboo=true", "noise=0.2", *COMMON, "--out", str(folder)]
    assert main([*command, "listeners=learned,frozen"]) == 0
    said = capsys.readouterr().out
    assert "learned listener, β = 0.05 against β = 0: surprise" in said
    names = [f"{listener}-{beta}-0" for listener in ("learned", "frozen") for beta in ("0", "0.05")]
    known, held_out = World().split(0.25, seed=0)
    for stage in ("prior", *names):
        rows = rows_of(folder, stage)
        assert len(rows) == 24, stage
        assert {row["target"] for row in rows} == set(held_out)
        assert not {name for row in rows for name in row["others"]} & set(known)
        assert all(0 < row[key] < 1 for row in rows for key in ("success", "outsider", "elsewhere", "noisy"))
        assert all(row["outsider"] == row["success"] for row in rows) == (not stage.startswith("learned"))
    assert all(row["log_policy"] == pytest.approx(row["log_prior"], abs=1e-3) for row in rows_of(folder, "prior"))
    page = (folder / "report.html").read_text()
    assert "Texts: learned listener, β = 0.05" in page
    speaker = load_policy(str(folder / "learned-0.05-0" / "model" / "speaker"), dtype="float32")
    assert speaker.sample(["Object:"], n=2).texts
    kept = (folder / "samples.jsonl").read_bytes()
    assert main([*command, "listeners=learned,frozen"]) == 0
    assert (folder / "samples.jsonl").read_bytes() == kept


def test_a_run_that_was_cut_short_goes_on(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["run", "text-game", f"model={model}", "betas=0.05", *COMMON, "--out"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    calls, real = 0, LanguageListener.__call__

    def dies(self: LanguageListener, messages: Sequence[str], candidates: Sequence[Sequence[str]]) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 6:  # three readings of the prior's texts, then the third step of the training
            raise KeyboardInterrupt
        return real(self, messages, candidates)

    monkeypatch.setattr(LanguageListener, "__call__", dies)
    assert main([*command, str(tmp_path / "cut")]) != 0
    monkeypatch.undo()
    assert (tmp_path / "cut" / "learned-0.05-0" / "checkpoint-2").is_dir()
    assert main([*command, str(tmp_path / "cut")]) == 0
    for file in ("samples.jsonl", "learned-0.05-0/metrics.jsonl"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "cut" / file).read_bytes(), file


# --- what the report says of texts
def row(text: str, target: str = "small red star", scene: int = 0, **others: Any) -> dict[str, Any]:
    plain = {"success": 0.5, "outsider": 0.5, "elsewhere": 0.5, "log_policy": -4.0, "log_prior": -8.0, "tokens": 4}
    return {"text": text, "target": target, "scene": scene, **plain, **others}


def test_named_counts_whole_words_of_the_target() -> None:
    assert named(row(" a Red, SMALL thing")) == pytest.approx(2 / 3)
    assert named(row(" starred reddish")) == 0
    assert named(row("small red star")) == 1


def test_the_measures_of_texts_that_are_known() -> None:
    rows = [row("a b", success=0.9), row("a b", scene=1, success=0.3), row("c", scene=2, success=0.6, log_prior=-2.0)]
    found = measures_of(rows)
    assert found["success"].value == pytest.approx(0.6)
    assert found["success"].n == 3
    assert found["surprise"].value == pytest.approx((2 + 2 + 0.5) / 3)
    assert found["KL"].value == pytest.approx((4 + 4 - 2) / 3)
    assert found["entropy"].value == 4
    assert found["distinct"].value == pytest.approx(2 / 3)
    assert "noisy" not in found


def test_a_difference_is_over_the_same_scenes_and_pairs_of_seeds() -> None:
    def training(*values: float) -> Training:
        return Training(
            "learned", 0.0, [row("x", scene=scene, success=value) for scene, value in enumerate(values)], []
        )

    start = [training(0.2, 0.4, 0.6)]
    assert difference(start, [training(0.4, 0.6, 0.8), training(0.3, 0.5, 0.7)], "success").value == pytest.approx(0.15)
    lone = difference(start, [training(0.4, 0.6, 0.8)], "success")
    assert (lone.value, lone.n) == (pytest.approx(0.2), 3)
    assert not math.isnan(lone.low)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"betas": ()}, "nothing to train"),
        ({"seeds": 0}, "nothing to train"),
        ({"betas": (0.0, -0.1)}, "betas has -0.1"),
        ({"samples_per_scene": 1}, "compared with the others"),
    ],
)
def test_settings_that_play_no_game_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        check(TextGameSettings(**settings))
