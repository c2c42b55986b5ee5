"""`amenable run reward-model` and `amenable run dpo` end to end on a small real model, and what their reports say."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_policy

from amenable.cli import main
from amenable.errors import ConfigError, DataError, TrainingError
from amenable.feedback.reward_model import RewardModel, load_reward_model, new_reward_model
from amenable.feedback.reward_reading import Encoded
from amenable.method.reward_head import cross_validated, fit_head, fold_of
from amenable.objective.divergence import ForwardKL, ReverseKL
from amenable.policy.loading import load_policy
from amenable.recipes import RECIPES
from amenable.recipes.dpo import DPOSettings, rewarded
from amenable.recipes.dpo import plan as dpo_plan
from amenable.recipes.dpo import run as run_dpo
from amenable.recipes.judges import Asking, judge_named
from amenable.recipes.pairs import Pairs
from amenable.recipes.reward_model import RewardModelSettings, plan, run
from amenable.recipes.reward_model_report import Judged
from amenable.recipes.reward_training import cached_features
from amenable.records import as_samples
from amenable.report.page import Headlines, Report, Table
from amenable.task.dialogue import opening

COUNT = 50


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_policy(scale=3.0).save(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs in TRL's format: "yes" is better than "no", whichever is longer. One tie, and one that nobody judged."""
    rows = [
        {"prompt": f"{chr(97 + i % 26)}{i}: ", "chosen": "yes" + "!" * (i % 5), "rejected": "no" + "!" * (i % 7)}
        for i in range(COUNT)
    ]
    more = [
        {"prompt": "t: ", "first": "yes", "second": "yes!", "label": 0.5},
        {"prompt": "u: ", "first": "y", "second": "n"},
    ]
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in [*rows, *more])
    return path


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMENABLE_CACHE", str(tmp_path / "cache"))


