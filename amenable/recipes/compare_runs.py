"""What a run says of each prompt, read from its folder (or drawn from its model) so that two runs can be laid side by side.

    samples.jsonl   stages of rows with prompt or task_id, and text or completion; a chunked stage is "NAME/0", "NAME/1", ...
    metrics.jsonl   of the training that made the stage's policy: TRAINING/metrics.jsonl
    config.yaml     what the run was made with

The stage that is compared is the last word of a recipe: policy (fdpg), after (ilf), evaluation, samples; others are named.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from amenable.config import nearest
from amenable.errors import AmenableError, ConfigError
from amenable.evaluation.diversity import distinct_n
from amenable.recipes.programs import load_task_set
from amenable.records import Verdict
from amenable.runs import Row, read_stages

STAGES = ("policy", "after", "evaluation", "samples")

LABELS = {"value": "satisfied", "log_potential": "log φ"}
"""Fields of rows, and what they are called; the others keep their names."""

_NO_METRICS = {
    "log_policy", "log_prior", "log_own", "log_other", "log_proposal", "log_score", "place", "tokens", "missing",
}  # fmt: skip


@dataclass(frozen=True)
class Said:
    """One sample: `key` is what pairs it (its prompt's text, or its task's id). Metrics of None are missing."""

    key: str
    prompt: str
    text: str
    metrics: Mapping[str, float | None]
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Side:
    """One of two runs: its samples, its settings, and the curves of its training, metric -> (steps, values)."""

    name: str
    said: Sequence[Said]
    config: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, tuple[list[float], list[float]]] = field(default_factory=dict)

    def by_key(self) -> dict[str, list[Said]]:
        """The samples of every prompt, in order."""
        found: dict[str, list[Said]] = {}
        for one in self.said:
            found.setdefault(one.key, []).append(one)
        return found


def is_run(folder: str) -> bool:
    return (Path(folder) / "samples.jsonl").is_file()


def read_side(folder: str, stage: str) -> Side:
    """A run folder's samples of `stage` ("": its last word), read. Errors: ConfigError with the stages that there are."""
    path = Path(folder)
    if not is_run(folder):
        raise ConfigError(
            f"{folder} holds no run: it has no samples.jsonl",
            "give the folder of a run; for two models give contexts=FILE too, and both are drawn from",
        )
    stages = _joined(read_stages(path / "samples.jsonl")[0])
    name = _chosen(folder, stages, stage)
    config = _config(path)
    return Side(
        name=path.resolve().name if name in STAGES else f"{path.resolve().name}, {name}",
        said=[
            _said(row, task_prompts) for task_prompts in [_task_prompts(stages[name], config)] for row in stages[name]
        ],
        config=config,
        curves=_curves(path, name),
    )


def model_of(name: str) -> str:
    """The model that `name` stands for: that of a run, or `name` itself. Errors: ConfigError for a run with several."""
    if not is_run(name):
        return name
    path = Path(name)
    made = sorted(config.parent for config in path.glob("*/model/config.json"))
    rounds = [one for one in made if one.parent.name.startswith("round-")]
    if len(made) != 1 and not rounds:
        listed = ", ".join(str(one) for one in made) or "none was kept"
        raise ConfigError(f"{name} does not say which model is meant: {listed}", "give the model's own folder")
    return str(max(rounds, key=lambda one: _number(one.parent.name)) if rounds else made[0])


def drawn_said(key: str, text: str, tokens: int, ended: str) -> Said:
    """A sample that was drawn to be compared."""
    row = {"prompt": key, "text": text, "tokens": tokens, "ended": ended}
    return _said(row, {})


def _joined(stages: Mapping[str, list[Row]]) -> dict[str, list[Row]]:
    """Stages with texts; the chunks of one are put together, in order."""
    found: dict[str, list[Row]] = {}
    for name, rows in stages.items():
        if rows and all(("prompt" in row or "task_id" in row) and _text(row) is not None for row in rows):
            found.setdefault(re.sub(r"/\d+$", "", name), []).extend(rows)
    return found


