"""`amenable run rlhf`, `rlaif`, `direct-rlaif` on a real small model: whoever is asked, it learns what they prefer."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from amenable.cli import main
from amenable.errors import ConfigError, FeedbackError
from amenable.recipes.alignment import AlignmentSettings, check, preference, problem
from amenable.runs import Run

WANTED = "x + 3"
COMMON = [
    "max_tokens=24", "threads=1", "learning_rate=5e-4", "rows=128", "steps=20", "prompts_per_step=4", "samples_per_prompt=32",
    "evaluation=480", "pairs=800", "beta=0.5", "reward_rate=3e-4",
]  # fmt: skip
TASTE = f'''
def prefers(prompts, first, second):
    return [0.5 + 0.4 * (("{WANTED}" in a) - ("{WANTED}" in b)) for a, b in zip(first, second)]

def rates(prompts, completions, **columns):
    return [8.0 if "{WANTED}" in text else 3.0 for text in completions]

def shrugs(prompts, completions, **columns):
    return [5.0] * len(completions)
'''


@pytest.fixture
def taste(tmp_path: Path) -> Path:
    path = tmp_path / "taste.py"
    path.write_text(TASTE)
    return path


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"def f{i}(x):\n"}) for i in range(1, 17)))
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """What people said: the answers with a 3 are better."""
    path = tmp_path / "pairs.jsonl"
    draw = random.Random(0)
    words = ["return", "x", "+", "1", "2", "3", "turn", "rn", "\n", "x + 1", "x + 2"]
    good, rows = "    return x + 3\n", []
    for i in range(32):
        others = ["    return x + 1\n", "    return x + 2\n", "    return 3\n"]
        others += ["    " + " ".join(draw.choices(words, k=draw.randint(2, 8))) + "\n" for _ in range(12)]
        rows += [{"prompt": f"def f{i}(x):\n", "chosen": good, "rejected": other} for other in others]
        rows += [{"prompt": f"def f{i}(x):\n", "chosen": others[i % 2], "rejected": other} for other in others[3:]]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def share(folder: Path, stage: str) -> float:
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    texts = [row["text"] for row in lines if row["stage"] == stage and "rows" not in row]
    assert len(texts) == 480
    return sum(WANTED in text for text in texts) / len(texts)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rlhf", "rlaif", "direct-rlaif"])
def test_it_learns_what_is_preferred_and_a_finished_run_is_only_read(
    method: str,
    writer: Path,
    taste: Path,
    prompts: Path,
    pairs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    asked = {
        "rlhf": [f"data={pairs}"],
        "rlaif": [f"judge={taste}:prefers", f"prompts={prompts}"],
        "direct-rlaif": [f"judge={taste}:rates", f"prompts={prompts}"],
    }[method]
    assert main(["run", method, f"model={writer}", *asked, *COMMON, "--out", str(folder)]) == 0
    said = capsys.readouterr().out
    before, after = share(folder, "prior"), share(folder, "policy")
    assert 0.1 < before < 0.6
    assert after > 1.2 * before
    assert "wins" in said
    assert "at equal length" in (folder / "report.html").read_text()
    assert ("agrees with" in said) == (method != "direct-rlaif")  # how good the reward model is
    kept = (folder / "samples.jsonl").read_bytes()
    assert main(["run", method, "--out", str(folder)]) == 0
    assert (folder / "samples.jsonl").read_bytes() == kept


@pytest.mark.parametrize(
    ("who", "settings", "complaint"),
    [
        ("people", {"judge": "x"}, "rlhf asks people"),
        ("people", {"prompts": "file"}, "has no people"),
        ("judge", {"prompts": "file"}, "have no judge"),
        ("rating", {"reward": "folder"}, "no reward model"),
        ("judge", {"beta": 0.0}, "beta=0"),
    ],
)
def test_what_makes_no_sense_together_is_said(who: str, settings: dict[str, str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        check(AlignmentSettings(**settings), who)  # type: ignore[arg-type]


def test_a_score_that_tells_nothing_apart_is_refused(writer: Path, taste: Path, prompts: Path, tmp_path: Path) -> None:
    settings = AlignmentSettings(
        model=str(writer), judge=f"{taste}:shrugs", prompts=str(prompts), max_tokens=24, rows=64
    )
    with pytest.raises(FeedbackError, match="says the same of all"):
        preference("rating", settings, problem(settings, tmp_path), tmp_path, Run.of(tmp_path / "run", settings))


@pytest.mark.slow
def test_best_of_n_needs_no_training_and_says_its_bound(
    writer: Path, taste: Path, prompts: Path, tmp_path: Path
) -> None:
    """The best of 4 by the judge's rating says what it likes 1 - (1 - p)^4 of the time, at KL log 4 - 3/4 at most."""
    folder = tmp_path / "run"
    asked = [f"model={writer}", f"judge={taste}:rates", f"prompts={prompts}", "best_of=4"]
    assert main(["run", "best-of-n", *asked, *COMMON, "--out", str(folder)]) == 0
    before, after = share(folder, "prior"), share(folder, "policy")
    assert after == pytest.approx(1 - (1 - before) ** 4, abs=0.1)
    assert "0.636" in (folder / "report.html").read_text()
    assert not (folder / "policy").exists()


@pytest.mark.slow
def test_a_study_of_all_methods_gets_a_seed_more_and_is_watched(
    writer: Path, taste: Path, prompts: Path, pairs: Path, tmp_path: Path
) -> None:
    """People's pairs and a judge side by side, gold by a third: the first seed is read, not done again."""
    folder = tmp_path / "study"
    common = [line for line in COMMON if not line.startswith(("steps", "evaluation"))]
    common += ["reward_epochs=1", "steps=4", "readings=2", "evaluation=40"]
    asked = [f"model={writer}", f"data={pairs}", f"prompts={prompts}", f"judge={taste}:prefers", f"gold={taste}:rates"]
    methods = "methods=sft,rlhf,best-of-n"
    said = ["run", "preference-study", *asked, *common, "--out", str(folder)]
    assert main([*said, methods, "seeds=1"]) == 0
    first = (folder / "seed-0" / "samples.jsonl").read_bytes()
    assert main([*said, methods, "seeds=2"]) == 0
    assert (folder / "seed-0" / "samples.jsonl").read_bytes() == first
    assert (folder / "seed-1" / "rlhf" / "readings.jsonl").read_text().count("\n") == 2
    page = (folder / "report.html").read_text()
    assert "the gold scorer" in page
    assert "sft against rlhf" in page
