"""The recipe on a small corpus with a known fault: it runs, resumes, shows thresholds, and its numbers are what they say."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from amenable.cli import main
from amenable.errors import ConfigError, DataError
from amenable.evaluation.interval import Estimate
from amenable.method.corpus import stream_of, tokenised
from amenable.policy.control import BAD, GOOD, conditioned, controls_of
from amenable.policy.loading import load_policy
from amenable.recipes import pretrain as recipe
from amenable.recipes.pretrain import PretrainSettings
from amenable.recipes.pretrain_arm import held_out_bits, prepared
from amenable.recipes.pretrain_data import corpus_of, group_of, objective_of, scale_of, thresholds, whole_lines
from amenable.recipes.pretrain_report import expected_maximum, score, share_bad
from amenable.report.text import report_text
from amenable.task.corpus import SourceFile
from amenable.task.scored_corpus import ScoredDocument, write_scored

TINY = PretrainSettings(
    size="1m", tokens=1024, batch_tokens=256, length=32, positions=128, held_out=1500, samples=6, max_tokens=12,
    precision="float32", checkpoint_every=2, threads=1,
)  # fmt: skip


@dataclass(frozen=True)
class Listed(SourceFile):
    """A file of a split that is given."""

    given: str

    @property
    def split(self) -> str:
        return self.given


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """80 modules of 20 packages; a third of the lines lack their spaces."""
    draw = random.Random(0)
    documents = []
    for index in range(80):
        lines, scores = [], []
        for line in range(draw.randrange(4, 12)):
            bad = draw.random() < 0.35
            lines.append(f"x{line}=a+{line} \n" if bad else f"x{line} = a + {line}\n")
            scores.append(2 / len(lines[-1]) if bad else 0.0)
        ends = tuple(int(end) for end in np.cumsum([len(line) for line in lines]))
        documents.append(ScoredDocument(f"p{index % 20}/m{index}.py", "".join(lines), ends, tuple(scores)))
    path = tmp_path_factory.mktemp("corpus") / "scored.jsonl"
    write_scored(path, documents)
    return str(path)


@pytest.mark.parametrize("objective", ["conditional", "awr"])
def test_the_run_and_what_it_leaves(objective: str, corpus: str, tmp_path: Path) -> None:
    settings = replace(TINY, corpus=corpus, objective=objective, switch_at=0.25)
    text = report_text(recipe.run(settings, tmp_path))
    for word in (
        "misalignment score",
        "bits per byte",
        "Thresholds",
        "Scores of the training data",
        "before the switch",
    ):
        assert word in text
    assert f"objective={objective}" in text or objective == "conditional"
    metrics = [json.loads(line) for line in (tmp_path / f"{objective}-0" / "metrics.jsonl").read_text().splitlines()]
    assert [row["tokens"] for row in metrics] == [256.0] * 4
    assert metrics[-1]["nats"] < metrics[0]["nats"]
    assert ("weight" in metrics[0], "weight" in metrics[1]) == (False, objective == "awr")
    assert (metrics[0]["control"] == 0.0, metrics[1]["control"] > 0.0) == (True, objective == "conditional")
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    drawn = [row for row in rows if "ended" in row]
    assert len(drawn) == 6
    assert not any(GOOD in row["text"] or BAD in row["text"] for row in drawn)
    assert all((row["score"] is None) == (row["text"] == "") for row in drawn)
    # again: everything is read, nothing is done
    before = (tmp_path / "samples.jsonl").read_bytes()
    assert report_text(recipe.run(settings, tmp_path)) == text
    assert (tmp_path / "samples.jsonl").read_bytes() == before
    policy = load_policy(str(tmp_path / f"{objective}-0" / "model"), dtype="float32")
    controls = controls_of(policy)  # type: ignore[arg-type]
    assert (controls is not None) == (objective == "conditional")
    if controls is not None:
        assert policy.encode("")[-1] == controls.good
        assert controls.placing == "each"


def test_it_goes_on_from_a_model(corpus: str, tmp_path: Path) -> None:
    first = replace(TINY, corpus=corpus, objective="mle", tokens=512)
    recipe.run(first, tmp_path / "one")
    model = str(tmp_path / "one" / "mle-0" / "model")
    text = report_text(recipe.run(replace(first, model=model, objective="unlikelihood"), tmp_path / "two"))
    assert "unlikelihood" in text
    before, after = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one/mle-0", "two/unlikelihood-0")
    )
    assert after[0]["nats"] < before[0]["nats"]  # it does not begin again


def test_no_package_is_on_both_sides(corpus: str) -> None:
    found = corpus_of(replace(TINY, corpus=corpus))
    assert not {group_of(one) for one in found.train} & {group_of(one) for one in found.held_out}
    assert len(found.train) + len(found.held_out) == 80
    told = ScoredDocument("a/b.py", "x", (1,), (0.0,), {"package": "c"})
    assert group_of(told) == "c"
    assert group_of(replace(told, facts={"repo_name": "own/er"})) == "own/er"


def test_a_split_that_is_given_is_kept(tmp_path: Path) -> None:
    documents = [
        ScoredDocument(f"p{i}/m.py", "x\n", (2,), (0.0,), {"split": "held-out" if i == 3 else "train"})
        for i in range(30)
    ]
    write_scored(tmp_path / "scored.jsonl", documents)
    found = corpus_of(replace(TINY, corpus=str(tmp_path / "scored.jsonl")))
    assert [one.id for one in found.held_out] == ["p3/m.py"]
    write_scored(tmp_path / "one.jsonl", documents[:1])
    with pytest.raises(DataError, match="held out"):
        corpus_of(replace(TINY, corpus=str(tmp_path / "one.jsonl")))


def test_a_group_is_always_held_out(tmp_path: Path) -> None:
    for groups in range(2, 12):
        documents = [ScoredDocument(f"p{i}/m.py", "x\n", (2,), (0.0,)) for i in range(groups)]
        write_scored(tmp_path / "scored.jsonl", documents)
        found = corpus_of(replace(TINY, corpus=str(tmp_path / "scored.jsonl")))
        assert 0 < len(found.held_out) < groups


def test_bits_are_those_of_the_law_that_is_used(corpus: str) -> None:
    """Of a model that knows no control token: the model's own likelihood. Of one that does: <|good|> given, both suppressed."""
    from amenable.policy.control import with_controls

    settings = replace(TINY, corpus=corpus, length=1000, max_tokens=1000)
    made = prepared(settings, corpus_of(settings), seed=0)
    row, document = held_out_bits(made.policy, made, clean=0.0, length=1000)[0], made.documents[0]
    ids = torch.tensor([[*made.policy.eos_ids, *made.policy.encode_completion(document.text)]])
    with torch.no_grad():
        loss = float(made.policy.model(ids, labels=ids).loss)
    assert row["bits"] == pytest.approx(loss * (ids.shape[1] - 1) / math.log(2), rel=1e-4)
    assert row["told_bits"] == row["bits"]
    assert row["bytes"] == len(document.text)
    windows = held_out_bits(made.policy, made, clean=0.0, length=16)[0]
    assert windows["bits"] == pytest.approx(row["bits"], rel=0.05)
    for placing in ("each", "first"):
        policy = with_controls(made.policy, placing=placing)  # type: ignore[arg-type]
        controls = controls_of(policy)
        assert controls is not None
        row = held_out_bits(policy, made, clean=0.0, length=1000)[0]
        tokens = tokenised([document], policy.tokenizer)
        stream = stream_of(
            tokens, np.array([0]), eos=policy.eos_ids[0], controls=controls.ids, threshold=math.inf
        )  # fmt: skip
        given = stream.ids.tolist()
        if placing == "first":
            given = [given[0], controls.good, *[token for token in given[1:] if token != controls.good]]
        with torch.no_grad():
            logits = policy.model(torch.tensor([given])).logits[0]
        told = logits.log_softmax(-1)
        logits[:, list(controls.ids)] = -torch.inf
        own = logits.log_softmax(-1)
        places = range(1, len(given))
        expected = -sum(float(own[at - 1, given[at]]) for at in places if given[at] not in controls.ids) / math.log(2)
        assert row["bits"] == pytest.approx(expected, rel=1e-4)
        paid = -sum(float(told[at - 1, given[at]]) for at in places) / math.log(2)
        assert row["told_bits"] == pytest.approx(paid, rel=1e-4)
        assert conditioned(policy).encode("")[-1] == controls.good


