"""A user's function that throws, hangs or answers nonsense: the sample is named, saved, and the policy decides."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from amenable.errors import ConfigError, FeedbackError
from amenable.feedback.function import FunctionScore

PROMPTS, TEXTS = ["p0", "p1", "p2"], ["good", "bad one", "fine"]


def score(function: Any, folder: Path, **how: Any) -> list[float | None]:
    return FunctionScore(function, folder=folder, **how)(PROMPTS, TEXTS)


def lengths(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    return [float(len(text)) for text in completions]


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_any_list_of_numbers_is_an_answer(kind: Any, tmp_path: Path) -> None:
    assert score(lambda prompts, completions: kind(lengths(prompts, completions)), tmp_path) == [4.0, 7.0, 4.0]
    assert score(lambda prompts, completions: [True, None, 0], tmp_path) == [1.0, None, 0.0]


def test_columns_arrive_by_name_also_when_samples_are_asked_for_alone(tmp_path: Path) -> None:
    seen = []

    def fails_on_bad(prompts: list[str], completions: list[str], answer: list[int], task: str) -> list[float]:
        seen.append((completions, answer, task))
        if "bad one" in completions:
            raise ValueError("no")
        return [float(a) for a in answer]

    scored = FunctionScore(fails_on_bad, folder=tmp_path)(PROMPTS, TEXTS, answer=[5, 6, 7], task="sum")
    assert scored == [5.0, None, 7.0]
    assert seen[1:] == [(["good"], [5], "sum"), (["bad one"], [6], "sum"), (["fine"], [7], "sum")]


def broken(how: str) -> Any:
    def function(prompts: list[str], completions: list[str]) -> Any:
        if "bad one" not in completions:
            return lengths(prompts, completions)
        at = completions.index("bad one")
        values: list[Any] = lengths(prompts, completions)
        if how == "raises":
            raise RuntimeError("boom on a sample")
        if how == "exits":
            raise SystemExit(3)
        if how == "hangs":
            time.sleep(30)
        if how == "is short":
            return values[:-1]
        if how == "is None":
            return None
        if how == "is text":
            return "7.0"
        values[at] = {
            "is NaN": float("nan"),
            "is infinite": float("inf"),
            "holds text": "7",
            "holds a list": [1.0],
        }.get(how)
        return values

    return function


WORDS = {
    "raises": "raised RuntimeError: boom",
    "exits": "raised SystemExit",
    "hangs": "gave no answer within 0.3 s",
    "is short": "returned 0 values for 1 samples",
    "is None": "returned None where a list",
    "is text": "returned '7.0' where a list",
    "is NaN": "returned nan",
    "is infinite": "returned inf",
    "holds text": "returned '7', which is no number",
    "holds a list": r"returned \[1.0\], which is no number",
}


@pytest.mark.parametrize("how", WORDS)
def test_the_sample_to_blame_is_named_saved_and_missing(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    assert score(broken(how), tmp_path, timeout=0.3) == [4.0, None, 4.0]
    assert time.monotonic() - began < 3
    told = capsys.readouterr().err
    assert "sample 1 of 3: 'bad one'" in told
    (file,) = tmp_path.glob("failed-*.json")
    saved = json.loads(file.read_text())
    assert (saved["prompt"], saved["completion"]) == ("p1", "bad one")
    with pytest.raises(FeedbackError, match=WORDS[how]) as error:
        score(broken(how), tmp_path, timeout=0.3, on_missing="fail")
    assert "sample 1 of 3" in str(error.value)
    assert "on_missing=drop" in error.value.fix


def test_retry_asks_once_more(tmp_path: Path) -> None:
    calls = []

    def flaky(prompts: list[str], completions: list[str]) -> list[float]:
        calls.append(completions)
        if (completions == ["bad one"] and calls.count(completions) < 2) or len(completions) > 1:
            raise OSError("busy")
        return [1.0] * len(completions)

    assert score(flaky, tmp_path, on_missing="retry") == [1.0, 1.0, 1.0]
    assert calls.count(["bad one"]) == 2
    assert not list(tmp_path.glob("failed-*"))


def test_an_unknown_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="on_missing='skip'"):
        FunctionScore(lengths, folder=tmp_path, on_missing="skip")  # type: ignore[arg-type]
