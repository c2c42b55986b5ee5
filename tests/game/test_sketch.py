"""The few lines that a user writes first: one name, `em`, for games of every kind."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

from amenable import game as em
from amenable.evaluation.interval import Estimate
from amenable.game.influence import influence
from amenable.report.svg import curve_svg

SVG = "{http://www.w3.org/2000/svg}"


def test_a_sweep_is_compared_and_drawn(tmp_path: Path) -> None:
    game = em.Signalling(em.Attributes(values=(3, 3)), channel=em.Flip(0.1), length=2, alphabet=3)
    found = em.sweep(game, noise=[0.1, 0], seeds=4, steps=20).compare(to=0)
    assert [one.arm.noise for one in found] == [0.1]
    drawn = ET.parse(found.plot(tmp_path / "catalysis.svg")).getroot()
    across = [float(circle.attrib["cx"]) for circle in drawn.iter(f"{SVG}circle")]
    assert len(across) == 2
    assert across == sorted(across), "by noise, whatever the order of training"
    assert {"noise", "topsim"} <= {text.text for text in drawn.iter(f"{SVG}text")}


def test_one_word_trains_every_game() -> None:
    walk = em.Walk(em.Grid(2), speaker_sees="goal", listener_sees="self", channel=em.Flip(0.1))
    walks = em.train(walk, em.Speaker("table"), em.Listener("table"), seeds=2, steps=5)
    alone = em.train_walk(walk, em.Speaker("table"), em.Listener("table"), seeds=2, steps=5)
    assert torch.equal(walks.influence().goal_bits, influence(alone).goal_bits)
    game = em.Signalling(em.Attributes(values=(2, 2)), length=1, alphabet=4)
    assert em.train(game, seeds=2, steps=3).codes.shape == (2, 4, 1)


def test_the_picture_is_to_scale_and_leaves_out_what_is_not_known() -> None:
    known = [
        Estimate(0.0, -1.0, 1.0, 3, "t"),
        Estimate(math.nan, math.nan, math.nan, 0, "t"),
        Estimate(2.0, 1.0, 3.0, 3, "t"),
    ]
    drawn = ET.fromstring(curve_svg([0, 1, 4], known, across_label="a < b", up_label="y"))
    (first, last) = [(float(one.attrib["cx"]), float(one.attrib["cy"])) for one in drawn.iter(f"{SVG}circle")]
    assert first == pytest.approx((64, 400 - 56 - 0.25 * 320))  # a quarter of the way from -1 to 3
    assert last == pytest.approx((640 - 24, 400 - 56 - 0.75 * 320))
    bars = [one.attrib for one in drawn.iter(f"{SVG}line") if one.attrib["stroke"] != "#ddd"]
    assert [float(bar["y1"]) - float(bar["y2"]) for bar in bars] == pytest.approx([160, 160])
    assert "a < b" in {text.text for text in drawn.iter(f"{SVG}text")}
    apart = ET.fromstring(curve_svg([0, 1, 4], known, across_label="a", up_label="y", names=["one", "none", "two < 3"]))
    assert not list(apart.iter(f"{SVG}polyline"))  # points with names are not joined
    assert {"one", "two < 3"} <= {text.text for text in apart.iter(f"{SVG}text")}
    dots = [one.attrib["fill"] for one in apart.iter(f"{SVG}circle")]
    assert dots[:2] == dots[2:]  # the points, and what their colours mean
    assert len(set(dots)) == 2
    arms = list("abcdefgh")
    many = ET.fromstring(curve_svg(range(8), known[:1] * 8, across_label="a", up_label="y", names=arms))
    assert (
        len({one.attrib["fill"] for one in many.iter(f"{SVG}circle")}) == 8
    )  # six objectives, and some of them switched
