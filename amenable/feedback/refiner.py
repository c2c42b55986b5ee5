"""The refiner: a language model that is given a draft and feedback, and writes a better program.

The paper's prompt:   OLD CODE:\n{draft}\n\nFEEDBACK:\n{feedback}\n\nREFINEMENT:\n{the task's prompt}
The model goes on where the task's prompt ends, so a refinement is a completion of the same prompt as its draft. Without
feedback the section FEEDBACK is left out.

Source: Chen et al. 2023, arXiv 2303.16749, and its released generation script.
Changed from the paper: a model with a chat template is shown the same parts as a user's turn with one line of instruction, and
the task's prompt begins its answer; the old code is not cut (a prompt that does not fit is an error).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from amenable.errors import ConfigError
from amenable.records import Decoding, Samples, Task

INSTRUCTION = "Write a refinement of the old code that is correct."
INSTRUCTION_WITH_FEEDBACK = "Write a refinement of the old code that incorporates the feedback and is correct."
LAYOUTS = ("auto", "paper", "chat")


@dataclass(frozen=True)
class PromptedRefiner:
    """A `kinds.Refiner`: `policy` continues the refinement prompt under `decoding`.

    `layout` "paper" is the plain text that a fine-tuned refiner learns; "chat" the same parts in the model's own chat
    template; "auto" is chat where the model has one.
    """

    policy: Any
    decoding: Decoding
    layout: Literal["auto", "paper", "chat"] = "auto"

    def __call__(
        self,
        tasks: Sequence[Task],
        drafts: Sequence[str],
        critiques: Sequence[str],
        *,
        n: int,
        seed: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> Samples:
        prompts = [self.prompt(*parts) for parts in zip(tasks, drafts, critiques, strict=True)]
        samples: Samples = self.policy.sample(prompts, n=n, decoding=self.decoding, seed=seed, progress=progress)
        return samples

    def prompt(self, task: Task, draft: str, critique: str) -> str:
        """The whole prompt of one refinement; its continuation is a completion of `task.prompt`."""
        if self.layout not in LAYOUTS:
            raise ConfigError(f"layout={self.layout!r} is not known", f"use one of {', '.join(LAYOUTS)}")
        chat = self.policy.chat("") != "" if self.layout == "auto" else self.layout == "chat"
        if not chat:
            return refinement_prompt(draft, critique) + task.prompt
        instruction = INSTRUCTION_WITH_FEEDBACK if critique else INSTRUCTION
        parts = refinement_prompt(f"```python\n{draft.strip()}\n```", critique).removesuffix("REFINEMENT:\n").strip()
        return str(self.policy.chat(f"{parts}\n\n{instruction}")) + f"```python\n{task.prompt}"


def refinement_prompt(draft: str, critique: str) -> str:
    """The paper's prompt up to and including "REFINEMENT:"; no section FEEDBACK for the empty critique."""
    feedback = f"FEEDBACK:\n{critique.strip()}\n\n" if critique else ""
    return f"OLD CODE:\n{draft.strip()}\n\n{feedback}REFINEMENT:\n"
