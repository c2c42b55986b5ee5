"""A function of the user's from raw text to the red team: what scored the corpus scores the samples, with the same settings."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from amenable.cli import main
from amenable.errors import ConfigError, DataError, FeedbackError
from amenable.recipes.pretrain import PretrainSettings
from amenable.recipes.pretrain_data import scorer_of

SIZES = "size=1m tokens=1024 batch_tokens=256 length=32 positions=128 held_out=1500 samples=6 max_tokens=12 threads=1"
FUNCTIONS = """
def shout(texts):
    return [sum(c.isupper() for c in text) / len(text) for text in texts]

def quiet(texts):
    return [1 - s for s in shout(texts)]

"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 documents of 20 authors, some of whom shout; f.py has the functions; `run` is the corpus as `shout` scored it."""
    folder, draw = tmp_path_factory.mktemp("own"), random.Random(0)
    rows = []
    for index in range(80):
        said = [
            f"The {draw.choice(['train', 'letter', 'garden'])} number {draw.randrange(99)} is late." for _ in range(9)
        ]
        texts = [text.upper() if draw.random() < 0.3 else text for text in said]
        rows.append({"id": f"a{index % 20}/{index}", "text": "\n".join(texts) + "\n"})
    (folder / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "f.py").write_text(FUNCTIONS)
    scored(folder, "run", f"task={folder}/f.py:shout", "segments=lines")
    return folder


def scored(folder: Path, name: str, *settings: str) -> str:
    """The corpus's folder after `amenable score`."""
    command = ["score", str(folder / "c.jsonl"), *settings, "processes=1", "--out", str(folder / name)]
    assert main(command) == 0
    return str(folder / name)


def test_from_text_to_red_team(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task, out = f"task={place}/f.py:shout", tmp_path / "arm"
    command = ["run", "pretrain", "objective=conditional", task, f"corpus={place}/run", *SIZES.split()]
    assert main([*command, "--out", str(out)]) == 0
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    samples = [row for row in rows if "characters" in row]
    assert len(samples) == 6
    for row in samples:  # unfinished lines are left out: the corpus was scored by line
        text = row["text"]
        assert row["ended"] == "eos" or text == "" or text.endswith("\n")
        assert row["score"] == (sum(c.isupper() for c in text) / len(text) if text.strip() else 0.0 if text else None)
    model = str(out / "conditional-0" / "model")
    asked = [task, f"corpus={place}/run", "max_tokens=8", "answers=4", "threads=1"]
    more = ["samples=4", "most_prompts=3", "held_out=500", "--out", str(tmp_path / "evaluation")]
    assert main(["run", "phf-evaluate", model, *asked, *more]) == 0
    more = ["searches=1", "first=3", "per_round=3", "rounds=1", "generator=self", "--out", str(tmp_path / "red")]
    assert main(["run", "red-team", model, *asked, *more]) == 0
    assert "shout" in capsys.readouterr().out


def test_the_corpus_says_how_it_was_scored(place: Path) -> None:
    names = scored(place, "names", "task=pii", "rules=email", "segments=lines")
    own = scorer_of(PretrainSettings(task="pii", corpus=names))
    assert own.unit == "lines"
    text = "Ask a@b.example or call +1 202 555 0143."
    assert own([text]) == [1 / len(text)]
    assert scorer_of(PretrainSettings(task="pii", corpus=f"{names}/scored.jsonl"))([text]) == [1 / len(text)]
    other = scorer_of(PretrainSettings(task="pii", corpus=f"{place}/c.jsonl"))  # nobody says
    assert (other.unit, other([text])) == ("sentences", [2 / len(text)])
    with pytest.raises(ConfigError, match="was scored for task=pii, not pep8"):
        scorer_of(PretrainSettings(corpus=names))
    high = scored(place, "high", f"task={place}/f.py:quiet", "better=high")
    assert scorer_of(PretrainSettings(task=f"{place}/f.py:quiet", corpus=high))(["AB", "ab"]) == [0.0, -1.0]


def test_what_cannot_be(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    high = scored(place, "high2", f"task={place}/f.py:quiet", "better=high", "segments=lines")
    run, given = ["run", "pretrain", *SIZES.split()], f"corpus={place}/run"
    cases = (
        ([f"task={place}/f.py:shout"], ConfigError, "without a corpus"),
        ([f"task={place}/f.py:shuot", given], ConfigError, "did you mean 'shout'"),
        (["task=pep9", given], ConfigError, "did you mean 'pep8'"),
        ([given], ConfigError, f"add task={place}/f.py:shout"),
        ([f"task={place}/f.py:quiet", f"corpus={high}", "objective=rwr"], DataError, "1 - quality"),
        (["task=pep8", f"corpus={place}/c.jsonl"], DataError, "Score the corpus first"),
    )
    for number, (command, code, complaint) in enumerate(cases):
        assert main([*run, *command, "--out", str(tmp_path / str(number))]) == code.exit_code, command
        assert complaint in capsys.readouterr().err


def test_a_sample_on_which_it_fails_is_named_and_costs_no_training(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.py"
    own.write_text("def f(texts):\n    return [float(t.isupper()) for t in texts]\n")
    corpus = scored(place, "own", f"task={own}:f", "segments=lines")
    own.write_text("def f(texts):\n    assert False, 'cannot read this'\n")
    command = ["run", "pretrain", f"task={own}:f", f"corpus={corpus}", *SIZES.split(), "--out", str(tmp_path / "arm")]
    assert main(command) == FeedbackError.exit_code
    assert "f failed on " in (said := capsys.readouterr().err)
    assert "AssertionError: cannot read this" in said
    weights = tmp_path / "arm" / "conditional-0" / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    own.write_text("def f(texts):\n    return [1.0 for t in texts]\n")
    assert main(command) == 0
    assert weights.stat().st_mtime_ns == before
