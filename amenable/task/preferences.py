"""Which of two answers is better, as people or a judge said: one record, and the formats that such data come in.

    label = P(first is better than second as an answer to prompt)      1 the first, 0 the second, 0.5 a tie, None: nobody said

A file that names the better answer `chosen` would make whoever always picks the first right on every pair. So a coin, drawn
from the pair's content and a seed, decides which of the two stands first; it does not know the label. Rows that have their
own order (first, second) keep it.

Read are TRL's preference formats (explicit prompt, implicit prompt, conversations; any of them with score_chosen and
score_rejected, or margin), the dialogues of HH-RLHF (Bai et al. 2022, arXiv 2204.05862), the comparisons of Stiennon et al.
2020 (arXiv 2009.01325), and rows of prompt, first, second, label. Changed from TRL: an implicit prompt is never cut inside a
word, or inside a turn of a dialogue; equal scores are a tie, whichever is called chosen.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from amenable.errors import ConfigError, DataError
from amenable.seeding import derive
from amenable.task.dialogue import Conversation, messages_of, opening, parted, plain, shared
from amenable.task.reading import Row, hub_rows, rows_of
from amenable.task.rows import excerpt, field
from amenable.task.tables import kind_of

SPLITS = ("train", "validation", "test")

_FORMATS = (
    "Give rows of prompt, chosen, rejected (or chosen and rejected alone, whole texts that begin alike), "
    "or of prompt, first, second, label."
)


@dataclass(frozen=True)
class Comparison:
    """Two answers to a prompt. prompt + first and prompt + second are the whole texts.

    label         P(first is better) in [0, 1] as somebody said, None if nobody did
    id            of the row, else a hash of the content: equal pairs have equal ids
    margin        by how much the first was scored higher (negative: the second), in the scorer's units; None: no scores
    conversation  the same as messages, where the data are conversations
    """

    prompt: str
    first: str
    second: str
    label: float | None = None
    id: str = ""
    margin: float | None = None
    conversation: Conversation | None = None

    def __post_init__(self) -> None:
        if self.label is not None and not 0 <= self.label <= 1:  # NaN is not in there either
            what = f"label={self.label!r} is no probability that the first answer is better."
            raise DataError(what, "Give a number from 0 to 1, or None where nobody said.")
        if self.margin is not None and not math.isfinite(self.margin):
            raise DataError(f"margin={self.margin!r} is no number.", "Give a finite number, or None.")

    @property
    def split(self) -> str:
        """ "train", "validation" or "test": that of its prompt."""
        return split_of(self.prompt)

    def swapped(self) -> Comparison:
        """The same pair, the other answer first."""
        other = self.conversation and Conversation(
            self.conversation.prompt, self.conversation.second, self.conversation.first
        )
        label = None if self.label is None else 1 - self.label
        margin = None if self.margin is None else -self.margin
        return replace(
            self, first=self.second, second=self.first, label=label, margin=margin, conversation=other or None
        )

    def row(self) -> dict[str, Any]:
        """The pair as a row of a JSONL file, which `load_comparisons` reads back equal; None is left out."""
        talk = self.conversation
        texts: dict[str, Any] = {"prompt": self.prompt, "first": self.first, "second": self.second}
        if talk is not None:
            texts = {"prompt": plain(talk.prompt), "first": plain(talk.first), "second": plain(talk.second)}
        facts = {"label": self.label, "margin": self.margin, "id": self.id}
        return {**texts, **{key: value for key, value in facts.items() if value not in (None, "")}}


@dataclass(frozen=True)
class Named:
    """A data set on the hub. `splits`: what is read, by the name it gets here, and by its published name."""

    hub_id: str
    splits: Mapping[str, str]
    config: str | None = None
    data_dir: str | None = None


NAMED: Mapping[str, Named] = {
    "hh-harmless": Named("Anthropic/hh-rlhf", {"train": "train", "test": "test"}, data_dir="harmless-base"),
    "hh-helpful": Named("Anthropic/hh-rlhf", {"train": "train", "test": "test"}, data_dir="helpful-base"),
    "tldr": Named(
        "openai/summarize_from_feedback", {"train": "train", "validation": "validation"}, config="comparisons"
    ),
    "ultrafeedback": Named(
        "HuggingFaceH4/ultrafeedback_binarized", {"train": "train_prefs", "test": "test_prefs"}
    ),
}  # fmt: skip


def load_comparisons(
    source: str | Path, *, limit: int | None = None, split: str | None = None, seed: int = 0
) -> list[Comparison]:
    """The pairs of `source`, in their order: at most `limit` (the first ones), of one `split`, or all.

    source  a file (JSONL, a JSON list, either gzipped), a run folder whose samples.jsonl has such rows, a name of `NAMED`,
            or a hub id, "owner/name" or "owner/name:subset"
    split   of a file: the part that `split_of` says; of a data set on the hub: one of its published splits
    seed    of the coins that decide which answer stands first
    Errors: DataError for a row that is no pair (file, line, what is wrong, how to mend it), and for no pairs at all;
    ConfigError for a split that cannot be.
    """
    return [pair for pair, _ in _read(source, limit, split, seed)]


def load_with_rows(
    source: str | Path, *, limit: int | None = None, split: str | None = None, seed: int = 0
) -> list[tuple[Comparison, Row]]:
    """The same pairs, each with its row as it stood there: whoever writes the pairs again can keep its other columns."""
    return list(_read(source, limit, split, seed))


def _read(source: str | Path, limit: int | None, split: str | None, seed: int) -> Iterator[tuple[Comparison, Row]]:
    if limit is not None and limit < 1:
        raise ConfigError(f"limit={limit} pairs cannot be read", "give a number from 1, or none for all")
    rows, by_prompt = _rows(source, split)
    pairs = ((comparison_of(row, where, seed=seed), row) for where, row in rows)
    found = False
    for pair, row in islice(((pair, row) for pair, row in pairs if not by_prompt or pair.split == split), limit):
        found = True
        yield pair, row
    if not found:
        part = f" in its part {split!r}" if by_prompt else ""
        raise DataError(f"{source} holds no pairs of answers{part}.", _FORMATS)


def comparison_of(row: Row, where: str, *, seed: int = 0) -> Comparison:
    """The pair of one row, in any of the formats. `where`: how errors call the row. Errors: DataError."""
    if "first" in row and "second" in row:
        return _checked(_ordered, row, where)
    if "chosen" in row and "rejected" in row:
        return _tossed(_checked(_chosen, row, where), seed)
    if {"info", "summaries", "choice"} <= set(row):
        return _tossed(_checked(_summaries, row, where), seed)
    if "completion" in row and "label" in row:
        what = f"{where}: prompt, completion, label is one answer a row (TRL's unpaired format), and no pair."
        raise DataError(what, _FORMATS)
    raise DataError(f"{where}: no pair of answers (fields: {', '.join(row) or 'none'}).", _FORMATS)


def split_of(prompt: str) -> str:
    """The part that a prompt belongs to, by a hash: train 80%, validation 10%, test 10%.

    Dialogues that open with the same words are in the same part, however far each goes.
    """
    return SPLITS[{0: 2, 1: 1}.get(derive(0, "preferences", opening(prompt)) % 10, 0)]


def of_split(comparisons: Sequence[Comparison], split: str) -> list[Comparison]:
    """Those of `split`, in their order."""
    _must_be_ours(split)
    return [pair for pair in comparisons if pair.split == split]


def _must_be_ours(split: str) -> None:
    if split not in SPLITS:
        raise ConfigError(f"there is no split {split!r} by prompts", f"use one of {', '.join(SPLITS)}")


def _rows(source: str | Path, split: str | None) -> tuple[Iterable[tuple[str, Row]], bool]:
    """(where, row) of the source, and whether the split is still to be taken, by the prompts."""
    path, text = Path(source), str(source)
    if not path.exists() and text in NAMED:
        named = NAMED[text]
        if split is not None and split not in named.splits:
            fix = f"use one of {', '.join(named.splits)}, or divide one of them with `of_split`"
            raise ConfigError(f"{text} ({named.hub_id}) has no split {split!r}", fix)
        published = list(named.splits.values()) if split is None else [named.splits[split]]
        return hub_rows(named.hub_id, named.config, data_dir=named.data_dir, splits=published), False
    hub_id, _, config = text.partition(":")
    if not path.exists() and hub_id.count("/") == 1 and not path.suffix and not hub_id.startswith((".", "/", "~")):
        return hub_rows(hub_id, config or None, splits=None if split is None else [split]), False
    if not path.exists():
        raise DataError(f"There is no file {path}.", f"Check the path. Named data sets: {', '.join(NAMED)}.")
    if split is not None:
        _must_be_ours(split)
    rows = rows_of(path)
    return (_with_pairs(rows) if path.is_dir() and not kind_of(path) else rows), split is not None


def _with_pairs(rows: Iterable[tuple[str, Row]]) -> Iterator[tuple[str, Row]]:
    """Those of a run's rows that are pairs: its other stages are something else."""
    return (
        (where, row) for where, row in rows if {"first", "second"} <= set(row) or {"chosen", "rejected"} <= set(row)
    )


