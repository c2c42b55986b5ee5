"""`amenable judge calibrate` from a labelled file to the page, on judges whose truth is known, and its one sentence."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amenable import durable
from amenable.cli import main
from amenable.errors import ConfigError, DataError
from amenable.evaluation.agreement import alignment
from amenable.evaluation.interval import Estimate
from amenable.feedback.judging import judged
from amenable.feedback.synthetic_judge import SyntheticJudge
from amenable.recipes.judge_calibrate import JudgeCalibrateSettings, plan, run
from amenable.recipes.judge_calibrate_report import verdict
from amenable.recipes.judge_findings import Findings, findings
from amenable.recipes.judge_labels import read


def score(prompts: Sequence[str], completions: Sequence[str], **columns: object) -> list[float | None]:
    return [float(text.split()[0]) for text in completions]


def rows_of(
    judge: SyntheticJudge, pairs: int, *, labelled: int, seed: int = 0, both_orders: bool = True
) -> list[dict[str, Any]]:
    """Rows as `amenable judge` writes them; people label the first `labelled`, and call a tenth of them a tie."""
    rng = np.random.default_rng(seed)
    drawn = [(rng.normal(size=pairs), rng.integers(1, 40, pairs)) for _ in range(2)]
    sides = [[f"{x:.6f} {'word ' * n}" for x, n in zip(values, counts, strict=True)] for values, counts in drawn]
    prompts = [f"prompt {number // 3}" for number in range(pairs)]
    rows = []
    truth = judge.truth(prompts, *sides)
    for place, one in enumerate(judged(judge, prompts, *sides, both_orders=both_orders)):
        human = 0.5 if rng.random() < 0.1 else float(rng.random() < (truth[place] or 0.0))
        rows.append(
            {
                "id": str(place),
                "prompt": prompts[place],
                "first": sides[0][place],
                "second": sides[1][place],
                "label": one.p_first,
                "consistent": one.consistent,
                "forward": one.forward.p_first,
                "backward": one.backward.p_first if one.backward else None,
                "both_orders": both_orders,
                "outside": one.outside,
                "rationale": "",
                "rationale_backward": "",
                "missing": "",
                "given": human if place < labelled else None,
                "own": ("first", "second", "")[place % 3],
            }
        )
    return rows


def written(folder: Path, rows: Sequence[dict[str, Any]], name: str = "labels.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


BIASED = SyntheticJudge(score, order_bonus=2.0, noise=0.7, length_taste=0.4, sharpness=3.0, outside=0.1)


def found_of(path: str, **settings: Any) -> Findings:
    given = JudgeCalibrateSettings(labelled=path, **settings)
    return findings(given, *read(given))


def test_the_command_prints_and_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, rows_of(BIASED, 360, labelled=240))
    folder = tmp_path / "run"
    assert main(["judge", "calibrate", f"labelled={path}", "own=own", "--out", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "This judge agrees with people on" in said
    assert "use both orders" in said
    page = (folder / "report.html").read_text()
    for part in ("Cohen&#x27;s kappa", "prediction-powered", "Rogan-Gladen", "cross-fitted", "shown first"):
        assert part in page or part.replace("&#x27;", "'") in page
    numbers = json.loads((folder / "calibration.json").read_text())
    assert numbers["agreement"]["the label as it is"][0]["n"] == 80
    rows = [json.loads(line) for line in (folder / "calibrated.jsonl").read_text().splitlines()]
    assert len(rows) == 360
    slope = numbers["calibration"]["slope"]["value"]
    alone = rows[-1]
    assert math.log(alone["calibrated"] / (1 - alone["calibrated"])) == pytest.approx(
        slope * math.log(alone["label"] / (1 - alone["label"]))
    )
    assert main(["judge", "calibrate", f"labelled={path}", "own=own", "--out", str(folder)]) == 0  # again, the same


def in_child(arguments: list[str], *, die_at: int) -> int:
    """The exit status of a command in a process of its own that is killed at its n-th operation on the disk."""
    pid = os.fork()
    if pid == 0:
        seen = 0

        def hook(operation: str, path: Path) -> None:
            nonlocal seen
            seen += 1
            if seen == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

        durable.hook = hook
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        try:
            os._exit(main(arguments))
        except BaseException:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_by_both_of_its_names_killed_and_gone_on_with_the_same_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, rows_of(BIASED, 60, labelled=40))
    whole = tmp_path / "whole"
    assert main(["judge", "calibrate", path, "folds=2", "--out", str(whole)]) == 0
    assert main(["run", "judge-calibrate", f"labelled={path}", "folds=2", "--out", str(tmp_path / "run")]) == 0
    names = ("calibration.json", "calibrated.jsonl")
    for name in names:
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()
    killed = 0
    for at in (1, 4, 7, 10, 13):
        cut = tmp_path / f"cut-{at}"
        status = in_child(["judge", "calibrate", path, "folds=2", "--out", str(cut)], die_at=at)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        killed += 1
        given = [path, "folds=2"] if not (cut / "config.yaml").exists() else []
        assert main(["judge", "calibrate", *given, "--out", str(cut)]) == 0
        for name in names:
            assert (cut / name).read_bytes() == (whole / name).read_bytes(), f"{name} after operation {at}"
    assert killed >= 2
    capsys.readouterr()

    def stopped(*given: Any) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "told"
    with monkeypatch.context() as patch:
        patch.setattr("amenable.recipes.judge_calibrate.findings", stopped)
        assert main(["judge", "calibrate", path, "folds=2", "--out", str(folder)]) == 130
    said = capsys.readouterr().err
    hint = next(line for line in said.splitlines() if "to go on: " in line).split("to go on: ")[1]
    assert hint == f"amenable run judge-calibrate --out {folder}"
    assert main(hint.split()[1:]) == 0  # as it is told, word for word
    assert (folder / "calibrated.jsonl").read_bytes() == (whole / "calibrated.jsonl").read_bytes()
    assert main(["run"]) == 0
    assert "judge-calibrate" in capsys.readouterr().out


def test_conversations_and_ties_can_be_calibrated(tmp_path: Path) -> None:
    rows = rows_of(BIASED, 120, labelled=120)
    plain = written(tmp_path, rows)

    def talk(row: dict[str, Any]) -> dict[str, Any]:
        texts = {side: [{"role": "assistant", "content": row[side]}] for side in ("first", "second")}
        return {**row, **texts, "prompt": [{"role": "user", "content": row["prompt"]}]}

    talks = written(tmp_path, [talk(row) for row in rows], "talks.jsonl")
    for answers in ("averaged", "tied"):
        one, other = (found_of(path, answers=answers) for path in (plain, talks))
        assert one.agreement == other.agreement
        assert len(one.agreement) == 6
    both, _ = read(JudgeCalibrateSettings(labelled=talks, answers="tied"))
    flips = [row["consistent"] is False for row in rows]
    assert sum(flips) > 10
    assert [float(x) == 0.5 for x in both.answer] == flips
    assert both.answer.tolist() == pytest.approx(
        [row["label"] for row in rows]
    )  # the label of these rows is the tied one


def test_what_is_known_of_the_judge_is_found(tmp_path: Path) -> None:
    found = found_of(written(tmp_path, rows_of(BIASED, 900, labelled=900)), own="own")
    assert found.position is not None
    assert found.position.bonus.value == pytest.approx(2.0, abs=0.02)  # but for logits that are cut
    assert found.position.first_wins.low > 0.6
    assert found.regression["length"].low > 0.5
    assert found.own is not None
    assert found.own.difference.low < 0 < found.own.difference.high
    assert found.calibration is not None
    assert found.calibration.slope.high < 0.8
    assert found.agreement["both orders averaged"][0].value > found.agreement["the file's order alone"][0].value
    assert found.outside is not None
    assert found.outside.value == pytest.approx(0.1)
    assert found.win_rate is None
    assert any("no win rate" in note for note in found.notes)


def test_answers_can_be_averaged_and_human_words_are_read(tmp_path: Path) -> None:
    rows = rows_of(BIASED, 120, labelled=120)
    words = {1.0: "first", 0.0: "second", 0.5: "tie"}
    path = written(tmp_path, [{**row, "people": words[row["given"]], "given": None} for row in rows])
    numbers = written(tmp_path, rows, "numbers.jsonl")
    settings = JudgeCalibrateSettings(labelled=path, human="people", answers="averaged")
    both, alone = read(settings)
    assert len(alone) == 0
    assert both.human.tolist() == [row["given"] for row in rows]
    assert both.answer.tolist() == pytest.approx([(row["forward"] + 1 - row["backward"]) / 2 for row in rows])
    plain = found_of(numbers).agreement["both orders averaged"][0]
    assert alignment(both.answer, both.human, prompts=both.prompts) == plain


def test_the_win_rate_of_a_system_that_is_not_always_first(tmp_path: Path) -> None:
    rows = rows_of(replace(BIASED, order_bonus=0.0), 300, labelled=150)
    plain = found_of(written(tmp_path, [{**row, "a": "first"} for row in rows]), system="a").win_rate
    swapped = []
    for number, row in enumerate(rows):
        back = number % 2 == 0
        turned = {
            **row, "first": row["second"], "second": row["first"], "label": 1 - row["label"], "forward": row["backward"],
            "backward": row["forward"], "given": None if row["given"] is None else 1 - row["given"],
        }  # fmt: skip
        swapped.append({**(turned if back else row), "a": "second" if back else "first"})
    other = found_of(written(tmp_path, swapped, "swapped.jsonl"), system="a").win_rate
    assert plain is not None
    assert other is not None
    for one, two in ((plain.powered.estimate, other.powered.estimate), (plain.rogan_gladen, other.rogan_gladen)):
        assert (one.value, one.low, one.high) == pytest.approx((two.value, two.low, two.high))
    with pytest.raises(DataError, match="'own' which answer is system A's"):
        read(JudgeCalibrateSettings(labelled=written(tmp_path, rows, "c.jsonl"), system="own"))


def test_one_order_and_a_chosen_answer_that_always_comes_first(tmp_path: Path) -> None:
    rows = [row for row in rows_of(BIASED, 200, labelled=200, both_orders=False) if row["given"] == 1]
    found = found_of(written(tmp_path, rows))
    assert found.position is None
    assert any("Only one order" in note for note in found.notes)
    assert any("No regression" in note for note in found.notes)  # people's label is constant, as the position is
    assert found.agreement["the label as it is"][1].value != 0
    assert "asked twice" not in verdict(found)


def test_more_pairs_of_the_judge_alone_come_from_another_file(tmp_path: Path) -> None:
    rows = rows_of(BIASED, 240, labelled=150)
    inside = found_of(written(tmp_path, rows))
    more = written(
        tmp_path, [{**row, "given": 0.0} for row in rows[150:]], "alone.jsonl"
    )  # nobody's label is read here
    apart = found_of(written(tmp_path, rows[:150], "both.jsonl"), alone=more)
    assert inside.win_rate == apart.win_rate
    folder = tmp_path / "judge-1"
    folder.mkdir()
    written(folder, rows)
    assert "150 pairs" in plan(JudgeCalibrateSettings(labelled=str(folder)))[0]


def test_missing_answers_are_said_and_not_ties(tmp_path: Path) -> None:
    rows = rows_of(BIASED, 120, labelled=120)
    for row in rows[:30]:
        row.update(label=None, forward=None, consistent=None)
    found = found_of(written(tmp_path, rows))
    assert found.pairs == 90
    assert any("30 of 120 pairs have no answer" in note for note in found.notes)
    rest = found_of(written(tmp_path, rows[30:], "rest.jsonl"))
    assert found.agreement["the label as it is"] == rest.agreement["the label as it is"]


def test_files_that_cannot_be_used_are_refused_with_a_fix(tmp_path: Path) -> None:
    rows = rows_of(BIASED, 12, labelled=12)
    with pytest.raises(ConfigError, match="no labels are named"):
        read(JudgeCalibrateSettings())
    with pytest.raises(DataError, match="did you mean 'given'"):
        read(JudgeCalibrateSettings(labelled=written(tmp_path, rows), human="givn"))
    with pytest.raises(DataError, match=r"line 2.*label is 1\.5"):
        read(JudgeCalibrateSettings(labelled=written(tmp_path, [rows[0], {**rows[1], "label": 1.5}])))
    with pytest.raises(DataError, match="no label of people"):
        read(JudgeCalibrateSettings(labelled=written(tmp_path, [{**row, "given": None} for row in rows])))
    with pytest.raises(DataError, match="no row has an answer of the judge"):
        read(JudgeCalibrateSettings(labelled=written(tmp_path, [{**row, "label": None} for row in rows])))


def test_too_few_prompts_leave_a_page_without_what_they_cannot_say(tmp_path: Path) -> None:
    settings = JudgeCalibrateSettings(labelled=written(tmp_path, rows_of(BIASED, 6, labelled=6)))
    run(settings, tmp_path / "run")
    found = found_of(settings.labelled)
    assert found.calibration is None
    assert any("2 prompts for 5 folds" in note for note in found.notes)


def test_the_sentence_of_judgement(tmp_path: Path) -> None:
    found = found_of(written(tmp_path, rows_of(BIASED, 240, labelled=240)))

    def said(value: float, low: float, high: float, same: float) -> str:
        share = Estimate(value, low, high, 80, "m")
        assert found.position is not None
        position = replace(found.position, same=Estimate(same, same - 0.05, same + 0.05, 80, "m"))
        agreement = {**found.agreement, "the label as it is": (share, share, share)}
        return verdict(replace(found, agreement=agreement, position=position, regression={}, calibration=None))

    assert said(0.61, 0.55, 0.67, 0.57).startswith(
        "this judge agrees with people on 61% [55, 67]; asked twice it contradicts"
    )
    assert "itself on 57%: use both orders" in said(0.61, 0.55, 0.67, 0.57)
    assert said(0.61, 0.55, 0.67, 0.57).endswith("do not use it alone: correct its win rates by people's labels")
    assert "cannot be told from a coin" in said(0.52, 0.45, 0.59, 0.95)
    assert "prefers what people reject" in said(0.3, 0.22, 0.4, 0.1)
    good = said(0.9, 0.85, 0.94, 0.02)
    assert "use both orders" not in good
    assert "alone" not in good
