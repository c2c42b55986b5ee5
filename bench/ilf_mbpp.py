"""The ILF study on MBPP: does imitating accepted refinements beat the model before, people's refinements, the solutions?

    python bench/ilf_mbpp.py tune  DATA    choose the learning rate on tasks of split train that nobody wrote feedback on
    python bench/ilf_mbpp.py run   DATA    the arms, seed by seed; killed, it goes on where it stopped
    python bench/ilf_mbpp.py table DATA    the table from what is there, as Markdown

DATA holds mbpp.jsonl and mbpp_human_feedback.jsonl. Splits are the paper's (Chen et al. 2023, arXiv 2303.16749): feedback on
ids 311 to 974, evaluation on ids 11 to 110, which nothing was tuned on. Runs that share a seed share their refinements, and all
share the evaluation of the pretrained model: stages of one run are copied into the next.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from amenable.evaluation.programs import Passed, compare_passes_over_seeds
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

CHOSEN = {"learning_rate": 1e-5, "epochs": 3}  # the largest rate of the paper's sweep; replace it by what `tune` finds
SEEDS = (0, 1, 2)
TUNED = [{"learning_rate": rate, "epochs": 3} for rate in (1e-5, 3e-5)]


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
    record = Run(folder, asdict(settings))
    with Sandbox() as box:
        bench = Workbench(record, UnitTests(box), decoding_of(settings), settings.seed)
        outcome = Study(settings, tasks, bench, folder, clock).run()
    record.close()
    if not (folder / "minutes.json").exists():
        (folder / "minutes.json").write_text(json.dumps(clock.minutes()))
    return outcome


def tune(data: str, out: Path) -> None:
    """pass@1 on 60 tasks of split train without feedback, before and after, for each setting of TUNED; seed 0."""
    tasks = material(settings_of(data, 0))
    others = material(settings_of(data, 0, feedback="tests")).train
    free = [task for task in others if task.task_id not in tasks.critiques]
    held_out = [free[i] for i in sorted(python_random(0, "tune").sample(range(len(free)), 60))]
    tasks = replace(tasks, test=held_out)
    first: Path | None = None
    for change in TUNED:
        folder = out / ("tune-" + "-".join(f"{key}={value}" for key, value in change.items()))
        shared = [(first, stage) for stage in ("before", "given", "round 1")] if first else []
        outcome = study(folder, settings_of(data, 0, controls=False, samples=8, k=(1, 8), **change), tasks, shared)
        first = first or folder / "samples.jsonl"
        found = compare_passes_over_seeds([passes(outcome.before)], [passes(outcome.after)], 1)
        print(change, len(outcome.accepted), "examples", _pair(found), flush=True)


def arms(data: str, seed: int) -> list[tuple[str, ILFSettings]]:
    return [
        (f"human-{seed}", settings_of(data, seed)),
        (
            f"tests-{seed}",
            settings_of(data, seed, feedback="tests", rounds=2, train_limit=160, refinements=4, controls=False),
        ),
    ]


def baselines(data: str, seed: int) -> list[tuple[str, ILFSettings]]:
    return [
        (f"solutions-{seed}", settings_of(data, seed, imitate="solutions", controls=False)),
        (f"refined-by-people-{seed}", settings_of(data, seed, imitate="human", controls=False)),
    ]


def run(data: str, out: Path) -> None:
    """Every arm and seed, the ones that answer the question first."""
    before = [(out / "human-0" / "samples.jsonl", "before")]
    tuned = out / ("tune-" + "-".join(f"{key}={value}" for key, value in CHOSEN.items())) / "samples.jsonl"
    for kind in (0, 1):
        for seed in SEEDS:
            name, settings = arms(data, seed)[kind]
            shared = before if name != "human-0" else [(tuned, "given"), (tuned, "round 1 ")] if tuned.exists() else []
            say(f"== {name}")
            study(out / name, settings, material(settings), shared)
            print(table(data, out), flush=True)
    for seed in SEEDS:
        for name, settings in baselines(data, seed):
            source = out / f"human-{seed}" / "samples.jsonl"
            shared = [
                *before,
                (source, "given"),
                (source, "round 1 feedback"),
                (source, "round 1 refinements, feedback human"),
            ]
            say(f"== {name}")
            study(out / name, settings, material(settings), shared)
            print(table(data, out), flush=True)


def table(data: str, out: Path) -> str:
    """Markdown: refinements by feedback, and held-out pass@1 and pass@10 of every arm against the model before."""
    done: dict[str, list[Outcome]] = {}
    for seed in SEEDS:
        for name, settings in [*arms(data, seed), *baselines(data, seed)]:
            folder = out / name
            if (folder / "minutes.json").exists():
                done.setdefault(name.rpartition("-")[0], []).append(study(folder, settings, material(settings)))
    lines = ["| refinements (128 training tasks) | pass | tasks with one in n |", "|---|---|---|"]
    for kind in ("human", "tests"):
        for number, outcome in enumerate(done.get(kind, [])):
            for label, round_ in enumerate(outcome.rounds, 1):
                for arm, found in round_.arms.items():
                    solved = sum(any(v for v in one) for one in passes(found))
                    n = len(found) // len(passes(found))
                    lines.append(
                        f"| {NAMES[arm]}, seed {number}, round {label}, n={n} | {pass_rate(found).text(percent=True)} "
                        f"| {solved} of {len(passes(found))} |"
                    )
    lines += [
        "",
        "| arm | seeds | examples | grading | pass@1 before | after | difference | pass@10 before | after | difference |",
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|---|"]
    for name, outcomes in done.items():
        examples = "/".join(str(outcome.rounds[-1].examples) for outcome in outcomes)
        for grading, hidden in (("all", False), ("hidden", True)):
            old: list[Passed] = [passes(outcomes[0].before, hidden_only=hidden)]
            new: list[Passed] = [passes(outcome.after, hidden_only=hidden) for outcome in outcomes]
            cells = " | ".join(_pair(compare_passes_over_seeds(old, new, k)) for k in (1, 10))
            lines.append(f"| {name} | {len(outcomes)} | {examples} | {grading} | {cells} |")
    return "\n".join(lines)


def _pair(found: object) -> str:
    c = found
    return " | ".join([
        c.before.text(percent=True), c.after.text(percent=True), c.difference.text(percent=True, signed=True)  # type: ignore[attr-defined]
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tune", "run", "table"))
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, default=Path("runs/ilf-mbpp"))
    given = parser.parse_args()
    if given.what == "table":
        print(table(given.data, given.out))
    else:
        {"tune": tune, "run": run}[given.what](given.data, given.out)


if __name__ == "__main__":
    main()
