"""`amenable judge`: what it writes, says and costs; killed at any operation on the disk it goes on to the same labels."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from feedback.fault_server import DELAYS, FAULTS, http, serving
from tiny import tiny_policy

from amenable import durable
from amenable.cli import main
from amenable.errors import ConfigError, FeedbackError, ModelError
from amenable.feedback.judging import judged
from amenable.feedback.likelihood_judge import LikelihoodScore
from amenable.feedback.reward_model import load_reward_model, new_reward_model
from amenable.feedback.score_judge import FunctionJudge, ScoreJudge
from amenable.feedback.server_judge import ServerJudge, ServerRater
from amenable.recipes.judge import RECIPE, JudgeSettings
from amenable.recipes.judge_rows import judgement_of
from amenable.recipes.judges import Asking, judge_named, kind_of, rater_named
from amenable.task.preferences import load_comparisons

FUNCTIONS = """
def longer(prompts, first, second):
    return [None if a == "?" else 1 / (1 + 2.718 ** (len(b) - len(a))) for a, b in zip(first, second)]

def longer_and_first(prompts, first, second):
    return [1 / (1 + 2.718 ** (len(b) - len(a) - 4)) for a, b in zip(first, second)]

def always_first(prompts, first, second):
    return [0.9] * len(prompts)

def length(prompts, completions, **columns):
    return [float(len(text)) for text in completions]

def shorter(prompts, completions, **columns):
    return [-float(len(text)) for text in completions]
"""


@pytest.fixture
def functions(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    return str(tmp_path / "mine.py")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Eight pairs: people prefer the longer answer in six, two of them written as chosen and rejected; one is unlabelled."""
    rows: list[dict[str, Any]] = [
        {"prompt": f"p{i}", "first": "a long answer" + "!" * i, "second": "short", "label": float(i != 0)}
        for i in range(5)
    ]
    rows += [{"prompt": f"q{i}", "chosen": "a rather long answer", "rejected": "no" * (i + 1)} for i in range(2)]
    rows.append({"prompt": "r", "first": "one answer", "second": "another answer"})
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def labels(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]


