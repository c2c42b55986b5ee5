"""Critics: who says in words what is wrong with a draft. All follow `kinds.Critic`.

    TestCritic     turns the first failing test into words: input, got, expected, error and line
    ModelCritic    asks a language model, and shows it the draft and what the tests found
    PersonCritic   gives back what people wrote on these very drafts
    shuffled       gives each draft another task's critique: the control that shows whether the words matter

Language feedback on programs: Chen et al. 2023, arXiv 2303.16749. A critique that never came is None: missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from amenable.errors import DataError
from amenable.records import Critique, Decoding, Samples, Task, Verdict
from amenable.seeding import python_random


class TestCritic:
    """One sentence or three from the verdict; None for a draft that passed or that nothing is known about."""

    __test__ = False  # pytest: the name is the field's, not a test's

    def __call__(self, tasks: Sequence[Task], drafts: Sequence[str], verdicts: Sequence[Verdict]) -> list[str | None]:
        return [in_words(verdict) for verdict in verdicts]


def in_words(verdict: Verdict) -> str | None:
    """What the first failing test showed, as a person would say it."""
    if verdict.ok or verdict.missing:
        return None
    if verdict.outcome == "timeout":
        head = "The code does not finish in time; it probably loops forever."
    elif verdict.outcome == "memory":
        head = "The code uses too much memory."
    elif verdict.outcome in ("crash", "protocol"):
        head = "The code stops the interpreter."
    else:
        head = "The code is incorrect."
    failure = verdict.failure
    if failure is None:
        return head
    call = failure.call or failure.test
    if verdict.outcome != "fail":
        return f"{head} It was running `{call}`."
    if failure.error:
        at = f" in line {failure.line}: `{failure.source.strip()}`" if failure.line else ""
        expected = f" It should return {failure.expected}." if failure.expected else ""
        return f"{head} `{call}` raises {failure.error}{at}.{expected}"
    if failure.got and failure.expected:
        return f"{head} `{call}` returns {failure.got}, but it should return {failure.expected}."
    return f"{head} This fails: `{failure.test}`."


Ask = Callable[[Sequence[str]], Sequence[str | None]]
"""One answer a message, None where none came: `ChatClient.ask`, or a policy of one's own by `asking`."""


def asking(policy: Any, *, seed: int = 0, decoding: Decoding = Decoding(max_tokens=120, temperature=0.7)) -> Ask:  # noqa: B008
    """Ask a policy: each message a user's turn, the answer drawn at `decoding`."""

    def ask(messages: Sequence[str]) -> Sequence[str | None]:
        samples: Samples = policy.sample([policy.chat(text) for text in messages], decoding=decoding, seed=seed)
        return samples.texts

    return ask


class ModelCritic:
    """A language model's critique; the message shows the draft and the test's finding."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask

    def __call__(self, tasks: Sequence[Task], drafts: Sequence[str], verdicts: Sequence[Verdict]) -> list[str | None]:
        messages = [
            "This Python function does not do what it should.\n\n"
            f"```python\n{draft.strip()}\n```\n\n{in_words(verdict) or ''}\n\n"
            "Say in two or three sentences what the mistake is and how to correct it. Do not write code."
            for draft, verdict in zip(drafts, verdicts, strict=True)
        ]
        return [(text or "").strip() or None for text in self.ask(messages)]


class PersonCritic:
    """What people wrote. Only good for the drafts that they saw; any other draft gets None."""

    def __init__(self, critiques: Mapping[str, Critique]) -> None:
        self.critiques = critiques

    def __call__(self, tasks: Sequence[Task], drafts: Sequence[str], verdicts: Sequence[Verdict]) -> list[str | None]:
        found = []
        for task, draft in zip(tasks, drafts, strict=True):
            critique = self.critiques.get(task.task_id)
            found.append(critique.feedback if critique is not None and critique.draft == draft else None)
        return found


def shuffled(critiques: Sequence[str], seed: int) -> list[str]:
    """Every task gets another task's critique: a random cyclic order, so that nobody keeps their own."""
    if len(critiques) < 2:
        raise DataError(
            f"feedback cannot be shuffled among {len(critiques)} tasks", "use two or more tasks, or feedback=none"
        )
    order = list(range(len(critiques)))
    python_random(seed, "shuffled feedback").shuffle(order)
    given = [""] * len(critiques)
    for place, index in enumerate(order):
        given[index] = critiques[order[(place + 1) % len(order)]]
    return given
