"""The suite: every arm at equal tokens from equal weights, resumable arm by arm, and the plane with what it says."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from amenable.cli import main
from amenable.errors import ConfigError
from amenable.evaluation.interval import bootstrap_mean
from amenable.recipes import phf_suite as recipe
from amenable.recipes.phf_suite import SuiteSettings, one, over
from amenable.report.text import report_text
from amenable.task.scored_corpus import ScoredDocument, write_scored

TINY = SuiteSettings(
    size="1m", tokens=256, batch_tokens=128, length=32, positions=128, held_out=400, samples=4, max_tokens=8,
    precision="float32", checkpoint_every=1, threads=1, objectives=("mle", "rwr"), seeds=1,
)  # fmt: skip


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    documents = [
        ScoredDocument(f"p{i}/m.py", "a = 1\nb =2\n" * (2 + i % 5), _ends(2 + i % 5),
                       (0.0, 1 / 5) * (1 + i % 5) + (0.0, 0.0))
        for i in range(40)
    ]  # fmt: skip
    write_scored(tmp_path / "scored.jsonl", documents)
    return str(tmp_path / "scored.jsonl")


def _ends(times: int) -> tuple[int, ...]:
    return tuple(end for i in range(times) for end in (11 * i + 6, 11 * i + 11))


def test_arms_are_kept_and_may_become_more(corpus: str, tmp_path: Path) -> None:
    settings = replace(TINY, corpus=corpus)
    text = report_text(recipe.run(settings, tmp_path / "suite"))
    assert "score, as a share of MLE's" in text
    assert "Not beaten in both by any other" in text
    assert "Alignment against capability" in (tmp_path / "suite" / "report.html").read_text()
    assert "0.9048" in text  # exp(-1/10): why rwr is nearly mle
    metrics = {
        name: [
            json.loads(line) for line in (tmp_path / "suite" / f"{name}-0" / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("mle", "rwr")
    }
    assert sum(row["tokens"] for row in metrics["mle"]) == sum(row["tokens"] for row in metrics["rwr"]) == 256
    assert metrics["mle"][0]["nats"] == pytest.approx(
        metrics["rwr"][0]["nats"], rel=1e-5
    )  # the same weights and tokens
    weights = tmp_path / "suite" / "mle-0" / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    more = report_text(recipe.run(replace(settings, objectives=("mle", "rwr", "filtering")), tmp_path / "suite"))
    assert "filtering" in more
    assert all(f">{name}<" in (tmp_path / "suite" / "plane.svg").read_text() for name in ("mle", "rwr", "filtering"))
    assert weights.stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="tokens"):
        recipe.run(replace(settings, tokens=512), tmp_path / "suite")


def test_an_arm_is_what_pretrain_would_run() -> None:
    settings = one(replace(TINY, switch_at=0.25), "awr", 3)
    assert (settings.objective, settings.seed, settings.tokens, settings.size) == ("awr", 3, 256, "1m")
    assert settings.switch_at == 0.0
    assert one(replace(TINY, switch_at=0.25), "awr-switched", 3) == replace(settings, switch_at=0.25)
    assert one(TINY, "awr-switched", 3) == replace(settings, switch_at=0.5)


def test_from_scratch_beside_switching_at_half_at_equal_tokens(corpus: str, tmp_path: Path) -> None:
    settings = replace(TINY, corpus=corpus, objectives=("rwr", "rwr-switched"))
    text = report_text(recipe.run(settings, tmp_path / "suite"))
    assert "switched / from scratch" in text
    rows = {
        name: [
            json.loads(line) for line in (tmp_path / "suite" / f"{name}-0" / "metrics.jsonl").read_text().splitlines()
        ]
        for name in settings.objectives
    }
    assert [["weight" in row for row in arm] for arm in rows.values()] == [[True, True], [False, True]]
    assert {sum(row["tokens"] for row in arm) for arm in rows.values()} == {256}


def test_intervals() -> None:
    estimates = [bootstrap_mean([value, value + 2.0]) for value in (0.0, 1.0, 2.0)]
    assert over(estimates[:1]) is estimates[0]
    assert over(estimates).value == 2.0
    assert over(estimates).n == 3
    assert math.isnan(recipe._ratio(1.0, 0.0))


def test_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "phf-suite", "tokens=200000", "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "6 objectives, 3 seeds: 18 arms of 200,000 tokens each; about" in said
    words = ["run", "phf-suite", "objectives=conditional,conditional-switched", "seeds=1"]
    assert main([*words, "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "conditional-switched: the same tokens, the first 50% of them by MLE" in capsys.readouterr().out
    assert main(["run", "phf-suite", "objectives=mle,awl", "--out", str(tmp_path / "out"), "--dry-run"]) == 2
    assert "awr" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="at least one"):
        recipe.plan(replace(TINY, seeds=0))