def test_pairs_are_labelled_and_the_report_says_how_well(
    functions: str, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, copy = tmp_path / "run", tmp_path / "copy.jsonl"
    command = ["judge", str(pairs), f"judge={functions}:longer", f"out={copy}", "chunk=3", "--out", str(folder)]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "label 8 pairs" in said.out
    assert "7 of the pairs have a label of their own" in said.out
    assert "agrees with the file's labels: 85.7%" in said.out  # 6 of 7
    assert "same position in both orders: 0.0%" in said.out
    rows = labels(folder)
    assert copy.read_text() == (folder / "labels.jsonl").read_text()
    assert [row["prompt"] for row in rows] == [pair.prompt for pair in load_comparisons(pairs)]
    assert rows[0]["label"] == pytest.approx(1 / (1 + 2.718**-8), abs=1e-6)
    assert all(row["consistent"] and row["missing"] == "" for row in rows)
    assert [pair.label for pair in load_comparisons(copy)] == [row["label"] for row in rows]  # labels are pairs again
    assert len(load_comparisons(folder)) == 8
    page = (folder / "report.html").read_text()
    assert "Agreement with the file" in page
    assert "canary" in page
    # asked again, everything is there
    before = (folder / "samples.jsonl").read_bytes()
    assert main(["judge", "--out", str(folder)]) == 0
    assert (folder / "samples.jsonl").read_bytes() == before


def test_a_judge_of_positions_gives_ties_and_its_canaries_win(
    functions: str, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["judge", str(pairs), f"judge={functions}:always_first", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr()
    assert "same position in both orders: 100.0%" in said.out
    assert "agrees with the file's labels: 50.0%" in said.out
    assert "followed the position, not the answers, in 8 of 8 pairs" in said.out
    assert {(row["label"], row["verdict"], row["consistent"]) for row in labels(tmp_path / "run")} == {
        (0.5, "tie", False)
    }
    assert said.err.count("WARNING: canary") == 3
    assert "WARNING: canary 'empty' WON: it beat 0, tied 5 of 5 honest answers" in said.out  # before, and during


def test_the_label_is_the_average_and_the_verdict_a_tie_where_the_orders_contradict_each_other(
    functions: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bonus of 4 logits for the first: a pair whose answers differ by 2 letters is a flip, by 8 it is not."""
    file = tmp_path / "p.jsonl"
    rows = [{"prompt": "p", "first": "a" * n, "second": "bb", "label": float(n > 2)} for n in (4, 10, 1)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {}
    for label in ("averaged", "tied", "verdict"):
        folder = tmp_path / label
        command = ["judge", str(file), f"judge={functions}:longer_and_first", f"label={label}", "canaries=0"]
        assert main([*command, "--out", str(folder)]) == 0
        found[label] = labels(folder)
        said = capsys.readouterr().out
        assert "1 of 3 pairs have a winner, 2 are ties, 0 are missing" in said
        agrees = {"averaged": "100.0%", "tied": "66.7%", "verdict": "66.7%"}[label]
        assert f"agrees with the file's labels: {agrees}" in said
        assert [pair.label for pair in load_comparisons(folder)] == [row["label"] for row in found[label]]

    def average(gap: int) -> float:
        return (1 / (1 + 2.718 ** (-gap - 4)) + 1 - 1 / (1 + 2.718 ** (gap - 4))) / 2

    assert [row["label"] for row in found["averaged"]] == pytest.approx([average(2), average(8), average(-1)])
    assert [row["label"] for row in found["tied"]] == pytest.approx([0.5, average(8), 0.5])
    assert [row["label"] for row in found["verdict"]] == [0.5, 1.0, 0.5]
    for rows in found.values():
        assert [row["verdict"] for row in rows] == ["tie", "first", "tie"]
        assert [row["consistent"] for row in rows] == [False, True, False]
    texts = [[row[name] for row in rows] for name in ("prompt", "first", "second")]
    alike = judged(judge_named(f"{functions}:longer_and_first", Asking(tmp_path)), *texts)
    assert [one.averaged for one in alike] == [row["label"] for row in found["averaged"]]  # what rlaif learns from
    assert main(["judge", "label=soft", "--out", str(tmp_path / "averaged")]) == ConfigError.exit_code


def test_a_canary_that_wins_stops_the_run_if_that_is_asked_for(
    functions: str, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    command = ["judge", str(pairs), f"judge={functions}:shorter", "--out", str(folder)]
    assert main([*command, "on_canary=stop"]) == FeedbackError.exit_code
    assert "fails its canaries: canary 'empty' WON: it beat 4" in capsys.readouterr().err
    assert not (folder / "labels.jsonl").exists()
    assert main([*command, "on_canary=warn"]) == 0  # the same folder, no label is another one
    assert len(labels(folder)) == 8


def test_missing_stays_missing(functions: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "p", "first": "?", "second": "b"}\n{"prompt": "p", "first": "aa", "second": "b"}\n')
    folder = tmp_path / "run"
    assert main(["judge", str(file), f"judge={functions}:longer", "canaries=0", "--out", str(folder)]) == 0
    missing, known = labels(folder)
    assert (missing["label"], missing["consistent"], missing["missing"]) == (None, None, "longer gave no answer")
    assert missing["backward"] is not None  # one order is there, and it is no label
    assert known["label"] > 0.5
    said = capsys.readouterr().out
    assert "50.0%" in said
    assert "longer gave no answer" in said
    assert "No canaries were tried" in (folder / "report.html").read_text()
    assert judgement_of(missing).p_first is None


def test_one_order_and_a_limit(functions: str, pairs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = ["judge", str(pairs), f"judge={functions}:always_first", "both_orders=false", "limit=5"]
    assert main([*command, "--out", str(folder)]) == 0
    rows = labels(folder)
    assert len(rows) == 5
    assert {(row["label"], row["consistent"], row["backward"]) for row in rows} == {(0.9, None, None)}
    every = [pair.prompt for pair in load_comparisons(pairs)]
    places = [every.index(row["prompt"]) for row in rows]
    assert places == sorted(places)


# --- what comes in goes out


SAID = [{"role": "user", "content": "hi"}]


def told(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


FORMATS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "ordered": (
        [{"id": 7, "prompt": "p", "first": "long one", "second": "x", "label": 0.2, "margin": -1.5, "topic": "t", "n": [1]}],
        [{"id": 7, "prompt": "p", "first": "long one", "second": "x", "given": 0.2, "margin": -1.5, "topic": "t", "n": [1]}],
    ),
    "ordered conversations": (
        [{"prompt": SAID, "first": told("long one"), "second": told("x"), "score_first": 1.0, "human": "second"}],
        [{"prompt": SAID, "first": told("long one"), "second": told("x"), "score_first": 1.0, "human": "second",
          "given": None}],
    ),
    "TRL, explicit": (
        [{"prompt": "p", "chosen": "good one", "rejected": "bad", "score_chosen": 9, "score_rejected": 2.5, "source": "s"},
         {"prompt": "p", "chosen": "bad", "rejected": "good one", "score_chosen": 9, "score_rejected": 2.5, "source": "s"}],
        [{"prompt": "p", "good one": (1.0, 6.5, 9), "bad": (0.0, -6.5, 2.5), "source": "s"},
         {"prompt": "p", "bad": (1.0, 6.5, 9), "good one": (0.0, -6.5, 2.5), "source": "s"}],
    ),
    "TRL, conversations with an implicit prompt": (
        [{"chosen": SAID + told("good one"), "rejected": SAID + told("bad"), "p_chosen": 0.8, "margin": 2.0,
          "source": {"a": 1}}],
        [{"prompt": SAID, "good one": (0.8, 2.0, None), "bad": (pytest.approx(0.2), -2.0, None), "source": {"a": 1}}],
    ),
    "dialogues of HH-RLHF": (
        [{"chosen": "\n\nHuman: hi\n\nAssistant: good one", "rejected": "\n\nHuman: hi\n\nAssistant: bad", "row": 3}],
        [{"prompt": "\n\nHuman: hi\n\nAssistant:", " good one": (1.0, None, None), " bad": (0.0, None, None), "row": 3}],
    ),
    "summaries": (
        [{"info": {"id": "i", "subreddit": "r", "title": "t", "post": "o"}, "summaries": [{"text": "a"}, {"text": "bb"}],
          "choice": 1, "worker": "w"}],
        [{"prompt": "SUBREDDIT: r/r\n\nTITLE: t\n\nPOST: o\n\nTL;DR:", " bb": (1.0, None, None), " a": (0.0, None, None),
          "info": {"id": "i", "subreddit": "r", "title": "t", "post": "o"}, "summaries": [{"text": "a"}, {"text": "bb"}],
          "choice": 1, "worker": "w"}],
    ),
}  # fmt: skip
"""What is in the file; what must be in labels.jsonl: of an answer by its text, what people gave it, margin and score."""


@pytest.mark.parametrize("name", FORMATS)
def test_what_comes_in_goes_out_in_its_own_form(name: str, functions: str, tmp_path: Path) -> None:
    rows, expected = FORMATS[name]
    file, folder = tmp_path / "in.jsonl", tmp_path / "run"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["judge", str(file), f"judge={functions}:longer", "canaries=0", "--out", str(folder)]) == 0
    came, given = load_comparisons(folder / "labels.jsonl"), load_comparisons(file)
    for row, due, pair, back in zip(labels(folder), expected, given, came, strict=True):
        answers = [row[side] if isinstance(row[side], str) else row[side][0]["content"] for side in ("first", "second")]
        for key, value in due.items():
            if isinstance(value, tuple):  # an answer: it stands on its own side with what belongs to it
                side = answers.index(key)
                turned = row["given"] if side == 0 else 1 - row["given"]
                margin = row.get("margin") if side == 0 or "margin" not in row else -row["margin"]
                assert (turned, margin, row.get(f"score_{('first', 'second')[side]}")) == value
            else:
                assert row[key] == value, key
        assert isinstance(row["prompt"], type(due["prompt"]))  # a conversation stays one
        assert "chosen" not in row  # nobody takes people's choice for the judge's
        assert (row["label"] > 0.5) == (len(answers[0]) > len(answers[1]))
        assert row["verdict"] == ("first" if row["label"] > 0.5 else "second")
        assert (pair.prompt, pair.first, pair.second, pair.margin, pair.id, pair.conversation) == (
            back.prompt, back.first, back.second, back.margin, back.id, back.conversation
        )  # fmt: skip
    assert main(["judge", "calibrate", str(folder), "human=label", "folds=2", "--out", str(tmp_path / "c")]) == 0
    assert main(["export", str(folder), "--format", "trl-dpo", "--out", str(tmp_path / "dpo.jsonl")]) == 0
    [exported, *_] = [json.loads(line) for line in (tmp_path / "dpo.jsonl").read_text().splitlines()]
    assert isinstance(exported["prompt"], type(expected[0]["prompt"]))


def test_what_another_judge_had_said_is_kept_under_its_own_name(functions: str, pairs: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["judge", str(pairs), f"judge={functions}:longer", "canaries=0", "--out", str(first)]) == 0
    again = ["judge", str(first / "labels.jsonl"), f"judge={functions}:shorter", "canaries=0", "--out", str(second)]
    assert main(again) == 0
    for before, after in zip(labels(first), labels(second), strict=True):
        assert after["given"] == before["label"]
        kept = ("verdict", "forward", "backward", "given", "consistent", "missing")
        assert {name: after["before"][name] for name in kept} == {name: before[name] for name in kept}
        assert after["verdict"] != before["verdict"]


def test_a_run_that_was_begun_with_ties_as_labels_goes_on_with_averages(functions: str, tmp_path: Path) -> None:
    """Rows of an older version have no verdict, and 0.5 for a flip."""
    file, folder = tmp_path / "p.jsonl", tmp_path / "run"
    rows = [{"prompt": "p", "first": "aaaa", "second": "bb"}, {"prompt": "q", "first": "a", "second": "bb"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["judge", str(file), f"judge={functions}:longer_and_first", "canaries=0", "--out", str(folder)]
    assert main(command) == 0
    whole = (folder / "labels.jsonl").read_bytes()
    old = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    for row in old:
        if row.pop("verdict", None) is not None:
            row["label"] = 0.5
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("label: averaged\n", ""))
    assert main(command) == 0
    assert [json.loads(line) for line in (folder / "labels.jsonl").read_bytes().splitlines()] == [
        json.loads(line) for line in whole.splitlines()
    ]


# --- a server, and a process that dies


def judging(number: int, request: dict[str, Any], connection: socket.socket) -> bytes:
    """A judge that likes length, and lists its tokens."""
    text = str(request["messages"][-1]["content"])
    p = 0.9
    if "Answer 1:\n" in text:
        one, two = text.split("Answer 1:\n")[1].split("\n\nAnswer 2:\n")
        p = 1 / (1 + math.exp((len(two.split("\n\nWhich")[0]) - len(one)) / 4))
    top = [
        {"token": token, "logprob": math.log(q)} for token, q in (("1", 0.9 * p + 1e-9), ("2", 0.9 * (1 - p) + 1e-9))
    ]
    choice = {"message": {"content": "1"}, "logprobs": {"content": [{"token": "1", "top_logprobs": top}]}}
    return http(200, json.dumps({"choices": [choice], "usage": {"total_tokens": 50}}))


def in_child(work: Callable[[], object], log: Path) -> int:
    """The exit status of `work` in a process of its own; a negative number is a signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_killed_anywhere_it_goes_on_to_the_same_labels_and_pays_for_nothing_twice(pairs: Path, tmp_path: Path) -> None:
    settings = {"pairs": str(pairs), "chunk": 3, "canaries": 1, "parallel": 1, "threads": 1}

    def study(folder: Path, url: str) -> None:
        folder.mkdir(exist_ok=True)
        RECIPE.run(JudgeSettings(judge=f"m@{url}", **settings), folder)  # type: ignore[arg-type]

    with serving(judging) as server:
        whole = tmp_path / "whole"
        log = tmp_path / "log"
        assert in_child(lambda: study(whole, server.url), log) == 0, log.read_text()
        questions = len(server.requests)
        assert (
            questions == 1 + 16 + 3 * 6
        )  # one about the server; the first canaries are those of the first chunk again
        assert (
            len({json.dumps(request, sort_keys=True) for request in server.requests}) == questions
        )  # none was sent twice
        tries = 0
        for at in range(7, 400, 37):
            before, folder = len(server.requests), tmp_path / f"cut-{at}"

            def dying(at: int = at, folder: Path = folder) -> None:
                seen = 0

                def hook(operation: str, path: Path) -> None:
                    nonlocal seen
                    seen += 1
                    if seen == at:
                        os.kill(os.getpid(), signal.SIGKILL)

                durable.hook = hook
                study(folder, server.url)

            status = in_child(dying, log)
            if status == 0:
                break
            assert status == -signal.SIGKILL, log.read_text()
            assert in_child(lambda folder=folder: study(folder, server.url), log) == 0, log.read_text()  # type: ignore[misc]
            for name in ("samples.jsonl", "labels.jsonl"):
                assert (folder / name).read_bytes() == (whole / name).read_bytes(), f"{name} after operation {at}"
            asked = len(server.requests) - before
            assert questions <= asked <= questions + 1, (
                f"operation {at}"
            )  # the one that was on its way may be asked again
            tries += 1
    assert tries >= 4


def test_a_budget_ends_the_run_and_a_larger_one_goes_on(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(judging) as server:
        folder = tmp_path / "run"
        command = ["judge", str(pairs), f"judge=m@{server.url}", "canaries=0", "chunk=2", "--out", str(folder)]
        assert main([*command, "requests=9"]) == FeedbackError.exit_code
        said = capsys.readouterr().err
        assert "the budget for m is spent" in said
        assert f"--out {folder}" in said
        assert len(server.requests) == 9
        assert main([*command, "requests=9"]) == FeedbackError.exit_code  # of the whole run, not of each session
        assert len(server.requests) == 9
        assert main([*command, "requests=17"]) == 0
        assert len(server.requests) == 17  # 16 questions and one about the server
    assert len(labels(folder)) == 8
    out = capsys.readouterr().out
    assert "requests" in out
    assert "850" in out  # tokens, over all sessions


def test_through_every_fault_nothing_is_lost_and_what_never_comes_is_missing_with_its_reason(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question's first try meets the next fault; one pair's never succeed, another's hang. A budget cuts it in two."""
    monkeypatch.setattr("amenable.feedback.client.random.uniform", lambda low, high: 0.02)
    faults, seen, met = [*FAULTS], dict[str, int](), set[str]()

    def treat(number: int, request: dict[str, Any], connection: socket.socket) -> bytes | None:
        body = json.dumps(request, sort_keys=True)
        tries = seen[body] = seen.get(body, 0) + 1
        if "Text:\np0\n" in body.replace("\\n", "\n"):
            met.add(fault := ("says 500", "lies: no choices")[tries % 2])
            return FAULTS[fault](connection)
        if "Text:\np1\n" in body.replace("\\n", "\n"):
            met.add(delay := [*DELAYS][len(met) % 3])
            return DELAYS[delay](connection)
        if tries == 1:
            met.add(fault := faults[len(seen) % len(faults)])
            return FAULTS[fault](connection)
        return judging(number, request, connection)

    with serving(judging) as server:
        right = tmp_path / "right"
        command = ["judge", str(pairs), f"judge=m@{server.url}", "canaries=0", "chunk=2", "--out", str(right)]
        assert main(command) == 0
    capsys.readouterr()
    with serving(treat) as server:
        folder = tmp_path / "faults"
        command = ["judge", str(pairs), f"judge=m@{server.url}", "canaries=0", "chunk=2", "--out", str(folder)]
        limits = ["parallel=1", "tries=2", "deadline=3"]
        assert main([*command, *limits, "requests=20"]) == FeedbackError.exit_code
        said = capsys.readouterr().err
        assert "the budget for m is spent: " in said
        assert len(server.requests) == 20
        resume = next(line for line in said.splitlines() if "to go on: " in line).split("to go on: ")[1]
        assert main([*resume.split()[1:], "requests=100"]) == 0
    out = capsys.readouterr().out
    assert met >= {"says 500", "lies: no choices"}
    assert len(met & set(FAULTS)) > 10
    assert met & set(DELAYS)
    found, expected = labels(folder), labels(right)
    assert len(found) == 8
    gone = [row for row in found if row["label"] is None]
    assert [row["prompt"] for row in gone] == ["p0", "p1"]
    assert all(row["verdict"] is None and row["forward"] is None and row["backward"] is None for row in gone)
    assert "no answer came: " in gone[0]["missing"]
    assert "status 500" in gone[0]["missing"] or "no chat completion" in gone[0]["missing"]
    assert "no answer within 3 s" in gone[1]["missing"]
    assert [row for row in found if row["label"] is not None] == expected[2:]  # every other label is the right one
    assert "2 are missing" in out
    assert json.dumps(None) in (folder / "labels.jsonl").read_text().splitlines()[0]


# --- names


def test_judges_and_raters_by_name(functions: str, tmp_path: Path) -> None:
    asking = Asking(tmp_path)
    assert isinstance(judge_named(f"{functions}:longer", asking), FunctionJudge)
    scored = judge_named(f"{functions}:length", asking)
    assert isinstance(scored, ScoreJudge)
    assert [j.p_first for j in judged(scored, ["p"], ["a"], ["a"])] == [0.5]
    rater = rater_named(f"{functions}:length", asking)
    assert rater(["p"], ["abc"], ids=[1]) == [3.0]
    assert rater.__name__ == "length"  # type: ignore[attr-defined]
    server = judge_named("org/m@v2@http://127.0.0.1:9/v1", asking)
    assert isinstance(server, ServerJudge)
    assert (server.client.endpoint.model, server.client.endpoint.url) == ("org/m@v2", "http://127.0.0.1:9/v1")
    assert isinstance(rater_named("m@https://h/v1", asking), ServerRater)


def test_a_model_by_name_asks_and_finds_likely(tmp_path: Path) -> None:
    tiny_policy().save(tmp_path / "model")
    asking = Asking(tmp_path, dtype="float32")
    judge = judge_named(f"pmi:{tmp_path / 'model'}", asking)
    assert isinstance(judge, ScoreJudge)
    assert isinstance(judge.score, LikelihoodScore)
    assert judge.score.measure == "pmi"
    assert judge.ask(["p"], ["a"], ["a"])[0].p_first == 0.5
    scorer = new_reward_model(tmp_path / "model", dtype="float32")
    scorer.with_head(torch.linspace(-1, 1, scorer.weight.shape[1])).save(tmp_path / "scorer")
    [answer, long] = judge_named(f"reward:{tmp_path / 'scorer'}", asking).ask(
        ["p", "p"], ["a", "a" * 300], ["bb", "bb"]
    )
    values = load_reward_model(tmp_path / "scorer", dtype="float32")(["p", "p"], ["a", "bb"])
    assert answer.p_first == pytest.approx(1 / (1 + math.exp(values[1] - values[0])))  # type: ignore[operator]
    assert (long.p_first, long.missing) == (None, "no score for the first answer")
    named = judge_named(str(tmp_path / "model"), asking)
    assert named.name.endswith("asked 1 or 2")
    assert rater_named(f"likelihood:{tmp_path / 'model'}", asking)(["p"], ["abc"])[0] is not None
    assert rater_named(str(tmp_path / "model"), asking).name.endswith("rating 1 to 10")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("smollm2-135m", "model"), ("./model", "model"), ("C/d:e", "model"), ("m@http://h/v1", "server"),
        ("pmi:smollm2-135m", "pmi"), ("pmi-mean:a/b", "pmi-mean"), ("likelihood:x", "likelihood"), ("reward:runs/r", "reward"),
        ("a.py:f", "function"), ("/x/y.py:f", "function"),
    ],
)  # fmt: skip
def test_kinds_of_judges(text: str, kind: str) -> None:
    assert kind_of(text)[0] == kind


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no judge is named"), ("pmj:smollm2-135m", "did you mean 'pmi'"), ("pmi:", "names no model"),
        ("m@//h/v1", "no address"), ("none.py:f", "no file none.py"),
    ],
)  # fmt: skip
def test_a_judge_that_cannot_be_is_named_with_its_fix(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=complaint):
        judge_named(text, Asking(tmp_path))
    with pytest.raises(ModelError):
        judge_named("./no-such-folder", Asking(tmp_path))


def test_functions_that_cannot_be_used_say_why(functions: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'longer'"):
        judge_named(f"{functions}:longr", Asking(tmp_path))
    with pytest.raises(ConfigError, match="compares two answers"):
        rater_named(f"{functions}:longer", Asking(tmp_path))
    (tmp_path / "broken.py").write_text("x = 1 / 0\n")
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        judge_named(f"{tmp_path}/broken.py:f", Asking(tmp_path))


def test_what_is_missing_on_the_command_line_is_named(
    functions: str, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command, complaint in (
        (["judge", f"judge={functions}:longer"], "no pairs are named"),
        (["judge", str(pairs)], "no judge is named"),
        (["judge", str(pairs), f"judge={functions}:longer", "out=none/x.jsonl"], "no file that can be written"),
        (["judge", str(pairs), f"judge={functions}:longer", "chunk=0"], "chunk=0"),
        (["judge", str(pairs), f"judge={functions}:longer", "critera=x"], "did you mean 'criteria'"),
    ):
        assert main(command) == ConfigError.exit_code
        assert complaint in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert main(["judge", "--help"]) == 0
    assert "both_orders=true" in capsys.readouterr().out
