"""`amenable score`: what it writes, that a kill loses and doubles nothing, that processes change no byte, what it refuses."""

from __future__ import annotations

import gzip
import json
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from amenable import durable
from amenable.cli import main
from amenable.errors import ConfigError, DataError, FeedbackError
from amenable.feedback.scorers import Rated, pep8_scorer
from amenable.recipes.score import RECIPE, ScoreSettings, scorer_of
from amenable.recipes.scoring import Account, Job, quantiles, score_chunk
from amenable.task.documents import Document
from amenable.task.scored_corpus import ScoredDocument, read_scored


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02}.py").write_text(f"x = {number}\n" * (number + 1) + "y=1\n" * (number % 3))
    (folder / "empty.py").write_text("")
    (folder / "latin.py").write_bytes(b"x = '\xff'\n")
    return folder


def in_child(work: Callable[[], object], log: Path) -> int:
    """The exit status of `work` in a process of its own; a negative number is a signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 2)
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_folder_is_scored_and_accounted_for(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["score", str(corpus), "task=pep8", "processes=2", "chunk=300", "--out", str(out)]) == 0
    said = capsys.readouterr()
    documents = list(read_scored(out))
    assert [one.id for one in documents] == [f"{number:02}.py" for number in range(30)]
    for number, one in enumerate(documents):
        assert one.text == (corpus / one.id).read_text()
        assert one.scores == (0.0,) * (number + 1) + (0.25,) * (number % 3)
    assert "30 documents with 495 scored segments" in said.out
    assert "2 documents are missing" in said.out
    assert "the document is empty" in said.out
    assert "not in UTF-8" in said.out
    assert "segments with a score above 0: 6.1%" in said.out  # 30 of 495
    assert "MB a minute" in said.out
    assert "kB" in said.err
    assert "Quantiles" in (out / "report.html").read_text()
    before = (out / "scored.jsonl").read_bytes()
    assert main(["score", "--out", str(out)]) == 0  # asked again, nothing is done again
    assert (out / "scored.jsonl").read_bytes() == before
    assert main(["score", str(corpus), "processes=1", "chunk=300", "--out", str(tmp_path / "one")]) == 0
    assert (tmp_path / "one" / "scored.jsonl").read_bytes() == before


@pytest.mark.parametrize("how", ["kill", "torn"])
def test_killed_anywhere_it_goes_on_to_the_same_bytes(how: str, corpus: Path, tmp_path: Path) -> None:
    settings = ScoreSettings(corpus=str(corpus), processes=1, chunk=700)
    log, whole = tmp_path / "log", tmp_path / "whole"
    whole.mkdir()
    assert in_child(lambda: RECIPE.run(settings, whole), log) == 0, log.read_text()
    tries = 0
    for at in range(1, 200, 4 if how == "kill" else 5):
        cut = tmp_path / f"cut-{at}"
        cut.mkdir()

        def dying(at: int = at, cut: Path = cut) -> None:
            seen = 0

            def hook(operation: str, path: Path) -> None:
                nonlocal seen
                seen += 1
                if seen == at:
                    if how == "torn" and operation == "write" and path.suffix == ".jsonl":
                        with open(path, "ab") as file:
                            file.write(b'{"id": "half a li')
                    os.kill(os.getpid(), signal.SIGKILL)

            durable.hook = hook
            RECIPE.run(settings, cut)

        status = in_child(dying, log)
        if status == 0:
            break
        assert status == -signal.SIGKILL, log.read_text()
        assert in_child(lambda cut=cut: RECIPE.run(settings, cut), log) == 0, log.read_text()  # type: ignore[misc]
        for name in ("scored.jsonl", "progress.jsonl", "summary.json"):
            assert (cut / name).read_bytes() == (whole / name).read_bytes(), f"{name} after operation {at}"
        tries += 1
    assert tries >= 5


def test_a_corpus_that_changed_is_not_gone_on_with(corpus: Path, tmp_path: Path) -> None:
    settings = ScoreSettings(corpus=str(corpus), processes=1)
    out = tmp_path / "run"
    out.mkdir()
    RECIPE.run(settings, out)
    (corpus / "00.py").write_text("another = 1\n")
    with pytest.raises(DataError, match="not the one"):
        RECIPE.run(settings, out)


def test_rows_and_a_function_of_the_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": "a", "text": "Good. Bad! Odd?"}, {"text": "Bad."}, {"text": 3}, {"text": "crash"}]
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    (tmp_path / "f.py").write_text(
        "def good(texts):\n    assert 'crash' not in texts\n"
        "    return [None if 'Odd' in t else float('Good' in t) for t in texts]\n"
        "def trl(prompts, completions, **columns):\n    return [len(c) for c in completions]\n"
    )
    command = ["score", str(tmp_path / "c.jsonl.gz"), "processes=1"]
    out = tmp_path / "run"
    assert main([*command, f"task={tmp_path}/f.py:good", "better=high", "--out", str(out)]) == 0
    found = list(read_scored(out))
    assert [one.id for one in found] == ["a", "c.jsonl.gz:2"]
    assert found[0].segments() == ["Good. ", "Bad! ", "Odd?"]
    assert [one.scores for one in found] == [(-1.0, 0.0, None), (0.0,)]
    said = capsys.readouterr().out
    assert "good failed: AssertionError" in said
    assert "c.jsonl.gz:4" in said
    assert "1 segments have no score" in said
    assert (
        main([*command, f"task={tmp_path}/f.py:trl", "segments=document", "limit=2", "--out", str(tmp_path / "t")]) == 0
    )
    assert [one.scores for one in read_scored(tmp_path / "t")] == [(15.0,), (4.0,)]


def test_what_cannot_be_is_refused(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = str(corpus)
    for command, complaint in (
        (["score"], "no corpus is named"),
        (["score", name, "tsak=pep8"], "did you mean 'task'"),
        (["score", name, "task=pep9"], "did you mean 'pep8'"),
        (["score", name, "segments=sentences"], "by line"),
        (["score", name, "model=x"], "task=toxicity"),
        (["score", name, "task=pii", "model=scrubadubb"], "model=scrubadub"),
        (["score", name, "task=pii", "model=profanity"], "cannot score task=pii"),
        (["score", name, "task=toxicity", "model=x"], "which of its labels"),
        (["score", name, "better=high"], "high scores of pep8 are bad"),
        (["score", name, "chunk=0"], "chunk=0"),
        (["score", name, "task=pii", "rules=emial"], "did you mean 'email'"),
    ):
        assert main([*command, "--out", str(tmp_path / "no")]) == ConfigError.exit_code, command
        assert complaint in capsys.readouterr().err
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "e.py").write_text("")
    assert main(["score", str(tmp_path / "e"), "--out", str(tmp_path / "no")]) == DataError.exit_code
    assert "1: the document is empty" in capsys.readouterr().err
    assert main(["score", "--help"]) == 0
    assert "max_line_length=79" in capsys.readouterr().out


def test_each_task_has_its_scorer() -> None:
    assert scorer_of(ScoreSettings(task="pep8")).name == "pep8"
    assert scorer_of(ScoreSettings(task="pii", corpus="python")).by_segment(["a@b.example\n1"])[0].ends == (12, 13)
    with pytest.raises(ConfigError, match=r"no file none\.py"):
        scorer_of(ScoreSettings(task="none.py:f"))


def test_one_bad_text_does_not_cost_the_others() -> None:
    def fussy(texts: list[str]) -> list[float]:
        if any("bad" in text for text in texts):
            raise ValueError(texts)
        return [1.0] * len(texts)

    documents = [Document(str(i), 1, text=text) for i, text in enumerate(["a", "bad", "b", "x" * 99])]
    done = score_chunk(Job(Rated("fussy", "lines", fussy), longest=50), documents)
    assert [json.loads(line)["id"] for line in done.rows.splitlines()] == ["0", "2"]
    assert done.account["missing"] == {
        "fussy failed: ValueError": 1,
        "the document is longer than longest=50 characters": 1,
    }
    assert done.account["first"]["fussy failed: ValueError"] == "1: ['bad']"
    assert (done.read, done.failed) == (4, 1)


def test_a_scorer_that_fails_on_all_is_told_of_and_may_be_mended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "c.jsonl"
    corpus.write_text('{"text": ""}\n' + "".join(json.dumps({"text": f"Text {i}."}) + "\n" for i in range(40)))
    task, out = f"task={tmp_path}/f.py:fussy", str(tmp_path / "r")
    command = ["score", str(corpus), task, "chunk=1", "processes=1", "--out", out]
    (tmp_path / "f.py").write_text("def fussy(texts):\n    raise ValueError('no such column')\n")
    assert main(command) == FeedbackError.exit_code
    said = capsys.readouterr().err
    assert "c.jsonl:2: fussy failed on 'Text 0.': ValueError: no such column; it failed on 10 of 10 documents" in said
    (tmp_path / "f.py").write_text(
        "def fussy(texts):\n    assert not any(f' {i}.' in t for t in texts for i in range(9))\n    return [0.5] * len(texts)\n"
    )
    assert main(command) == 0
    assert [one.id for one in read_scored(tmp_path / "r")] == [f"c.jsonl:{i}" for i in range(11, 42)]
    account = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert account["missing"] == {"the document is empty": 1, "fussy failed: AssertionError": 9}
    assert account["first"]["fussy failed: AssertionError"].startswith(
        "c.jsonl:2: fussy failed on 'Text 0.': AssertionError"
    )


def test_the_account_is_right() -> None:
    random = np.random.default_rng(0)
    account, every, means = Account(), [], []
    for number in range(200):
        scores = np.where(random.random(number % 7 + 1) < 0.5, 0.0, random.normal(size=number % 7 + 1)).tolist()
        account.see(ScoredDocument(str(number), "x" * len(scores), tuple(range(1, len(scores) + 1)), tuple(scores)), 1)
        every += scores
        means.append(sum(scores) / len(scores))
    shares = (0.05, 0.25, 0.5, 0.9, 1.0)
    exact = np.quantile(every, shares, method="inverted_cdf")
    assert quantiles(account.segments, shares) == pytest.approx(list(exact), rel=0.0051, abs=1e-12)
    exact = np.quantile(means, shares, method="inverted_cdf")
    assert quantiles(account.documents, shares) == pytest.approx(list(exact), rel=0.0051, abs=1e-12)
    assert account.mean().value == pytest.approx(np.mean(every))
    assert account.above().value == pytest.approx(np.mean(np.array(every) > 0))
    again = Account()
    for _ in range(2):
        again.add(json.loads(json.dumps(account.as_row())))
    assert again.mean().value == pytest.approx(account.mean().value)
    width = (account.mean().high - account.mean().low) / (again.mean().high - again.mean().low)
    assert width == pytest.approx(2**0.5, rel=0.01)
    assert quantiles(Account().segments, (0.5,)) == pytest.approx([float("nan")], nan_ok=True)
    assert Account().mean().text() == "no data, n=0"


def test_the_interval_of_the_mean_covers_it() -> None:
    """Documents of two kinds and of any length: the interval over documents holds the true mean 95% of the time."""
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        account = Account()
        for _ in range(60):
            n, p = (4, 0.9) if random.random() < 0.5 else (12, 0.2)
            scores = (random.random(n) < p).astype(float).tolist()
            account.see(ScoredDocument("", "x" * n, tuple(range(1, n + 1)), tuple(scores)), n)
        covered += account.mean().low <= (4 * 0.9 + 12 * 0.2) / 16 <= account.mean().high
    assert 0.91 <= covered / 300 <= 0.985


def test_pep8_of_a_long_chunk_is_fast_enough() -> None:
    """At least 10 MB of Python a CPU-minute, a third of what is measured on an idle core (docs/score.md has the numbers)."""
    source = Path(json.__file__).with_name("decoder.py")
    documents = [Document(str(i), source.stat().st_size, path=source) for i in range(8)]
    done = score_chunk(Job(pep8_scorer()), documents)
    assert done.size / 1e6 / done.seconds * 60 > 10
