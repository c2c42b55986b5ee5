"""Scored documents go to disk and come back; what is no scored document is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amenable.errors import DataError
from amenable.task.scored_corpus import SCORED, SUMMARY, ScoredDocument, read_scored, write_scored

DOCUMENTS = [
    ScoredDocument("a", "x\nyé", (2, 4), (0.0, None)),
    ScoredDocument("b", "", (), ()),
    ScoredDocument("c", "\ud800\u2028", (2,), (1.5,), {"package": "p"}),
]


@pytest.mark.parametrize("name", ["s.jsonl", "s.jsonl.gz"])
def test_there_and_back(name: str, tmp_path: Path) -> None:
    assert write_scored(tmp_path / name, DOCUMENTS) == 3
    back = list(read_scored(tmp_path / name))
    assert back == DOCUMENTS
    assert back[2].facts == {"package": "p"}
    assert back[0].segments() == ["x\n", "yé"]
    assert [document.mean for document in back] == [0.0, None, 1.5]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_run_that_is_not_finished_is_not_read(tmp_path: Path) -> None:
    write_scored(tmp_path / SCORED, DOCUMENTS)
    with pytest.raises(DataError, match="is not finished"):
        list(read_scored(tmp_path))
    (tmp_path / SUMMARY).write_text("{}")
    assert list(read_scored(tmp_path)) == DOCUMENTS


GOOD = {"id": "a", "text": "abc", "ends": [1, 3], "scores": [0, 1]}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"id": 1}, "`id` is 1"),
        ({"ends": [1]}, "two lists of one length"),
        ({"ends": [1, 2]}, "the segments end at"),
        ({"ends": [1, 1]}, "rise"),
        ({"ends": [0, 3]}, "rise"),
        ({"ends": [True, 3]}, "rise"),
        ({"scores": [0, "1"]}, "a score is '1'"),
        ({"scores": [0, float("nan")]}, "a score is nan"),
        ({"text": None}, "`text` is None"),
    ],
)
def test_a_bad_row_is_named(change: dict[str, object], complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "s.jsonl"
    file.write_text(json.dumps(GOOD) + "\n" + json.dumps({**GOOD, **change}) + "\n")
    with pytest.raises(DataError, match="line 2") as error:
        list(read_scored(file))
    assert complaint in str(error.value)
