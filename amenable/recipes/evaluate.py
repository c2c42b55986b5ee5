"""pass@k of a model on programming tasks, with intervals over tasks; graded on all tests and on the hidden ones alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amenable.evaluation.programs import evaluate_passes
from amenable.feedback.unit_tests import UnitTests
from amenable.policy.loading import load_policy
from amenable.recipes.environment import command_of, machine, prepare, versions
from amenable.recipes.programs import (
    TASKS,
    Workbench,
    decoding_of,
    judges,
    load_task_set,
    passes,
    sample_tasks,
    split_of,
)
from amenable.recipes.settings import Recipe, setting
from amenable.records import Task
from amenable.report.html import write
from amenable.report.page import Cards, Column, Report, SampleCard, Section, Table
from amenable.runs import Run
from amenable.sandbox import Sandbox


@dataclass(frozen=True)
class EvaluateSettings:
    """What is evaluated, on which tasks, and how samples are drawn."""

    model: str = setting("qwen2.5-coder-0.5b", "folder, Hugging Face id, or named small model")
    task: str = setting("embedded", TASKS)
    data: str = setting("", "for task=mbpp: the folder with mbpp.jsonl, or hub")
    split: str = setting("test", "which tasks: train, test, refine, prompt (MBPP), or all")
    limit: int = setting(0, "number of tasks at random, 0 for all")
    n: int = setting(10, "samples a task")
    k: tuple[int, ...] = setting((1, 10), "pass@k for these k (at most n)")
    temperature: float = setting(0.8, "sampling temperature, 0 for greedy")
    max_tokens: int = setting(256, "longest completion in tokens")
    dtype: str = setting("auto", "precision of the model", ("auto", "float32", "bfloat16"))
    rows: int = setting(128, "samples decoded at once")
    threads: int = setting(0, "CPU threads, 0 for all cores")
    trust_remote_code: str = setting("", "the id of a model, as in model=, whose own Python code may be run")
    sandbox: str = setting("auto", "where programs run: auto, full, light, wasi, docker[:IMAGE], or https://HOST:PORT")
    seed: int = setting(0, "seed of the samples")


def plan(settings: EvaluateSettings) -> list[str]:
    tasks, what = load_task_set(settings.task, settings.data)
    chosen = _chosen(settings, tasks)
    return [
        f"evaluate {settings.model} on {len(chosen)} tasks of {what} (split {settings.split})",
        f"{settings.n} samples a task at temperature {settings.temperature}, judged by their tests in the sandbox",
    ]


def run(settings: EvaluateSettings, folder: Path) -> Report:
    """Draw, judge, and write the report into `folder`."""
    clock = prepare(settings.threads)
    tasks, what = load_task_set(settings.task, settings.data)
    chosen = _chosen(settings, tasks)
    record = Run.of(folder, settings)
    with Sandbox(mode=settings.sandbox) as box:
        check = UnitTests(box)
        check.validate(chosen)
        bench = Workbench(record, check, decoding_of(settings), settings.seed)
        attempts = bench.samples_of(
            "evaluation",
            lambda: load_policy(
                settings.model, dtype=settings.dtype, rows=settings.rows, trust_remote_code=settings.trust_remote_code
            ),
            chosen,
            n=settings.n,
        )
        layers = box.report()
    clock.lap("evaluation")
    ks = [k for k in settings.k if k <= settings.n]
    columns: list[str | Column] = ["graded on", *(Column(f"pass@{k}", percent=True) for k in ks)]
    rows: list[list[Any]] = []
    for label, hidden in (("all tests", False), ("hidden tests", True)):
        table = evaluate_passes(passes(attempts, hidden_only=hidden), ks)
        rows.append([label, *(table.pass_at[k] for k in ks), table.solved, table.missing])
    cards = [
        SampleCard(a.task.task_id, a.task.prompt, refinement=a.completion, verdict=a.verdict, arm=a.verdict.outcome)
        for a in attempts[:: settings.n]
    ]
    note = f"{len(chosen)} tasks, {settings.n} samples each, T = {settings.temperature}; 95% bootstrap over tasks"
    report = Report(
        title=f"pass@k of {settings.model}",
        summary=[f"{what}: split {settings.split}, {len(chosen)} tasks."],
        command=command_of("evaluate", settings),
        sections=[
            Section(
                "Result",
                [Table("pass@k", [*columns, Column("solved", percent=True), "missing"], rows, note)],
            ),
            Section("Verdicts", [judges(attempts)]),
            Section("Samples", [Cards("One sample a task", cards, refinement_label="Program")]),
        ],
        config=asdict(settings),
        minutes=clock.minutes(),
        versions=versions(),
        machine=machine(layers),
    )
    write(report, folder / "report.html")
    record.close()
    return report


def _chosen(settings: EvaluateSettings, tasks: list[Task]) -> list[Task]:
    wanted = sorted({task.split for task in tasks} | {"train", "test"}) if settings.split == "all" else [settings.split]
    return sample_tasks(split_of(tasks, wanted), settings.limit, settings.seed)


RECIPE = Recipe("evaluate", "pass@k of a model on programming tasks, with intervals", EvaluateSettings, plan, run)
