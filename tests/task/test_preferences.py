"""Pairs of answers: every format that is read, who stands first, which part a prompt is in, and what bad rows are told."""

from __future__ import annotations

import gzip
import json
import sys
import types
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from amenable.errors import ConfigError, DataError
from amenable.task.dialogue import Conversation, Message, opening, parted
from amenable.task.preferences import (
    NAMED,
    Comparison,
    comparison_of,
    content_id,
    load_comparisons,
    of_split,
    split_of,
)
from amenable.task.reading import hub_rows

PLACES = [parent / "shared" / "data" for parent in Path(__file__).resolve().parents]
REAL = next((place / "hh_harmless_preferences.jsonl.gz" for place in PLACES if place.is_dir()), None)
needs_data = pytest.mark.skipif(REAL is None or not REAL.exists(), reason="no shared/data beside the repository")

USER = {"role": "user", "content": "What color is the sky?"}
BLUE = {"role": "assistant", "content": "It is blue."}
GREEN = {"role": "assistant", "content": "It is green."}
HH = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: {}\n\nAssistant:{}"


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(*rows: Any, tmp_path: Path) -> list[Comparison]:
    return load_comparisons(write(tmp_path / "pairs.jsonl", *rows))


def better(pair: Comparison) -> tuple[str, str, str]:
    """(prompt, the better answer, the other), whichever stands first."""
    assert pair.label in (0.0, 1.0)
    return (pair.prompt, pair.first, pair.second) if pair.label == 1 else (pair.prompt, pair.second, pair.first)


# --- formats


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}, ("The sky is", " blue.", " green.")),
        ({"prompt": "", "chosen": "a", "rejected": ""}, ("", "a", "")),
        ({"chosen": "The sky is blue.", "rejected": "The sky is green."}, ("The sky is", " blue.", " green.")),
        ({"chosen": "The sky is blue.", "rejected": "The sky is black."}, ("The sky is", " blue.", " black.")),
        ({"chosen": "Sky?\n\nBlue", "rejected": "Sky?\n\nRed"}, ("Sky?", "\n\nBlue", "\n\nRed")),
        ({"chosen": "The sky is blue", "rejected": "The sky is"}, ("The sky is", " blue", "")),
        ({"chosen": "天空是蓝色", "rejected": "天空是绿色"}, ("天空是", "蓝色", "绿色")),
        ({"chosen": HH.format("a", " Yes."), "rejected": HH.format("a", " Yesterday.")},
         (HH.format("a", ""), " Yes.", " Yesterday.")),
        # they part in what the human said: the last turn of the assistant that both share is the prompt's end
        ({"chosen": HH.format("a", " x"), "rejected": HH.format("b", " y")},
         ("\n\nHuman: Hi\n\nAssistant:", " Hello\n\nHuman: a\n\nAssistant: x", " Hello\n\nHuman: b\n\nAssistant: y")),
        ({"chosen": HH.format("a", ""), "rejected": HH.format("a", " y")}, (HH.format("a", ""), "", " y")),
    ],
)  # fmt: skip
def test_texts_with_and_without_a_prompt(row: dict[str, str], found: tuple[str, str, str], tmp_path: Path) -> None:
    (pair,) = read(row, tmp_path=tmp_path)
    assert better(pair) == found
    assert pair.conversation is None
    if "prompt" not in row:
        assert found[0] + found[1] == row["chosen"]
        assert found[0] + found[2] == row["rejected"]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [USER], "chosen": [BLUE], "rejected": [GREEN]},
        {"chosen": [USER, BLUE], "rejected": [USER, GREEN]},
        {"prompt": USER["content"], "chosen": [USER, BLUE], "rejected": [USER, GREEN]},  # ultrafeedback_binarized
    ],
)
def test_conversations_are_messages_and_text(row: dict[str, Any], tmp_path: Path) -> None:
    (pair,) = read(row, tmp_path=tmp_path)
    asked = "\n\nHuman: What color is the sky?\n\nAssistant:"
    assert better(pair) == (asked, " It is blue.", " It is green.")
    talk = pair.conversation
    assert talk is not None
    assert talk.prompt == (Message("user", "What color is the sky?"),)
    assert (talk.first if pair.label == 1 else talk.second) == (Message("assistant", "It is blue."),)


