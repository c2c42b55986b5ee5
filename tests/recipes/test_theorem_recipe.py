"""`amenable run theorem`: what it prints is what the enumeration says."""

from __future__ import annotations

from pathlib import Path

import pytest

from amenable.cli import main
from amenable.recipes.theorem import TheoremSettings, run
from amenable.report.text import report_text


def test_the_command_says_what_the_theorem_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "theorem", "noise=0.05,0.8", "--out", str(tmp_path / "t")]) == 0
    text = capsys.readouterr().out
    assert "72 of 362,880 one-to-one languages are compositional" in text
    assert "best at 1 of 1 levels of noise between 0 and 0.6667, and worst at 1 of 1 above" in text
    assert "0.1000" in text
    assert "0.1206" in text
    assert "1.2800" in text
    assert "all languages tie" in text  # at the threshold, which is always among the levels
    assert "How many more features other languages get wrong" in (tmp_path / "t" / "report.html").read_text()


def test_a_world_of_one_feature_has_compositional_languages_alone(tmp_path: Path) -> None:
    text = report_text(run(TheoremSettings(features=1, values=3, noise=(0.1,)), tmp_path / "t"))
    assert "6 of 6 one-to-one languages" in text


def test_worlds_too_large_and_noise_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "theorem", "values=5", "--out", str(tmp_path / "a")]) == 2
    assert "25! languages" in capsys.readouterr().err
    assert main(["run", "theorem", "noise=1.2", "--out", str(tmp_path / "b")]) == 2
    assert "not probabilities" in capsys.readouterr().err
