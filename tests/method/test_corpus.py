"""Which token belongs to which segment, where control tokens stand, and that rows hold the stream, every token once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import byte_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from amenable.errors import ConfigError, DataError
from amenable.method.corpus import checked, order_of, segment_of, stream_of, threshold_at, tokenised
from amenable.policy.control import BAD, GOOD


@dataclass(frozen=True)
class Document:
    text: str
    ends: tuple[int, ...]
    scores: tuple[float | None, ...]


def by(*segments: tuple[str, float | None]) -> Document:
    text, ends = "", []
    for segment, _ in segments:
        text += segment
        ends.append(len(text))
    return Document(text, tuple(ends), tuple(score for _, score in segments))


TOKENIZER = byte_tokenizer()
EOS, A_GOOD, A_BAD = 256, 300, 301
ONE = by(("ab\n", 0.0), ("cd\n", 0.5), ("e\n", None))
TWO = by(("xy\n", 1.0))
CORPUS = tokenised([ONE, TWO], TOKENIZER)


def ids(text: str) -> list[int]:
    return list(TOKENIZER(text)["input_ids"])


def merging(merge: tuple[str, str]) -> PreTrainedTokenizerFast:
    """Bytes, and one token of two of them that reaches over borders of segments."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate([*alphabet, "".join(merge)])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[merge]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<eos>"])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>")


def test_tokens_know_their_segments() -> None:
    assert CORPUS.documents == 2
    assert CORPUS.ids.tolist() == ids(ONE.text + TWO.text)
    assert CORPUS.segments.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert CORPUS.starts.tolist() == [0, 8, 11]
    assert CORPUS.scores.tolist()[:2] == [0.0, 0.5]
    assert math.isnan(CORPUS.scores[2])
    assert CORPUS.means.tolist() == [0.25, 1.0]  # what is missing is not a 0


def test_a_token_over_a_border_belongs_to_the_segment_it_ends_in() -> None:
    tokenizer = merging(("Ċ", "c"))  # "\nc" is one token, with the end of one line and the beginning of the next
    corpus = tokenised([ONE], tokenizer)
    assert [tokenizer.decode([token]) for token in corpus.ids] == ["a", "b", "\nc", "d", "\n", "e", "\n"]
    assert corpus.segments.tolist() == [0, 0, 1, 1, 1, 2, 2]
    stream = stream_of(corpus, np.array([0]), eos=257, controls=(A_GOOD, A_BAD))
    told = [tokenizer.decode([token]) if token < 257 else int(token) for token in stream.ids]
    assert told == [257, A_GOOD, "a", "b", A_BAD, "\nc", "d", "\n", "e", "\n", 257]  # all of "cd" is behind its <|bad|>
    assert stream.scores.tolist()[4:8] == [0.5, 0.5, 0.5, 0.5]


def test_a_segment_inside_a_token_has_neither_token_nor_control_token() -> None:
    tokenizer = merging(("Ċ", "Ċ"))
    corpus = tokenised([by(("a\n", 0.0), ("\n", 1.0), ("b", 0.0))], tokenizer)
    assert corpus.segments.tolist() == [0, 1, 2]  # "a", "\n\n", "b"
    corpus = tokenised([by(("\n", 1.0), ("\n", 0.0))], tokenizer)
    assert corpus.segments.tolist() == [1]
    stream = stream_of(corpus, np.array([0]), eos=257, controls=(A_GOOD, A_BAD))
    assert stream.control.sum() == 1
    assert A_BAD not in stream.ids


def test_offsets_that_leave_out_white_space() -> None:
    """GPT-2's offsets of " World" begin at W, and those of a token of spaces are empty: the end is what counts."""
    assert segment_of([6, 12], [(0, 5), (5, 6), (7, 12)]).tolist() == [0, 0, 1]
    assert segment_of([3, 6], [(0, 3), (6, 6), (6, 6)]).tolist() == [0, 1, 1]
    assert segment_of([3], [(0, 0)]).tolist() == [0]


def test_a_text_is_never_taken_for_a_control_token() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": [GOOD, BAD]})
    corpus = tokenised([by((f"{GOOD}<eos>{BAD}", 0.0))], tokenizer)
    assert len(corpus) == len(f"{GOOD}<eos>{BAD}")
    assert max(corpus.ids) < 256


