"""How bad each segment of a text is: violations of PEP8, personal data, toxicity, or what a function of the user's says.

    scorer            score of a segment                           score of a whole text
    Counted(pep8)     violations on the line / its characters      violations / characters
    Counted(pii)      detections that begin in it / characters     detections / characters
    Rated(function)   function(segment), such as a probability     function(text)

Higher is worse, 0 is nothing wrong: the misalignment score of the paper, whose reward is minus it. A text without a
character has no rate: None, and not the perfect score that it would have as 0. None is also a segment for which the function
has no answer. A scorer is called on texts, `scorer(texts)`, or asked `scorer.by_segment(texts)`.

A scorer that knows where in the text its detections are says so, `scorer.find(text)`.

Source: Korbak et al. 2023, arXiv 2302.08582. Changed from the paper: PEP8 by `pep8_lines`, PII by `personal_data`, toxicity by
alt-profanity-check (a linear model in a wheel, no network) unless a classifier is named; the paper had scrubadub and Detoxify.
Presidio's recognisers are asked one by one, without the language model that its engine wants: what has a form is found.
"""

from __future__ import annotations

import bisect
import logging
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from amenable.errors import ConfigError, FeedbackError
from amenable.feedback.pep8_lines import pep8_by_line
from amenable.feedback.personal_data import RULES, Found, personal_data
from amenable.feedback.segments import Unit, pieces, segment_ends

Values = list[float | None]


@dataclass(frozen=True)
class Segments:
    """A text's segments: where each ends, in characters, and its score (None: missing)."""

    ends: tuple[int, ...]
    scores: tuple[float | None, ...]


class Scorer(Protocol):
    """Scores whole texts when called, segments when asked."""

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> Unit: ...
    def __call__(self, texts: Sequence[str]) -> Values: ...
    def by_segment(self, texts: Sequence[str]) -> list[Segments]: ...


@dataclass(frozen=True)
class Counted:
    """So many things a character. `places(text, ends)` gives how many are in each segment, all of the text being seen.

    `find(text)`: the things themselves, where the scorer knows them.
    """

    name: str
    unit: Unit
    places: Callable[[str, list[int]], list[int]] = field(repr=False)
    find: Callable[[str], list[Found]] | None = field(default=None, repr=False)

    def __call__(self, texts: Sequence[str]) -> Values:
        return [sum(self.places(text, segment_ends(text, self.unit))) / len(text) if text else None for text in texts]

    def by_segment(self, texts: Sequence[str]) -> list[Segments]:
        return [self._segments(text) for text in texts]

    def _segments(self, text: str) -> Segments:
        ends = segment_ends(text, self.unit)
        counts = self.places(text, ends)
        scores = [n / (end - start) for n, start, end in zip(counts, [0, *ends], ends, strict=False)]
        return Segments(tuple(ends), tuple(scores))


@dataclass(frozen=True)
class Rated:
    """What `function(texts)` says of each segment for itself. Segments of white space alone are 0 and are not asked."""

    name: str
    unit: Unit
    function: Callable[[list[str]], Sequence[float | None]] = field(repr=False)

    def __call__(self, texts: Sequence[str]) -> Values:
        return self._asked(list(texts))

    def by_segment(self, texts: Sequence[str]) -> list[Segments]:
        ends = [segment_ends(text, self.unit) for text in texts]
        scores = iter(
            self._asked([piece for text, own in zip(texts, ends, strict=True) for piece in pieces(text, own)])
        )
        return [Segments(tuple(own), tuple(next(scores) for _ in own)) for own in ends]

    def _asked(self, texts: list[str]) -> Values:
        """One answer a text, checked. Errors: FeedbackError."""
        asked = [i for i, text in enumerate(texts) if text.strip()]
        found: Values = [0.0 if text else None for text in texts]
        answers = list(self.function([texts[i] for i in asked])) if asked else []
        if len(answers) != len(asked):
            raise FeedbackError(
                f"{self.name} returned {len(answers)} values for {len(asked)} texts.", "return one number a text."
            )
        for i, answer in zip(asked, answers, strict=True):
            found[i] = None if answer is None else float(answer)
            if answer is not None and not math.isfinite(float(answer)):
                raise FeedbackError(f"{self.name} returned {answer}.", "return finite numbers, None for no answer.")
        return found


def pep8_scorer(*, max_line_length: int = 79) -> Counted:
    """PEP8 violations a character, by line. Errors: ConfigError."""
    if max_line_length < 1:
        raise ConfigError(f"max_line_length={max_line_length} leaves no room.", "use 1 or more, such as 79.")
    return Counted("pep8", "lines", lambda text, ends: pep8_by_line(text, max_line_length=max_line_length))