def _chosen(folder: str, stages: Mapping[str, list[Row]], stage: str) -> str:
    if not stages:
        raise ConfigError(f"{folder} has no samples yet", "finish the run: `amenable run NAME --out` this folder")
    if stage:
        if stage not in stages:
            raise ConfigError(f"{folder} has no samples called {stage!r}", nearest(stage, stages))
        return stage
    usual = [name for name in STAGES if name in stages] or (list(stages) if len(stages) == 1 else [])
    if not usual:
        what = f"{folder} has samples of {', '.join(stages)}"
        raise ConfigError(what, f"say which, such as stage_a={list(stages)[-1]!r} (or stage_b)")
    return usual[0]


def _config(path: Path) -> dict[str, Any]:
    file = path / "config.yaml"
    found = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found if isinstance(found, dict) else {}


def _task_prompts(rows: Sequence[Row], config: Mapping[str, Any]) -> dict[str, str]:
    """Prompts of programming tasks, where the task set is still there: to be read, nothing is measured by them."""
    if not any("task_id" in row and "prompt" not in row for row in rows):
        return {}
    try:
        tasks, _ = load_task_set(str(config.get("task", "")), str(config.get("data", "")))
    except (AmenableError, OSError):
        return {}
    return {task.task_id: task.prompt for task in tasks}


def _said(row: Row, task_prompts: Mapping[str, str]) -> Said:
    key = str(row["prompt"] if "prompt" in row else row["task_id"])
    text = _text(row) or ""
    verdict = Verdict.from_row(row["verdict"]) if isinstance(row.get("verdict"), dict) else None
    return Said(key, task_prompts.get(key, key), text, _metrics(row, text, verdict), verdict)


def _text(row: Row) -> str | None:
    found = row.get("text", row.get("completion"))
    return found if isinstance(found, str) else None


def _metrics(row: Row, text: str, verdict: Verdict | None) -> dict[str, float | None]:
    """Everything that a row says in numbers."""
    found: dict[str, float | None] = {}
    if verdict is not None:
        found["passed"] = None if verdict.missing else float(verdict.ok)
    for name, value in row.items():
        if name not in _NO_METRICS and (value is None or isinstance(value, bool | int | float)):
            usable = value is not None and not row.get("missing") and math.isfinite(value)
            found[LABELS.get(name, name)] = float(value or 0) if usable else None
    if "log_policy" in row and "log_prior" in row:
        found["KL(π, a)"] = row["log_policy"] - row["log_prior"]
        found["entropy"] = -row["log_policy"]
    if "log_own" in row:
        found["entropy"] = -row["log_own"]
    if "ended" in row:
        found["finished"] = float(row["ended"] != "length")
    tokens = row.get("tokens")
    if isinstance(tokens, int | list):
        found["tokens"] = float(tokens if isinstance(tokens, int) else len(tokens))
    found["characters"] = float(len(text))
    distinct = distinct_n([text], 1).value
    found["distinct-1"] = None if math.isnan(distinct) else distinct
    return found


def _curves(path: Path, stage: str) -> dict[str, tuple[list[float], list[float]]]:
    """Metrics of the training that made the stage's policy; none where there was none."""
    rounds = sorted(path.glob("round-*/metrics.jsonl"), key=lambda file: _number(file.parent.name))
    named = path / stage.replace(" ", "-") / "metrics.jsonl"
    file = named if named.is_file() else rounds[-1] if rounds and stage == "after" else path / "metrics.jsonl"
    if not file.is_file():
        return {}
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
        try:
            row = json.loads(line)
        except ValueError:
            continue  # torn by a kill
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                steps, values = curves.setdefault(name, ([], []))
                steps.append(float(row.get("step", number)))
                values.append(float(value))
    return curves


def _number(name: str) -> int:
    found = re.search(r"\d+$", name)
    return int(found[0]) if found else 0
