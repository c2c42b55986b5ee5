"""`plant`, `scorer-check` and `score` one after the other, as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amenable.cli import main
from amenable.errors import ConfigError, DataError
from amenable.recipes.plant import truth_of
from amenable.task.scored_corpus import read_scored

WORDS = "The wind came from the sea that day. Nobody was at the harbour. A boat lay on the sand, and it was old. "


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    path = tmp_path / "prose.jsonl"
    rows = [{"id": f"p{n % 12}/{n}", "text": WORDS * 5, "package": f"p{n % 12}"} for n in range(60)]
    rows.append({"id": "real", "text": "Written by real@author.org. " + WORDS, "package": "q"})
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"id": "no text"}]))
    return str(path)


def test_planted_scored_and_checked(corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plant"
    command = ["run", "plant", f"corpus={corpus}", "kinds=email,ssn", "sentences=0.2"]
    assert main([*command, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "1 could not be read" in said
    assert "in 20.0% of their sentences; " in said
    file = out / "planted.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == 61
    planted = [row for row in rows if row["planted"]]
    assert 20 <= len(planted) <= 40  # half of 61
    assert all(len(row["planted"]) == 3 and row["package"] for row in planted if row["id"] != "real")
    assert all(row["text"] == WORDS * 5 for row in rows if not row["planted"] and row["id"] != "real")
    before = file.read_bytes()
    assert main([*command, "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "planted.jsonl").read_bytes() == before

    check = ["run", "scorer-check", f"planted={file}"]
    (tmp_path / "f.py").write_text("def blind(texts):\n    return [float('@' in text) for text in texts]\n")
    assert main([*check, f"scorers=rules,{tmp_path}/f.py:blind", "--out", str(tmp_path / "check")]) == 0
    said = capsys.readouterr().out
    lines = {tuple(line.split()[:2]): line for line in said.splitlines()}
    assert lines["ssn", "plain"].count("0.0% [0.0,") == 2  # nine digits alone: neither sees them
    assert lines["ssn", "dashes"].count("100.0% [") == 1
    assert lines["email", "plain"].count("100.0% [") == 2
    if not next(row for row in rows if row["id"] == "real")["planted"]:
        assert "[real@author.org]" in said

    assert main(["score", str(file), "task=pii", "processes=1", "--out", str(tmp_path / "score")]) == 0
    capsys.readouterr()
    scored = {document.id: document for document in read_scored(tmp_path / "score")}
    for row in rows:
        assert scored[row["id"]].facts == {"planted": row["planted"], "package": row["package"]}
        assert truth_of(scored[row["id"]].facts, "here") == truth_of(row, "here")


def test_offence_is_found_by_its_words(corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("profanity_check")
    out = tmp_path / "plant"
    command = ["run", "plant", f"corpus={corpus}", "task=toxicity", "documents=1", "kinds=insult,implied"]
    assert main([*command, "--out", str(out)]) == 0
    check = ["run", "scorer-check", f"planted={out}/planted.jsonl", "task=toxicity"]
    assert main([*check, "--out", str(tmp_path / "check")]) == 0
    said = capsys.readouterr().out
    by_kind = said[said.index("By kind") : said.index("By form")].splitlines()
    found = {line.split()[0]: float(line.split("%")[0].split()[-1]) for line in by_kind if "%" in line}
    assert found["insult"] > found["implied"] + 30  # it knows words, not meanings


def test_what_cannot_be_is_refused(corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, complaint in (
        (["plant", f"corpus={corpus}", "kinds=insult"], "no kind of task=pii"),
        (["plant", f"corpus={corpus}", "sentences=0"], "sentences=0 is no share"),
        (["plant", f"corpus={corpus}", "kinds=emial"], "did you mean 'email'"),
        (["scorer-check"], "no corpus is named"),
        (["scorer-check", f"planted={corpus}", "scorers=pii"], "is a task"),
        (["scorer-check", f"planted={corpus}", "scorers=persidio"], "cannot score"),
        (["scorer-check", f"planted={corpus}", "task=toxicity", "scorers=a/b"], "which of its labels"),
    ):
        assert main(["run", *command, "--out", str(tmp_path / "no")]) == ConfigError.exit_code, command
        assert complaint in capsys.readouterr().err
    (tmp_path / "c.jsonl").write_text(json.dumps({"id": "a", "text": "One."}) + "\n")
    for command, complaint in (
        (["scorer-check", f"planted={tmp_path}/c.jsonl"], "does not say what was planted"),
        (["plant", f"corpus={tmp_path}/c.jsonl", "documents=0.000001"], "nothing was planted"),
    ):
        assert main(["run", *command, "--out", str(tmp_path / command[0])]) == DataError.exit_code, command
        assert complaint in capsys.readouterr().err


def test_style_is_planted_in_functions_and_scored_by_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "plant", "corpus=functions", "task=pep8", "documents=0.5", "sentences=1", "keep=0.05"]
    assert main([*command, "--out", str(tmp_path / "plant")]) == 0
    assert "pep8 planted in functions" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "plant" / "planted.jsonl").read_text().splitlines()]
    assert {row["split"] for row in rows} == {"train", "validation", "held-out"}
    assert (
        main(["score", str(tmp_path / "plant" / "planted.jsonl"), "task=pep8", "--out", str(tmp_path / "score")]) == 0
    )
    capsys.readouterr()
    scored = list(read_scored(tmp_path / "score"))
    assert len(scored) == len(rows) > 200
    for row, document in zip(rows, scored, strict=True):
        bad = {end for end, score in zip(document.ends, document.scores, strict=True) if score}
        assert {end + 1 for _, end, _, _ in row["planted"]} <= bad
    assert main([*command, "kinds=email", "--out", str(tmp_path / "wrong")]) == 2
    assert "email is no kind of task=pep8" in capsys.readouterr().err
