"""Describe and guess, between two language models: the speaker's text is worth what the listener makes of it.

    speaker    x ~ pi(.|target, others)      a short text about the target, which stands among other objects
    channel    y = x without the words that are taboo, and each other one replaced, with probability `noise`, by a random one
    listener   l(o | y) = p(o | y) / sum_{o' in candidates} p(o' | y)       exact: every candidate's name is scored
    success    l(target | y)                                                the score, in (0, 1), or its logarithm

    letter  name        what it is
    pi, p   policies    language models: p(o | y) is of the whole name o behind a prompt that holds the text y
    o       candidates  the target and the others, names such as "small red circle"

So a game is a `feedback.kinds.Score`: it says of each text how well it was understood, and a speaker is trained by it as by
any other score (`prior.tilt(game, beta=...)`). The listener never sees the others when it reads, nor the target: what it can
find out is in the text. `method.text_game` trains both at once.

Sources: the referential game of Lazaridou, Peysakhovich and Baroni 2017, arXiv 1612.07182; language models as its players, and
how a code learned from success drifts from language, Lazaridou, Potapenko and Tieleman 2020, arXiv 2005.07064; noise, Kucinski
et al. 2021, arXiv 2111.06464.
Changed from the papers: objects are words and no images; the listener is the same pretrained model, read by likelihood.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from amenable.errors import ConfigError, FeedbackError
from amenable.game.worlds import Attributes
from amenable.records import as_samples
from amenable.seeding import python_random

SPEAKER = """\
Each line describes one object, so that a friend can tell it from the others.
Object: big red box. Others: tall blue lamp, thin green pen. Description: it is big and red, and you can put things in it
Object: tall blue lamp. Others: big red box, thin red pen. Description: the tall one that gives light
Object: {target}. Others: {others}. Description:"""

LISTENER = """\
Each line describes one object, so that a friend can tell it from the others.
Description: it is big and red, and you can put things in it. Object: big red box
Description: the tall one that gives light. Object: tall blue lamp
Description:{message}. Object:"""

ATTRIBUTES = (
    ("small", "medium", "large"),
    ("red", "blue", "green", "yellow"),
    ("circle", "square", "triangle", "star"),
)


@dataclass(frozen=True)
class World:
    """Objects are one value of each attribute, named by the values in order: "small red circle"."""

    attributes: tuple[tuple[str, ...], ...] = ATTRIBUTES

    @property
    def objects(self) -> list[str]:
        """All combinations."""
        return [" ".join(values) for values in itertools.product(*self.attributes)]

    @property
    def words(self) -> list[str]:
        """Every attribute's values."""
        return list(dict.fromkeys(itertools.chain.from_iterable(self.attributes)))

    def split(self, share: float, *, seed: int) -> tuple[list[str], list[str]]:
        """Objects to play with, and the held-out `share`: new combinations of values that all stand in the first part.

        Errors: ConfigError if so many cannot be held out.
        """
        parts, names = Attributes(tuple(map(len, self.attributes))).split(share, seed), self.objects
        return [names[number] for number in parts.trained.tolist()], [names[number] for number in parts.held_out]


@dataclass(frozen=True)
class Scene:
    """What a speaker sees: the target among others, which the listener chooses from."""

    target: str
    others: tuple[str, ...]

    @property
    def candidates(self) -> tuple[str, ...]:
        """The target first. The listener reads them as a set: it has no order to learn."""
        return (self.target, *self.others)

    def prompt(self, template: str = SPEAKER) -> str:
        """What the speaker's text continues."""
        return template.format(target=self.target, others=", ".join(self.others))


