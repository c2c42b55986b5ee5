"""Prose out of sources: what is kept of a file, each sentence once, the rows of this machine and their way into a score."""

from __future__ import annotations

import argparse
import asyncio.events
import email.message
import functools
import json
import logging
import random
import re
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from amenable.feedback.scorers import pii_scorer
from amenable.recipes.scoring import Job, score_chunk
from amenable.task.corpus import SourceFile
from amenable.task.documents import Document, find_corpus, text_and_facts
from amenable.task.prose import SHORTEST, _rows, once, paragraphs, paragraphs_of_source

SOURCE = '''\
"""Reads the weather, and says :func:`~a.b.what` it will be.

    >>> weather()
    'rain today and snow tomorrow'

x : int
    The number of days that are asked for.
"""
# Nobody knows how the clouds are made,
# so this asks the server.
x = 1  # Not a comment on a line of its own.


def f(days):
    """Return ``days`` of rain. Raise an error if there is none of it."""
    text = f"There are {days} days of rain left."
    other = """
# This stands inside a literal and is no comment.
"""
    raise ValueError("The number of days has to be positive.")
'''


def test_literals_and_comments_are_read_in_their_order() -> None:
    assert list(paragraphs_of_source(SOURCE)) == [
        "Reads the weather, and says a.b.what it will be.",
        "Nobody knows how the clouds are made, so this asks the server.",
        "Return days of rain. Raise an error if there is none of it.",
        "The number of days has to be positive.",
    ]
    assert list(paragraphs_of_source("def f(:\n")) == []


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("The `text` and the **bold** stay as words.", "The text and the bold stay as words."),
        ("See [the long page](https://x.org/a) about this topic.", "See the long page about this topic."),
        ("Two lines\nthat are one sentence.", "Two lines that are one sentence."),
        ("too short to say it.", None),
        ("This sentence has no full stop", None),
        ("Values x1=3 y_2=4 z->5 a[0] b[1] are set.", None),
        ("Name    |  Value of it in the table.", None),
        ("---- A heading is not a sentence here.", None),
    ],
)
def test_what_is_prose(text: str, kept: str | None) -> None:
    assert list(paragraphs(text)) == ([] if kept is None else [kept])


def test_a_sentence_stands_once() -> None:
    seen: set[str] = set()

    def found(*texts: str) -> Iterator[str]:
        yield from texts

    assert once(found("One is here. Two is here.", "One is HERE!"), seen) == "One is here. Two is here."
    assert once(found("Two, is here. Three is here.", "One is here."), seen) == "Three is here."


def test_rows_carry_package_licence_and_split(tmp_path: Path) -> None:
    long = " ".join(f"Sentence {word} says something else again." for word in "one two three four five six".split())
    (tmp_path / "a.py").write_text(f'"""{long}"""\n')
    (tmp_path / "b.py").write_text(f'"""{long}"""\n')  # nothing is left of it
    files = [SourceFile(f"p/{name}", tmp_path / name, "p", "MIT", 300) for name in ("a.py", "b.py")]
    [row] = list(_rows(files))
    assert row == {"id": "p/a.py", "text": long, "package": "p", "licence": "MIT", "split": files[0].split}
    assert len(long) >= SHORTEST
    done = score_chunk(Job(pii_scorer()), [Document("p/a.py", 300, line=json.dumps(row))])
    scored = json.loads(done.rows)
    assert {key: scored[key] for key in row} == row  # what a row has besides its text goes on with it
    assert len(scored["ends"]) == 6


def test_the_prose_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from amenable.task import prose

    modules = (argparse, asyncio.events, email.message, functools, json.decoder, logging, random, textwrap, threading)
    files = [Path(str(module.__file__)) for module in modules]
    few = tuple(SourceFile(f"{f.parent.name}/{f.name}", f, f.stem, "PSF-2.0", f.stat().st_size) for f in files)
    monkeypatch.setattr(prose, "python_sources", lambda packages, *, tests: few)  # finding all takes ten seconds
    monkeypatch.setenv("AMENABLE_CACHE", str(tmp_path))
    corpus = find_corpus("prose")
    documents = list(corpus.documents())
    assert {document.id for document in documents} <= {one.id for one in few}
    assert len(documents) >= 8
    sentences: list[str] = []
    for document in documents:
        text, facts = text_and_facts(document)
        assert facts["licence"] == "PSF-2.0"
        parts = [part for paragraph in text.split("\n\n") for part in re.split(r"(?<=[.!?]) (?=[A-Z])", paragraph)]
        sentences += ["".join(re.findall("[a-z]", part.lower())) for part in parts]
    assert len(sentences) > 300
    assert len(set(sentences)) == len(sentences)
    [file] = corpus.files
    before = file.read_bytes()
    assert find_corpus("prose").files == (file,)
    file.unlink()
    assert find_corpus("prose").files[0].read_bytes() == before  # the same machine, the same bytes
