"""`amenable sample` end to end on a small real model, and targets by name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_policy

from amenable.cli import main
from amenable.errors import ConfigError, DataError, SamplingError
from amenable.policy.loading import load_policy
from amenable.policy.tabular import TabularPolicy
from amenable.recipes import RECIPES
from amenable.recipes.sample import SampleSettings, contexts_of, plan, run
from amenable.recipes.targets import factors_of, is_hard, target_named
from amenable.report.page import Report, Table
from amenable.target.moments import MomentTarget

Row = dict[str, Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_policy(scale=4.0).save(folder)
    return folder


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another law: the same model with a little noise."""
    policy = tiny_policy(scale=4.0)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("tuned")
    policy.save(folder)
    return folder


def settings(model: Path, **changed: Any) -> SampleSettings:
    usual = {"model": str(model), "target": "length<=7", "contexts": "ab", "n": 6, "max_tokens": 8, "threads": 1}
    return SampleSettings(**{**usual, "proposals": 64, "most": 2048, "fit": 256, **changed})


def stage(folder: Path, name: str) -> list[Row]:
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return [row for row in rows if row["stage"] == name and set(row) != {"stage", "rows"}]


def cells(report: Report, title: str) -> list[list[Any]]:
    tables = [block for section in report.sections for block in section.blocks if isinstance(block, Table)]
    return [list(row) for table in tables if table.title == title for row in table.rows]


def test_the_command_writes_samples_of_the_target(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "ab"}\n\n{"prompt": "xyz"}\n')
    arguments = ["target=length<=7 * not contains:e", f"model={model}", f"contexts={tmp_path / 'prompts.jsonl'}"]
    more = ["n=5", "max_tokens=8", "threads=1", "--out", str(tmp_path / "run")]
    assert main(["sample", *arguments, *more]) == 0
    shown = capsys.readouterr().out
    assert "10 samples of 2 of 2 contexts, by qrs" in shown
    assert "nothing seen contradicts that the samples are exact" in shown
    assert (tmp_path / "run" / "report.html").is_file()
    rows = stage(tmp_path / "run", "samples")
    assert [row["prompt"] for row in rows] == ["ab"] * 5 + ["xyz"] * 5
    assert all(len(row["completion"]) <= 7 and "e" not in row["completion"] for row in rows)
    assert all(row["log_weight"] == 0 for row in rows)
    assert main(["run", "sample", "--out", str(tmp_path / "run")]) == 0  # nothing is drawn again
    assert stage(tmp_path / "run", "samples") == rows


def test_beta_is_chosen_on_other_proposals_than_the_law_is_reported_on(model: Path, tmp_path: Path) -> None:
    report = run(settings(model, target="length<=7~0.5", distance=0.1), tmp_path)
    pilot, proposals, rows = (stage(tmp_path, name) for name in ("beta", "proposals", "samples"))
    assert len(pilot) == 64
    assert [row["log_weight"] for row in pilot[:16]] != [row["log_weight"] for row in proposals[:16]]
    assert {round(row["log_weight"], 6) for row in proposals} <= {0.0, 2.0}  # exp(b / 0.5)
    law = cells(report, "The law as a function of beta")
    assert len(law) == 6
    assert [row[1].value for row in law] == sorted((row[1].value for row in law), reverse=True)
    assert [row[2].value for row in law] == sorted((row[2].value for row in law), reverse=True)
    assert len(rows) == 6
    assert all(row["log_weight"] == pytest.approx(row["log_score"] - row["log_proposal"]) for row in rows)


def test_a_tuned_policy_proposes_and_the_prior_scores(model: Path, tuned: Path, tmp_path: Path) -> None:
    run(settings(model, proposal=str(tuned), beta="each", method="rejection"), tmp_path)
    prior = load_policy(str(model), dtype="float32")
    prompt = prior.encode("ab")
    for row in stage(tmp_path, "samples"):
        assert len(row["completion"]) <= 7
        ids = torch.tensor([[*prompt, *row["tokens"]]])
        law = prior.model(ids).logits[0].detach().log_softmax(-1)
        places = range(len(prompt) - 1, ids.shape[1] - 1)
        truth = sum(float(law[place, int(ids[0, place + 1])]) for place in places)
        assert row["log_score"] == pytest.approx(truth, abs=1e-3)
        assert row["log_weight"] != 0
    weights = [row["log_weight"] for row in stage(tmp_path, "proposals")]
    assert None in weights  # forbidden
    assert len({weight for weight in weights if weight is not None}) > 10


def test_shares_are_fitted_and_importance_draws_again(model: Path, tmp_path: Path) -> None:
    report = run(settings(model, target="length<=7@0.4", method="importance", n=40, proposals=200), tmp_path)
    ((name, asked, _, fitted, *_),) = cells(report, "Fitted shares")
    assert (name, asked, fitted) == ("length<=7", 0.4, pytest.approx(0.4))
    rows = stage(tmp_path, "samples")
    assert len(rows) == 40
    assert {row["place"] for row in rows} <= set(range(200))
    share = sum(len(row["completion"]) <= 7 for row in rows) / 40
    assert abs(share - 0.4) < 0.2


def test_best_of_n_says_what_it_is_not(model: Path, tmp_path: Path) -> None:
    report = run(settings(model, method="best-of-n", best_of=4, n=10), tmp_path)
    numbers = dict(cells(report, "Best of 4"))
    assert numbers["texts drawn"] == 40
    assert numbers["KL(best-of-n, proposal) at most, nats"] == pytest.approx(math.log(4) - 0.75)
    rows = stage(tmp_path, "samples")
    assert sum(row["log_potential"] is None for row in rows) == numbers["of these forbidden by the target"]
    assert all((row["log_potential"] == 0) == (len(row["completion"]) <= 7) for row in rows)
    assert any("not the target's" in line for line in report.summary)


