"""Critics say what the verdict showed, people's words only about their own drafts, and shuffling leaves nobody their own."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import tiny_policy

from amenable.errors import DataError
from amenable.feedback.critic import ModelCritic, PersonCritic, TestCritic, asking, in_words, shuffled
from amenable.feedback.unit_tests import UnitTests
from amenable.records import Critique, Decoding, Failure, Task, Verdict
from amenable.sandbox import Sandbox

TASK = Task("t", "def f(x):\n", ("assert f(2) == 4", "assert f(3) == 9"), "f")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("    return x + 2\n", "The code is incorrect. `f(3)` returns 5, but it should return 9."),
        (
            "    y = x\n    return y / 0\n",
            "The code is incorrect. `f(2)` raises ZeroDivisionError: division by zero in line 3: `return y / 0`. "
            "It should return 4.",
        ),
        ("    while True: pass\n", "The code does not finish in time; it probably loops forever."),
    ],
)
def test_the_words_of_a_real_verdict(body: str, says: str) -> None:
    with Sandbox(timeout=1.0, workers=1) as box:
        program = TASK.prompt + body
        verdicts = UnitTests(box)([TASK], [program])
    (text,) = TestCritic()([TASK], [program], verdicts)
    assert text is not None
    assert text.startswith(says)
    assert "f(" in text


def test_nothing_is_said_of_what_passed_or_is_missing() -> None:
    assert in_words(Verdict("pass", (True,))) is None
    assert in_words(Verdict("infra", (None,), Failure("assert f(1)"))) is None
    assert (
        in_words(Verdict("fail", (False,), Failure("assert f(1)")))
        == "The code is incorrect. This fails: `assert f(1)`."
    )


def test_people_speak_only_of_the_drafts_they_saw() -> None:
    critic = PersonCritic({"t": Critique("t", "draft", "Use a square.")})
    verdicts = [Verdict("fail", (False,))] * 3
    other = Task("u", "", ("assert g(1)",), "g")
    assert critic([TASK, TASK, other], ["draft", "another", "draft"], verdicts) == ["Use a square.", None, None]


def test_a_model_is_shown_the_draft_and_the_finding() -> None:
    class Seen:
        prompts: list[str]

        def chat(self, message: str) -> str:
            return f"<user>{message}</user>"

        def sample(self, prompts: list[str], **_: Any) -> Any:
            self.prompts = prompts
            return type("S", (), {"texts": [" It adds. ", "  "]})

    model = Seen()
    verdict = Verdict("fail", (False,), Failure("assert f(2) == 4", call="f(2)", got="3", expected="4"))
    assert ModelCritic(asking(model))([TASK, TASK], ["def f(x): ...", "b"], [verdict] * 2) == ["It adds.", None]
    assert "def f(x): ..." in model.prompts[0]
    assert "`f(2)` returns 3, but it should return 4." in model.prompts[0]


def test_a_real_model_answers_every_draft_or_nothing() -> None:
    policy = tiny_policy()
    policy.max_length = 10_000  # a Llama's rotary positions go on; only the texts are of interest
    critic = ModelCritic(asking(policy, decoding=Decoding(max_tokens=5), seed=1))
    found = critic([TASK] * 3, ["x"] * 3, [Verdict("timeout", (None,))] * 3)
    assert len(found) == 3
    assert all(text is None or text.strip() == text != "" for text in found)
    assert found == critic([TASK] * 3, ["x"] * 3, [Verdict("timeout", (None,))] * 3)


@pytest.mark.parametrize("count", [2, 3, 17])
def test_shuffled_gives_everyone_another_ones(count: int) -> None:
    words = [f"w{i}" for i in range(count)]
    given = shuffled(words, seed=4)
    assert sorted(given) == sorted(words)
    assert all(one != own for one, own in zip(given, words, strict=True))
    assert given == shuffled(words, seed=4)


def test_one_critique_cannot_be_shuffled() -> None:
    with pytest.raises(DataError, match="among 1 tasks"):
        shuffled(["only"], 0)
