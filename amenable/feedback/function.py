"""A user's function as a score: called on whole batches, its answer checked, its failures named and bounded.

    f(prompts, completions, **columns) -> [float | None, ...]      TRL's signature; None is "no answer"

What a function may do wrong: raise, hang, return the wrong number of values, NaN, infinity, a string. Each is a failure of
certain samples: a batch that fails as a whole is asked again sample by sample, which finds the ones to blame. What happens to a
failed sample is `on_missing`:

    drop     its score is None: missing, excluded and counted, never 0
    retry    ask once more, then drop
    fail     FeedbackError, which names the sample; its text is saved to a file
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Literal

from amenable import durable
from amenable.errors import ConfigError, FeedbackError
from amenable.progress import say

OnMissing = Literal["drop", "retry", "fail"]


class Bad(Exception):
    """Why one call gave no usable answer."""


class FunctionScore:
    """`function` as a `kinds.Score`. `timeout`: seconds for one call; `folder`: where failing samples are saved.

    A call that hangs is left behind in its thread when its time is up: the run goes on, the thread ends with the process.
    """

    def __init__(
        self,
        function: Callable[..., Sequence[float | None]],
        *,
        folder: Path,
        on_missing: OnMissing = "drop",
        timeout: float = 60.0,
    ) -> None:
        if on_missing not in ("drop", "retry", "fail"):
            raise ConfigError(f"on_missing={on_missing!r} is not known", "use drop, retry or fail")
        self.function, self.folder, self.on_missing, self.timeout = function, folder, on_missing, timeout
        self.name = getattr(function, "__name__", type(function).__name__)
        self.missing = 0

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float | None]:
        """One number a sample, None where missing. Columns are sequences of the same length, or one value for all.

        Errors: FeedbackError for the first failing sample if `on_missing` is "fail".
        """
        count = len(completions)
        try:
            scores = self._call(list(prompts), list(completions), columns)
            if not any(isinstance(score, Bad) for score in scores):
                return [score for score in scores if not isinstance(score, Bad)]
        except Bad as error:
            if count == 1:
                scores = [error]
            else:
                scores = [self._one(i, prompts, completions, columns) for i in range(count)]
        return [self._settled(i, score, prompts, completions, columns) for i, score in enumerate(scores)]

    def _one(
        self, i: int, prompts: Sequence[str], completions: Sequence[str], columns: dict[str, Any]
    ) -> float | Bad | None:
        own = {key: [value[i]] if _is_column(value, len(completions)) else value for key, value in columns.items()}
        try:
            return self._call([prompts[i]], [completions[i]], own)[0]
        except Bad as error:
            return error

    def _settled(
        self,
        i: int,
        score: float | Bad | None,
        prompts: Sequence[str],
        completions: Sequence[str],
        columns: dict[str, Any],
    ) -> float | None:
        """The score, or what `on_missing` says about a failure."""
        if isinstance(score, Bad) and self.on_missing == "retry":
            score = self._one(i, prompts, completions, columns)
        if not isinstance(score, Bad):
            return score
        self.missing += 1
        file = self.folder / f"failed-{self.name}-{self.missing}.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        durable.write_file(file, json.dumps({"prompt": prompts[i], "completion": completions[i], "error": str(score)}))
        what = f"{self.name} {score}, on sample {i} of {len(completions)}: {_shown(completions[i])} (whole in {file})"
        if self.on_missing == "fail":
            raise FeedbackError(what, f"mend {self.name}, or use on_missing=drop to go on without such samples")
        say(f"missing: {what}")
        return None

    def _call(self, prompts: list[str], completions: list[str], columns: dict[str, Any]) -> list[float | Bad | None]:
        """One call with a deadline. Errors: Bad if nothing can be said about any sample."""
        box: list[Any] = []

        def work() -> None:
            try:
                box.append((True, self.function(prompts=prompts, completions=completions, **columns)))
            except BaseException as error:
                box.append((False, error))

        thread = threading.Thread(target=work, daemon=True, name=f"score {self.name}")
        thread.start()
        thread.join(self.timeout)
        if not box:
            raise Bad(f"gave no answer within {self.timeout:g} s")
        returned, value = box[0]
        if not returned:
            raise Bad(f"raised {type(value).__name__}: {str(value)[:300]}")
        if isinstance(value, str | bytes) or not hasattr(value, "__len__") or not hasattr(value, "__iter__"):
            raise Bad(f"returned {_shown(value)} where a list of numbers is due")
        if len(value) != len(completions):
            raise Bad(f"returned {len(value)} values for {len(completions)} samples")
        return [_number(one) for one in value]


def _number(value: Any) -> float | Bad | None:
    if value is None:
        return None
    if hasattr(value, "item") and getattr(value, "shape", None) in ((), (1,)):
        value = value.item()
    if not isinstance(value, Real):
        return Bad(f"returned {_shown(value)}, which is no number")
    if not math.isfinite(value):
        return Bad(f"returned {float(value)}")
    return float(value)


def _is_column(value: Any, count: int) -> bool:
    return (
        not isinstance(value, str)
        and hasattr(value, "__getitem__")
        and hasattr(value, "__len__")
        and len(value) == count
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
