"""The code model's recipe, tiny: it is made once, loaded afterwards, and measured on modules that it never saw."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from amenable.cli import main
from amenable.errors import ConfigError, DataError
from amenable.recipes import code_model as recipe
from amenable.recipes.code_model import CodeModelSettings, Making, code_model, functions_of, home, made, short_enough
from amenable.recipes.code_model_report import bits_per_byte, finished_that_compile, measure
from amenable.report.text import report_text
from amenable.runs import Run
from amenable.task.functions import contexts, of_split

TINY = CodeModelSettings(
    longest=32, vocabulary=400, width=32, layers=1, heads=2, steps=8, batch_size=16, learning_rate=1e-2,
    samples=24, contexts=6, samples_per_context=3, checkpoint_every=3, threads=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _cached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMENABLE_CACHE", str(cache))


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was trained: one entry a training."""
    found: list[str] = []
    train: Callable[..., None] = recipe._train

    def noted(*given: object, **how: object) -> None:
        found.append("trained")
        train(*given, **how)

    monkeypatch.setattr(recipe, "_train", noted)
    return found


def test_the_run_measures_what_it_made(tmp_path: Path) -> None:
    report = recipe.run(TINY, tmp_path / "run")
    text = report_text(report)
    assert "bits per byte" in text
    assert "of these compile" in text
    assert str(home(TINY)) in text
    assert "amenable run code-model" in (tmp_path / "run" / "report.html").read_text()
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
    rows = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    drawn = [row for row in rows if "drawn" in row]
    assert len([row for row in drawn if row["stage"].startswith("unconditional")]) == 24
    bodies = [row["signature"] for row in drawn if row["stage"].startswith("bodies")]
    assert len(bodies) == 18
    assert len(set(bodies)) == 6
    metrics = [json.loads(line) for line in (home(TINY) / "code-model" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == list(range(8))
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert not list(home(TINY).rglob("checkpoint-*"))
    # modules that are measured were never trained on
    policy = code_model(TINY)
    functions = short_enough(policy, functions_of(TINY), 32)
    trained = {function.module for function in of_split(functions, "train")}
    held_out = {row["module"] for row in rows if row["stage"].startswith("bits, held-out") and "module" in row}
    assert held_out
    assert not held_out & trained
    assert not {function.module for function in contexts(functions, "held-out", 6)} & trained
    # run again, everything is read
    before = (tmp_path / "run" / "samples.jsonl").read_bytes()
    assert report_text(recipe.run(TINY, tmp_path / "run")) == text
    assert (tmp_path / "run" / "samples.jsonl").read_bytes() == before


def test_the_second_time_it_is_loaded_and_frozen(trainings: list[str]) -> None:
    making = replace(TINY, seed=5)
    one, two = code_model(making), code_model(replace(making, samples=1, rows=3, threads=2), rows=7)
    assert trainings == ["trained"]
    assert two.rows == 7
    assert one.model.dtype == torch.float32
    assert not list(one.trainable_parameters())
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))
    code_model(replace(making, seed=6))
    assert trainings == ["trained"] * 2


def test_a_changed_copy_is_made_again_to_the_same_bits(trainings: list[str]) -> None:
    making = replace(TINY, seed=7)
    first = made(making)
    weights = first.folder / "code-model" / "model" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    made(making)
    assert trainings == ["trained"] * 2
    assert weights.read_bytes() == whole


def test_threads_do_not_decide_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    making, weights = replace(TINY, seed=8), []
    for threads in (1, 2):
        monkeypatch.setenv("AMENABLE_CACHE", str(tmp_path / str(threads)))
        torch.set_num_threads(threads)
        weights.append(list(code_model(making).model.parameters()))
        assert torch.get_num_threads() == threads
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_what_decides_the_weights_decides_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    place = home(TINY)
    assert home(replace(TINY, samples=1, contexts=1, threads=0, rows=1)) == place
    assert home(Making(**recipe._plain(TINY))) == place
    assert home(replace(TINY, steps=9)) != place
    monkeypatch.setattr(recipe, "functions_of", lambda making: ())
    assert home(TINY) != place  # another library


def test_bits_are_those_of_whole_functions(tmp_path: Path) -> None:
    policy = code_model(TINY)
    functions = short_enough(policy, functions_of(TINY), 32)[:400]
    record = Run(tmp_path, {})
    measured = measure(policy, functions, of_split(functions, "train")[:2], TINY, record)
    record.close()
    row, function = measured.bits["held-out"][0], of_split(functions, "held-out")[0]
    ids = torch.tensor([policy.encode("") + policy.encode_completion(function.text)])
    loss = policy.model(ids, labels=ids).loss  # mean over what is predicted, in nats
    assert row["bits"] == pytest.approx(float(loss) * (ids.shape[1] - 1) / torch.tensor(2.0).log().item(), rel=1e-4)
    assert row["bytes"] == len(function.text.encode())
    rows = [{"module": "a", "bits": 3.0, "bytes": 1}, {"module": "a", "bits": 1.0, "bytes": 3}]
    assert bits_per_byte(rows).value == 1.0
    assert not bits_per_byte(rows).has_interval  # one module says nothing about others
    both = bits_per_byte([*rows, {"module": "b", "bits": 12.0, "bytes": 4}])
    assert (both.value, both.low, both.high, both.n) == (2.0, 1.0, 3.0, 2)
    assert bits_per_byte([]).n == 0


@pytest.mark.parametrize(
    ("signature", "drawn", "ended", "finished", "compiles", "does"),
    [
        ("", "def f(x):\n    return x\n", "eos", True, True, True),
        ("", "def f(x):\n    return x\n", "length", False, False, False),
        ("", "", "eos", False, False, False),
        ("", "def f(x):\n    pass\n", "eos", True, True, False),
        ("", "def f(x):\n", "eos", True, False, False),
        ("def f(x):\n", "    return x\n", "eos", True, True, True),
        ("def f(x):\n", "\n", "eos", False, False, False),
        ("def f(x):\n", "return x\n", "eos", True, False, False),
    ],
)
def test_what_counts(signature: str, drawn: str, ended: str, finished: bool, compiles: bool, does: bool) -> None:
    from amenable.recipes.code_model_report import _judged

    one = _judged({"signature": signature, "drawn": drawn, "ended": ended, "tokens": 3})
    assert (one.finished, one.compiles, one.does_something) == (finished, compiles, does)
    assert finished_that_compile([one]).n == int(finished)


def test_settings_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="steps=0"):
        code_model(replace(TINY, steps=0))
    with pytest.raises(ConfigError, match="heads"):
        code_model(replace(TINY, width=30, heads=4))
    with pytest.raises(DataError, match="longest"):
        code_model(replace(TINY, longest=2))
    assert main(["run", "code-model", "step=3", "--out", str(tmp_path / "out")]) == 2
    assert "steps" in capsys.readouterr().err
    assert main(["run", "code-model", "longest=32", "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "steps" in capsys.readouterr().out
