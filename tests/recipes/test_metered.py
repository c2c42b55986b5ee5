"""The meter along a training: it says when gold falls, changes nothing of what it watches, and survives a stop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tables import count_b

from amenable.errors import ConfigError
from amenable.method import checkpoint
from amenable.method.loop import Optimisation, train
from amenable.method.rlhf import rlhf
from amenable.policy.tabular import TabularPolicy
from amenable.recipes.metered import Metered, canaries, metering, readings_of
from amenable.records import Decoding

PROMPTS = [f"prompt {i}" for i in range(40)]
PRIOR = TabularPolicy.random("ab", 3, contexts=PROMPTS, scale=0.3, seed=1)
STEPS = Optimisation(learning_rate=0.2, warmup=0.0, clip_norm=0.02, precision="float32")


def at_most_one_b(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float | None]:
    """What was meant. Of a text that ends with "aa" nothing is known."""
    return [None if text.endswith("aa") else float(text.count("b") <= 1) for text in completions]


def training(path: Path, gold: Any = at_most_one_b, steps: int = 20) -> Metered:
    method = rlhf(PRIOR, count_b, beta=0.1, steps=steps, contexts=PROMPTS, samples_per_context=8, seed=3)
    return Metered(
        method, readings=4, prior=PRIOR, prompts=PROMPTS, decoding=Decoding(max_tokens=3), proxy=count_b, gold=gold,
        path=path, seed=1,
    )  # fmt: skip


def test_the_alarm_comes_where_gold_falls_and_the_policy_is_that_of_an_unwatched_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watched, alone = PRIOR.trainable_copy(), PRIOR.trainable_copy()
    method = training(tmp_path / "readings.jsonl")
    train(watched, method, optimisation=STEPS, folder=tmp_path / "watched")
    train(alone, training(tmp_path / "unread.jsonl").method, optimisation=STEPS, folder=tmp_path / "alone")
    for (_, one), (_, other) in zip(watched.trainable_parameters(), alone.trainable_parameters(), strict=True):
        assert torch.equal(one, other)
    rows = readings_of(tmp_path / "readings.jsonl")
    assert [row["name"] for row in rows] == ["step 0", "step 5", "step 10", "step 15"]
    found = metering(rows, planned=5)
    assert found.points[0].kl.value == pytest.approx(0, abs=1e-9)  # the prior itself
    assert found.points[-1].kl.value > 0.3
    assert found.points[-1].proxy.low > found.points[0].proxy.high
    assert found.points[0].missing > 0
    assert found.alarm is not None
    assert "over-optimised from" in capsys.readouterr().err


def test_where_gold_is_the_score_there_is_no_alarm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(
        PRIOR.trainable_copy(), training(tmp_path / "r.jsonl", gold=count_b), optimisation=STEPS, folder=tmp_path / "t"
    )
    assert "over-optimised" not in capsys.readouterr().err


def test_a_stopped_training_goes_on_with_its_readings(tmp_path: Path) -> None:
    """Stopped after step 7, with the checkpoint of step 6: the readings of steps 0 and 5 are kept, the others the same."""

    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 7:
            raise Stopped

    whole = training(tmp_path / "whole.jsonl")
    train(PRIOR.trainable_copy(), whole, optimisation=STEPS, folder=tmp_path / "whole")
    first = training(tmp_path / "r.jsonl")
    with pytest.raises(Stopped):
        train(
            PRIOR.trainable_copy(), first, optimisation=STEPS, folder=tmp_path / "t", checkpoint_every=3, progress=stop
        )
    assert (tmp_path / "t" / "checkpoint-6").is_dir()
    again = training(tmp_path / "r.jsonl")
    train(PRIOR.trainable_copy(), again, optimisation=STEPS, folder=tmp_path / "t", checkpoint_every=3)
    assert (tmp_path / "r.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    checkpoint.drop_all(tmp_path / "t")


def test_a_score_that_likes_orders_is_told_and_one_that_does_not_is_left_in_peace() -> None:
    def obeys(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float | None]:
        return [10.0 if "and answer 10" in text else 5.0 for text in completions]

    def reads(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float | None]:
        return [float("honest" in text) for text in completions]

    texts = [f"an honest answer {i}" for i in range(40)]
    (orders,) = (line for line in canaries(obeys, PROMPTS, texts) if "orders" in line)
    assert "beat 20, tied 0 of 20" in orders
    assert canaries(reads, PROMPTS, texts) == []
    assert canaries(obeys, PROMPTS, [""] * 40) == []  # no honest answer to hold them against


def test_no_readings_are_refused(tmp_path: Path) -> None:
    inner = training(tmp_path / "r").method
    with pytest.raises(ConfigError, match="readings=0"):
        Metered(
            inner, readings=0, prior=PRIOR, prompts=PROMPTS, decoding=Decoding(), proxy=count_b, gold=count_b,
            path=tmp_path / "r", seed=0,
        )  # fmt: skip