def scenes_of(objects: Sequence[str], n: int, *, candidates: int, seed: int) -> list[Scene]:
    """`n` different scenes; targets take turns. Errors: ConfigError if there are not so many."""
    if not 2 <= candidates <= len(objects) or n < 1:
        raise ConfigError(
            f"{n} scenes of {candidates} candidates cannot be made of {len(objects)} objects",
            f"use n >= 1 and 2 to {len(objects)} candidates",
        )
    draw, found = python_random(seed, "scenes"), dict[Scene, None]()
    for attempt in range(100 * n):
        target = objects[(len(found) + attempt // n) % len(objects)]
        others = draw.sample([name for name in objects if name != target], candidates - 1)
        found[Scene(target, tuple(others))] = None
        if len(found) == n:
            return list(found)
    raise ConfigError(f"{n} different scenes cannot be made of {len(objects)} objects", f"use n <= {len(found)}")


class TextListener(Protocol):
    """Reads N texts, each with its K candidates: log l(o | y), (N, K) nats, whose exponentials sum to 1 in each row."""

    def __call__(self, messages: Sequence[str], candidates: Sequence[Sequence[str]]) -> torch.Tensor: ...


class LanguageListener:
    """A language model as a listener: the candidates' names by their likelihood behind the text."""

    def __init__(self, policy: Any, template: str = LISTENER) -> None:
        self.policy, self.template = policy, template

    def prompt(self, message: str) -> str:
        """What the listener reads, and continues with a name."""
        return self.template.format(message=message)

    @torch.no_grad()
    def __call__(self, messages: Sequence[str], candidates: Sequence[Sequence[str]]) -> torch.Tensor:
        """(N, K) float64 nats; each pair of text and name is scored once, however often it comes."""
        asked = list(dict.fromkeys(pair for text, own in zip(messages, candidates, strict=True)
                                   for pair in itertools.product([text], own)))  # fmt: skip
        read = {text: self.policy.encode(self.prompt(text)) for text in dict.fromkeys(messages)}
        names = {name: self.policy.encode_completion(said(name), eos=False) for _, name in asked}
        values = self.policy.log_prob(
            as_samples([read[text] for text, _ in asked], [names[name] for _, name in asked], ended="length")
        )
        found = dict(zip(asked, values.double().sum(-1).cpu().tolist(), strict=True))
        rows = [[found[text, name] for name in own] for text, own in zip(messages, candidates, strict=True)]
        return torch.tensor(rows, dtype=torch.float64).log_softmax(-1)


def said(name: str) -> str:
    """A name as the listener says it, behind its prompt."""
    return f" {name}"


def struck(message: str, taboo: Sequence[str]) -> str:
    """`message` without the words that are, or begin with, one of `taboo`, in any case: "red", "Reddish"."""
    if not taboo:
        return message
    return re.sub(rf"\b(?:{'|'.join(map(re.escape, taboo))})\w*", "", message, flags=re.IGNORECASE)


def noisy(message: str, noise: float, words: Sequence[str], draw: Any) -> str:
    """`message` with each word replaced, with probability `noise`, by one of `words` that is another one.

    `draw`: a `random.Random`. White space stays as it is.
    """
    parts = message.split(" ")
    return " ".join(
        draw.choice([word for word in words if word != part]) if part and draw.random() < noise else part
        for part in parts
    )


@dataclass(frozen=True)
class Heard:
    """A text as it reached the listener, and what it was about."""

    scene: Scene
    message: str


class TextGame:
    """The `Score` of a text: P(the listener finds the target), or its logarithm. Plain attributes, which a method may set:

    listener   who reads now          stream   names the channel's noise: the same stream, the same noise
    heard      what was heard in the last call that succeeded, in order
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        listener: TextListener,
        *,
        template: str = SPEAKER,
        noise: float = 0.0,
        words: Sequence[str] = (),
        taboo: Sequence[str] = (),
        measure: Literal["probability", "log"] = "probability",
        seed: int = 0,
    ) -> None:
        """`words`: what noise may put in a word's place; `taboo`: words that never arrive. Errors: ConfigError."""
        if not 0 <= noise <= 1 or (noise and len(set(words)) < 2):
            raise ConfigError(
                f"noise={noise:g} with {len(set(words))} words", "use 0 <= noise <= 1, and two words or more"
            )
        if measure not in ("probability", "log"):
            raise ConfigError(f"measure={measure!r} is not known", "use probability or log")
        self.scenes = {scene.prompt(template): scene for scene in scenes}
        self.listener, self.noise, self.words, self.taboo = listener, noise, list(words), list(taboo)
        self.measure, self.seed = measure, seed
        self.stream = 0
        self.heard: list[Heard] = []
        self.name = "the listener's success" if measure == "probability" else "log of the listener's success"

    @property
    def prompts(self) -> list[str]:
        """What the speaker continues, one a scene."""
        return list(self.scenes)

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: object) -> list[float | None]:
        """One number a text. Errors: FeedbackError for a prompt that is no scene's, or a listener that gives no law."""
        heard = [
            self._heard(place, prompt, text)
            for place, (prompt, text) in enumerate(zip(prompts, completions, strict=True))
        ]
        messages, candidates = [one.message for one in heard], [one.scene.candidates for one in heard]
        found = success(self.listener, messages, candidates)
        self.heard = heard
        return list(found if self.measure == "log" else map(math.exp, found))

    def _heard(self, place: int, prompt: str, text: str) -> Heard:
        if prompt not in self.scenes:
            raise FeedbackError(f"{prompt[-80:]!r} is the prompt of no scene of this game", "use game.prompts")
        draw = python_random(self.seed, "channel", self.stream, place)
        return Heard(self.scenes[prompt], noisy(struck(text, self.taboo), self.noise, self.words, draw))


def success(listener: TextListener, messages: Sequence[str], candidates: Sequence[Sequence[str]]) -> list[float]:
    """log l(target | y) of N texts, the target being the first of its candidates.

    Errors: FeedbackError that names the text for which the listener gives no law over the candidates.
    """
    law = listener(messages, candidates)
    wanted = (len(messages), len(candidates[0]) if candidates else 0)
    if tuple(law.shape) != wanted:
        raise FeedbackError(f"the listener gave {tuple(law.shape)} numbers for {wanted}", "one a text and candidate")
    wrong = ~((law.exp().sum(-1) - 1).abs() < 1e-3)  # NaN is wrong, too
    if bool(wrong.any()):
        place = int(wrong.nonzero()[0])
        raise FeedbackError(
            f"the listener's probabilities sum to {float(law[place].exp().sum()):g} for text {place}: {messages[place][:80]!r}",
            "give log-probabilities over the candidates (log_softmax)",
        )
    return [float(value) for value in law[:, 0]]


class Players:
    """Speaker and listener as what one training changes: the names of the parameters say whose they are.

    `learns`: False for a listener that stays as it is.
    """

    def __init__(self, speaker: Any, listener: Any, *, learns: bool = True) -> None:
        self.speaker, self.listener, self.learns = speaker, listener, learns

    def trainable_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Names and tensors that an optimiser may change."""
        players = {"speaker": self.speaker, **({"listener": self.listener} if self.learns else {})}
        for who, policy in players.items():
            yield from ((f"{who}.{name}", value) for name, value in policy.trainable_parameters())