def arguments(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    return [f"model={model}", f"data={data}", "threads=1", *more, "--out", str(out)]


def stage(folder: Path, name: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return [row for row in rows if row["stage"] == name and set(row) != {"stage", "rows"}]


def table(report: Report, title: str) -> list[list[Any]]:
    tables = [block for section in report.sections for block in section.blocks if isinstance(block, Table)]
    return next([list(row) for row in found.rows] for found in tables if found.title == title)


def headline(report: Report, label: str) -> Any:
    blocks = [block for section in report.sections for block in section.blocks if isinstance(block, Headlines)]
    return next(item.estimate for block in blocks for item in block.items if item.label == label)


@pytest.mark.parametrize("reads", ["answer", "last"])
def test_a_frozen_body_by_the_command(
    reads: str, model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder it leaves is a reward model whose scores are those of the report; asked again, nothing is computed."""
    more = ["dtype=float32", "depth=1", "folds=3", f"reads={reads}"]
    assert main(["run", "reward-model", *arguments(model, data, tmp_path / "run", *more)]) == 0
    shown = capsys.readouterr().out
    assert "the head alone learned" in shown
    assert "1 without a label left out" in shown
    assert (tmp_path / "run" / "report.html").stat().st_size > 5000
    rows = stage(tmp_path / "run", "held out, head")
    reward = load_reward_model(tmp_path / "run" / "model", dtype="float32")
    assert reward.reads == reads
    for side in ("first", "second"):
        found = reward([row["prompt"] for row in rows], [row[side] for row in rows])
        assert found == pytest.approx([row[f"reward_{side}"] for row in rows], abs=1e-4)
    pairs = Pairs.of(str(data))
    texts = [(pair.prompt, answer) for pair in pairs.train for answer in (pair.first, pair.second)]
    scores = reward([prompt for prompt, _ in texts], [answer for _, answer in texts])
    assert float(np.mean(scores)) == pytest.approx(0.0, abs=1e-4)  # type: ignore[arg-type]
    for row in stage(tmp_path / "run", "tokens"):  # what each token is worth: their mean is a reward of the report
        means = [np.mean([worth for _, worth in row[side]]) for side in ("first", "second")]
        assert any(means == pytest.approx([one["reward_first"], one["reward_second"]], abs=1e-4) for one in rows)
    assert bool(stage(tmp_path / "run", "tokens")) == (reads == "answer")
    judge = judge_named(f"reward:{tmp_path / 'run' / 'model'}", Asking(tmp_path / "asked", dtype="float32"))
    [said] = judge.ask([rows[0]["prompt"]], [rows[0]["first"]], [rows[0]["second"]])
    gap = rows[0]["reward_first"] - rows[0]["reward_second"]
    assert said.p_first == pytest.approx(1 / (1 + np.exp(-gap)), abs=1e-4)
    assert [path.suffix for path in (tmp_path / "cache" / "features").iterdir()] == [".safetensors"]
    before = (tmp_path / "run" / "samples.jsonl").read_bytes()
    assert main(["run", "reward-model", "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "samples.jsonl").read_bytes() == before


def test_the_report_says_what_the_model_knows(model: Path, data: Path, tmp_path: Path) -> None:
    settings = RewardModelSettings(data=str(data), model=str(model), dtype="float32", depth=1.0, folds=3, threads=1)
    report = run(settings, tmp_path)
    accuracy = headline(report, "accuracy, held out")
    assert accuracy.value > 0.9
    assert accuracy.n == len({opening(pair.prompt) for pair in Pairs.of(str(data)).held_out if pair.label != 0.5})
    assert len(table(report, "By margin |r1 - r2|")) == 4
    whole, longer, shorter = table(report, "Length")
    assert (whole[1].value, longer[3].value, shorter[4].value) == (accuracy.value, 1.0, 1.0)
    assert len([row for row in table(report, "Penalty of the head") if row[2] == "chosen"]) == 1
    assert report.command.startswith("amenable run reward-model data=")


def test_every_pair_is_held_out_once_by_a_head_that_did_not_see_its_opening(
    model: Path, data: Path, tmp_path: Path
) -> None:
    """What the report says is what heads fitted here, without the openings of each part, make of the features."""
    settings = RewardModelSettings(
        data=str(data), model=str(model), dtype="float32", folds=3, repeats=2, threads=1, seed=4
    )
    report = run(settings, tmp_path)
    rows = stage(tmp_path, "cross-validation")
    pairs = Pairs.of(str(data))
    assert [row["id"] for row in rows] == [pair.id for pair in [*pairs.train, *pairs.held_out]]
    base = new_reward_model(model, depth=0.6, reads="answer", dtype="float32")
    features = cached_features(base, [*pairs.train, *pairs.held_out]).double()
    labels = torch.tensor([row["label"] for row in rows], dtype=torch.float64)
    openings = [row["opening"] for row in rows]
    for repeat in range(2):
        parts = fold_of(openings, folds=3, seed=4 + repeat)
        for part in range(3):
            out = parts == part
            kept = [one for one, held in zip(openings, out.tolist(), strict=True) if not held]
            assert not set(kept) & {one for one, held in zip(openings, out.tolist(), strict=True) if held}
            head = fit_head(features[~out, 0], features[~out, 1], labels[~out], groups=kept, folds=3, seed=4 + repeat)
            gaps = torch.tensor([row["gaps"][repeat] for row in rows], dtype=torch.float64)[out]
            assert torch.allclose(gaps, (features[out, 0] - features[out, 1]) @ head.weight, atol=1e-6)
    found = {row[0]: row[1] for row in table(report, "Cross-validation")}
    sided = [row for row in rows if row["label"] != 0.5]
    right = [np.mean([(gap > 0) == (row["label"] > 0.5) for gap in row["gaps"]]) for row in sided]
    assert found["the head"].value == pytest.approx(float(np.mean(right)))
    assert found["the head"].n == len({row["opening"] for row in sided})
    assert headline(report, "accuracy, cross-validated") == found["the head"]
    halves = [found[f"the head, division {at}"].value for at in (1, 2)]
    assert float(np.mean(halves)) == pytest.approx(found["the head"].value)
    longer, shorter = found["the longer answer is better"].value, found["the shorter answer is better"].value
    assert longer + shorter == pytest.approx(1.0)


def test_cross_validation_knows_nothing_where_there_is_nothing_to_know() -> None:
    """Labels that are coins: right on half of the pairs, although a head fits the pairs it was given. Too few: an error."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 160, 20, generator=generator)
    labels = torch.randint(0, 2, (160,), generator=generator).double()
    groups = [place // 2 for place in range(160)]
    gaps = cross_validated(first, second, labels, groups=groups, folds=4)
    right = ((gaps > 0) == (labels > 0.5)).double()
    assert abs(float(right.mean()) - 0.5) < 0.15
    head = fit_head(first, second, labels, penalty=0.03)
    assert (((first - second).double() @ head.weight > 0) == (labels > 0.5)).double().mean() > 0.6
    with pytest.raises(TrainingError, match="3 prompts cannot be divided into 4"):
        cross_validated(first[:6], second[:6], labels[:6], groups=groups[:6], folds=4)


def test_few_openings_are_not_cross_validated(model: Path, data: Path, tmp_path: Path, capsys: Any) -> None:
    settings = RewardModelSettings(data=str(data), model=str(model), dtype="float32", folds=26, penalty=1.0, threads=1)
    report = run(settings, tmp_path)
    assert "openings are too few for 26 folds" in capsys.readouterr().err
    assert stage(tmp_path, "cross-validation") == []
    assert not any("cross-validated" in line for line in report.summary)


def test_a_head_of_a_folder_that_read_otherwise_is_refused(model: Path, data: Path, tmp_path: Path) -> None:
    """A folder of a version that knew the last token alone: its head is none for the answer's mean."""
    base: dict[str, Any] = {"data": str(data), "model": str(model), "dtype": "float32", "folds": 3, "threads": 1}
    run(RewardModelSettings(**base), tmp_path)
    path = tmp_path / "samples.jsonl"
    path.write_text(path.read_text().replace(', "reads": "answer"', ""))
    with pytest.raises(ConfigError, match="reads last, and reads=answer"):
        run(RewardModelSettings(**base), tmp_path)


@pytest.mark.parametrize("body", ["lora", "full"])
def test_training_the_body_starts_at_the_head_and_is_compared_with_it(
    body: str, model: Path, data: Path, tmp_path: Path
) -> None:
    settings = RewardModelSettings(
        data=str(data), model=str(model), dtype="float32", precision="float32", depth=0.5, folds=3, threads=1,
        body=body, epochs=1, batch_size=8, centring=0.01, learning_rate=1e-3,
    )  # fmt: skip
    report = run(settings, tmp_path)
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert log[0]["accuracy"] > 0.7  # a head of 0 would have 0.5
    assert "training the body changed that by" in " ".join(report.summary)
    reward = load_reward_model(tmp_path / "model", dtype="float32")
    assert reward.model.config.num_hidden_layers == 1
    rows = stage(tmp_path, "held out")
    found = reward([row["prompt"] for row in rows], [row["first"] for row in rows])
    assert found == pytest.approx([row["reward_first"] for row in rows], abs=1e-4)
    assert rows[0]["reward_first"] != pytest.approx(stage(tmp_path, "held out, head")[0]["reward_first"], abs=1e-3)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_long_texts_and_settings_that_do_not_fit(model: Path, data: Path, tmp_path: Path) -> None:
    base: dict[str, Any] = {"data": str(data), "model": str(model), "dtype": "float32", "threads": 1, "folds": 3}
    with pytest.raises(DataError, match="the reward model sees 9"):
        run(RewardModelSettings(**base, max_tokens=9), tmp_path / "strict")
    report = run(RewardModelSettings(**base, max_tokens=11, too_long="missing"), tmp_path / "lenient")
    assert "with a text that is too long left out" in " ".join(report.summary)
    with pytest.raises(ConfigError, match="whose head is solved for"):
        plan(RewardModelSettings(**base, margin=1.0))
    with pytest.raises(ConfigError, match="no pairs are named"):
        plan(RewardModelSettings())


def test_held_out_pairs_of_a_file_of_ones_own_are_not_learned_from(data: Path, tmp_path: Path) -> None:
    pairs = Pairs.of(str(data))
    assert not {opening(p.prompt) for p in pairs.train} & {opening(p.prompt) for p in pairs.held_out}
    assert len(pairs.train) + len(pairs.held_out) == COUNT + 1
    other = tmp_path / "test.jsonl"
    other.write_text(json.dumps(pairs.train[0].row()) + "\n")
    given = Pairs.of(str(data), str(other))
    assert len(given.train) == COUNT  # all but the one, and the one without a label
    assert [pair.id for pair in given.held_out] == [pairs.train[0].id]
    assert given.unlabelled == 1
    with pytest.raises(DataError, match="0 held-out ones"):
        Pairs.of(str(other))


def test_accuracy_by_hand() -> None:
    """A tie in the labels does not count, a tie in the rewards is half right, prompts that open alike are one unit."""
    prompts = ["\n\nHuman: a\n\nAssistant:", "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:", "d", "e"]
    rows = [
        {"prompt": prompt, "first": "xx", "second": "x", "label": label, "reward_first": one, "reward_second": 0.0}
        for prompt, label, one in zip(prompts, [1.0, 0.2, 0.0, 0.5], [1.0, -2.0, 0.0, 3.0], strict=True)
    ]
    judged = Judged.of(rows)
    assert judged.right().tolist() == [1.0, 1.0, 0.5]
    assert judged.right(judged.longer).tolist() == [1.0, 0.0, 0.0]
    assert (judged.accuracy().value, judged.accuracy().n) == (pytest.approx(2.5 / 3), 2)


def test_features_are_computed_once_and_in_parts(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut in the second part, the first is not computed again; the parts together are what one batch gives."""
    pairs = Pairs.of(str(data)).train[:10]
    reward = new_reward_model(model, dtype="float32", reads="answer")
    monkeypatch.setattr("amenable.recipes.reward_training.PART", 4)
    read, plain = [], RewardModel.features

    def counted(self: RewardModel, texts: list[Encoded], progress: Any = None) -> torch.Tensor:
        if len(read) == 1:
            read.append(-1)
            raise KeyboardInterrupt
        read.append(len(texts))
        return plain(self, texts, progress)

    monkeypatch.setattr(RewardModel, "features", counted)
    with pytest.raises(KeyboardInterrupt):
        cached_features(reward, pairs)
    found = cached_features(reward, pairs)
    assert read == [8, -1, 8, 4]
    texts = [reward.encode(pair.prompt, answer) for pair in pairs for answer in (pair.first, pair.second)]
    assert torch.allclose(found, plain(reward, texts).view(10, 2, -1), atol=1e-5)
    cached_features(reward.frozen(torch.bfloat16), pairs)
    assert read[4:] == [8, 8, 4]  # another body
    cached_features(new_reward_model(model, dtype="float32"), pairs)
    assert read[7:] == [8, 8, 4]  # read elsewhere


# --- DPO
def test_dpo_by_the_command(model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["learning_rate=3e-3", "epochs=3", "batch_size=8", "evaluation=12", "max_tokens=6", "divergence=js"]
    assert main(["run", "dpo", *arguments(model, data, tmp_path / "run", *more)]) == 0
    shown = capsys.readouterr().out
    assert "DPO in the js" in shown
    assert "The policy's own reward prefers the better answer in" in shown
    rows = stage(tmp_path / "run", "held out")
    law, prior = load_policy(str(tmp_path / "run" / "policy" / "model"), dtype="float32"), load_policy(str(model))
    for name, policy in (("policy", law.exact()), ("prior", prior.exact())):
        answer = policy.encode_completion(rows[0]["first"])
        given = as_samples([policy.encode(rows[0]["prompt"])], [answer])
        assert float(policy.log_prob(given).detach().sum()) == pytest.approx(rows[0][f"log_{name}_first"], abs=1e-3)
    before = (tmp_path / "run" / "samples.jsonl").read_bytes()
    assert main(["run", "dpo", "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "samples.jsonl").read_bytes() == before


def test_dpo_learns_what_is_better_and_says_what_it_cost(model: Path, data: Path, tmp_path: Path) -> None:
    settings = DPOSettings(
        data=str(data), model=str(model), learning_rate=3e-3, epochs=3, batch_size=8, evaluation=24, max_tokens=6,
        beta=0.2, threads=1,
    )  # fmt: skip
    report = run_dpo(settings, tmp_path)
    assert headline(report, "reward accuracy, held out").value > 0.8
    assert headline(report, "reward margin, held out").value > 0.0
    samples = stage(tmp_path, "policy")
    kl = headline(report, "KL(π, a)")
    assert kl.value == pytest.approx(float(np.mean([row["log_own"] - row["log_other"] for row in samples])))
    better, worse = table(report, "Log-probability gained, log π - log a")
    assert better[1].value > worse[1].value
    assert [row[0] for row in table(report, "Samples")] == ["prior", "policy"]


def test_rewards_of_the_report_are_betas_and_the_divergences() -> None:
    row = {"log_policy_first": -1.0, "log_prior_first": -2.0, "log_policy_second": -3.0, "log_prior_second": -3.0}
    (found,) = rewarded([row], beta=0.5, divergence=ReverseKL)
    assert found["reward_first"] - found["reward_second"] == pytest.approx(0.5)
    (found,) = rewarded([row], beta=0.5, divergence=ForwardKL)
    assert found["reward_first"] - found["reward_second"] == pytest.approx(0.5 * (1 - np.exp(-1)))


def test_dpo_refuses_what_it_cannot_do(model: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match="tv: its f' does not rise"):
        dpo_plan(DPOSettings(data=str(data), model=str(model), divergence="tv"))
    with pytest.raises(ConfigError, match="divergence='js2' is not known"):
        dpo_plan(DPOSettings(data=str(data), model=str(model), divergence="js2"))
    assert {"reward-model", "dpo"} <= set(RECIPES)