def _checked(read: Callable[[Row, str], Comparison], row: Row, where: str) -> Comparison:
    """What `read` makes of the row, with an id; an error about a value says where the row is."""
    given = row.get("id")
    if isinstance(given, bool) or not isinstance(given, str | int | None):
        raise DataError(f"{where}: field `id` is {excerpt(given)}.", "Make `id` a text or a whole number.")
    try:
        pair = read(row, where)
        f"{pair.prompt}{pair.first}{pair.second}".encode()
    except UnicodeEncodeError as error:
        what = f"{where}: half a character stands in a text ({error.reason}): {excerpt(error.object[error.start :])}"
        raise DataError(what, "Take the lone surrogate (\\ud800 to \\udfff) out of the row.") from None
    except DataError as error:
        raise error if error.what.startswith(where) else DataError(f"{where}: {error.what}", error.fix) from None
    return replace(pair, id=str(given) if given not in (None, "") else content_id(pair))


def _ordered(row: Row, where: str) -> Comparison:
    label = _number(row, "label", where, "P(first is better), from 0 to 1, or leave it out where nobody said")
    scores = _scores(row, where, "first", "second")
    given = (row.get("prompt"), row["first"], row["second"])
    if isinstance(row.get("prompt"), list):
        parts = [
            messages_of(part, where, name) for part, name in zip(given, ("prompt", "first", "second"), strict=True)
        ]
        talk = Conversation(parts[0], parts[1], parts[2])
        return Comparison(*talk.texts(), label, margin=scores, conversation=talk)
    texts = (field(row, "prompt", where), field(row, "first", where), field(row, "second", where))
    return Comparison(*texts, label, margin=scores)


