"""The page: safe whatever a model wrote, whole without scripts, the same bytes each time, every number."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.errors import DataError, StorageError
from amenable.evaluation.interval import Estimate, no_data, wilson
from amenable.records import Failure, Verdict
from amenable.report.html import flat, render, write
from amenable.report.page import (
    Bar,
    Bars,
    Block,
    Cards,
    Column,
    Curves,
    Headline,
    Headlines,
    Report,
    SampleCard,
    Section,
    Series,
    Table,
)

HOSTILE = (
    "</script></style></pre><script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    "\u202e\x00\x1b[31m\ud800\u200b&amp;"
)
VOID = {"meta", "input", "img", "br", "link"}
SVG_LEAVES = {"line", "rect", "path", "polygon"}


class Page(HTMLParser):
    """Checks nesting; collects text, tags, ids, and whatever could load or run something."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SVG_LEAVES, f"<{tag}/> is not self-closing in HTML"
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.stack or self.stack[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("−", "-").split())


def parsed(page: str) -> Page:
    parser = Page()
    parser.feed(page)
    parser.close()
    assert not parser.stack
    return parser


def report(*blocks: Block, **changes: object) -> Report:
    base = Report("A title", ["The answer."], "amenable run ilf seed=0", [Section("Part", blocks, ["Text."])])
    return Report(**{**base.__dict__, **changes})  # type: ignore[arg-type]


def hostile_report() -> Report:
    verdict = Verdict(
        "fail",
        (True, False, None),
        Failure(*[HOSTILE] * 5, line=3, source=HOSTILE),
        output=HOSTILE,
        integrity="cooperative",
    )
    card = SampleCard(
        HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE + "\nx", verdict, verdict, arm=HOSTILE, tags=(HOSTILE,)
    )
    estimate = wilson(3, 10)
    return Report(
        HOSTILE,
        [HOSTILE],
        HOSTILE,
        [
            Section(
                HOSTILE,
                [
                    Headlines([Headline(HOSTILE, estimate, HOSTILE)]),
                    Bars(HOSTILE, [Bar(HOSTILE, estimate, HOSTILE)], HOSTILE, HOSTILE),
                    Curves(HOSTILE, HOSTILE, HOSTILE, [Series(HOSTILE, [0.0, 1.0], [0.0, 1.0])], HOSTILE),
                    Table(HOSTILE, [HOSTILE, Column(HOSTILE)], [[HOSTILE, estimate]], HOSTILE),
                    Cards(HOSTILE, [card], HOSTILE, HOSTILE, HOSTILE),
                ],
                [HOSTILE],
            )
        ]
        * 3,
        {HOSTILE: {HOSTILE: HOSTILE}},
        {HOSTILE: HOSTILE},
        {HOSTILE: HOSTILE},
        {HOSTILE: 1.0},
        HOSTILE,
    )


def test_hostile_text_stays_text() -> None:
    page = render(hostile_report())
    tree = parsed(page)
    tags = [tag for tag, _ in tree.tags]
    assert (tags.count("script"), tags.count("style"), tags.count("img")) == (1, 1, 0)
    assert not [name for _, attributes in tree.tags for name in attributes if name.startswith("on")]
    assert not [name for _, attributes in tree.tags for name in attributes if name == "style"]
    for hidden in "\x00\x1b\u202e\u200b\ud800":
        assert hidden not in page
    assert '<span class="hidden-char">U+202E</span>' in page
    assert "<script>alert(1)</script>" in tree.text
    page.encode("utf-8")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40), st.text("qw \n<>&\"'", max_size=60))
def test_any_text_nests_and_encodes(task: str, draft: str, refinement: str) -> None:
    card = SampleCard(task, task, draft, task, refinement, arm=task, tags=(draft,))
    page = render(report(Cards(task, [card]), Table(task, [draft, "x"], [[refinement, 1]])))
    tree = parsed(page)  # every element closed where it was opened
    ours = {tag for tag, _ in parsed(render(hostile_report())).tags}  # whose elements are checked above
    assert {tag for tag, _ in tree.tags} <= ours | {"ins", "del"}  # no text became an element
    assert page.encode("utf-8").decode("utf-8") == page