def test_a_conversation_may_have_a_system_message_and_part_at_the_user() -> None:
    system, ask = Message("system", "Be kind."), Message("user", "Hi")
    yes, no = Message("assistant", "Yes"), Message("assistant", "No")
    assert Conversation((system, ask), (yes,), (no,)).texts() == (
        "\n\nSystem: Be kind.\n\nHuman: Hi\n\nAssistant:", " Yes", " No",
    )  # fmt: skip
    prompt, first, second = Conversation((ask, yes), (ask, no), (Message("user", "Bye"), no)).texts()
    assert prompt + first == "\n\nHuman: Hi\n\nAssistant: Yes\n\nHuman: Hi\n\nAssistant: No"
    assert second == "\n\nHuman: Bye\n\nAssistant: No"
    assert Conversation((ask,), (), (no,)).texts() == ("\n\nHuman: Hi\n\nAssistant:", "", " No")


@pytest.mark.parametrize(("label", "found"), [(0.25, 0.25), (1, 1.0), (True, 1.0), (False, 0.0), (None, None)])
def test_rows_of_first_and_second_keep_their_order_and_label(label: Any, found: float | None, tmp_path: Path) -> None:
    row = {"prompt": "p", "first": "a", "second": "b", "label": label, "judge": "1.5B", "outside": 0.1, "id": 7}
    (pair,) = read(row, tmp_path=tmp_path)
    assert (pair.prompt, pair.first, pair.second, pair.label, pair.id) == ("p", "a", "b", found, "7")


def test_a_missing_label_is_missing(tmp_path: Path) -> None:
    (pair,) = read({"prompt": "p", "first": "a", "second": "b"}, tmp_path=tmp_path)
    assert pair.label is None
    assert pair.swapped().label is None


def test_scores_are_margins_and_equal_scores_are_a_tie(tmp_path: Path) -> None:
    base = {"prompt": "p", "chosen": "good", "rejected": "bad"}
    pairs = read(
        {**base, "score_chosen": 8, "score_rejected": 6.5},
        {**base, "margin": 2.0},
        {**base, "score_chosen": 7, "score_rejected": 7},
        {**base, "score_chosen": 7, "score_rejected": None},
        {**base, "margin": 0.0},
        {"prompt": "p", "first": "a", "second": "b", "label": 0.3, "score_first": 1, "score_second": 4},
        tmp_path=tmp_path,
    )
    signed = [pair.margin if pair.margin is None or pair.first == "good" else -pair.margin for pair in pairs[:5]]
    assert signed == [1.5, 2.0, 0.0, None, 0.0]
    assert [pair.label == 0.5 for pair in pairs[:5]] == [False, False, True, False, False]
    assert (pairs[5].margin, pairs[5].label) == (-3.0, 0.3)


def test_the_same_answer_twice_is_a_tie(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "a"},
        {"chosen": HH.format("q", " a"), "rejected": HH.format("q", " a")},
        {"chosen": [USER, BLUE], "rejected": [USER, BLUE]},
    ]
    pairs = read(*rows, tmp_path=tmp_path)
    assert [pair.label for pair in pairs] == [0.5, 0.5, 0.5]
    assert [pair.first for pair in pairs] == ["a", " a", " It is blue."]


def test_comparisons_of_summaries() -> None:
    info = {"subreddit": "books", "title": "T", "post": "P", "article": None}
    row = {"info": info, "summaries": [{"text": " One."}, {"text": " Two."}], "choice": 1}
    pair = comparison_of(row, "here")
    assert better(pair) == ("SUBREDDIT: r/books\n\nTITLE: T\n\nPOST: P\n\nTL;DR:", " Two.", " One.")
    news = comparison_of({**row, "info": {"article": "A", "post": None}}, "here")
    assert news.prompt == "Article:\nA\n\nTL;DR:"


