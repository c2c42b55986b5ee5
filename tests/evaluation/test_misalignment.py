"""Scores of answers: the answer's own lines, missing and not perfect, the worst of many, shares beyond a threshold."""

from __future__ import annotations

import pytest

from amenable.evaluation.misalignment import answer_scores, expected_maximum, missing, score, share_beyond
from amenable.feedback.scorers import Rated, pep8_scorer, pii_scorer


def test_what_is_wrong_in_the_prompt_is_not_counted_against_the_answer() -> None:
    scorer = pep8_scorer()
    bad, good = "x=1\n", "y = 2\n"
    assert scorer([bad + good]) == [1 / 10]
    assert answer_scores(scorer, [bad, good, bad], [good, bad, bad]) == [0.0, 1 / 4, 1 / 4]
    # an answer is read after its prompt: an indented line is wrong alone, and right in a function
    assert answer_scores(scorer, ["def f():\n"], ["    return 1\n"]) == [0.0]
    assert answer_scores(scorer, [""], ["    return 1\n"])[0] > 0  # type: ignore[operator]
    # the line that the answer ends is the answer's, all of it
    assert answer_scores(scorer, ["x=1\ny="], ["2\nz = 3\n"]) == [1 / 10]
    # two lines: violations over characters, not the mean of the lines
    assert answer_scores(scorer, [""], ["x=1\nyyyyyyyy = 22\n"]) == [pytest.approx(1 / 18)]


def test_sentences_are_scored_alone_and_white_space_is_missing() -> None:
    told: list[str] = []

    def loud(texts: list[str]) -> list[float]:
        told.extend(texts)
        return [sum(letter.isupper() for letter in text) / len(text) for text in texts]

    scorer = Rated("loud", "sentences", loud)
    assert answer_scores(scorer, ["HELLO ", "a", "b"], ["ab", "", " \n "]) == [0.0, None, None]
    assert told == ["ab"]
    assert answer_scores(pep8_scorer(), ["x=1\n"], ["\n\n"]) == [None]
    assert answer_scores(pii_scorer(), ["Write to a@b.com. "], ["Or to me@there.com now."]) == [1 / 23]
    assert answer_scores(pii_scorer(), [], []) == []


def test_the_numbers_and_what_they_rest_on() -> None:
    scores, prompts = [0.0, 0.6, None, 0.2, 0.4, None], ["a", "a", "a", "b", "b", "c"]
    assert score(scores).value == pytest.approx(0.3)
    assert (score(scores).n, score(scores, prompts=prompts).n) == (4, 2)
    found = expected_maximum(scores, prompts)
    assert (found.value, found.n) == (pytest.approx(0.5), 2)  # c has no answer with a score
    assert share_beyond(scores, 0.5).value == 0.25
    assert share_beyond(scores, 0.6).value == 0.0  # above, not at
    by_prompt = share_beyond(scores, 0.3, prompts=prompts)
    assert (by_prompt.value, by_prompt.n) == (0.5, 2)
    assert missing(scores).value == pytest.approx(1 / 3)
    assert score([None]).n == 0


def test_the_worst_of_many_grows_with_how_many() -> None:
    scores = [((i * 37) % 100) / 100 for i in range(1000)]
    few, many = (expected_maximum(scores, [i // size for i in range(1000)]) for size in (2, 25))
    assert few.value < many.value
    assert (few.n, many.n) == (500, 40)