def detector(name: str, unit: Unit, find: Callable[[str], list[Found]]) -> Counted:
    """Detections a character; one that reaches over a border counts where it begins."""
    return Counted(name, unit, lambda text, ends: _begun((found.start for found in find(text)), ends), find)


def pii_scorer(*, unit: Unit = "sentences", rules: Sequence[str] = RULES) -> Counted:
    """Detections of personal data by the rules that ship. Errors: ConfigError."""
    return detector("pii", unit, lambda text: personal_data(text, rules))


def scrubadub_scorer(*, unit: Unit = "sentences") -> Counted:
    """Detections of the paper's own package, with its default detectors. Errors: ConfigError if it is not installed."""
    try:
        import scrubadub
    except ImportError:
        raise _not_installed("scrubadub", "scrubadub") from None
    scrubber = scrubadub.Scrubber()
    return detector(
        "pii by scrubadub", unit, lambda text: [Found(f.type, f.beg, f.end) for f in scrubber.iter_filth(text)]
    )


PRESIDIO = (
    "EmailRecognizer", "PhoneRecognizer", "CreditCardRecognizer", "IbanRecognizer", "IpRecognizer", "UsSsnRecognizer",
    "UsItinRecognizer", "UsPassportRecognizer", "UsLicenseRecognizer", "UsBankRecognizer", "NhsRecognizer",
    "MedicalLicenseRecognizer", "CryptoRecognizer", "MacAddressRecognizer",
)  # fmt: skip
"""Presidio's recognisers of personal data that has a form; not those of dates, web addresses and UUIDs."""


def presidio_scorer(*, unit: Unit = "sentences", confidence: float = 0.4) -> Counted:
    """Detections of Presidio's recognisers `PRESIDIO`, of at least a `confidence` in [0, 1].

    0.4 is what its telephone numbers have; forms that its authors call weak, such as any nine digits, have less.
    Errors: ConfigError if it is not installed.
    """
    logging.getLogger("tldextract").setLevel(logging.CRITICAL)  # it asks the network for a list, and has its own
    os.environ.setdefault("TLDEXTRACT_CACHE_TIMEOUT", "1")
    try:
        from presidio_analyzer import predefined_recognizers
    except ImportError:
        raise _not_installed("presidio", "presidio-analyzer") from None
    recognisers = [getattr(predefined_recognizers, name)() for name in PRESIDIO]

    def find(text: str) -> list[Found]:
        answers = [
            answer
            for one in recognisers
            for answer in one.analyze(text=text, entities=one.supported_entities, nlp_artifacts=None) or []
            if answer.score >= confidence
        ]
        found = {Found(answer.entity_type.lower(), answer.start, answer.end) for answer in answers}
        return sorted(found, key=lambda one: (one.start, one.end, one.rule))

    return detector("pii by presidio", unit, find)


def _not_installed(extra: str, package: str) -> ConfigError:
    return ConfigError(
        f"model={extra} asks the package {package}, and it is not installed.",
        f"pip install 'amenable[{extra}]', or leave model out for the rules that ship",
    )


def _begun(starts: Iterable[int], ends: list[int]) -> list[int]:
    """How many of `starts` lie in each segment."""
    counts = [0] * len(ends)
    for start in starts:
        counts[bisect.bisect_right(ends, start)] += 1
    return counts


def profanity_scorer(*, unit: Unit = "sentences") -> Rated:
    """P(profane or offensive) by alt-profanity-check's linear model. Errors: ConfigError if it is not installed."""
    try:
        from profanity_check import predict_prob
    except ImportError:
        raise ConfigError(
            "task=toxicity asks the package alt-profanity-check, and it is not installed.",
            "pip install 'amenable[toxicity]', or name a classifier: model=NAME label=LABEL",
        ) from None
    return Rated("toxicity", unit, lambda texts: [float(value) for value in predict_prob(texts)])


def classifier_scorer(
    model: str, label: str, *, unit: Unit = "sentences", activation: str | None = None, truncate: bool = True
) -> Rated:
    """P(label) by any Hugging Face sequence classifier (a path or an id). Errors: ConfigError, ModelError."""
    from amenable.feedback.classifier import Classifier

    classifier = Classifier(
        model, int(label) if label.isdecimal() else label,
        activation=activation, truncate=truncate,  # type: ignore[arg-type]
    )  # fmt: skip
    return Rated(f"P({label})", unit, lambda texts: classifier([""] * len(texts), texts))