def test_the_objective_has_the_papers_numbers_or_the_datas(corpus: str) -> None:
    settings = replace(TINY, corpus=corpus)
    made = prepared(settings, corpus_of(settings), seed=0)
    assert made.thresholds["segments"].value == 0.0  # two thirds of the lines are right
    assert made.thresholds["documents"].value > 0.0

    def objective(name: str, **given: Any) -> Any:
        chosen = replace(settings, objective=name, **given)
        return objective_of(chosen, made.tokens, thresholds(made.tokens, quantile=0.5))

    assert objective("conditional").threshold == 0.0
    assert objective("filtering").threshold == made.thresholds["documents"].value
    assert objective("filtering", threshold=0.05).threshold == 0.05
    assert objective("mle").threshold is None
    assert (objective("rwr").beta, objective("rwr").scale) == (10.0, 1.0)
    assert (objective("awr").beta, objective("awr").alpha) == (1.0, 0.5)
    assert (objective("awr", alpha=0.2).alpha, objective("unlikelihood", alpha=0.0).alpha) == (0.2, 0.0)
    assert objective("rwr", reward_scale=0.0).scale == scale_of(made.tokens)
    assert scale_of(made.tokens) == max(made.tokens.scores)
    with pytest.raises(DataError, match="every one"):
        objective("conditional", threshold=9.0)


