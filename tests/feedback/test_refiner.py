"""The refinement prompt, to the character; and that a refinement continues the task's own prompt."""

from __future__ import annotations

import pytest
from tiny import tiny_policy

from amenable.errors import ConfigError
from amenable.feedback.refiner import PromptedRefiner, refinement_prompt
from amenable.records import Decoding, Task

TASK = Task("t", "def f(x):\n", ("assert f(2) == 4",), "f")


def test_the_papers_prompt() -> None:
    assert refinement_prompt("def f(x):\n    return x\n", " Double it. ") == (
        "OLD CODE:\ndef f(x):\n    return x\n\nFEEDBACK:\nDouble it.\n\nREFINEMENT:\n"
    )
    assert refinement_prompt("code", "") == "OLD CODE:\ncode\n\nREFINEMENT:\n"


def test_a_model_without_template_gets_the_paper_layout() -> None:
    refiner = PromptedRefiner(tiny_policy(), Decoding())
    assert refiner.prompt(TASK, "code", "words") == refinement_prompt("code", "words") + TASK.prompt


def test_a_model_with_template_gets_a_turn_and_an_answer_that_has_begun() -> None:
    policy = tiny_policy()
    policy.tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    prompt = PromptedRefiner(policy, Decoding()).prompt(TASK, "code", "words")
    assert prompt.startswith("<user>OLD CODE:\n```python\ncode\n```\n\nFEEDBACK:\nwords\n\n")
    assert prompt.endswith(f"<assistant>```python\n{TASK.prompt}")
    assert "incorporates the feedback" in prompt
    without = PromptedRefiner(policy, Decoding()).prompt(TASK, "code", "")
    assert "FEEDBACK" not in without
    assert "feedback" not in without
    assert (
        PromptedRefiner(policy, Decoding(), "paper").prompt(TASK, "code", "")
        == refinement_prompt("code", "") + TASK.prompt
    )


def test_n_candidates_a_draft_in_order() -> None:
    refiner = PromptedRefiner(tiny_policy(), Decoding(max_tokens=6))
    samples = refiner([TASK, TASK], ["a", "bb"], ["w", ""], n=3, seed=1)
    assert len(samples) == 6
    lengths = [len(ids) for ids in samples.context_ids]
    assert lengths == [lengths[0]] * 3 + [lengths[3]] * 3
    assert lengths[0] != lengths[3]


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(ConfigError, match="layout='chatty'"):
        PromptedRefiner(tiny_policy(), Decoding(), "chatty").prompt(TASK, "a", "b")  # type: ignore[arg-type]
