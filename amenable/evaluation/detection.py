"""What a scorer finds of what was planted, and what else it finds.

    recall(kind)       pieces of the kind that a detection overlaps / pieces of the kind
    precision(label)   detections of a label that overlap a planted piece / detections of the label

A detection is what the scorer itself points at; of a scorer that does not, a segment whose score is above the threshold.
Recall is true, since all pieces are known. Precision is a lower bound: real text has real cases, and they are counted as not
planted; `examples` are for a person to look at. A piece in a segment without a score is missing, and neither found nor not.

Intervals: Wilson's for recall, whose pieces are drawn independently; over other pieces of the same forms, that is, and not
over forms that were not planted. Bootstrap over documents for precision, since a document repeats itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from amenable.evaluation.interval import Estimate, bootstrap_mean, wilson
from amenable.feedback.personal_data import Found
from amenable.feedback.planting import Planted
from amenable.feedback.scorers import Scorer

EXAMPLES = 5  # of a label, one a document


@dataclass
class Detections:
    """What one scorer found: counts of planted pieces by (kind, form), and of detections by label and document.

    `found`, `missed`, `missing`: pieces by (kind, form). `labels`: label -> document -> [planted, not planted].
    `examples`: label -> texts around a detection that is not planted.
    """

    found: Counter[tuple[str, str]] = field(default_factory=Counter)
    missed: Counter[tuple[str, str]] = field(default_factory=Counter)
    missing: Counter[tuple[str, str]] = field(default_factory=Counter)
    labels: dict[str, dict[str, list[int]]] = field(default_factory=lambda: defaultdict(dict))
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def recall(self, kind: str = "", form: str = "") -> Estimate:
        """Of all pieces, those of a kind, or those of a kind in a form."""

        def count(pieces: Counter[tuple[str, str]]) -> int:
            return sum(n for (k, f), n in pieces.items() if kind in ("", k) and form in ("", f))

        return wilson(count(self.found), count(self.found) + count(self.missed))

    def precision(self, label: str = "") -> Estimate:
        """Of all detections, or those of a label: the share that is planted."""
        values: list[float] = []
        documents: list[str] = []
        for name, by_document in self.labels.items():
            if label in ("", name):
                for document, (planted, other) in by_document.items():
                    values += [1.0] * planted + [0.0] * other
                    documents += [document] * (planted + other)
        return bootstrap_mean(values, clusters=documents, share=True)

    def not_planted(self, label: str) -> int:
        """How many detections of a label overlap nothing that was planted."""
        return sum(other for _, other in self.labels[label].values())


def detected(
    scorer: Scorer, documents: Iterable[tuple[str, str, Sequence[Planted]]], *, threshold: float
) -> Detections:
    """What `scorer` finds in documents (id, text, what was planted); `threshold`: of segments, for one that cannot point."""
    result = Detections()
    for name, text, planted in documents:
        found, unknown = detections(scorer, text, threshold=threshold)
        for piece in planted:
            key = (piece.kind, piece.form)
            if any(_overlap(piece, one) for one in found):
                result.found[key] += 1
            elif any(_overlap(piece, one) for one in unknown):
                result.missing[key] += 1
            else:
                result.missed[key] += 1
        for one in found:
            counts = result.labels[one.rule].setdefault(name, [0, 0])
            is_planted = any(_overlap(piece, one) for piece in planted)
            counts[not is_planted] += 1
            if not is_planted and counts[1] == 1 and len(result.examples[one.rule]) < EXAMPLES:
                result.examples[one.rule].append(_around(text, one))
    return result


def detections(scorer: Scorer, text: str, *, threshold: float) -> tuple[list[Found], list[Found]]:
    """What the scorer points at, or the segments above `threshold`; and the segments that have no score."""
    find = getattr(scorer, "find", None)
    if find is not None:
        return list(find(text)), []
    [segments] = scorer.by_segment([text])
    spans = [
        (score, Found(scorer.name, start, end))
        for score, start, end in zip(segments.scores, (0, *segments.ends), segments.ends, strict=False)
    ]
    return [one for score, one in spans if score is not None and score > threshold], [
        one for score, one in spans if score is None
    ]


def _overlap(one: Planted | Found, other: Planted | Found) -> bool:
    return one.start < other.end and other.start < one.end


def _around(text: str, one: Found, *, room: int = 40, most: int = 120) -> str:
    """The detection in brackets, with what stands around it, on one line."""
    middle = text[one.start : min(one.end, one.start + most)].strip()
    around = f"{text[max(0, one.start - room) : one.start]}[{middle}]{text[one.end : one.end + room]}"
    return " ".join(around.split())
