"""Judges and raters by the names that a command line gives them.

    MODEL                  a model of one's own (folder, Hugging Face id, named small model), asked "1 or 2" or "1 to 10"
    MODEL@http://HOST/v1   the same behind an OpenAI-compatible server
    likelihood:MODEL       mean log-probability a token of the answer; asks nothing
    pmi:MODEL              log p(y|x) - log p(y); pmi-mean:MODEL the same a token
    reward:FOLDER          a reward model, or the run folder of the `amenable run reward-model` that made it
    FILE.py:FUNCTION       f(prompts, first, second) -> [P(first is better)], or f(prompts, completions, **columns) -> [score]

The last two kinds of function are told apart by their parameters.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amenable.errors import ConfigError, nearest
from amenable.feedback.client import ChatClient, Endpoint
from amenable.feedback.function import FunctionScore
from amenable.feedback.judging import PairJudge, Rater
from amenable.feedback.likelihood_judge import LikelihoodScore, Measure
from amenable.feedback.local_judge import PLAIN, RATIONALE_TOKENS, LocalJudge, LocalRater
from amenable.feedback.questions import Question
from amenable.feedback.score_judge import FunctionJudge, ScoreJudge
from amenable.feedback.server_judge import ServerJudge, ServerRater
from amenable.policy.loading import load_policy
from amenable.user_code import function_named

JUDGES = "MODEL, MODEL@http://HOST/v1, likelihood:MODEL, pmi:MODEL, pmi-mean:MODEL, reward:FOLDER or FILE.py:FUNCTION"

_MEASURES: dict[str, Measure] = {"likelihood": "mean", "pmi": "pmi", "pmi-mean": "pmi-mean"}


@dataclass(frozen=True)
class Asking:
    """How a judge is asked, whatever it is; what does not concern a judge is not looked at.

    folder       where a server's answers are kept, and what a function failed on
    temperature  of the sigmoid that makes a preference of two scores, in the score's units
    chat         likelihood: the prompt is a user's turn in the model's chat template
    logprobs     server: ask for log-probabilities
    limits       server: further fields of `Endpoint`, such as deadline and budget
    """

    folder: Path
    question: Question = PLAIN
    rationale_tokens: int = RATIONALE_TOKENS
    temperature: float = 1.0
    chat: bool = False
    logprobs: bool = True
    limits: dict[str, Any] = field(default_factory=dict)
    dtype: str = "auto"
    rows: int = 128
    trust_remote_code: str = ""


def judge_named(text: str, asking: Asking) -> PairJudge:
    """The pair judge that `text` names (see above). Errors: ConfigError, ModelError."""
    kind, name = kind_of(text)
    if kind == "server":
        client = _client(text, asking)
        return ServerJudge(client, asking.question, logprobs=asking.logprobs, rationale_tokens=asking.rationale_tokens)
    if kind == "function":
        function = function_named(text, parameters="prompts, first, second")
        if takes(function, "second"):
            return FunctionJudge(function, folder=asking.folder / "failed")
        return ScoreJudge(_scored(function, asking), temperature=asking.temperature)
    if kind == "model":
        return LocalJudge(_policy(name, asking), asking.question, rationale_tokens=asking.rationale_tokens)
    return ScoreJudge(rater_named(text, asking), temperature=asking.temperature)


def rater_named(text: str, asking: Asking) -> Rater:
    """The rater that `text` names. Errors: ConfigError, ModelError."""
    kind, name = kind_of(text)
    if kind == "server":
        client = _client(text, asking)
        return ServerRater(client, asking.question, logprobs=asking.logprobs, rationale_tokens=asking.rationale_tokens)
    if kind == "function":
        function = function_named(text, parameters="prompts, completions, **columns")
        if takes(function, "second"):
            raise ConfigError(f"{text} compares two answers, and one is to be rated", "give f(prompts, completions)")
        return _scored(function, asking)
    if kind == "reward":
        from amenable.feedback.reward_model import load_reward_model

        rater: Rater = load_reward_model(_reward_folder(name), dtype=asking.dtype, too_long="missing")
        return rater
    if kind in _MEASURES:
        return LikelihoodScore(_policy(name, asking), _MEASURES[kind], chat=asking.chat)
    return LocalRater(_policy(name, asking), asking.question, rationale_tokens=asking.rationale_tokens)


def kind_of(text: str) -> tuple[str, str]:
    """("server" | "function" | "reward" | "likelihood" | "pmi" | "pmi-mean" | "model", the rest). Errors: ConfigError."""
    if not text:
        raise ConfigError("no judge is named", f"give judge={JUDGES}")
    if re.search(r"@https?://", text):
        return "server", text
    if re.search(r"\.py:\w+$", text):
        return "function", text
    kind, colon, name = text.partition(":")
    if not colon or kind in ("", ".", "..") or "/" in kind:
        if "@" in text and "//" in text:
            raise ConfigError(f"judge={text} has no address of a server", "write MODEL@http://HOST:PORT/v1")
        return "model", text
    if kind not in (*_MEASURES, "reward"):
        raise ConfigError(f"judge={text}: there is no kind of judge {kind!r}", nearest(kind, [*_MEASURES, "reward"]))
    if not name:
        raise ConfigError(f"judge={text} names no model", f"write {kind}:MODEL")
    return kind, name


def takes(function: Callable[..., Any], parameter: str) -> bool:
    """Whether a function prefers (it has `second`) or scores."""
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return False
    return parameter in names or (len(names) >= 3 and names[1] not in ("completions", "completion"))


def _reward_folder(name: str) -> Path:
    """The model's folder; of the run that made it, the one that it left."""
    path = Path(name).expanduser()
    left = path / "model"
    return left if (left / "config.json").is_file() and not (path / "config.json").is_file() else path


class _Named(FunctionScore):
    """A user's scoring function, with the name that TRL wants."""

    def __init__(self, function: Callable[..., Any], folder: Path) -> None:
        super().__init__(function, folder=folder)
        self.__name__ = self.name


def _scored(function: Callable[..., Any], asking: Asking) -> Rater:
    rater: Rater = _Named(function, asking.folder / "failed")
    return rater


def _client(text: str, asking: Asking) -> ChatClient:
    at = max(text.rfind("@http://"), text.rfind("@https://"))
    return ChatClient(Endpoint(text[at + 1 :], text[:at], asking.folder / "answers", **asking.limits))


def _policy(name: str, asking: Asking) -> Any:
    return load_policy(name, dtype=asking.dtype, rows=asking.rows, trust_remote_code=asking.trust_remote_code)
