"""The ILF study on MBPP: does imitating accepted refinements beat the model before, people's refinements, the solutions?

    python bench/ilf_mbpp.py tune  DATA    choose the learning rate on tasks of split train that nobody wrote feedback on
    python bench/ilf_mbpp.py run   DATA    the arms, seed by seed; killed, it goes on where it stopped
    python bench/ilf_mbpp.py table DATA    the table from what is there, as Markdown

DATA holds mbpp.jsonl and mbpp_human_feedback.jsonl. Splits are the paper's (Chen et al. 2023, arXiv 2303.16749): feedback on
ids 311 to 974, evaluation on ids 11 to 110, which nothing was tuned on. Runs that share a seed share their refinements and the
evaluation of the pretrained model: stages of one run are copied into the next.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from amenable.evaluation.programs import PassComparison, compare_passes_over_seeds
from amenable.feedback.unit_tests import UnitTests
from amenable.progress import say
from amenable.recipes.environment import prepare
from amenable.recipes.ilf import ILFSettings, material
from amenable.recipes.ilf_report import NAMES, pass_rate
from amenable.recipes.ilf_study import Material, Outcome, Study
from amenable.recipes.programs import Workbench, decoding_of, passes
from amenable.runs import Run
from amenable.sandbox import Sandbox
from amenable.seeding import python_random

CHOSEN = {"learning_rate": 1e-5, "epochs": 3}  # what `tune` found; docs/ilf.md has what else was tried
SEEDS = (0, 1, 2)
TESTS = {"rounds": 2, "train_limit": 320, "refinements": 4}  # more tasks than people wrote on, fewer candidates each
MATERIAL = ("given", "round 1 feedback", "round 1 refinements, feedback human")  # stages that make the examples
TUNED: list[dict[str, Any]] = [
    {"learning_rate": 1e-5, "epochs": 3},
    {"learning_rate": 1e-4, "epochs": 2, "adapter": "lora"},
]


def settings_of(data: str, seed: int, **changes: object) -> ILFSettings:
    base = ILFSettings(
        task="mbpp",
        data=data,
        feedback="human",
        controls=seed == 0,
        refinements=8,
        samples=10,
        k=(1, 10),
        rows=256,
        seed=seed,
    )
    return replace(base, **{**CHOSEN, **changes})  # type: ignore[arg-type]


def study(folder: Path, settings: ILFSettings, tasks: Material, shared: Sequence[tuple[Path, str]] = ()) -> Outcome:
    """One run in `folder`; `shared` names (samples.jsonl of another run, beginning of the stages to take over)."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "samples.jsonl"
    if not file.exists():
        lines = [
            line
            for source, prefix in shared
            for line in source.read_text().splitlines()
            if json.loads(line)["stage"].startswith(prefix)
        ]
        file.write_text("".join(f"{line}\n" for line in lines))
    clock = prepare(settings.threads)
    record = Run.of(folder, settings)
    with Sandbox(mode=settings.sandbox) as box:
        bench = Workbench(record, UnitTests(box), decoding_of(settings), settings.seed)
        outcome = Study(settings, tasks, bench, folder, clock).run()
    record.close()
    if not (folder / "minutes.json").exists():
        (folder / "minutes.json").write_text(json.dumps(clock.minutes()))
    return outcome


def tune(data: str, out: Path) -> None:
    """pass@1 on 100 tasks of split train without feedback, before and after, for each setting of TUNED; seed 0."""
    tasks = material(settings_of(data, 0))
    others = material(settings_of(data, 0, feedback="tests")).train
    free = [task for task in others if task.task_id not in tasks.critiques]
    held_out = [free[i] for i in sorted(python_random(0, "tune").sample(range(len(free)), 100))]
    tasks = replace(tasks, test=held_out)
    human = out / "human-0" / "samples.jsonl"  # the same drafts and refinements, if that run is there
    first: Path | None = None
    for change in TUNED:
        folder = out / ("tune-" + "-".join(f"{key}={value}" for key, value in change.items()))
        shared = [(human, stage) for stage in MATERIAL] if human.exists() else []
        shared += [(first, "before")] if first else []
        outcome = study(folder, settings_of(data, 0, controls=False, samples=8, k=(1, 8), **change), tasks, shared)
        first = first or folder / "samples.jsonl"
        found = compare_passes_over_seeds([passes(outcome.before)], [passes(outcome.after)], 1)
        print(change, len(outcome.accepted), "examples", _pair(found), flush=True)


def arms(data: str, seed: int) -> list[tuple[str, ILFSettings]]:
    return [
        (f"human-{seed}", settings_of(data, seed)),
        (f"tests-{seed}", settings_of(data, seed, feedback="tests", controls=False, **TESTS)),
    ]