def _chosen(row: Row, where: str) -> Comparison:
    """The chosen one first. `p_chosen`, where there is one, is how sure the label is."""
    margin = _scores(row, where, "chosen", "rejected")
    scored_alike = margin == 0 and row.get("score_chosen") is not None
    label = _number(row, "p_chosen", where, "P(chosen is better), from 0.5 to 1")
    if label is not None and label < 0.5:
        what = f"{where}: `p_chosen` is {label:g}: the rejected answer would be the better one."
        raise DataError(what, "Swap `chosen` and `rejected`, and give 1 less `p_chosen`.")
    if isinstance(row["chosen"], list) or isinstance(row["rejected"], list):
        talk = _conversation(row, where)
        prompt, chosen, rejected = talk.texts()
        same = talk.first == talk.second
    else:
        talk = None
        prompt, chosen, rejected = _texts(row, where)
        same = chosen == rejected
    if label is None:
        label = 0.5 if same or scored_alike else 1.0
    return Comparison(prompt, chosen, rejected, label, margin=margin, conversation=talk)


def _texts(row: Row, where: str) -> tuple[str, str, str]:
    chosen, rejected = field(row, "chosen", where), field(row, "rejected", where)
    if row.get("prompt") is not None:
        return field(row, "prompt", where), chosen, rejected
    end = parted(chosen, rejected)
    if end is None:
        why = "are the same text" if chosen == rejected else "share no beginning"
        what = f"{where}: `chosen` and `rejected` {why}, and there is no `prompt`: where do the answers begin?"
        raise DataError(what, 'Add `prompt` to the row ("" if there is none), or take the row out.')
    return chosen[:end], chosen[end:], rejected[end:]


