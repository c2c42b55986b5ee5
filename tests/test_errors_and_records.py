"""What travels between the houses, the errors a user meets, and the random streams."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

import pytest
import torch

from amenable import errors
from amenable.errors import AmenableError
from amenable.records import Critique, Decoding, Failure, Samples, Task, Verdict
from amenable.seeding import derive, python_random, torch_generator

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AmenableError)]


def test_an_error_is_what_is_wrong_and_its_fix() -> None:
    error = errors.DataError("line 3 has no prompt", "add one")
    assert str(error) == "line 3 has no prompt\n  fix: add one"
    assert (error.what, error.fix) == ("line 3 has no prompt", "add one")
    assert str(AmenableError("nothing to be done")) == "nothing to be done"


def test_every_kind_of_error_has_its_own_exit_code() -> None:
    codes = [kind.exit_code for kind in KINDS]
    assert len(KINDS) >= 8
    assert len(set(codes)) == len(codes)
    assert all(0 < code < 64 for code in codes)  # 64 and above mean other things to a shell


def samples(lengths: list[int], width: int) -> Samples:
    tokens = torch.zeros(len(lengths), width, dtype=torch.int64)
    for row, length in enumerate(lengths):
        tokens[row, :length] = torch.arange(1, length + 1)
    return Samples(
        context_ids=[[7]] * len(lengths),
        tokens=tokens,
        lengths=torch.tensor(lengths),
        log_probs=torch.zeros(len(lengths), width),
        texts=["x"] * len(lengths),
        ended=["eos"] * len(lengths),
    )


def test_padding_is_known_by_position() -> None:
    batch = samples([2, 0, 3], width=3)
    assert batch.mask.tolist() == [[True, True, False], [False, False, False], [True, True, True]]
    assert [batch.ids(index) for index in range(len(batch))] == [[1, 2], [], [1, 2, 3]]
    # a real token may have the id that pads
    zeros = dataclasses.replace(batch, tokens=torch.zeros(3, 3, dtype=torch.int64))
    assert zeros.ids(2) == [0, 0, 0]
    assert zeros.mask.equal(batch.mask)


def test_the_training_law_has_no_deviations_and_every_other_law_names_its_own() -> None:
    assert Decoding().deviations() == []
    assert Decoding(max_tokens=3, stop=("\n",)).deviations() == []  # where a sample ends is not its law
    other = Decoding(temperature=0.8, top_k=5, top_p=0.9)
    assert other.deviations() == ["temperature=0.8", "top_k=5", "top_p=0.9"]


@pytest.mark.parametrize("outcome", ["pass", "fail", "timeout", "crash", "memory", "protocol", "infra"])
def test_only_a_pass_is_ok_and_only_a_failed_sandbox_is_missing(outcome: str) -> None:
    verdict = Verdict(outcome, (True,))  # type: ignore[arg-type]
    assert verdict.ok == (outcome == "pass")
    assert verdict.missing == (outcome == "infra")


@pytest.mark.parametrize("failure", [None, Failure("assert f(1) == 2", call="f(1)", got="1", line=3)])
def test_a_verdict_written_down_comes_back(failure: Failure | None) -> None:
    verdict = Verdict("fail", (True, None, False), failure, output="é", seconds=0.25, integrity="cooperative")
    row = json.loads(json.dumps(verdict.as_row()))
    assert "seconds" not in row  # a run's record is the same however fast the machine was
    assert Verdict.from_row(row) == replace(verdict, seconds=0.0)


def test_records_are_frozen() -> None:
    for record in (
        Task("t", "", (), "f"),
        Critique("t", "", ""),
        Decoding(),
        Verdict("pass", ()),
        Failure(""),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            record.output = "changed"  # type: ignore[misc,union-attr]


def test_a_stream_depends_on_its_seed_and_its_whole_path() -> None:
    paths = [("a",), ("b",), ("a", "b"), ("ab",), ("a/b",), ("a", 1), ("a", "1"), (1, "a"), ()]
    seeds = [derive(seed, *path) for seed in (0, 1) for path in paths]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_stream_is_the_same_on_every_machine() -> None:
    assert derive(0, "drafts", 3) == derive(0, "drafts", 3)
    # SHA-256 of "0/str:drafts/int:3", its first eight bytes, halved: worked out with another tool
    assert derive(0, "drafts", 3) == 4216764691595070315


def test_a_stream_does_not_depend_on_what_ran_before() -> None:
    first = torch.rand(4, generator=torch_generator(5, "x"))
    torch.rand(100)
    assert torch.rand(4, generator=torch_generator(5, "x")).equal(first)
    assert not torch.rand(4, generator=torch_generator(5, "y")).equal(first)
    order = python_random(5, "x").sample(range(100), 10)
    assert python_random(5, "x").sample(range(100), 10) == order
    assert python_random(6, "x").sample(range(100), 10) != order