def baselines(data: str, seed: int) -> list[tuple[str, ILFSettings]]:
    return [
        (f"solutions-{seed}", settings_of(data, seed, imitate="solutions", controls=False)),
        (f"refined-by-people-{seed}", settings_of(data, seed, imitate="human", controls=False)),
    ]


def run(data: str, out: Path, only: Sequence[str] = ()) -> None:
    """Every arm and seed (or `only` these), the ones that answer the question first; prints the table as it grows."""
    tuned = out / ("tune-" + "-".join(f"{key}={value}" for key, value in CHOSEN.items())) / "samples.jsonl"
    in_order = [arms(data, seed)[kind] for kind in (0, 1) for seed in SEEDS]
    in_order += [baselines(data, seed)[kind] for seed in SEEDS for kind in (0, 1)]
    done: dict[str, Outcome] = {}
    for name, settings in in_order:
        if only and name not in only:
            continue
        people = out / f"human-{settings.seed}" / "samples.jsonl"
        taken = ("before",) if name.startswith("tests") else ("before", *MATERIAL)
        if name.startswith("human"):
            people, taken = tuned, MATERIAL if settings.seed == 0 else ()
        say(f"== {name}")
        shared = [(people, stage) for stage in taken] if people.exists() else []
        done[name] = study(out / name, settings, material(settings), shared)
        print(table(done), flush=True)


def finished(data: str, out: Path) -> dict[str, Outcome]:
    """The arms that were run to their end, by name."""
    every = [one for seed in SEEDS for one in (*arms(data, seed), *baselines(data, seed))]
    there = [(name, settings) for name, settings in every if (out / name / "minutes.json").exists()]
    return {name: study(out / name, settings, material(settings)) for name, settings in there}


def table(done: Mapping[str, Outcome]) -> str:
    """Markdown: refinements by feedback, and held-out pass@1 and pass@10 of every arm against the model before."""
    by_arm: dict[str, list[Outcome]] = {}
    lines = ["| refinements | pass | tasks with one |", "|---|---|---|"]
    for name, outcome in done.items():
        arm, _, seed = name.rpartition("-")
        by_arm.setdefault(arm, []).append(outcome)
        for number, round_ in enumerate(outcome.rounds, 1) if arm in ("human", "tests") else ():
            for kind, found in round_.arms.items():
                per_task = passes(found)
                solved = sum(any(one) for one in per_task)
                lines.append(
                    f"| {NAMES[kind]}, seed {seed}, round {number}, {len(found) // len(per_task)} a draft "
                    f"| {pass_rate(found).text(percent=True)} | {solved} of {len(per_task)} |"
                )
    lines += [
        "",
        "| arm | seeds | examples | grading | pass@1 before | after | difference | pass@10 before | after | difference |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, outcomes in by_arm.items():
        examples = "/".join(str(outcome.rounds[-1].examples) for outcome in outcomes)
        for grading, hidden in (("all", False), ("hidden", True)):
            old, new = (
                [passes(attempts, hidden_only=hidden) for attempts in side]
                for side in ([one.before for one in outcomes], [one.after for one in outcomes])
            )
            cells = " | ".join(_pair(compare_passes_over_seeds(old, new, k)) for k in (1, 10))
            lines.append(f"| {arm} | {len(outcomes)} | {examples} | {grading} | {cells} |")
    lines += ["", "| pass@1 after, all tests, same seeds | difference |", "|---|---|"]
    for other in ("solutions", "refined-by-people"):
        seeds = [seed for seed in SEEDS if f"human-{seed}" in done and f"{other}-{seed}" in done]
        if seeds:
            theirs, ours = ([passes(done[f"{arm}-{seed}"].after) for seed in seeds] for arm in (other, "human"))
            found = compare_passes_over_seeds(theirs, ours, 1).difference.text(percent=True, signed=True)
            lines.append(f"| human minus {other}, {len(seeds)} seeds | {found} |")
    return "\n".join(lines)


def _pair(c: PassComparison) -> str:
    return " | ".join(
        [c.before.text(percent=True), c.after.text(percent=True), c.difference.text(percent=True, signed=True)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tune", "run", "table"))
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, default=Path("runs/ilf-mbpp"))
    parser.add_argument("--only", nargs="*", default=(), metavar="ARM", help="for run: such as human-0 tests-2")
    given = parser.parse_args()
    if given.what == "table":
        print(table(finished(given.data, given.out)))
    elif given.what == "tune":
        tune(given.data, given.out)
    else:
        run(given.data, given.out, given.only)


if __name__ == "__main__":
    main()
