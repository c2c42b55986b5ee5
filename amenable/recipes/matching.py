"""What the studies of distribution matching share: the problem, samples with what they are worth, the numbers to compare by.

Every policy that is measured draws `n` samples a context; each is kept with log pi, log a and log phi. Samples of the prior are
scored under the tuned policy too: weighted by phi they are samples of the target, so that KL(p, pi) sees what the policy no
longer says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from amenable.errors import ConfigError
from amenable.evaluation.code import ast_nodes
from amenable.evaluation.divergence import Evidence, entropy, kl_policy_prior, kl_target_policy, total_variation
from amenable.evaluation.diversity import distinct_n, self_bleu
from amenable.evaluation.interval import Estimate, bootstrap_mean, no_data
from amenable.feedback.feature import Feature
from amenable.policy.language_model import LanguageModel
from amenable.policy.loading import load_policy
from amenable.progress import bar
from amenable.recipes.code_model import Making, code_model, functions_of
from amenable.recipes.targets import factors_of, target_named
from amenable.records import Decoding, Samples
from amenable.runs import Row, Run
from amenable.sampling.batches import as_plain, from_plain
from amenable.sampling.best_of_n import best_of_n
from amenable.seeding import derive, python_random
from amenable.target.posterior import Target, sequence_log_prob
from amenable.target.potential import scores_of
from amenable.task.functions import contexts

TASKS = {
    "compiles": ("compiles", "whole functions that compile: energy-based models for code (Korbak et al. 2021)"),
    "signatures": ("compiles", "bodies for given signatures, so that the function compiles: CDPG (Korbak et al. 2022)"),
    "signatures-pep8": ("pep8", "bodies for given signatures without a violation of PEP 8"),
    "prefixes": ("compiles", "the rest of functions that are cut between any two words: contexts whose Z differ a lot"),
    "word": ("contains:raise", "functions that contain the word raise, about one in nine of the prior's"),
    "half": ("contains:raise@0.5", "half of the functions contain the word raise"),
    "short": ("length<=80~0.5", "functions of at most 80 characters preferred: a tilt"),
}
"""Task -> target in the grammar of `targets`, and what it is; all start from the small code model."""

CODE = "code-model"


@dataclass(frozen=True)
class Problem:
    """A target over training contexts; `held_out` contexts are for evaluation (the same, where there is only one)."""

    prior: LanguageModel
    target: Target
    contexts: list[str]
    held_out: list[str]
    decoding: Decoding
    what: str
    code: bool
    features: Sequence[Feature]
    """What the target asks for; a text has it if it has them all."""

    def scored(self, name: str, run: Run, policy: Callable[[], LanguageModel], n: int, seed: int) -> list[Row]:
        """`n` samples of a policy for every held-out context, as rows: what was said and what it is worth."""

        def compute() -> list[Row]:
            with bar(name) as progress:
                law = policy()
                samples = law.sample(self.held_out, n=n, decoding=self.decoding, seed=seed, progress=progress)
            prompts = [context for context in self.held_out for _ in range(n)]
            scores = self.target.scores(prompts, samples)
            log_policy = sequence_log_prob(law, samples)
            value = torch.stack([scores_of(feature, prompts, samples) for feature in self.features]).prod(0)
            plain = as_plain(samples)
            return [
                {
                    "prompt": prompts[i],
                    "text": samples.texts[i],
                    "ended": samples.ended[i],
                    "tokens": plain["tokens"][i][: plain["lengths"][i]],
                    "log_policy": float(log_policy[i]),
                    "log_prior": float(scores.log_prior[i]),
                    "log_potential": _finite(float(scores.log_potential[i])),
                    "missing": bool(scores.missing[i] | value[i].isnan()),
                    "value": _finite(float(value[i])),
                }
                for i in range(len(samples))
            ]

        return run.stage(name, compute)

    def samples_of(self, rows: Sequence[Row]) -> Samples:
        """The record of rows that `scored` made."""
        width = max(len(row["tokens"]) for row in rows)
        return from_plain(
            {
                "context_ids": [self.prior.encode(row["prompt"]) for row in rows],
                "tokens": [row["tokens"] + [0] * (width - len(row["tokens"])) for row in rows],
                "lengths": [len(row["tokens"]) for row in rows],
                "log_probs": [[0.0] * width for _ in rows],
                "dtype": "float32",
                "texts": [row["text"] for row in rows],
                "ended": [row["ended"] for row in rows],
                "decoding": {"max_tokens": self.decoding.max_tokens, "stop": list(self.decoding.stop)},
            }
        )

    def under(self, name: str, run: Run, policy: Callable[[], LanguageModel], rows: Sequence[Row]) -> list[float]:
        """log pi of rows that another policy drew."""

        def compute() -> list[Row]:
            return [{"log_policy": value} for value in sequence_log_prob(policy(), self.samples_of(rows)).tolist()]

        return [row["log_policy"] for row in run.stage(name, compute)]


def problem(settings: Any, *, prior: LanguageModel | None = None) -> Problem:
    """The problem that a recipe's settings name. Errors: ConfigError for a task or target that cannot be."""
    if settings.task not in TASKS and not settings.target:
        raise ConfigError(
            f"task={settings.task!r} is not known",
            f"use {', '.join(TASKS)}, or name your own target, such as target=contains:amazing",
        )
    target, what = TASKS.get(settings.task, ("", ""))
    if settings.target:
        target, what = settings.target, f"target {settings.target}"
    a = prior or load_prior(settings)
    decoding = Decoding(max_tokens=settings.max_tokens)
    train, held_out = _contexts(settings)
    made = target_named(a, target, contexts=train, decoding=decoding, seed=derive(settings.seed, "moments"))
    asked = [factor.feature for factor in factors_of(target)]
    code = settings.model == CODE or not settings.target  # all named tasks are about code, whatever the prior
    return Problem(made.prior, made, train, held_out, decoding, what, code, asked)  # type: ignore[arg-type]


