"""One arm: a method of learning from preferences, from its feedback to the samples of its policy.

    prior  ->  people's reward model | judge's reward model | judge's rating  ->  posterior  ->  policy  ->  samples

Sources: those of `method.rlhf`, `method.rlaif`, `method.direct_rlaif`, `sampling.best_of_n`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from amenable.errors import FeedbackError
from amenable.method.direct_rlaif import direct_rlaif
from amenable.method.fdpg import FDPG
from amenable.method.imitation import Imitation
from amenable.method.loop import Optimisation
from amenable.method.protocol import Method
from amenable.method.rlaif import rlaif
from amenable.method.rlhf import rlhf
from amenable.policy.language_model import LanguageModel
from amenable.recipes.alignment import AlignmentSettings, Preference, Problem, labels, preference, preferred_answers
from amenable.recipes.metered import Metered
from amenable.recipes.rlhf_outcome import READINGS, meter_of, outcome, scores
from amenable.recipes.rlhf_report import Arm
from amenable.recipes.training import trained
from amenable.runs import Row, Run
from amenable.sampling.best_of_n import best_of_n
from amenable.sampling.proposal import OnPolicy
from amenable.seeding import derive
from amenable.target.posterior import sequence_log_prob

TRAINED: dict[str, Callable[..., FDPG]] = {"rlhf": rlhf, "rlaif": rlaif, "direct-rlaif": direct_rlaif}
METHODS = ("sft", *TRAINED, "best-of-n")


def who_of(name: str, settings: AlignmentSettings) -> str:
    """Whose opinion a method uses: people's labels, a judge's labels, or a judge's rating."""
    if name == "best-of-n":
        return "rating" if settings.judge and not settings.data and not settings.reward else "people"
    return {"sft": "people", "rlhf": "people", "rlaif": "judge", "direct-rlaif": "rating"}[name]


def one_arm(
    name: str, label: str, settings: AlignmentSettings, found: Problem, before: Sequence[Row], folder: Path, record: Run
) -> Arm:
    """A method from its feedback to its samples; `label` names its training and its stages."""
    chosen = preference(who_of(name, settings), settings, found, folder, record)
    metrics: list[dict[str, Any]] = []
    if name == "best-of-n":
        after = record.stage(label, lambda: best(settings, found, chosen))
    else:
        method = build(name, settings, found, chosen, folder, folder / label, record)
        policy, metrics = train_one(settings, found, method, folder / label, record)
        after = sampled(settings, found, lambda: policy.exact(), label, record)
    scored = scores(found, chosen, after, label, record)
    result = outcome(found, chosen, before, after, scored, settings, folder, record, label)
    return Arm(chosen, result, after, metrics, meter_of(found, after, scored, folder / label))


def build(
    name: str,
    settings: AlignmentSettings,
    found: Problem,
    chosen: Preference,
    folder: Path,
    training: Path,
    record: Run,
) -> Method:
    """The method of an arm that is trained; a gold scorer, where there is one, watches it."""
    if name == "sft":
        pairs = labels("people", settings, found, folder, record)
        examples = preferred_answers(found.prior, pairs, found.decoding)
        size = settings.prompts_per_step * settings.samples_per_prompt
        epochs = max(1, round(settings.steps * size / len(examples)))
        return Imitation(examples, epochs=epochs, batch_size=size, seed=settings.seed)
    proposal = OnPolicy(torch.bfloat16) if settings.precision == "bfloat16" else OnPolicy()
    method = TRAINED[name](
        found.prior, chosen.score, beta=settings.beta, estimator=settings.estimator, contexts=found.prompts,
        steps=settings.steps, contexts_per_step=settings.prompts_per_step, samples_per_context=settings.samples_per_prompt,
        decoding=found.decoding, proposal=proposal, seed=derive(settings.seed, name),
    )  # fmt: skip
    if found.gold is None or not settings.readings:
        return method
    return Metered(
        method, readings=settings.readings, prior=found.prior.exact(), prompts=found.held_out, decoding=found.decoding,
        proxy=chosen.score, gold=found.gold, path=training / READINGS, seed=derive(settings.seed, "meter"),
    )  # fmt: skip


def train_one(
    settings: AlignmentSettings, found: Problem, method: Method, folder: Path, record: Run
) -> tuple[LanguageModel, list[dict[str, Any]]]:
    """The policy that a method makes of the prior, and the metrics of its steps."""
    optimisation = Optimisation(
        learning_rate=settings.learning_rate, schedule="constant", precision=settings.precision  # type: ignore[arg-type]
    )  # fmt: skip
    return trained(
        found.prior, method, optimisation=optimisation, adapter=settings.adapter, folder=folder, record=record,
        checkpoint_every=settings.checkpoint_every, on_full=settings.on_full,
    )  # fmt: skip


def best(settings: AlignmentSettings, found: Problem, chosen: Preference) -> list[Row]:
    """The best of n answers of the prior by the score, to the same prompts as all; of its law a bound is known."""
    each, seed = answers_each(settings, found), derive(settings.seed, "evaluation", "best-of-n")
    drawn = best_of_n(
        found.prior, chosen.score, found.held_out, n=settings.best_of, draws=each, decoding=found.decoding, seed=seed
    )
    if drawn.without:
        raise FeedbackError(
            f"{chosen.score.name} scores none of {settings.best_of} answers to {drawn.without[0]!r}",
            "raise best_of, or mend it",
        )
    return [
        {"prompt": prompt, "text": text, "kl_bound": drawn.kl_bound}
        for prompt, text in zip(drawn.prompts, drawn.samples.texts, strict=True)
    ]


def answers_each(settings: AlignmentSettings, found: Problem) -> int:
    """Answers to every held-out prompt that are measured."""
    return max(1, settings.evaluation // len(found.held_out))


def sampled(
    settings: AlignmentSettings, found: Problem, policy: Callable[[], LanguageModel], name: str, record: Run
) -> list[Row]:
    """Samples of a policy on the held-out prompts, with log pi and log a; the same prompts in the same order for all."""

    def compute() -> list[Row]:
        law, each = policy(), answers_each(settings, found)
        drawn = law.sample(
            found.held_out, n=each, decoding=found.decoding, seed=derive(settings.seed, "evaluation", name)
        )
        log_policy, log_prior = sequence_log_prob(law, drawn), sequence_log_prob(found.prior.exact(), drawn)
        return [
            {"prompt": found.held_out[i // each], "text": drawn.texts[i], "log_policy": here, "log_prior": there}
            for i, (here, there) in enumerate(zip(log_policy.tolist(), log_prior.tolist(), strict=True))
        ]

    return record.stage(name, compute)