# --- who stands first


def test_chosen_stands_first_in_half_of_the_rows_and_the_seed_decides(tmp_path: Path) -> None:
    path = write(tmp_path / "p", *({"prompt": f"p{i}", "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(2000)))
    labels = [[pair.label for pair in load_comparisons(path, seed=seed)] for seed in (0, 0, 1)]
    assert labels[0] == labels[1] != labels[2]
    for drawn in (labels[0], labels[2]):
        assert abs(drawn.count(1.0) - 1000) < 4 * 500**0.5  # four standard deviations
    same = sum(one == other for one, other in zip(labels[0], labels[2], strict=True))
    assert abs(same - 1000) < 4 * 500**0.5


def test_the_coin_does_not_know_the_label(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": str(i), "rejected": str(i + 1)} for i in range(50)]
    turned = [{"prompt": "p", "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    for one, other in zip(read(*rows, tmp_path=tmp_path), read(*turned, tmp_path=tmp_path), strict=True):
        assert (one.first, one.second, one.id) == (other.first, other.second, other.id)
        assert {one.label, other.label} == {0.0, 1.0}


def test_swapped_twice_is_the_same() -> None:
    talk = Conversation((Message("user", "q"),), (Message("assistant", "a"),), (Message("assistant", "b"),))
    pair = Comparison(*talk.texts(), 0.25, "x", 2.0, talk)
    other = pair.swapped()
    assert (other.first, other.label, other.margin) == (" b", 0.75, -2.0)
    assert other.conversation is not None
    assert other.conversation.texts() == (other.prompt, other.first, other.second)
    assert other.swapped() == pair
    assert content_id(other) == content_id(pair)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "p", "first": "a", "second": "b"},
        {"prompt": "p", "first": "a\u2028b", "second": "", "label": 0.07, "margin": -1.5, "id": "mine"},
        {"prompt": [USER], "first": [GREEN], "second": [BLUE], "label": 0.0},
    ],
)
def test_a_row_is_read_back_equal(row: dict[str, Any], tmp_path: Path) -> None:
    (pair,) = read(row, tmp_path=tmp_path)
    assert read(pair.row(), tmp_path=tmp_path) == [pair]
    assert row.items() <= pair.row().items()


# --- files


def test_every_kind_of_file_gives_the_same_pairs(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": f"a{i}", "rejected": "é\u2028"} for i in range(3)]
    lines = "\n" + "".join(json.dumps(row, ensure_ascii=False) + "\r\n\r\n" for row in rows)
    contents = {
        "lines": lines.encode(),
        "marked": b"\xef\xbb\xbf" + lines.strip().encode(),
        "list.json": json.dumps(rows, indent=2).encode(),
        "packed.gz": gzip.compress(lines.encode()),
        "packed without its name": gzip.compress(json.dumps(rows).encode()),
    }
    found = []
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        found.append(load_comparisons(tmp_path / name))
    assert len(found[0]) == 3
    assert all(pairs == found[0] for pairs in found)
    assert load_comparisons(tmp_path / "lines", limit=2) == found[0][:2]


def test_a_run_folder_gives_the_pairs_of_its_closed_stages(tmp_path: Path) -> None:
    pair = {"prompt": "p", "first": "a", "second": "b", "label": 0.9}
    lines = [
        {"stage": "samples", "text": "not a pair"},
        {"stage": "samples", "rows": 1},
        {"stage": "judged", **pair},
        {"stage": "judged", "rows": 1},
        {"stage": "more", **pair},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "samples.jsonl").write_text(text + '{"stage": "more", "pro')  # killed while it wrote
    assert [found.label for found in load_comparisons(tmp_path)] == [0.9]
    (tmp_path / "samples.jsonl").write_text(text + '{"stage": "more", "pro\n' + text)
    with pytest.raises(DataError, match=r"samples\.jsonl, line 6: not valid JSON"):
        load_comparisons(tmp_path)


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        (b'{"prompt": "p", "chosen": "a", "rejected": "b"}\n\n{"prompt": \n', "line 3", "not valid JSON"),
        (b'[{"prompt": "p", "chosen": "a", "rejected": "b"}, 5]', "row 2", "not a JSON object"),
        (b'{"prompt": "p", "chosen": "a"}', "line 1", r"no pair of answers \(fields: prompt, chosen\)"),
        (b'{"prompt": "p", "completion": "a", "label": true}', "line 1", "unpaired"),
        (b'{"prompt": "p", "chosen": "a", "rejected": null}', "line 1", "field `rejected` is missing"),
        (b'{"prompt": "p", "chosen": "a", "rejected": 5}', "line 1", "`rejected` is 5, not a string"),
        (b'{"chosen": "one", "rejected": "other"}', "line 1", "share no beginning"),
        (b'{"chosen": "same words", "rejected": "same words"}', "line 1", "are the same text"),
        (b'{"prompt": "p", "first": "a", "second": "b", "label": 1.5}', "line 1", "label=1.5"),
        (b'{"prompt": "p", "first": "a", "second": "b", "label": NaN}', "line 1", "`label` is nan"),
        (b'{"prompt": "p", "first": "a", "second": "b", "label": "first"}', "line 1", "`label` is 'first'"),
        (b'{"first": "a", "second": "b"}', "line 1", "field `prompt` is missing"),
        (b'{"prompt": "p", "chosen": "a", "rejected": "b", "p_chosen": 0.2}', "line 1", "rejected answer would be"),
        (b'{"prompt": "p", "chosen": "a", "rejected": "b", "margin": "big"}', "line 1", "`margin` is 'big'"),
        (b'{"prompt": "p", "chosen": "a", "rejected": "b", "id": [1]}', "line 1", "`id` is"),
        (b'{"prompt": "p", "chosen": "a\\ud800", "rejected": "b"}', "line 1", "half a character"),
        (b'{"prompt": [{"role": "user"}], "chosen": [], "rejected": []}', "line 1", "message 1 of `prompt` has content None"),
        (b'{"prompt": [{"from": "human", "value": "x"}], "chosen": [], "rejected": []}', "line 1", "has role None"),
        (b'{"chosen": [{"role": "user", "content": "a"}], "rejected": [{"role": "user", "content": "b"}]}',
         "line 1", "no first message in common"),
        (b'{"prompt": "else", "chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],'
         b' "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]}',
         "line 1", "`prompt` is 'else', and the conversations begin with 'a'"),
        (b'{"prompt": [{"role": "user", "content": "a", "tool_calls": [1]}], "chosen": [], "rejected": []}',
         "line 1", "has tool_calls"),
    ],
)  # fmt: skip
def test_a_bad_row_names_the_file_the_line_what_is_wrong_and_a_fix(
    content: bytes, where: str, what: str, tmp_path: Path
) -> None:
    path = tmp_path / "pairs"
    path.write_bytes(content)
    with pytest.raises(DataError, match=what) as caught:
        load_comparisons(path)
    assert caught.value.what.startswith(f"{path}, {where}: ")
    assert caught.value.fix


@pytest.mark.parametrize(
    "content", [b"PAR1\x00\xff\xfe", gzip.compress(b"{}" * 99)[:20], b"\x1f\x8bno gzip", b"[1, 2", b"", b"[]"]
)
def test_a_file_that_holds_no_pairs_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pairs"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_comparisons(path)
    assert str(path) in caught.value.what
    assert caught.value.fix


def test_what_is_neither_file_nor_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file none\.jsonl"):
        load_comparisons("none.jsonl")
    with pytest.raises(DataError, match="hh-harmless"):
        load_comparisons("hh-harmful")
    with pytest.raises(DataError, match=r"without samples\.jsonl"):
        load_comparisons(tmp_path)
    path = write(tmp_path / "p", {"prompt": "p", "first": "a", "second": "b"})
    with pytest.raises(ConfigError, match="'held-out'"):
        load_comparisons(path, split="held-out")
    with pytest.raises(ConfigError, match="limit=0"):
        load_comparisons(path, limit=0)


# --- parts


def test_parts_share_no_prompt_and_dialogues_stay_whole(tmp_path: Path) -> None:
    rows = [{"prompt": f"p {i // 2}", "first": str(i), "second": ""} for i in range(4000)]
    path = write(tmp_path / "p", *rows)
    parts = {split: load_comparisons(path, split=split) for split in ("train", "validation", "test")}
    assert sum(map(len, parts.values())) == 4000
    assert len(Counter((pair.prompt, split) for split, part in parts.items() for pair in part)) == 2000
    assert len(parts["train"]) == pytest.approx(3200, abs=4 * (2000 * 0.16) ** 0.5 * 2)
    assert len(parts["test"]) == pytest.approx(400, abs=4 * (2000 * 0.09) ** 0.5 * 2)
    assert of_split(load_comparisons(path), "test") == parts["test"]
    for i in range(50):  # a dialogue and its continuation
        start = f"\n\nHuman: {i}\n\nAssistant:"
        assert split_of(start) == split_of(f"{start} Yes.\n\nHuman: More\n\nAssistant:")
    assert split_of("p 1") == split_of(" p  1\n")
    with pytest.raises(ConfigError, match="held-out"):
        of_split([], "held-out")


def test_where_two_texts_part() -> None:
    assert parted("a b", "a c") == 1
    assert parted("ab", "ac") is None
    assert parted("f(x)", "f(y)") == 2
    assert parted("a's", "as") is None
    assert parted("", "a") is None
    assert opening("\n\nHuman: Hi  there\n\nAssistant: x\n\nHuman: y\n\nAssistant:") == "Human: Hi there"
    assert opening("Hi\n\nAssistant: there") == "Hi Assistant: there"


# --- the hub


class Hub(types.ModuleType):
    """What `datasets` gives for `published`; a data set that is a script has it as plain tables alone."""

    def __init__(self, published: dict[str, list[dict[str, Any]]], *, script: bool = False) -> None:
        super().__init__("datasets")
        self.published, self.script = published, script
        self.asked: list[tuple[Any, ...]] = []

    def load_dataset(self, *names: Any, **options: Any) -> dict[str, list[dict[str, Any]]]:
        self.asked.append((names, {key: value for key, value in options.items() if value is not None}))
        if self.script and "revision" not in options:
            raise RuntimeError("Dataset scripts are no longer supported, but found x.py")
        return self.published


def test_named_sets_take_their_published_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    row = lambda text: {"chosen": HH.format("q", f" {text}"), "rejected": HH.format("q", " other")}
    hub = Hub({"train": [row("a"), row("b")], "test": [row("c")]})
    monkeypatch.setitem(sys.modules, "datasets", hub)
    assert [better(pair)[1] for pair in load_comparisons("hh-harmless", split="test")] == [" c"]
    assert [better(pair)[1] for pair in load_comparisons("hh-harmless")] == [" a", " b", " c"]
    assert hub.asked[0] == (("Anthropic/hh-rlhf", None), {"data_dir": "harmless-base"})
    with pytest.raises(ConfigError, match="no split 'validation'"):
        load_comparisons("hh-harmless", split="validation")
    assert [better(pair)[1] for pair in load_comparisons("owner/name:part", split="train", limit=1)] == [" a"]
    assert hub.asked[-1] == (("owner/name", "part"), {})
    with pytest.raises(DataError, match="no published split 'dev'"):
        load_comparisons("owner/name", split="dev")
    hub.published["test"].append({"chosen": "a"})
    with pytest.raises(DataError, match="Anthropic/hh-rlhf, test, row 2: no pair"):
        load_comparisons("hh-harmless")


def test_a_data_set_that_is_a_script_is_taken_from_the_hubs_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    info = {"subreddit": "books", "title": "T", "post": "P", "article": None}
    row = {"info": info, "summaries": [{"text": " One."}, {"text": " Two."}], "choice": 0}
    hub = Hub({"train": [row], "validation": []}, script=True)
    monkeypatch.setitem(sys.modules, "datasets", hub)
    (pair,) = load_comparisons("tldr", split="train")
    assert better(pair)[1:] == (" One.", " Two.")
    assert hub.asked == [
        (("openai/summarize_from_feedback", "comparisons"), {}),
        (("openai/summarize_from_feedback",), {"data_dir": "comparisons", "revision": "refs/convert/parquet"}),
    ]


def test_the_hub_without_the_package_or_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: Any, **options: Any) -> None:
        raise ConnectionError("no route")

    hub = Hub({})
    monkeypatch.setattr(hub, "load_dataset", refuse)
    for name in (*NAMED, "owner/name"):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(DataError, match=r"amenable\[hub\]"):
            load_comparisons(name)
        monkeypatch.setitem(sys.modules, "datasets", hub)
        with pytest.raises(DataError, match=r"could not be fetched from the hub .ConnectionError"):
            load_comparisons(name)


def test_the_package_itself_on_a_folder_laid_out_like_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "published" / "harmless-base"
    folder.mkdir(parents=True)
    for split, count in (("train", 3), ("test", 2)):
        rows = [{"chosen": HH.format(str(i), " yes"), "rejected": HH.format(str(i), " no")} for i in range(count)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    found = list(hub_rows(str(tmp_path / "published"), data_dir="harmless-base", splits=["test"]))
    assert [where.rpartition(", ")[2] for where, _ in found] == ["row 1", "row 2"]
    assert better(comparison_of(found[1][1], found[1][0])) == (HH.format("1", ""), " yes", " no")
    talk = {"chosen": [USER, BLUE], "rejected": [USER, GREEN], "score_chosen": 9.0, "score_rejected": 2.0}
    datasets.Dataset.from_list([talk]).to_parquet(tmp_path / "talks" / "train_prefs-0.parquet")
    ((where, row),) = hub_rows(str(tmp_path / "talks"))
    pair = comparison_of(row, where)
    assert better(pair)[1:] == (" It is blue.", " It is green.")
    assert abs(pair.margin or 0) == 7.0


# --- people's own


def test_tables_and_saved_data_sets_are_read_like_lines(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"prompt": f"Day {i} is", "chosen": " fine.", "rejected": " grim."} for i in range(5)]
    expected = read(*rows, tmp_path=tmp_path)
    held = datasets.Dataset.from_list(rows)
    held.to_parquet(tmp_path / "p.parquet")
    held.to_csv(tmp_path / "p.csv")
    held.save_to_disk(tmp_path / "saved")
    for name in ("p.parquet", "p.csv", "saved"):
        assert load_comparisons(tmp_path / name) == expected, name
    chats = [{"prompt": [USER], "chosen": [BLUE], "rejected": [GREEN]}]
    datasets.Dataset.from_list(chats).to_parquet(tmp_path / "chats.parquet")
    assert load_comparisons(tmp_path / "chats.parquet") == read(*chats, tmp_path=tmp_path)


@needs_data
def test_peoples_preferences_on_harmlessness() -> None:
    assert REAL is not None
    pairs = load_comparisons(REAL)
    rows = [json.loads(line) for line in gzip.decompress(REAL.read_bytes()).splitlines()]
    assert len(pairs) == len(rows) == 1156
    for pair, row in zip(pairs, rows, strict=True):
        prompt, chosen, rejected = better(pair)
        assert (prompt + chosen, prompt + rejected) == (row["chosen"], row["rejected"])
        assert prompt.endswith("\n\nAssistant:")
        assert "\n\nHuman:" not in chosen + rejected
    assert len({pair.id for pair in pairs}) == 1156
    assert abs(sum(pair.label == 1 for pair in pairs) - 578) < 4 * 289**0.5
    openings = {
        split: {opening(pair.prompt) for pair in of_split(pairs, split)} for split in ("train", "validation", "test")
    }
    assert not openings["train"] & openings["test"] | openings["train"] & openings["validation"]
    assert load_comparisons(REAL, split="test", limit=5) == of_split(pairs, "test")[:5]