def load_prior(settings: Any) -> LanguageModel:
    """The pretrained model in float32: sequence weights do not survive less."""
    if settings.model == CODE:
        return code_model(rows=settings.rows)
    return load_policy(settings.model, dtype="float32", rows=settings.rows)


def _contexts(settings: Any) -> tuple[list[str], list[str]]:
    """Training and held-out contexts: signatures or prefixes of other modules' functions, the lines of a file, or ""."""
    kind = settings.task.partition("-")[0]
    if kind in ("signatures", "prefixes") and not settings.contexts:
        chosen = (
            contexts(functions_of(Making()), split, settings.context_count, seed=settings.seed)
            for split in ("train", "held-out")
        )
        train, held_out = (
            [one.signature if kind == "signatures" else one.prefix(settings.seed) for one in functions]
            for functions in chosen
        )
        return train, held_out
    if settings.contexts:
        lines = [line for line in Path(settings.contexts).read_text(encoding="utf-8").splitlines() if line.strip()]
        unique = list(dict.fromkeys(lines))
        python_random(settings.seed, "contexts").shuffle(unique)
        half = max(1, len(unique) // 2)
        return unique[:half], unique[half:] or unique[:half]
    return [""], [""]


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


LABELS = {
    "satisfied": "satisfied", "kl_target_policy": "KL(p, π)", "tv": "TV", "kl_policy_prior": "KL(π, a)", "entropy": "entropy",
    "distinct_1": "distinct-1", "self_bleu": "self-BLEU-5", "length": "characters, all samples",
    "characters": "characters", "ast_nodes": "AST nodes", "finished": "finished",
}  # fmt: skip


@dataclass(frozen=True)
class Measures:
    """What a policy is worth on a problem. KLs and entropy in nats a sequence; shares in [0, 1]."""

    satisfied: Estimate
    kl_target_policy: Estimate
    tv: Estimate
    kl_policy_prior: Estimate
    entropy: Estimate
    distinct_1: Estimate
    self_bleu: Estimate
    length: Estimate
    characters: Estimate
    ast_nodes: Estimate
    finished: Estimate

    def named(self) -> dict[str, Estimate]:
        """Name -> estimate, in order."""
        return {LABELS[field.name]: getattr(self, field.name) for field in fields(self)}


def measures(
    found: Problem, rows: Sequence[Row], prior_rows: Sequence[Row], cross: Sequence[float] | None, *, seed: int
) -> Measures:
    """Of samples `rows` of a policy, and of the prior's samples with their log pi (`cross`); None: its law is not known."""
    usable = [row for row in rows if not row["missing"]]
    satisfied = [float(row["value"]) for row in usable]
    unknown = no_data("the law of these samples is not known")
    own, across = (None if cross is None else _evidence(found, rows)), None
    if cross is not None:
        across = _evidence(found, prior_rows, cross)
    return Measures(
        satisfied=bootstrap_mean(
            satisfied,
            clusters=[row["prompt"] for row in usable] if len(found.held_out) > 1 else None,
            share=all(feature.binary for feature in found.features),
            seed=seed,
        ),
        kl_target_policy=unknown if across is None else kl_target_policy(across),
        tv=unknown if across is None else total_variation(across),
        kl_policy_prior=unknown if own is None else kl_policy_prior(own),
        entropy=unknown if own is None else entropy(own),
        length=bootstrap_mean([float(len(row["text"])) for row in usable], seed=seed),
        **_texts(
            [row for row, good in zip(usable, satisfied, strict=True) if good or not found.target.potential.hard],
            found,
            seed,
        ),
    )


def target_measures(found: Problem, prior_rows: Sequence[Row], *, seed: int) -> Measures:
    """Of the target itself: samples of the prior, resampled with the weight phi."""
    usable = [row for row in prior_rows if not row["missing"] and row["log_potential"] is not None]
    log_phi = torch.tensor([row["log_potential"] for row in usable], dtype=torch.float64)
    if not usable:
        return measures(found, [], [], None, seed=seed)
    even = bool((log_phi == log_phi[0]).all())
    chosen = usable if even else [usable[i] for i in _systematic(log_phi.softmax(0), seed)]
    evidence = _evidence(found, chosen)
    p = torch.tensor([_log_phi(row) for row in chosen], dtype=torch.float64)
    z = torch.tensor([_log_phi(row) for row in prior_rows if not row["missing"]], dtype=torch.float64)
    shift = p - (z.logsumexp(0) - math.log(len(z)))  # log p - log a, one Z for all contexts
    drawn = measures(found, chosen, [], None, seed=seed)
    twice = no_data("drawn with replacement: the same text more than once")
    return replace(
        drawn,
        self_bleu=drawn.self_bleu if even else twice,
        kl_target_policy=Estimate(0.0, 0.0, 0.0, len(chosen), "by definition"),
        tv=Estimate(0.0, 0.0, 0.0, len(chosen), "by definition"),
        kl_policy_prior=bootstrap_mean(shift.tolist(), seed=seed),
        entropy=bootstrap_mean((-evidence.log_policy - shift).tolist(), seed=seed),
    )


def best(found: Problem, n: int, of: int, seed: int) -> list[Row]:
    """`n` samples a held-out context of the prior's best-of-`of` law; the law of each is not known, only a bound."""
    drawn = best_of_n(
        found.prior, found.target.potential, found.held_out, n=of, draws=n, decoding=found.decoding, seed=seed
    )
    value = torch.stack([scores_of(feature, drawn.prompts, drawn.samples) for feature in found.features]).prod(0)
    return [
        {
            "prompt": drawn.prompts[i], "text": drawn.samples.texts[i], "ended": drawn.samples.ended[i],
            "log_potential": _finite(float(drawn.scores[i])), "missing": False, "value": _finite(float(value[i])),
            "kl_bound": drawn.kl_bound,
        }
        for i in range(len(drawn.samples))
    ]  # fmt: skip


def _evidence(found: Problem, rows: Sequence[Row], cross: Sequence[float] | None = None) -> Evidence:
    """Rows drawn from their `log_policy`, or drawn from the prior and scored as `cross`."""
    own = torch.tensor([row["log_policy"] for row in rows], dtype=torch.float64)
    prior = torch.tensor([row["log_prior"] for row in rows], dtype=torch.float64)
    phi = torch.tensor([math.nan if row["missing"] else _log_phi(row) for row in rows], dtype=torch.float64)
    policy = own if cross is None else torch.tensor(list(cross), dtype=torch.float64)
    return Evidence(policy, prior + phi, own, [row["prompt"] for row in rows], prior)


def _log_phi(row: Row) -> float:
    return -math.inf if row["log_potential"] is None else float(row["log_potential"])


def _texts(rows: Sequence[Row], found: Problem, seed: int) -> dict[str, Estimate]:
    texts = [row["text"] for row in rows]
    if not texts:
        return dict.fromkeys(("distinct_1", "self_bleu", "characters", "ast_nodes", "finished"), no_data("no text"))
    nodes = (
        [count for row in rows if (count := ast_nodes(row["prompt"] + row["text"])) is not None] if found.code else []
    )
    return {
        "distinct_1": distinct_n(texts, 1, seed=seed),
        "self_bleu": self_bleu(texts[:500], 5, seed=seed),
        "characters": bootstrap_mean([float(len(text)) for text in texts], seed=seed),
        "ast_nodes": bootstrap_mean([float(count) for count in nodes], seed=seed),
        "finished": bootstrap_mean([float(row["ended"] != "length") for row in rows], share=True, seed=seed),
    }


def _systematic(shares: torch.Tensor, seed: int) -> list[int]:
    """As many places as there are shares, each about its share of the time."""
    start = python_random(seed, "systematic").random()
    points = (torch.arange(len(shares), dtype=torch.float64) + start) / len(shares)
    return torch.searchsorted(shares.cumsum(0), points).clamp(max=len(shares) - 1).tolist()
