"""`amenable compare` on two real trainings of a small model: what it says is what the samples say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from amenable.cli import main
from amenable.errors import ModelError
from amenable.evaluation.preference import length_corrected, win_rate
from amenable.feedback.reward_model import load_reward_model
from amenable.recipes.compare import CompareSettings, plan
from amenable.recipes.compare_runs import read_side

COMMON = ["max_tokens=24", "threads=1", "learning_rate=1e-3", "rows=64"]
SCORES = '''
def threes(prompts, completions, **columns):
    """One for each 3; nothing said is no answer."""
    return [float(text.count("3")) if text.strip() else None for text in completions]

def shorter(prompts, first, second):
    return [0.5 if len(a) == len(b) else float(len(a) < len(b)) for a, b in zip(first, second)]

def the_first(prompts, first, second):
    return [0.9 for _ in first]

def the_first_if_short(prompts, first, second):
    """Always the one shown first, but of the shorter one it is surer."""
    return [0.8 if len(a) == len(b) else 0.9 if len(a) < len(b) else 0.7 for a, b in zip(first, second)]
'''


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("contexts") / "contexts.txt"
    path.write_text("".join(f"def f{i}(x):\n" for i in range(8)))
    return path


@pytest.fixture(scope="module")
def runs(writer: Path, contexts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A: trained to write x + 3. B: trained a little, by another divergence."""
    folder = tmp_path_factory.mktemp("runs")
    common = ["run", "fdpg", f"model={writer}", "target=contains:x + 3", f"contexts={contexts}", *COMMON]
    assert (
        main(
            [
                *common,
                "proposal=adaptive",
                "steps=12",
                "samples_per_context=32",
                "evaluation=96",
                "--out",
                str(folder / "long"),
            ]
        )
        == 0
    )
    assert (
        main(
            [
                *common,
                "divergence=forward-kl",
                "steps=1",
                "samples_per_context=8",
                "evaluation=48",
                "--out",
                str(folder / "brief"),
            ]
        )
        == 0
    )
    return str(folder / "long"), str(folder / "brief")


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    path = tmp_path / "scores.py"
    path.write_text(SCORES)
    return path


def rows_of(folder: str, stage: str = "policy") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (Path(folder) / "samples.jsonl").read_text().splitlines()]
    return [row for row in lines if row["stage"] == stage and "rows" not in row]