@pytest.mark.parametrize("method", ["qrs", "importance", "best-of-n"])
def test_a_run_that_was_cut_short_goes_on_to_the_same_samples(model: Path, tmp_path: Path, method: str) -> None:
    chosen = settings(model, target="length<=7~1", method=method)
    run(chosen, tmp_path / "whole")
    whole = (tmp_path / "whole" / "samples.jsonl").read_bytes()
    (tmp_path / "cut").mkdir()
    for file in ("config.yaml",):
        (tmp_path / "cut" / file).write_bytes((tmp_path / "whole" / file).read_bytes())
    (tmp_path / "cut" / "samples.jsonl").write_bytes(whole[: 2 * len(whole) // 3])
    run(chosen, tmp_path / "cut")
    assert (tmp_path / "cut" / "samples.jsonl").read_bytes() == whole


def test_what_cannot_be_drawn_is_said(model: Path, tmp_path: Path) -> None:
    with pytest.raises(SamplingError, match="none of 64 proposals was accepted") as caught:
        run(settings(model, target="contains:never seen", most=64), tmp_path)
    assert "probability 0" in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"target": ""}, "no target is named"),
        ({"target": "compile"}, "did you mean 'compiles'"),
        ({"beta": "automatic"}, "beta=automatic is not a positive number"),
        ({"beta": "-1"}, "beta=-1 is not a positive number"),
    ],
)
def test_settings_are_checked_before_anything_is_loaded(changed: dict[str, str], reason: str, tmp_path: Path) -> None:
    chosen = SampleSettings(**{"target": "compiles", "model": "no such model", **changed})
    for attempt in (lambda: plan(chosen), lambda: run(chosen, tmp_path / "run")):
        with pytest.raises(ConfigError, match=reason):
            attempt()


def test_the_plan_says_what_is_drawn() -> None:
    assert "sample" in RECIPES
    lines = plan(SampleSettings(target="contains:amazing@0.5", method="best-of-n", n=3, best_of=5))
    assert any("15 proposals" in line for line in lines)
    assert any("fitted to 4096 samples" in line for line in lines)


def test_contexts(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("one\n\ntwo words \none\n")
    assert contexts_of(str(file)) == ["one", "two words "]
    assert contexts_of("a text") == ["a text"]
    assert contexts_of("") == [""]
    broken = tmp_path / "prompts.jsonl"
    broken.write_text('{"prompt": "a"}\n{"text": "b"}\n')
    with pytest.raises(DataError, match="line 2"):
        contexts_of(str(broken))
    file.write_text("\n")
    with pytest.raises(DataError, match="holds no context"):
        contexts_of(str(file))


# --- targets by name
@pytest.mark.parametrize(
    ("text", "factors"),
    [
        ("compiles", [("compiles", "constraint", 0.0)]),
        ("contains:amazing@0.5", [("contains:amazing", "share", 0.5)]),
        ("pep8~.5 * not contains:TODO", [("pep8", "tilt", 0.5), ("not contains:TODO", "constraint", 0.0)]),
        ("lines>=2,<=10 @ 1e-1", [("lines>=2,<=10", "share", 0.1)]),
        ("contains:me@home", [("contains:me@home", "constraint", 0.0)]),
        ("contains:a*b~2", [("contains:a*b", "tilt", 2.0)]),
        ("compiles@1", [("compiles", "constraint", 0.0)]),
        ("compiles@0", [("not compiles", "constraint", 0.0)]),
    ],
)
def test_the_grammar(text: str, factors: list[tuple[str, str, float]]) -> None:
    assert [(one.feature.name, one.kind, one.number) for one in factors_of(text)] == factors
    assert is_hard(text) == all(kind == "constraint" for _, kind, _ in factors)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (" ", "no target is named"),
        ("compiles * compiles@0.5", "names 'compiles' twice"),
        ("compiles~0.5 * pep8@0.5", "would move the share"),
        ("compiles~0", "use beta > 0"),
        ("compiles@1.5", "between 0 and 1"),
        ("kompiles~0.5", "did you mean 'compiles'"),
    ],
)
def test_what_is_no_target(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        factors_of(text)


def test_targets_are_what_they_say() -> None:
    prior = TabularPolicy.random("ab", 4, scale=0.5, seed=0)
    everything = prior.everything()
    prompts = [""] * len(everything)
    has = torch.tensor([["a" in text, "b" in text] for text in everything.texts])
    log_prior = prior.log_prob(everything).sum(-1)

    def potential(text: str, **how: Any) -> torch.Tensor:
        return target_named(prior, text, **how).scores(prompts, everything).log_potential

    assert torch.equal(potential("contains:a * contains:b").exp(), has.all(1).double())
    soft = potential("contains:a~0.5 * contains:b~0.25")
    assert torch.allclose(soft, 2.0 * has[:, 0].double() + 4.0 * has[:, 1])
    hard_and_soft = potential("contains:a~0.5 * contains:b")
    assert torch.equal(hard_and_soft > -torch.inf, has[:, 1])
    target = target_named(prior, "contains:a@0.3 * contains:b", samples=20_000)
    assert isinstance(target, MomentTarget)
    law = (log_prior + target.scores(prompts, everything).log_potential).softmax(0)
    assert float(law[~has[:, 1]].sum()) == 0
    assert float(law[has[:, 0]].sum()) == pytest.approx(0.3, abs=0.02)