def _conversation(row: Row, where: str) -> Conversation:
    chosen, rejected = messages_of(row["chosen"], where, "chosen"), messages_of(row["rejected"], where, "rejected")
    if isinstance(row.get("prompt"), list):
        return Conversation(messages_of(row["prompt"], where, "prompt"), chosen, rejected)
    common = shared(chosen, rejected)
    if chosen == rejected and chosen:  # a tie: its last turn is the answer
        common -= 1
    prompt = chosen[:common]
    if not prompt:
        what = f"{where}: `chosen` and `rejected` have no first message in common, and `prompt` is no list of messages."
        raise DataError(what, 'Write `prompt` as [{"role": "user", "content": "..."}], or begin both with it.')
    said = row.get("prompt")
    if isinstance(said, str) and said.strip() not in [message.content.strip() for message in prompt]:
        what = f"{where}: `prompt` is {excerpt(said)}, and the conversations begin with {excerpt(prompt[0].content)}."
        raise DataError(what, "Leave out `prompt`, or make it a list of messages that both answer.")
    return Conversation(prompt, chosen[common:], rejected[common:])


def _summaries(row: Row, where: str) -> Comparison:
    """A row of openai/summarize_from_feedback, comparisons: posts from Reddit, and some news articles."""
    info, summaries, choice = row["info"], row["summaries"], row["choice"]
    if not isinstance(info, Mapping) or not isinstance(summaries, list) or len(summaries) != 2 or choice not in (0, 1):
        raise DataError(f"{where}: not a comparison of two summaries: {excerpt(dict(row))}", "Give it as published.")
    if info.get("article") is not None:
        prompt = f"Article:\n{field(info, 'article', where)}\n\nTL;DR:"
    else:
        parts = [field(info, name, where) for name in ("subreddit", "title", "post")]
        prompt = "SUBREDDIT: r/{}\n\nTITLE: {}\n\nPOST: {}\n\nTL;DR:".format(*parts)
    texts = [f" {field(summary, 'text', where).strip()}" for summary in summaries]
    return Comparison(prompt, texts[choice], texts[1 - choice], 1.0 if texts[0] != texts[1] else 0.5)


def _scores(row: Row, where: str, one: str, other: str) -> float | None:
    """By how much `one` was scored higher than `other`: the margin column, or the difference of the two scores."""
    margin = _number(row, "margin", where, "a number, or leave it out")
    high = _number(row, f"score_{one}", where, "a number, or leave it out")
    low = _number(row, f"score_{other}", where, "a number, or leave it out")
    return margin if margin is not None or high is None or low is None else high - low


def _number(row: Row, name: str, where: str, what: str) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{where}: field `{name}` is {excerpt(value)}, not a number.", f"Give `{name}` as {what}.")
    return float(value)


def _tossed(pair: Comparison, seed: int) -> Comparison:
    """The pair in the order that its coin says: heads for one of the two texts, whatever the label."""
    low, high = sorted((pair.first, pair.second))
    heads = derive(seed, "order", pair.prompt, low, high) & 1
    return pair if (pair.first == low) == bool(heads) else pair.swapped()


def content_id(pair: Comparison) -> str:
    """16 hexadecimal digits of a hash of the prompt and the two answers, in whichever order."""
    text = json.dumps([pair.prompt, *sorted((pair.first, pair.second))])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
