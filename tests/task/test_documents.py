"""Where documents come from: files, folders, rows, this machine's Python; what is missing is said, what is nothing refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from amenable.errors import ConfigError, DataError
from amenable.task.corpus import ALIKE, SourceFile, python_sources, split_of, without_duplicates
from amenable.task.documents import Missing, find_corpus, text_and_facts, text_of

ROWS = [{"id": "a", "text": "one"}, {"text": "two", "id": 7}, {"text": "three\u2028four"}]


def test_a_folder_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name in ("b/z.py", "a.py", "b/a.py", "b/no.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    corpus = find_corpus(str(tmp_path))
    found = list(corpus.documents())
    assert [one.id for one in found] == ["a.py", "b/a.py", "b/z.py", "a", "7", "rows.jsonl:3"]
    assert [text_of(one) for one in found][-2:] == ["two", "three\u2028four"]
    assert [one.id for one in corpus.documents(4)] == ["7", "rows.jsonl:3"]
    before = corpus.fingerprint()
    assert find_corpus(str(tmp_path)).fingerprint() == before
    (tmp_path / "a.py").write_text("more than there was\n")
    assert find_corpus(str(tmp_path)).fingerprint() != before
    assert [one.id for one in find_corpus(f"{tmp_path}/b/*.py").documents()] == [
        f"{tmp_path}/b/a.py",
        f"{tmp_path}/b/z.py",
    ]


def test_rows_gzipped_say_how_many_bytes_they_are(tmp_path: Path) -> None:
    data = "".join(json.dumps(row) + "\n" for row in ROWS).encode() * 50
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(data))
    corpus = find_corpus(str(tmp_path / "c.jsonl.gz"))
    assert corpus.total == len(data)
    assert len(list(corpus.documents())) == 150


def test_what_is_missing_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"text": 1}\nnot json\n{"content": "x"}\n[1]\n')
    reasons = []
    for one in find_corpus(str(tmp_path / "r.jsonl")).documents():
        with pytest.raises(Missing) as error:
            text_of(one)
        reasons.append(str(error.value))
    assert reasons == ["the row has no text in `text`", "the line is not JSON", *["the row has no text in `text`"] * 2]
    (tmp_path / "bad.py").write_bytes(b"x = '\xff'\n")
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\r\nx = '\xff'\r\n")
    bad, latin = find_corpus(str(tmp_path), files=("*.py",)).documents().__iter__(), None
    with pytest.raises(Missing, match="not in UTF-8"):
        text_of(next(bad))
    latin = text_of(next(bad))
    assert latin.endswith("x = 'ÿ'\r\n")  # the newlines stay as they are


@pytest.mark.parametrize(
    ("name", "error", "complaint"),
    [
        ("", ConfigError, "no corpus is named"),
        ("no-such", DataError, "no file or folder no-such"),
        ("no/such.jsonl", DataError, "no file or folder"),
        ("pyle", DataError, "did you mean 'pile'"),
        ("/tmp/*.no-such-thing", DataError, "holds no file"),
        ("python:no-such-package", DataError, "no installed distribution"),
    ],
)
def test_a_corpus_that_cannot_be_is_refused(name: str, error: type[Exception], complaint: str) -> None:
    with pytest.raises(error, match=complaint):
        find_corpus(name)


def test_data_sets_as_people_keep_them(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"id": ["a", "b", "c"], "text": ["One.", None, "Drei. Ü"], "licence": ["MIT", "MIT", "BSD"], "n": [1, 2, 3]}
    held = datasets.Dataset.from_dict(rows)
    held.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": held, "test": held.select([2])}).save_to_disk(tmp_path / "parts")
    (tmp_path / "hub" / "data").mkdir(parents=True)
    held.to_parquet(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet")
    held.select([0]).to_parquet(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet")
    held.to_csv(tmp_path / "c.csv")
    held.to_csv(tmp_path / "t.tsv", sep="\t")
    (tmp_path / "list.json").write_text(json.dumps([held[i] for i in range(3)], indent=1))
    facts = {"licence": "BSD", "n": 3}
    for name in ("saved", "parts", "hub", "hub/data/train*.parquet", "c.csv", "t.tsv", "list.json"):
        corpus = find_corpus(str(tmp_path / name))
        found = list(corpus.documents())
        assert [one.id for one in found] == ["a", "b", "c"], name
        assert text_and_facts(found[2]) == ("Drei. Ü", facts), name
        with pytest.raises(Missing, match="no text in `text`"):
            text_of(found[1])
        assert list(corpus.documents(2)) == found[2:]
        assert corpus.fingerprint() == find_corpus(str(tmp_path / name)).fingerprint()
    for name in ("parts", "hub"):
        [one] = find_corpus(str(tmp_path / name), split="test").documents()
        assert one.id in ("c", "a")
        with pytest.raises(DataError, match="tset"):
            next(find_corpus(str(tmp_path / name), split="tset").documents())
    (tmp_path / "hub" / "a.py").write_text("x = 1\n")  # sources with a table among them are sources
    assert [one.id for one in find_corpus(str(tmp_path / "hub")).documents()] == ["a.py"]
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match=r"bad\.parquet cannot be read"):
        next(find_corpus(str(tmp_path / "bad.parquet")).documents())


def test_a_data_set_without_a_network_says_what_to_do() -> None:
    pytest.importorskip("datasets")
    corpus = find_corpus("codeparrot")
    assert (corpus.name, corpus.field) == ("codeparrot/codeparrot-clean", "content")
    with pytest.raises(DataError, match="use the corpus `python`"):
        next(corpus.documents())
    with pytest.raises(DataError, match="own/set:part could not be fetched"):
        next(find_corpus("own/set:part").documents())


def test_this_machines_python_is_split_by_package() -> None:
    sources = python_sources(("rich",))
    assert sources == python_sources(("rich",))
    assert [one.id for one in sources] == sorted({one.id for one in sources})
    assert len(sources) > 400
    by_package = {one.package: one.split for one in sources}
    assert all(by_package[one.package] == one.split == split_of(one.package) for one in sources)
    assert set(by_package.values()) == {"train", "validation", "held-out"}
    assert {one.licence for one in sources if one.package == "rich"} == {"MIT"}
    assert {one.licence for one in sources if one.package == "json"} == {"PSF-2.0"}
    assert not any("/test/" in one.id or "_vendor" in one.id for one in sources)
    document = next(find_corpus("python").documents())
    assert document.facts.keys() == {"package", "licence", "split"}
    assert text_of(document)


def test_equal_and_nearly_equal_files_are_there_once(tmp_path: Path) -> None:
    lines = [f"value_{number} = {number}\n" for number in range(40)]
    texts = {
        "a": "".join(lines),
        "b": "".join(line.replace(" = ", "  =  ") for line in lines),  # equal but for white space
        "c": "".join(lines[:34] + [f"other_{n}\n" for n in range(6)]),  # J = 34 / 46 > 0.7
        "d": "".join(lines[:26] + [f"other_{n}\n" for n in range(14)]),  # J = 26 / 54 < 0.7
        "e": "\n \n",
        "f": "x = 1\n",
    }
    files = []
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        files.append(SourceFile(name, tmp_path / name, "p", "MIT", len(text)))
    assert [one.id for one in without_duplicates(files)] == ["a", "d", "f"]
    assert 26 / 54 < ALIKE < 34 / 46