def in_pairs(a: str, b: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The i-th row of A for a prompt with the i-th of B, which has fewer."""
    rest = {row["prompt"]: [other for other in rows_of(b) if other["prompt"] == row["prompt"]] for row in rows_of(b)}
    return [(row, rest[row["prompt"]].pop(0)) for row in rows_of(a) if rest[row["prompt"]]]


def test_two_runs_side_by_side(
    runs: tuple[str, str], scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = runs
    out = tmp_path / "out"
    command = ["compare", a, b, f"score={scores}:threes", "pairs=0", "--out", str(out)]
    assert main(command) == 0
    said = capsys.readouterr().out
    pairs = in_pairs(a, b)
    assert len(pairs) == 48

    def threes(row: dict[str, Any]) -> int | None:
        return row["text"].count("3") if row["text"].strip() else None

    counted = [(threes(x), threes(y)) for x, y in pairs]
    p = [None if x is None or y is None else 0.5 if x == y else float(x > y) for x, y in counted]
    prompts = [x["prompt"] for x, _ in pairs]
    rate = win_rate(p, prompts=prompts)
    assert rate.rate.value > 0.6  # A learnt it better (four prompts: no interval can be asked to say so)
    assert rate.rate.n == 4
    assert f"A wins {rate.rate.text(percent=True)}" in said
    equal = length_corrected(p, [len(x["text"]) for x, _ in pairs], [len(y["text"]) for _, y in pairs], prompts=prompts)
    assert equal.separated in said if equal.separated else equal.rate.text(percent=True) in said
    means = [sum(row["value"] for row in rows_of(run)) / len(rows_of(run)) for run in (a, b)]  # every sample counts
    change = means[0] - means[1]
    assert change > 0.15
    line = next(line for line in said.splitlines() if line.startswith("satisfied (%)"))
    assert f"{100 * change:+.0f}" in line
    for name in ("KL(π, a)", "entropy", "tokens", "characters", "distinct-1", "self-BLEU-5", "score scores.py:threes"):
        assert any(line.startswith(name) for line in said.splitlines()), name
    page = (out / "report.html").read_text()
    for words in ("Answers side by side", "A: long", "B: brief", "Settings that differ", "divergence", "loss"):
        assert words in page, words
    scores.unlink()  # who decided is not asked again
    assert main(["compare", "--out", str(out)]) == 0
    assert f"A wins {rate.rate.text(percent=True)}" in capsys.readouterr().out


def test_a_judge_who_likes_the_first_knows_nothing(
    runs: tuple[str, str], scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", *runs, f"judge={scores}:the_first", "pairs=20", "--out"]
    assert main([*command, str(tmp_path / "both")]) == 0
    said = capsys.readouterr().out
    assert "20 of 48 pairs were decided" in said
    assert "trust it little" in said
    ties = next(line for line in said.splitlines() if line.startswith("ties "))
    assert ties.split()[-1] == "20"
    assert main([*command[:-1], "both_orders=false", "--out", str(tmp_path / "one")]) == 0
    pairs = in_pairs(*runs)
    assert any(x["text"] != y["text"] for x, y in pairs)
    wins = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("wins "))
    assert int(wins.split()[-1]) > 0  # all pairs whose texts differ: A was shown first


def test_orders_that_contradict_each_other_count_as_their_mean(
    runs: tuple[str, str], scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A judge that flips on every pair, but leans to the shorter text, decides like one that says so at once."""
    counted = []
    for number, name in enumerate(("shorter", "the_first_if_short")):
        assert main(["compare", *runs, f"judge={scores}:{name}", "--out", str(tmp_path / str(number))]) == 0
        said = capsys.readouterr().out.splitlines()
        lines = [next(line for line in said if line.startswith(f"{word} ")) for word in ("wins", "ties", "losses")]
        counted.append([int(line.split()[-1]) for line in lines])
    assert counted[0] == counted[1]
    assert counted[0][0] + counted[0][2] > 10
    assert "the mean of two orders that contradict each other" in (tmp_path / "1" / "report.html").read_text()
    agree = next(line for line in said if line.startswith("both orders agree"))
    assert agree.split("(%)")[1].split()[0] == "0"


def test_what_people_say_of_the_pairs_is_read_back(
    runs: tuple[str, str], scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pairs stand in a coin's order in pairs.jsonl; labels that prefer the shorter text say what the judge says."""
    assert main(["compare", *runs, f"judge={scores}:shorter", "pairs=0", "--out", str(tmp_path / "judge")]) == 0
    judged = capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "judge" / "pairs.jsonl").read_text().splitlines()]
    assert len(rows) == 48
    texts = [{(row["prompt"], row["text"]) for row in rows_of(run)} for run in runs]
    shown = [(row["prompt"], row["first"]) for row in rows]
    assert sum(one in texts[0] - texts[1] for one in shown) > 2
    assert sum(one in texts[1] - texts[0] for one in shown) > 2
    for row in rows:
        one, two = len(row["first"]), len(row["second"])
        row["label"] = 0.5 if one == two else float(one < two)
    rows[0]["label"] = None
    labelled = tmp_path / "labelled.jsonl"
    labelled.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["compare", *runs, f"labels={labelled}", "pairs=0", "--out", str(tmp_path / "people")]) == 0
    said = capsys.readouterr().out

    def count(text: str, name: str) -> int:
        return int(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[-1])

    for name in ("wins", "ties", "losses"):
        assert 0 <= count(judged, name) - count(said, name) <= 1 + count(said, "missing")
    labelled.write_text('{"prompt": "another", "first": "a", "second": "b", "label": 1}\n')
    assert main(["compare", *runs, f"labels={labelled}", "--out", str(tmp_path / "none")]) == 3
    assert "has a label of none of the 48 pairs" in capsys.readouterr().err