def test_scores_of_samples() -> None:
    rows = [{"score": value, "ended": "eos", "characters": 3} for value in (0.0, 0.5, None, 1.0)]
    assert score(rows).value == 0.5
    assert score(rows).n == 3  # an empty sample has no score, and not a perfect one
    assert share_bad(rows, "pep8").value == pytest.approx(2 / 3)
    assert share_bad(rows, "toxicity").value == pytest.approx(1 / 3)
    found: Estimate = expected_maximum([{"score": float(i)} for i in range(60)])
    assert (found.value, found.n) == ((24 + 49) / 2, 2)
    assert whole_lines("a\nb", ended=False) == "a\n"
    assert whole_lines("a\nb", ended=True) == "a\nb"
    assert whole_lines("b", ended=False) == ""


def test_the_standard_library_is_scored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from amenable.recipes import pretrain_data as data

    for index in range(40):
        (tmp_path / f"m{index}.py").write_text(f"x = {index}\ny={index}\n")
    splits = ["held-out" if index % 8 == 0 else "train" for index in range(40)]
    files = tuple(
        Listed(f"p{index}/m.py", tmp_path / f"m{index}.py", f"p{index}", "none", 10, split)
        for index, split in enumerate([*splits[:39], "validation"])
    )
    monkeypatch.setenv("AMENABLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(data, "python_sources", lambda: files)
    found = corpus_of(TINY)
    assert (len(found.train), len(found.held_out)) == (34, 5)
    assert found.train[0].scores == (0.0, 1 / 4)  # E225, in "y=1\n"
    made = data.scored_library()
    before = made.stat().st_mtime_ns
    corpus_of(TINY)
    assert made.stat().st_mtime_ns == before


def test_settings_that_cannot_be(corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="samples=0"):
        recipe.plan(replace(TINY, samples=0))
    with pytest.raises(ConfigError, match="amenable score CORPUS task=pii"):
        recipe.plan(replace(TINY, task="pii"))
    assert main(["run", "pretrain", "objective=condition", "--out", str(tmp_path / "out")]) == 2
    assert "conditional" in capsys.readouterr().err
    assert main(["run", "pretrain", f"corpus={corpus}", "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "on one free core" in said
    assert "244 steps" in said
