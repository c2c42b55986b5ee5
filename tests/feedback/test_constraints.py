"""Constraints and features: the traps one by one, and the laws that hold for all of them."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from amenable.errors import ConfigError, DataError
from amenable.feedback.constraints import (
    above,
    all_of,
    any_of,
    both,
    compiles,
    contains,
    contains_any,
    length,
    matches,
    named,
    negated,
    no_pii,
    pep8,
    share,
    size,
)
from amenable.feedback.feature import Columns, Feature, NamedScore, Values
from amenable.feedback.kinds import Score

NAMES = (
    "contains:amazing", "contains:a,b", "contains/i:B", "word:def", "word/i:X,y", "regex:^d", "regex:a,b:c", "compiles",
    "compiles:finished=no", "compiles:statements=0", "compiles:finished=no,statements=3", "pep8", "pep8:select=W",
    "pep8:ignore=E501+W292", "pep8:max_line_length=100", "no-pii", "no-pii:rules=card+email", "length<=100", "words>=3",
    "lines>=2,<=10", "not compiles", "not not word:a",
)  # fmt: skip
TEXTS = st.one_of(st.text("ab \nx=1:(\t", max_size=30), st.text(max_size=20))
LOGIC = st.sampled_from([0.0, 1.0, None])


def one(feature: NamedScore, completion: str, prompt: str = "", **columns: object) -> float | None:
    [value] = feature([prompt], [completion], **columns)
    return value


def fixed(*values: float | None, name: str = "fixed", binary: bool = True) -> Feature:
    """A feature with these values whatever the texts are."""

    def rule(prompts: object, completions: object, columns: Columns) -> Values:
        return list(values)

    return Feature(name, binary, rule)


# what all have in common


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=25)
@given(texts=st.lists(TEXTS, max_size=4))
def test_every_feature_is_a_score_of_each_completion_by_itself(name: str, texts: list[str]) -> None:
    feature = named(name)
    score: Score = feature
    values = score(["p = 1\n"] * len(texts), texts)
    assert set(values) <= {0.0, 1.0}
    assert values == [one(feature, text, "p = 1\n") for text in texts]
    assert values[::-1] == score(["p = 1\n"] * len(texts), texts[::-1])


@pytest.mark.parametrize("name", NAMES)
def test_a_name_makes_the_feature_and_the_feature_has_that_name(name: str) -> None:
    assert named(name).name == name
    assert named(named(name).name) == named(name)
    assert pickle.loads(pickle.dumps(named(name))) == named(name)


def test_features_of_one_name_are_equal() -> None:
    assert contains_any(["b", "a", "b"]) == contains_any(["a", "b"]) == named("contains:b,a")
    assert contains("a,b") != contains_any(["a", "b"])
    assert len({contains("a"), contains("a", whole_word=True), contains("a", ignore_case=True)}) == 3
    assert compiles() == named(" compiles") != compiles(finished=False)


@given(st.lists(st.text(max_size=5).filter(bool), min_size=1, max_size=3))
@example(["\\", ",", "a,b\\"])
@example(["a\\", "\\,"])
def test_any_words_survive_their_name(words: list[str]) -> None:
    feature = contains_any(words)
    assert named(feature.name) == feature
    assert one(named(feature.name), f"-{words[0]}-") == 1.0


def test_prompts_and_completions_must_pair() -> None:
    with pytest.raises(DataError, match="1 prompts for 2"):
        contains("a")(["p"], ["a", "b"])


# words and patterns


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("contains:cat", "concatenate", 1),
        ("word:cat", "concatenate", 0),
        ("word:cat", "the cat.", 1),
        ("word:cat", "cat_1", 0),
        ("contains:Cat", "cat", 0),
        ("contains/i:Cat", "cAT", 1),
        ("contains: two ", "a two b", 1),
        ("contains: two ", "two", 0),
        ("contains:a.c", "abc", 0),
        ("word:c++", "use c++!", 1),
        ("contains:good,fine", "it is fine", 1),
        ("contains:good,fine", "it is bad", 0),
        ("contains:x", "", 0),
        ("regex:^def", "def f", 1),
        ("regex:^def", "a\ndef f", 0),
        ("regex:(?m)^def", "a\ndef f", 1),
        ("not contains:x", "y", 1),
    ],
)
def test_words(name: str, text: str, value: float) -> None:
    assert one(named(name), text) == value
    assert one(named(name), "", text) == one(named(name), ""), "the prompt has no say"


@given(TEXTS, st.text("ab", min_size=1, max_size=2), st.text("ab", min_size=1, max_size=2))
def test_more_words_hold_more_often(text: str, word: str, other: str) -> None:
    single, either = one(contains(word), text), one(contains_any([word, other]), text)
    assert single is not None
    assert either is not None
    assert single <= either
    assert either == one(any_of(contains(word), contains(other)), text)
    assert single == float(word in text)


# length


@given(TEXTS, st.integers(0, 10), st.sampled_from(["characters", "words", "lines"]))
def test_lengths(text: str, bound: int, unit: str) -> None:
    count = size(text, unit)  # type: ignore[arg-type]
    name = {"characters": "length"}.get(unit, unit)
    assert one(named(f"{name}<={bound}"), text) == float(count <= bound)
    assert one(named(f"{name}>={bound}"), text) == float(count >= bound)
    assert one(named(f"{name} <= {bound + 2}, >= {bound}"), text) == float(bound <= count <= bound + 2)


def test_sizes_by_hand() -> None:
    assert [size(text, "lines") for text in ("", "a", "a\n", "a\nb", "\n", "a\u2028b\x0cc")] == [0, 1, 1, 2, 1, 1]
    assert [size(text, "words") for text in ("", " ", "a b\n c")] == [0, 0, 3]
    assert size("é😀", "characters") == 2


# combinations


@given(LOGIC, LOGIC, LOGIC)
def test_the_laws_of_logic(x: float | None, y: float | None, z: float | None) -> None:
    a, b, c = (fixed(value) for value in (x, y, z))
    assert one(negated(negated(a)), "") == x
    assert one(negated(all_of(a, b)), "") == one(any_of(negated(a), negated(b)), "")
    assert one(negated(any_of(a, b)), "") == one(all_of(negated(a), negated(b)), "")
    assert one(all_of(a, b), "") == one(all_of(b, a), "")
    assert one(all_of(a, any_of(b, c)), "") == one(any_of(all_of(a, b), all_of(a, c)), "")
    assert one(both(a, b, c), "") == one(all_of(a, all_of(b, c)), "")
    assert one(all_of(a), "") == one(any_of(a), "") == one(share(a), "") == x


def test_missing_matters_only_where_it_decides() -> None:
    missing, yes, no = fixed(None), fixed(1.0), fixed(0.0)
    assert [one(all_of(missing, other), "") for other in (yes, no, missing)] == [None, 0.0, None]
    assert [one(any_of(missing, other), "") for other in (yes, no, missing)] == [1.0, None, None]
    assert one(negated(missing), "") is None
    assert one(share(missing, no), "") is None
    assert one(share(yes, no, no, yes), "") == 0.5


def test_a_threshold_makes_a_score_binary() -> None:
    score = fixed(0.2, 0.5, 0.9, None, name="toxic", binary=False)
    toxic = above(score, 0.5)
    assert (toxic.name, toxic.binary) == ("toxic>0.5", True)
    assert toxic([""] * 4, [""] * 4) == [0, 0, 1, None]
    assert negated(toxic)([""] * 4, [""] * 4) == [1, 1, 0, None]
    assert not share(toxic).binary


def test_combinations_say_what_they_are() -> None:
    assert all_of(contains("a"), negated(compiles())).name == "(contains:a and not compiles)"
    assert any_of(contains("a"), pep8()).name == "(contains:a or pep8)"
    assert share(contains("a"), contains("b")).name == "share(contains:a, contains:b)"


# errors


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "no constraint ''"),
        ("compile", "did you mean 'compiles'"),
        ("lenght<=3", "did you mean 'length'"),
        ("pep-8", "did you mean 'pep8'"),
        ("nopii", "did you mean 'no-pii'"),
        ("not contain:x", "did you mean 'contains'"),
        ("zzzzzz", "known: contains"),
        ("contains", "empty word"),
        ("contains:", "empty word"),
        ("contains:a,,b", "empty word"),
        ("regex:", "empty"),
        ("regex:(", "'\\(' is no regular expression"),
        ("compiles=1", "write compiles:"),
        ("compiles:finish=no", "did you mean 'finished'"),
        ("compiles:finished", "no value"),
        ("compiles:finished=maybe", "neither yes nor no"),
        ("compiles:statements=-1", "not a whole number"),
        ("compiles:statements=1,statements=2", "a second one"),
        ("pep8:ignore=e501", "not a code"),
        ("pep8:ignore=E,select=W", "one of the two"),
        ("pep8:max_line_length=0", "no room"),
        ("no-pii:rules=emial", "did you mean 'email'"),
        ("length", "no bounds"),
        ("length:100", "write length<=100"),
        ("length<100", "write length<=100"),
        ("length<=1,<=2", "no bounds"),
        ("words>=5,<=3", "no range"),
        ("words>=3 x", "no bounds"),
    ],
)
def test_a_wrong_name_is_an_error_that_helps(name: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        named(name)
    assert caught.value.fix


def test_wrong_arguments_are_errors_that_help() -> None:
    with pytest.raises(ConfigError, match="one text and no list"):
        contains_any("abc")
    with pytest.raises(ConfigError, match="empty word"):
        contains_any([])
    with pytest.raises(ConfigError, match="no range"):
        length()
    with pytest.raises(ConfigError, match="did you mean 'words'"):
        length(at_most=1, unit="word")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="statements=-1"):
        compiles(statements=-1)
    with pytest.raises(ConfigError, match="without a rule"):
        no_pii(rules=[])
    with pytest.raises(ConfigError, match="no features"):
        all_of()
    with pytest.raises(ConfigError, match="toxic is not binary"):
        negated(fixed(0.3, name="toxic", binary=False))
    assert matches("a|b").name == "regex:a|b"
