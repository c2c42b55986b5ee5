"""`amenable run walk` and `amenable run iterated`: the commands, what they say, and that a killed run goes on the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from amenable.cli import main
from amenable.errors import ConfigError
from amenable.recipes import iterated, walk
from amenable.recipes.iterated import IteratedSettings
from amenable.recipes.walk import WalkSettings
from amenable.report.text import report_text

WALK = WalkSettings(cells=("goal/self", "goal/self/2"), seeds=2, side=2, alphabet=2, steps=5)
LINEAGE = IteratedSettings(seeds=3, values=3, first_steps=5, steps=3, generations=2)


def test_walk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = "cells=goal+listener/nothing,goal/self/2"
    assert main(["run", "walk", cells, "seeds=2", "side=3", "steps=250", "--out", str(tmp_path / "w")]) == 0
    told = capsys.readouterr()
    assert "goal+listener/nothing: success" in told.err
    assert "goal+listener/nothing: commands." in told.out
    assert "goal/self/2: names of places." in told.out
    assert "Map of goals: goal/self/2" in told.out
    assert "symbol 2" in told.out  # a row of the positions
    page = (tmp_path / "w" / "report.html").read_text()
    assert "What symbols mean: goal+listener/nothing" in page


def test_iterated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = ["seeds=3", "values=3", "first_steps=5", "steps=3", "generations=2", "speakers=2"]
    assert main(["run", "iterated", *how, "--out", str(tmp_path / "i")]) == 0
    told = capsys.readouterr()
    assert "3 populations of 2 speakers and 1 listener in each" in told.out
    assert "holistic/table, turnover none: topsim" in told.err
    assert "factored/mlp: turnover changes topsim by" in told.out
    assert "nobody replaced" in (tmp_path / "i" / "report.html").read_text()


@pytest.mark.parametrize(("module", "settings", "name"), [(walk, WALK, "train_walk"), (iterated, LINEAGE, "iterate")])
def test_a_killed_run_goes_on(
    module: Any, settings: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = report_text(module.run(settings, tmp_path / "whole"))
    train, calls = getattr(module, name), []

    def killed(*arguments: Any, **more: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(*arguments, **more)

    monkeypatch.setattr(module, name, killed)
    with pytest.raises(KeyboardInterrupt):
        module.run(settings, tmp_path / "again")
    assert report_text(module.run(settings, tmp_path / "again")) == whole
    assert len(calls) == 1 + (2 if module is walk else 4)  # the closed stage is read, the other ones are trained


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="no cell 'goal/everything'"):
        walk.plan(WalkSettings(cells=("goal/everything",)))
    with pytest.raises(ConfigError, match="nothing is trained"):
        walk.plan(WalkSettings(cells=()))
    with pytest.raises(ConfigError, match="no generation"):
        iterated.plan(IteratedSettings(generations=0))
