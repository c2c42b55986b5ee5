"""Imitation learning from language feedback on programs: drafts, words about them, refinements, imitation, and the proof.

One round is `method/ilf.py`; this file says which critic, refiner and tasks it is made of, measures the controls (another
task's feedback, none) and the held-out tasks before and after. Source: Chen et al. 2023, arXiv 2303.16749.
Changed from the paper: with several rounds, every round imitates all that was accepted so far, starting from the pretrained
model, so that rounds differ in their data and not in how often a model was fine-tuned.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from amenable.errors import ConfigError, DataError
from amenable.feedback.unit_tests import UnitTests
from amenable.recipes.environment import machine, prepare
from amenable.recipes.ilf_report import build_report
from amenable.recipes.ilf_study import Material, Study
from amenable.recipes.programs import TASKS, Workbench, decoding_of, load_task_set, sample_tasks, split_of
from amenable.recipes.settings import Recipe, setting
from amenable.report.html import write
from amenable.report.page import Report
from amenable.runs import Run
from amenable.sandbox import Sandbox
from amenable.task.critiques import FILE_NAME, load_critiques
from amenable.task.embedded import feedback_file


@dataclass(frozen=True)
class ILFSettings:
    """Every choice of the study."""

    task: str = setting("embedded", TASKS)
    data: str = setting("", "for task=mbpp: the folder with mbpp.jsonl, or hub")
    model: str = setting("qwen2.5-coder-0.5b", "folder, Hugging Face id, or named small model")
    feedback: str = setting(
        "human",
        "who says what is wrong: human (written feedback, a file), tests in words, a model; or a control",
        ("tests", "human", "llm", "none", "shuffled"),
    )
    feedback_file: str = setting(
        "", "written feedback as JSONL; default: that of the embedded tasks, or mbpp_human_feedback.jsonl in data"
    )
    critic: str = setting(
        "", "for feedback=llm: the model that is asked, or MODEL@URL of an OpenAI-compatible server; default: the model"
    )
    refiner: str = setting(
        "prompted", "prompted, trained (on people's refinements of split refine), or a model to prompt"
    )
    imitate: str = setting(
        "refinements",
        "what is imitated: accepted refinements, or on the same tasks people's own or the reference solutions",
        ("refinements", "human", "solutions"),
    )
    rounds: int = setting(1, "rounds of draft, feedback, refinement, imitation")
    drafts: int = setting(1, "drafts a task and round; one that fails is refined")
    refinements: int = setting(4, "candidates a draft")
    controls: bool = setting(True, "also refine with another task's feedback and without feedback, in round 1")
    temperature: float = setting(0.8, "sampling temperature of drafts and evaluation")
    refinement_temperature: float = setting(0.8, "sampling temperature of refinements; low ones are more alike")
    max_tokens: int = setting(256, "longest completion in tokens")
    longest_prompt: int = setting(
        1024, "drafts whose refinement prompt has more tokens are left out, and counted aloud"
    )
    epochs: int = setting(2, "passes over the accepted refinements")
    batch_size: int = setting(8, "examples an optimiser step")
    learning_rate: float = setting(1e-5, "peak learning rate of AdamW")
    adapter: str = setting("none", "none trains all weights; lora trains a low-rank adapter", ("none", "lora"))
    precision: str = setting("bfloat16", "arithmetic of training", ("bfloat16", "float32"))
    checkpoint_every: int = setting(50, "optimiser steps between checkpoints, 0 for none")
    on_full: str = setting(
        "continue", "where the disk has no room for a checkpoint: continue without it, or stop", ("continue", "stop")
    )
    samples: int = setting(6, "samples a held-out task, before and after")
    k: tuple[int, ...] = setting((1, 5), "pass@k for these k (at most samples)")
    train_limit: int = setting(0, "number of training tasks at random, 0 for all")
    test_limit: int = setting(0, "number of held-out tasks at random, 0 for all")
    test_split: str = setting("test", "the held-out split")
    rows: int = setting(192, "samples decoded at once")
    threads: int = setting(0, "CPU threads, 0 for all cores")
    trust_remote_code: str = setting("", "the id of a model, as in model=, whose own Python code may be run")
    sandbox: str = setting("auto", "where programs run: auto, full, light, wasi, docker[:IMAGE], or https://HOST:PORT")
    seed: int = setting(0, "seed of the whole study")


def material(settings: ILFSettings) -> Material:
    """Load and split the tasks.

    Errors: ConfigError for settings that do not fit together, DataError for the files.
    """
    tasks, what = load_task_set(settings.task, settings.data)
    file = settings.feedback_file
    if not file and settings.task == "embedded":
        file = str(feedback_file())
    elif not file and settings.task == "mbpp" and (Path(settings.data) / FILE_NAME).exists():
        file = settings.data
    people = settings.feedback == "human" or settings.imitate == "human" or settings.refiner == "trained"
    if people and not file:
        raise ConfigError(
            f"feedback={settings.feedback} imitate={settings.imitate} refiner={settings.refiner} needs what people wrote",
            "give feedback_file=FILE with task_id, draft, feedback and refinement a line, or use feedback=tests",
        )
    given_drafts = bool(file) and settings.feedback in ("human", "none", "shuffled")
    critiques = load_critiques(file, tasks) if people or given_drafts else {}
    train = split_of(tasks, ["train"])
    if given_drafts or settings.imitate == "human":
        train = [task for task in train if task.task_id in critiques]
        if not train:
            raise DataError(f"{file} has feedback on no task of split train", "write feedback on training tasks")
    refine = [task for task in tasks if task.split == "refine" and task.task_id in critiques]
    if settings.refiner == "trained" and not refine:
        raise DataError(f"{file} has a refinement of no task of split refine", "use refiner=prompted")
    return Material(
        train=sample_tasks(train, settings.train_limit, settings.seed),
        test=sample_tasks(split_of(tasks, [settings.test_split]), settings.test_limit, settings.seed),
        refine=refine,
        critiques=critiques,
        what=what,
        given_drafts=given_drafts,
    )


def plan(settings: ILFSettings) -> list[str]:
    """What the run will do, in lines."""
    m = material(settings)
    own = "1 draft a task" if settings.drafts == 1 else f"{settings.drafts} drafts a task"
    drafts = "drafts that feedback was written on" if m.given_drafts else own
    arms = 3 if settings.controls and settings.feedback not in ("none", "shuffled") else 1
    held_out = len(m.test) * settings.samples
    samples = (
        2 * held_out
        + settings.rounds * len(m.train) * ((0 if m.given_drafts else settings.drafts) + settings.refinements)
        + (arms - 1) * len(m.train) * settings.refinements
    )
    return [
        f"ILF (Chen et al. 2023) with {settings.model} on {m.what}",
        f"1  {len(m.train)} training tasks, {drafts}; feedback: {settings.feedback}",
        f"2  {settings.refinements} refinements a failing draft"
        + (", and as many with another task's feedback and without" if arms == 3 else ""),
        f"3  imitate one passing refinement a task, {settings.epochs} epochs at {settings.learning_rate:g}"
        + (f"; {settings.rounds} rounds" if settings.rounds > 1 else ""),
        f"4  {len(m.test)} held-out tasks, {settings.samples} samples each, before and after",
        f"at most {samples} samples; on 2 cores with AMX about 5 a second for a 0.5B model: "
        f"up to {max(1, round(samples / 5 / 60))} minutes, and the training",
    ]


def run(settings: ILFSettings, folder: Path) -> Report:
    """The study in `folder`: samples.jsonl, model/, report.html. Run again, it goes on where it stopped."""
    clock = prepare(settings.threads)
    tasks = material(settings)
    record = Run.of(folder, settings)
    with Sandbox(mode=settings.sandbox) as box:
        check = UnitTests(box)
        check.validate([*tasks.train, *tasks.test])
        bench = Workbench(record, check, decoding_of(settings), settings.seed)
        outcome = Study(settings, tasks, bench, folder, clock).run()
        layers = box.report()
    report = build_report(settings, tasks.what, outcome, clock.minutes(), machine(layers))
    write(report, folder / "report.html")
    record.close()
    return report


RECIPE = Recipe(
    "ilf", "a code model gets better from language feedback (ILF), with controls and proof", ILFSettings, plan, run
)