def test_the_policy_allows_the_page_s_own_style_and_script_alone() -> None:
    page = render(hostile_report())
    policy = dict(next(a for tag, a in parsed(page).tags if "http-equiv" in a))["content"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        (content,) = re.findall(rf"<{kind}>(.*?)</{kind}>", page, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_nothing_is_loaded_from_anywhere() -> None:
    page = render(hostile_report())
    for tag, attributes in parsed(page).tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"https?://|url\(|@import|//cdn", page)


def test_the_same_report_gives_the_same_bytes() -> None:
    assert render(hostile_report()) == render(hostile_report())


def test_every_number_is_there() -> None:
    estimates = [wilson(c, 97) for c in (3, 11, 29, 61)]
    change = Estimate(-0.0521, -0.1, 0.0123, 88, "m")
    page = parsed(
        render(
            report(
                Headlines([Headline("h", estimates[0], "note")]),
                Bars("b", [Bar("one", estimates[1], published=0.361), Bar("none", no_data("m"))]),
                Bars("d", [Bar("change", change)], signed=True),
                Table(
                    "t",
                    ["arm", Column("p", percent=True), "count", "loss"],
                    [["x", estimates[2], 1234567, 0.05231]],
                ),
                Curves("c", "step", "y", [Series("s", [0, 17], [0.125, 3.75], [0.1, 3.5], [0.15, 4.25])]),
                minutes={"drafts": 12.3, "training": 4.5},
                config={"optimizer": {"lr": 5e-6}, "seed": 7},
                versions={"torch": "2.13.0"},
                machine={"cpu": "two cores"},
            )
        )
    ).text
    for estimate in estimates[:3]:
        assert estimate.text(percent=True).replace(",", "") in page.replace(",", "")
    assert "-5.2 points [-10.0, +1.2] n=88" in page
    wanted = ["no data n=0", "published 36.1%", "1,234,567", "0.05231", "17", "3.75", "[3.5, 4.25]", "16.8"]
    wanted += [
        "12.3",
        "optimizer.lr",
        "5e-06",
        "2.13.0",
        "two cores",
        "amenable run ilf seed=0",
        "The answer.",
    ]
    for text in wanted:
        assert text in page, text


def test_verdicts_are_told() -> None:
    failure = Failure("assert f(2) == 4", "f(2)", "5", "4", "ValueError: no", 3, "return 5")
    verdict = Verdict("fail", (True, False, None), failure, "printed")
    page = parsed(render(report(Cards("c", [SampleCard("t/1", "p", "a = 1", "fb", "a = 2", verdict)])))).text
    for text in (
        "1 of 3 tests passed, 1 without a result",
        "f(2)",
        "ValueError: no",
        "at line 3",
        "return 5",
        "printed",
    ):
        assert text in page


def test_the_samples_read_without_scripts() -> None:
    cards = [SampleCard(f"t/{i}", arm="ab"[i % 2], verdict=Verdict("pass", (True,))) for i in range(45)]
    tags = parsed(render(report(Cards("c", cards)))).tags
    details = [attributes for tag, attributes in tags if tag == "details" and attributes.get("class") == "card"]
    assert len(details) == 45
    assert not [one for one in details if "hidden" in one]
    assert {one["data-arm"] for one in details} == {"a", "b"}
    controls = next(attributes for _, attributes in tags if attributes.get("class") == "controls")
    assert "hidden" in controls  # the script shows what needs the script


def test_nothing_to_show() -> None:
    blocks = [Headlines([]), Bars("b", []), Curves("c", "x", "y", []), Table("t", ["a"], []), Cards("s", [])]
    tree = parsed(render(report(*blocks)))
    assert "No samples." in tree.text
    parsed(render(Report("", [], "", [])))


def test_drafts_or_refinements_alone() -> None:
    cards = [
        SampleCard("a", draft="only a draft"),
        SampleCard("b", refinement="only a refinement"),
        SampleCard("c"),
    ]
    text = parsed(render(report(Cards("c", cards, refinement_label="Program")))).text
    assert "Draft only a draft" in text
    assert "Program only a refinement" in text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, 1e-9, 1e12])
def test_odd_numbers_draw(value: float) -> None:
    estimate = Estimate(value, value, math.nan, 1, "m")
    page = render(
        report(
            Headlines([Headline("h", estimate)]),
            Bars(
                "b",
                [Bar("x", estimate), Bar("y", Estimate(value, value, value, 2, "m"), published=value)],
                percent=False,
            ),
            Curves("c", "x", "y", [Series("s", [0, 1, 2], [1.0, value, 2.0], [0, value, 1], [2, value, 3])]),
            Table("t", ["a", "b"], [[value, estimate]]),
        )
    )
    parsed(page)
    assert not re.search(r'(?:x1|x2|y1|y2|x|width|d|points)="[^"]*(?:nan|inf)', page)


def test_a_gap_breaks_the_line() -> None:
    page = render(report(Curves("c", "x", "y", [Series("s", [0, 1, 2, 3, 4], [1.0, 2.0, math.nan, 2.0, 1.0])])))
    (path,) = re.findall(r'<path d="([^"]*)" class="curve s0"', page)
    assert path.count("M") == 2
    assert path.count("L") == 2


@pytest.mark.parametrize("joined", [True, False])
def test_points_that_are_not_joined_have_an_interval_each(joined: bool) -> None:
    series = Series("s", [0, 1, 2], [1.0, 2.0, 1.5], [0.5, 1.5, 1.0], [1.5, 2.5, 2.0], joined=joined)
    page = render(report(Curves("c", "x", "y", [series])))
    assert len(re.findall(r'class="bar-band s0"', page)) == (0 if joined else 3)
    assert len(re.findall(r"<polygon", page)) == (1 if joined else 0)


def test_bars_stand_where_their_numbers_are() -> None:
    page = render(report(Bars("b", [Bar("x", Estimate(0.5, 0.25, 0.75, 4, "m")), Bar("y", wilson(10, 10))])))
    first = page[page.index('class="bar"') :]
    assert '<rect x="0.00%" width="50.00%"' in first
    assert '<line x1="25.00%" x2="75.00%"' in first


def test_charts_are_named_for_those_who_hear_them() -> None:
    tags = parsed(
        render(report(Bars("b", [Bar("ILF", wilson(3, 10))]), Curves("c", "step", "loss", [Series("s", [0], [1])])))
    ).tags
    labels = [attributes["aria-label"] for tag, attributes in tags if attributes.get("role") == "img"]
    assert labels == ["ILF: 30.0% [10.8, 60.3], n=10", "c: loss against step; s ends at 1"]


def test_refuses_ragged_data() -> None:
    with pytest.raises(DataError, match="2 cells for 1"):
        Table("t", ["a"], [["x", "y"]])
    with pytest.raises(DataError, match="parts of"):
        Series("s", [0, 1], [0])


def test_written_whole(tmp_path: Path) -> None:
    path = write(report(), tmp_path / "deep" / "report.html")
    assert path.read_text(encoding="utf-8") == render(report())
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        write(report(), tmp_path / "file" / "report.html")


def test_nested_settings_are_flat() -> None:
    assert flat({"a": {"b": {"c": 1}}, "d": [1, 2], "e": {}}) == [
        ("a.b.c", "1"),
        ("d", "[1, 2]"),
        ("e", "{}"),
    ]
