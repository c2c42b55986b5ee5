"""`amenable run signalling`: arms that survive a kill, tests, warnings, languages to read, in every kind of game."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amenable.cli import main
from amenable.errors import ConfigError
from amenable.game.sweep import Arm
from amenable.recipes import signalling as recipe
from amenable.recipes.signalling import CHANNELS, SignallingSettings, cells_of, game_of, listener_of, run
from amenable.recipes.signalling_report import Cell, build_report
from amenable.report.text import report_text

TINY = SignallingSettings(noise=(0.0, 0.2), seeds=3, steps=6, permutations=4, world="3x3", alphabet=3)
OBJECTS = list(itertools.product(range(3), repeat=2))
COMPOSITIONAL = [[a, b] for a, b in OBJECTS]
ROTATED = [[(a + b) % 3, (a - b) % 3] for a, b in OBJECTS]
CONSTANT = [[0, 0] for _ in OBJECTS]


def text_of(settings: SignallingSettings, folder: Path) -> str:
    return report_text(run(settings, folder))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["noise=0,0.2", "seeds=3", "steps=6", "permutations=4", "world=3x3", "alphabet=3"]
    assert main(["run", "signalling", *arguments, "--out", str(tmp_path / "s")]) == 0
    text = capsys.readouterr().out
    assert "2 arms of 3 pairs" in text
    assert "factored, mlp: topsim" in text
    assert "topsim against noise 0" in text
    assert "smallest found" in text
    assert "0.663" in text  # capacity at noise 0.2: log2 3 - H(0.2) - 0.2; at 0 log2 3
    assert "1.585" in text
    assert "Against chance" in text
    assert "b0  b1  b2" in text  # a language as a table
    page = (tmp_path / "s" / "report.html").read_text()
    assert "Topographic similarity" in page
    assert "objects named right" in page


def test_a_run_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = text_of(TINY, tmp_path / "whole")
    calls = []

    def killed(*arguments: Any, **more: Any) -> Arm:
        calls.append(more["name"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return arm_of(*arguments, **more)

    arm_of = recipe.arm_of
    monkeypatch.setattr(recipe, "arm_of", killed)
    with pytest.raises(KeyboardInterrupt):
        run(TINY, tmp_path / "killed")
    assert text_of(TINY, tmp_path / "killed") == whole
    assert calls == ["factored, mlp, noise 0", "factored, mlp, noise 0.2", "factored, mlp, noise 0.2"]
    more = text_of(replace(TINY, noise=(0.2, 0.0, 0.1), loss=("factored", "holistic")), tmp_path / "killed")
    assert calls[3:] == ["factored, mlp, noise 0.1", *[f"holistic, mlp, noise {p}" for p in ("0", "0.1", "0.2")]]
    assert "Biases" in more
    with pytest.raises(ConfigError, match="steps"):
        run(replace(TINY, steps=7), tmp_path / "killed")


def test_a_listener_is_of_the_speakers_kind() -> None:
    assert [listener_of(TINY, kind).kind for kind in ("mlp", "table", "cnn")] == ["mlp", "table", "mlp"]
    assert listener_of(replace(TINY, listener="mlp"), "table").kind == "mlp"


@pytest.mark.parametrize("channel", CHANNELS)
def test_every_channel(channel: str, tmp_path: Path) -> None:
    assert "accuracy" in text_of(replace(TINY, channel=channel, seeds=2, steps=2), tmp_path / "s")


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"world": "shapes", "speaker": ("cnn",), "alphabet": 5, "seeds": 1, "steps": 1}, "square"),
        ({"world": "2x2x2", "length": 3, "alphabet": 2}, "a0 b1 c0"),
        ({"held_out": 0.2}, "held out, clean"),
        ({"eos": True, "length": 3}, "conflicts"),
        ({"length": 1, "alphabet": 9}, "conflicts is undefined"),
        ({"speaker": ("table",), "listener": "table"}, "factored, table"),
        ({"gradient": "reinforce", "batch": 4}, "conflicts"),
        ({"noise": (0.1,)}, "factored, mlp: topsim"),
    ],
)
def test_every_kind_of_game(changes: dict[str, Any], shown: str, tmp_path: Path) -> None:
    if "length" in changes and changes["length"] == 1:
        changes = {**changes, "metric": "conflicts"}
    assert shown in text_of(replace(TINY, **changes), tmp_path / "s")


def arm(noise: float, codes: list[list[list[int]]], loss: str = "factored") -> Arm:
    ones = np.ones(len(codes))
    words = ("    b0  b1  b2\na0  AA  AB  AC\na1  BA  BB  BC\na2  CA  CB  CC",) * len(codes)
    return Arm(f"{noise:g}", noise, game_of(TINY, loss, noise), np.array(codes), ones, ones, None, words)


def test_the_summary_says_what_is_found_what_is_not_and_what_is_undefined() -> None:
    found = Cell(
        "factored",
        "mlp",
        (arm(0, [ROTATED] * 8), arm(0.2, [COMPOSITIONAL] * 8), arm(0.4, [CONSTANT] * 6 + [ROTATED] * 2)),
    )
    lost = Cell("holistic", "mlp", (arm(0, [ROTATED, COMPOSITIONAL] * 4), arm(0.2, [COMPOSITIONAL, ROTATED] * 4)))
    report = build_report(TINY, [found, lost], {}, {})
    first, warning, *_ = report.summary
    assert first.startswith("factored, mlp: topsim -1")
    assert "Better at noise 0.2 (Holm, level 0.05); best at 0.2: +2" in first
    assert "WARNING: factored, mlp: topsim is undefined for 6 of 8 at noise 0.4" in warning
    last = report.summary[-1]
    assert "holistic, mlp" in last
    assert "No noise is found to better it; a difference of 1.3 would have been found" in last  # 2.4865 sqrt(2 8/7 / 8)
    assert "nan" not in report_text(report)


def test_perfect_codes_are_counted() -> None:
    report = build_report(
        TINY, [Cell("factored", "mlp", (arm(0, [ROTATED, COMPOSITIONAL, COMPOSITIONAL, CONSTANT]),))], {}, {}
    )
    assert "50.0% [15.0, 85.0], n=4" in report_text(report)  # Wilson, 2 of 4


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"world": "5y5"}, "world=5y5"),
        ({"noise": (1.5,)}, "1.5"),
        ({"permutations": 1}, "permutations=1"),
        ({"noise": ()}, "a list is empty"),
        ({"seeds": 0}, "seeds"),
        ({"held_out": 0.9}, "hold out"),
        ({"world": "1x5"}, "two values"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        cells_of(replace(TINY, **changes))
