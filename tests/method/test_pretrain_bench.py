"""What `bench/pretrain.py` rests on, as far as the peers are not needed: equal work, the count of real tokens, the limit."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_policy

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))  # which is no package

import clock
import pretrain
import pretrain_peers

LENGTH, BATCH = 8, 4


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """A model and ragged documents of 3 to 8 predictions each."""
    policy = tiny_policy("llama")
    policy.save(tmp_path / "model")
    eos = policy.eos_ids[0]
    documents = [[eos, *[5 + (i + j) % 9 for j in range(2 + i % 6)], eos] for i in range(12)]
    (tmp_path / "documents.json").write_text(json.dumps(documents))
    return {
        "folder": str(tmp_path / "model"), "documents": str(tmp_path / "documents.json"), "steps": 2, "batch": BATCH,
        "tokens": sum(len(ids) - 1 for ids in documents) // 3, "length": LENGTH, "seed": 0, "precision": "float32",
    }  # fmt: skip


def test_names_say_what_a_system_is() -> None:
    assert pretrain.order_of("ours-awr-bf16") == {
        "system": "ours", "precision": "bfloat16", "objective": "awr", "checkpointing": False, "packed": False,
    }  # fmt: skip
    assert pretrain.order_of("sft-default")["checkpointing"]
    assert pretrain.order_of("trainer-packed")["precision"] == "float32"


def test_our_rows_hold_every_document_once_and_no_padding(given: dict[str, Any]) -> None:
    documents = pretrain_peers.documents_of(given)
    eos = documents[0][0]
    method = pretrain_peers.method_of(given | {"objective": "mle", "steps": 4}, eos)
    rows = [row for step in range(method.steps) for row in method.batch(step)[0].tolist()]
    assert {len(row) for row in rows} == {LENGTH + 1}
    stream = [rows[0][0], *[token for row in rows for token in row[1:]]]
    text = " ".join(map(str, stream[: method.rows_of_a_pass() * LENGTH + 1]))
    inside = sum(f" {' '.join(map(str, ids[1:-1]))} {eos}" in text for ids in documents)
    assert inside >= len(documents) - 2  # what does not fill a row is left out


@pytest.mark.parametrize(("worker", "objective"), [("ours", "mle"), ("ours", "awr"), ("limit", "mle")])
def test_workers_print_steps_and_real_tokens(
    worker: str, objective: str, given: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    import torch

    for kind, name in ((torch.Tensor, "backward"), (torch.optim.AdamW, "step")):  # the clock wraps them
        monkeypatch.setattr(kind, name, getattr(kind, name))
    getattr(pretrain_peers, worker)(given | {"objective": objective}, clock.Clock())
    said = capsys.readouterr().out.splitlines()
    tokens = [int(line.split()[1]) for line in said if line.startswith("TOKENS")]
    steps = [json.loads(line[5:])["step"] for line in said if line.startswith("STEP")]
    assert tokens == [LENGTH * max(1, round(given["tokens"] / LENGTH))] * 2
    assert len(steps) == 2
    assert min(steps) > 0


def test_speed_counts_tokens_over_seconds_and_not_means_of_steps() -> None:
    assert pretrain.speed([(100, 1.0), (300, 1.0)]) == 200.0
    assert pretrain.speed([(100, 1.0), (100, 3.0)]) == 50.0