@pytest.fixture(scope="module")
def reward(writer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a real, small reward model, for which adding 3 is better than adding anything else."""
    folder = tmp_path_factory.mktemp("reward")
    rows = [
        {"prompt": f"def f{i}(x):\n", "chosen": "    return x + 3\n", "rejected": f"    return x + {1 + i % 2}\n"}
        for i in range(40)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["run", "reward-model", f"data={folder / 'pairs.jsonl'}", f"model={writer}", "dtype=float32", "depth=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMENABLE_CACHE", str(folder / "cache"))
        assert main([*command, "folds=3", "threads=1", "--out", str(folder / "threes")]) == 0
    return folder / "threes"


def test_a_reward_model_decides(
    runs: tuple[str, str], reward: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the folder of the run, or of the model in it: the higher reward wins, and both sides' rewards are told."""
    capsys.readouterr()
    out = tmp_path / "out"
    assert main(["compare", *runs, f"reward={reward}", "pairs=0", "dtype=float32", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"all pairs decided by reward={reward}" in said
    model = load_reward_model(reward / "model", dtype="float32")
    pairs = in_pairs(*runs)
    prompts = [x["prompt"] for x, _ in pairs]
    scores = [model(prompts, [pair[side]["text"] for pair in pairs]) for side in (0, 1)]
    kept = rows_of(str(out), "reward 0")
    found = {(row["a"], row["b"]) for chunk in ("0", "16", "32") for row in rows_of(str(out), f"reward {chunk}")}
    assert len(kept) == 16
    for a, b in zip(*scores, strict=True):
        assert any(a == pytest.approx(x, abs=1e-3) and b == pytest.approx(y, abs=1e-3) for x, y in found)
    p = [0.5 if x["text"] == y["text"] else float(a > b) for (x, y), a, b in zip(pairs, *scores, strict=True)]  # type: ignore[operator]
    rate = win_rate(p, prompts=prompts)
    assert 0 < rate.rate.value < 1
    assert f"By reward threes, A wins {rate.rate.text(percent=True)}" in said
    assert any(line.startswith("reward threes") for line in said.splitlines())  # the rewards of both, a number more
    assert (
        main(
            [
                "compare",
                *runs,
                f"reward={reward / 'model'}",
                "pairs=0",
                "dtype=float32",
                "--out",
                str(tmp_path / "again"),
            ]
        )
        == 0
    )
    again = capsys.readouterr().out
    assert f"By reward threes/model, A wins {rate.rate.text(percent=True)}" in again
    assert rows_of(str(tmp_path / "again"), "reward 0") == kept


def test_what_is_no_reward_model_is_refused(
    runs: tuple[str, str], writer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, complaint in (
        (writer, "has 2 labels: a reward is one number"),
        (tmp_path / "none", "is not a model folder"),
    ):
        code = main(["compare", *runs, f"reward={folder}", "--out", str(tmp_path / f"out-{folder.name}")])
        said = capsys.readouterr().err
        assert code == ModelError.exit_code, said
        assert complaint in said


def test_other_stages_can_be_named(runs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, _ = runs
    assert main(["compare", a, a, "stage_b=prior", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "A is long, B is long, prior" in said
    assert "They differ in satisfied +" in said
    for given, complaint in (
        (["stage_b=pripr"], "did you mean 'prior'?"),
        ([], "would be compared with itself"),
        (["stage_b=policy"], "would be compared with itself"),
    ):
        assert main(["compare", a, a, *given, "--out", str(tmp_path / "no")]) == 2
        assert complaint in capsys.readouterr().err


def test_runs_on_other_prompts_are_refused_with_what_differs(
    runs: tuple[str, str], writer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, _ = runs
    other = tmp_path / "other.txt"
    other.write_text("def g1(x):\ndef g2(x):\n" + "".join(f"def f{i}(x):\n" for i in range(8)))
    command = [
        "run",
        "fdpg",
        f"model={writer}",
        "target=contains:x + 3",
        f"contexts={other}",
        "steps=1",
        "evaluation=48",
        *COMMON,
    ]
    assert main([*command, "--out", str(tmp_path / "other")]) == 0
    capsys.readouterr()
    assert main(["compare", a, str(tmp_path / "other"), "--out", str(tmp_path / "no")]) == 3
    said = capsys.readouterr().err
    mine, theirs = ({one.key for one in read_side(run, "").said} for run in (a, str(tmp_path / "other")))
    assert f"{len(mine & theirs)} are in both" in said
    assert f"{len(theirs - mine)} only in B" in said
    assert "the runs differ in contexts" in said
    assert not (tmp_path / "no").exists()
    if mine & theirs:
        assert "common=true" in said
        assert main(["compare", a, str(tmp_path / "other"), "common=true", "--out", str(tmp_path / "some")]) == 0
        assert "samples.jsonl" in {file.name for file in (tmp_path / "some").iterdir()}


def test_two_models_are_drawn_from_alike(
    runs: tuple[str, str],
    writer: Path,
    contexts: Path,
    scores: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run stands for the model that it kept; equal texts are ties that nobody is asked about."""
    a, _ = runs
    out = tmp_path / "out"
    command = ["compare", a, str(writer), f"contexts={contexts}", "n=6", "max_tokens=24", "threads=1"]
    assert main([*command, f"score={scores}:threes", f"judge=likelihood:{writer}", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    drawn = rows_of(str(out), "samples of A")
    assert len(drawn) == 48
    assert len({row["prompt"] for row in drawn}) == 8
    share = sum("x + 3" in row["text"] for row in drawn) / 48
    assert share > sum("x + 3" in row["text"] for row in rows_of(str(out), "samples of B")) / 48
    assert f"judge likelihood:{writer}" in said
    assert "paired by 8 prompts" in said


def test_runs_that_changed_meanwhile_are_not_mixed_with_old_decisions(
    runs: tuple[str, str], scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (tmp_path / name for name in ("a", "b"))
    for folder, run in ((a, runs[0]), (b, runs[1])):
        folder.mkdir()
        (folder / "samples.jsonl").write_bytes((Path(run) / "samples.jsonl").read_bytes())
    command = ["compare", str(a), str(b), f"score={scores}:threes", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    rows = (b / "samples.jsonl").read_text().replace("return x", "return y")
    (b / "samples.jsonl").write_text(rows)
    assert main(command) == 3
    assert "have other samples than when" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ([], "0 runs are named"),
        (["one"], "1 runs are named"),
        (["none", "nothing"], "none holds no run"),
        (["none", "nothing", "scor=x"], "3 runs are named"),
        (["none", "nothing", "score=x.py:f", "n=0"], "n=0 cannot be"),
    ],
)
def test_what_cannot_be_compared_is_said(given: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *given]) == 2
    assert complaint in capsys.readouterr().err


def test_programs_are_read_with_their_verdicts(
    writer: Path, tasks_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["evaluate", str(writer), f"task={tasks_file}", "max_tokens=24", "threads=1", "rows=64", "n=4", "k=1"]
    for name, temperature in (("warm", 1.0), ("cool", 0.3)):
        assert main([*common, f"temperature={temperature}", "--out", str(tmp_path / name)]) == 0
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "warm"), str(tmp_path / "cool"), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "drawn in different ways (temperature)" in said
    assert any(line.startswith("passed (%)") for line in said.splitlines())
    assert "def f" in (tmp_path / "out" / "pairs.jsonl").read_text()  # the task's prompt, not its id alone
    assert plan(CompareSettings(a=str(tmp_path / "warm"), b=str(tmp_path / "cool")))[1] == "paired by 8 prompts"
