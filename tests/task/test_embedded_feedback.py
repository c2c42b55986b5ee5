"""The feedback that comes with the embedded tasks: on drafts that fail, with refinements that pass."""

from __future__ import annotations

import re

import pytest

from amenable.records import Critique, Task
from amenable.sandbox import Job, Sandbox
from amenable.task.critiques import load_critiques
from amenable.task.embedded import feedback_file, load_embedded
from amenable.task.rows import read_rows

TASKS = {task.task_id: task for task in load_embedded("train", level="easy")}
CRITIQUES = load_critiques(feedback_file(), list(TASKS.values()))
PAIRS = [pytest.param(TASKS[name], critique, id=name) for name, critique in CRITIQUES.items()]


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def test_every_easy_training_task_has_one_critique() -> None:
    ids = [row["task_id"] for _, row in read_rows(feedback_file())]
    assert len(ids) == len(set(ids))
    assert ids == list(TASKS)


def test_drafts_fail_and_refinements_pass() -> None:
    def job(task: Task, program: str) -> Job:
        return Job(program, task.tests, entry_point=task.entry_point)

    with Sandbox(workers=1) as sandbox:
        drafts = sandbox.check_many([job(TASKS[name], c.draft) for name, c in CRITIQUES.items()])
        refined = sandbox.check_many([job(TASKS[name], c.refinement or "") for name, c in CRITIQUES.items()])
    assert [name for name, verdict in zip(CRITIQUES, drafts, strict=True) if verdict.outcome != "fail"] == []
    assert [name for name, verdict in zip(CRITIQUES, refined, strict=True) if verdict.outcome != "pass"] == []


@pytest.mark.parametrize(("task", "critique"), PAIRS)
def test_programs_begin_with_the_prompt(task: Task, critique: Critique) -> None:
    assert critique.draft.startswith(task.prompt)
    assert (critique.refinement or "").startswith(task.prompt)


@pytest.mark.parametrize(("task", "critique"), PAIRS)
def test_feedback_is_words_of_a_fitting_length(task: Task, critique: Critique) -> None:
    assert 20 <= len(critique.feedback) <= 500
    assert "\n" not in critique.feedback
    assert "```" not in critique.feedback
    assert critique.feedback.endswith(".")


@pytest.mark.parametrize(("task", "critique"), PAIRS)
def test_feedback_does_not_contain_the_solution(task: Task, critique: Critique) -> None:
    """Neither the body of the reference nor that of the refinement, with or without its `return`."""
    for program in (task.solution or "", critique.refinement or ""):
        body = squeezed(program.removeprefix(task.prompt))
        assert body
        assert body not in squeezed(critique.feedback)
        assert body.removeprefix("return") not in squeezed(critique.feedback)