def test_the_stream_of_every_objective() -> None:
    both = np.array([1, 0])
    plain = stream_of(CORPUS, both, eos=EOS)
    assert plain.ids.tolist() == [EOS, *ids(TWO.text), EOS, *ids(ONE.text), EOS]
    assert not plain.control.any()
    assert plain.scores.tolist()[1:5] == [1.0] * 4  # the document's end belongs to its last segment
    assert math.isnan(plain.scores[-1])
    told = stream_of(CORPUS, both, eos=EOS, controls=(A_GOOD, A_BAD), threshold=0.0)
    # 0 is a threshold; a segment without a score has no control token
    assert told.ids.tolist() == [
        EOS, A_BAD, *ids(TWO.text), EOS, A_GOOD, *ids("ab\n"), A_BAD, *ids("cd\n"), *ids("e\n"), EOS,
    ]  # fmt: skip
    assert told.control.tolist() == [token in (A_GOOD, A_BAD) for token in told.ids]
    assert told.scores[1] == 1.0
    assert A_BAD not in stream_of(CORPUS, np.array([0]), eos=EOS, controls=(A_GOOD, A_BAD), threshold=0.5).ids
    opened = stream_of(CORPUS, both, eos=EOS, opening=[7])
    assert opened.ids.tolist() == [7, *ids(TWO.text), EOS, 7, *ids(ONE.text), EOS]
    assert math.isnan(opened.scores[0])


def test_a_share_of_the_segments_has_no_control_token() -> None:
    documents = [by(*[(f"{i % 10}\n", float(i % 2)) for i in range(500)]) for _ in range(8)]
    corpus = tokenised(documents, TOKENIZER)
    order = np.arange(8)
    control = {"eos": EOS, "controls": (A_GOOD, A_BAD)}
    dropped = stream_of(corpus, order, drop=0.01, seed=3, **control)  # type: ignore[arg-type]
    assert 15 <= 4000 - int(dropped.control.sum()) <= 70  # 40 +- 4 standard deviations
    again = stream_of(corpus, order, drop=0.01, seed=3, **control)  # type: ignore[arg-type]
    other = stream_of(corpus, order, drop=0.01, seed=4, **control)  # type: ignore[arg-type]
    assert np.array_equal(dropped.ids, again.ids)
    assert not np.array_equal(dropped.ids, other.ids)
    assert int(stream_of(corpus, order, **control).control.sum()) == 4000  # type: ignore[arg-type]


def test_orders_are_the_seeds_and_leaving_out_keeps_them() -> None:
    corpus = tokenised([by(("a", float(i))) for i in range(50)] + [by(("a", None))], TOKENIZER)
    order = order_of(corpus, seed=1, epoch=0)
    assert sorted(order.tolist()) == list(range(51))
    assert not np.array_equal(order, order_of(corpus, seed=1, epoch=1))
    kept = order_of(corpus, seed=1, epoch=0, at_most=9.0)
    assert kept.tolist() == [document for document in order.tolist() if document < 10]


def test_thresholds_are_scores_of_the_data() -> None:
    scores = np.array([0.0, 0.0, 0.0, 0.2, np.nan, 0.9])
    half = threshold_at(scores, quantile=0.5)
    assert (half.value, half.below, half.n) == (0.0, 0.6, 5)
    assert threshold_at(scores, quantile=0.7).value == 0.2
    assert checked(0.1, np.array([0.1, 0.3]), of="segments").below == 0.5  # also where 0.1 is a score itself
    with pytest.raises(DataError, match="every one of the 5 scores"):
        threshold_at(scores, quantile=0.95)
    with pytest.raises(DataError, match="none of the 2 scores"):
        checked(0.05, np.array([0.1, 0.3]), of="documents")
    with pytest.raises(DataError, match="no score is known"):
        threshold_at(np.array([np.nan]), quantile=0.5)
    with pytest.raises(ConfigError, match="quantile=1"):
        threshold_at(scores, quantile=1.0)


def test_a_tokenizer_must_say_where_its_tokens_stand() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ConfigError, match="which characters"):
        tokenised([ONE], Slow())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.text(alphabet="aé \n", min_size=1, max_size=4), st.none() | st.floats(0, 1)), max_size=4)
    )
)
def test_a_stream_is_the_texts(parts: list[list[tuple[str, float | None]]]) -> None:
    """Control tokens away, the stream decodes to the documents; every segment with tokens and a score has one."""
    documents = [by(*part) for part in parts]
    corpus = tokenised(documents, TOKENIZER)
    stream = stream_of(corpus, np.arange(len(documents)), eos=EOS, controls=(A_GOOD, A_BAD), threshold=0.5)
    text = TOKENIZER.decode(stream.ids[~stream.control].tolist())
    assert text == "<eos>" + "".join(document.text + "<eos>" for document in documents)
    known = [score for document in documents for score in document.scores if score is not None]
    assert int(stream.control.sum()) == len(known)  # one token a byte: no segment is inside a token
    assert int((stream.ids == A_GOOD).sum()) == sum(score <= 0.5 for score in known)
