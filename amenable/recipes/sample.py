"""Draw from a target without training: importance resampling, (quasi-)rejection or best of n, with an account of it.

    importance  draw again among `proposals` a context, by their weights      law: the target's, if the weights are even enough
    qrs         accept with probability min(1, P/(beta q))                     law: p_beta, whose distance is reported
    rejection   the same with beta >= P/q for all that is seen                 law: the target's, if beta really bounds P/q
    best-of-n   the best of `best_of` texts by log phi                         law: within a known KL of the proposal

The proposal q is the model, or a policy tuned towards the target, which is accepted more often. Sources: those of `sampling/`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from amenable.errors import ConfigError, DataError
from amenable.policy.language_model import LanguageModel
from amenable.policy.loading import load_policy
from amenable.progress import bar
from amenable.recipes.code_model import code_model
from amenable.recipes.environment import machine, prepare
from amenable.recipes.sample_report import Outcome, build_report, weight_rows, weights_of
from amenable.recipes.settings import Recipe, setting
from amenable.recipes.targets import factors_of, is_hard, target_named
from amenable.records import Decoding, Samples
from amenable.report.html import write
from amenable.report.page import Report
from amenable.runs import Row, Run
from amenable.sampling.acceptance import choose_beta
from amenable.sampling.best_of_n import best_of_n
from amenable.sampling.draws import propose
from amenable.sampling.importance import resample
from amenable.sampling.rejection import quasi_rejection
from amenable.seeding import derive
from amenable.target.moments import MomentTarget
from amenable.target.partition import groups
from amenable.target.posterior import Target

METHODS = ("qrs", "rejection", "importance", "best-of-n")
CODE = "code-model"


@dataclass(frozen=True)
class SampleSettings:
    """What is drawn, from which target, and how."""

    target: str = setting("", "what texts shall be: NAME, NAME@SHARE or NAME~BETA, joined by ' * ', such as compiles")
    method: str = setting("qrs", "how they are drawn", METHODS)
    model: str = setting("smollm2-135m", "the prior: folder, Hugging Face id, named small model, or code-model")
    proposal: str = setting("", "whose samples are drawn: the folder of a tuned policy; default: the model")
    contexts: str = setting("", "what is continued: a text, or a file with one a line (JSONL: its prompt)")
    n: int = setting(16, "samples a context")
    max_tokens: int = setting(64, "longest sample in tokens")
    beta: str = setting("auto", "for qrs and rejection: a number, auto (one for all contexts) or each (one for each)")
    distance: float = setting(
        0.05, "for qrs with beta=auto: the smallest beta whose law has at most this TV to the target"
    )
    proposals: int = setting(256, "proposals a context that importance draws among, or that beta=auto is chosen by")
    most: int = setting(4096, "for qrs and rejection: proposals a context at most")
    best_of: int = setting(16, "for best-of-n: texts a sample is the best of")
    scheme: str = setting("systematic", "for importance: how it draws again", ("systematic", "multinomial"))
    fit: int = setting(4096, "for NAME@SHARE: proposals that the share is fitted to, in all; as many check it")
    dtype: str = setting(
        "float32", "precision of the proposal; weights of whole sequences want float32", ("float32", "bfloat16")
    )
    rows: int = setting(128, "samples decoded at once")
    threads: int = setting(0, "CPU threads, 0 for all cores")
    trust_remote_code: str = setting("", "the id of a model, as in model=, whose own Python code may be run")
    seed: int = setting(0, "seed of everything drawn")


def contexts_of(text: str) -> list[str]:
    """The contexts that a setting names, each once. Errors: DataError with the line of the file."""
    if not text or "\n" in text or not Path(text).is_file():
        return [text]
    lines = Path(text).read_text(encoding="utf-8").splitlines()
    found = [line for line in lines if line.strip()]
    if text.endswith((".jsonl", ".json")):
        found = [_prompt(text, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise DataError(f"{text} holds no context", "write one a line")
    return list(dict.fromkeys(found))


def _prompt(file: str, number: int, line: str) -> str:
    try:
        prompt = json.loads(line)["prompt"]
    except (ValueError, KeyError, TypeError):
        prompt = None
    if not isinstance(prompt, str):
        raise DataError(f"{file}, line {number}, has no text under prompt", 'write {"prompt": "..."} a line')
    return prompt


def plan(settings: SampleSettings) -> list[str]:
    contexts, names = contexts_of(settings.contexts), factors_of(settings.target)
    _number(settings.beta)
    each = {
        "importance": f"{settings.proposals}",
        "best-of-n": f"{settings.n * settings.best_of}",
    }.get(settings.method, f"at most {settings.most}")
    lines = [
        f"{settings.n} samples of {len(contexts)} contexts from the target {settings.target}, prior {settings.model}",
        f"method {settings.method}: {each} proposals of {settings.proposal or settings.model} a context, "
        f"at most {settings.max_tokens} tokens",
    ]
    if any(factor.kind == "share" for factor in names):
        lines.insert(1, f"its shares are fitted to {settings.fit} samples first, and checked on as many")
    return lines


def run(settings: SampleSettings, folder: Path) -> Report:
    """Draw, and write samples and report into `folder`."""
    clock = prepare(settings.threads)
    contexts, decoding = contexts_of(settings.contexts), Decoding(max_tokens=settings.max_tokens)
    shares = any(factor.kind == "share" for factor in factors_of(settings.target))
    _number(settings.beta)
    record = Run.of(folder, settings)

    @cache
    def laws() -> tuple[LanguageModel, Target]:
        return _laws(settings, contexts, decoding)

    moments = record.stage("target", lambda: _moments(laws()[1])) if shares else []
    clock.lap("target")
    beta = _beta(settings, record, laws, contexts, decoding)
    clock.lap("beta")

    @cache
    def drawn() -> tuple[list[Row], list[Row]]:
        with bar(settings.method) as progress:
            return _draw(settings, *laws(), contexts, decoding, beta, progress)

    outcome = Outcome(
        contexts=contexts,
        beta=beta,
        samples=record.stage("samples", lambda: drawn()[0]),
        proposals=record.stage("proposals", lambda: drawn()[1]),
        moments=moments,
    )
    clock.lap("samples")
    report = build_report(settings, outcome, clock.minutes(), machine({}))
    write(report, folder / "report.html")
    record.close()
    return report


def _laws(settings: SampleSettings, contexts: list[str], decoding: Decoding) -> tuple[LanguageModel, Target]:
    """The proposal and the target. The prior itself proposes where nothing else is asked for: its weights are then exact."""
    prior: LanguageModel
    if settings.model == CODE:
        prior = code_model(rows=settings.rows)
    else:
        prior = load_policy(
            settings.model, dtype=settings.dtype, rows=settings.rows, trust_remote_code=settings.trust_remote_code
        )
    other = load_policy(settings.proposal, dtype=settings.dtype, rows=settings.rows) if settings.proposal else None
    with bar("target"):
        target = target_named(
            prior, settings.target, contexts=contexts, decoding=decoding, samples=settings.fit, proposal=other,
            seed=derive(settings.seed, "target"),
        )  # fmt: skip
    if _prior_proposes(settings):
        return target.prior, target  # type: ignore[return-value]
    return other or prior, target


def _prior_proposes(settings: SampleSettings) -> bool:
    return not settings.proposal and settings.dtype == "float32"


def _moments(target: Target) -> list[Row]:
    return [asdict(moment) for moment in target.moments] if isinstance(target, MomentTarget) else []


def _number(beta: str) -> float | None:
    """The number that a setting says, None for auto and each."""
    if beta in ("auto", "each"):
        return None
    try:
        found = float(beta)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise ConfigError(f"beta={beta} is not a positive number", "give one, or beta=auto or beta=each")
    return found


def _beta(
    settings: SampleSettings,
    record: Run,
    laws: Callable[[], tuple[LanguageModel, Target]],
    contexts: list[str],
    decoding: Decoding,
) -> dict[str, float]:
    """beta of every context; where it is not given, from proposals that serve nothing else."""
    number = _number(settings.beta)
    if settings.method not in ("qrs", "rejection"):
        return {}
    if number is None and is_hard(settings.target) and _prior_proposes(settings):
        number = 1.0  # P/q is 0 or 1: exact, and no smaller beta accepts more
    if number is not None:
        return dict.fromkeys(contexts, number)

    def pilot() -> list[Row]:
        with bar("beta") as progress:
            draws = propose(
                *laws(), contexts, n=settings.proposals, decoding=decoding, seed=derive(settings.seed, "beta"),
                progress=progress,
            )  # fmt: skip
        return weight_rows(draws.prompts, draws.log_weights)

    rows = record.stage("beta", pilot)
    prompts, weights = [row["prompt"] for row in rows], weights_of(rows)
    together = _chosen(settings, prompts, weights)
    if settings.beta == "auto":
        return dict.fromkeys(contexts, together)
    chosen = dict.fromkeys(contexts, together)  # also for those of which nothing is known
    for context, places in groups(prompts).items():
        if bool((weights[places] > -torch.inf).any()):
            chosen[context] = _chosen(settings, [context] * len(places), weights[places])
    return chosen


def _chosen(settings: SampleSettings, prompts: list[str], weights: torch.Tensor) -> float:
    """For qrs the smallest beta that is close enough; for rejection the largest weight seen, in place of a bound."""
    close = choose_beta(prompts, weights, total_variation_at_most=settings.distance)
    return math.exp(float(weights[~weights.isnan()].max())) if settings.method == "rejection" else close


def _draw(
    settings: SampleSettings,
    proposal: LanguageModel,
    target: Target,
    contexts: list[str],
    decoding: Decoding,
    beta: Mapping[str, float],
    progress: Callable[[int, int], None],
) -> tuple[list[Row], list[Row]]:
    """What was drawn, and the weights of all proposals."""
    seed = derive(settings.seed, settings.method)
    how: dict[str, Any] = {"decoding": decoding, "seed": seed, "progress": progress}
    if settings.method == "best-of-n":
        best = best_of_n(proposal, target.potential, contexts, n=settings.best_of, draws=settings.n, **how)
        rows = _text_rows(best.prompts, best.samples, {"log_potential": best.scores})
        return rows, [{"proposed": best.proposed, "missing": best.missing, "without": best.without}]
    if settings.method == "importance":
        draws = propose(proposal, target, contexts, n=settings.proposals, **how)
        found = resample(draws, n=settings.n, scheme=settings.scheme, seed=seed)  # type: ignore[arg-type]
        numbers = {
            "log_score": found.log_score,
            "log_proposal": draws.log_proposal[found.places],
            "place": found.places,
        }
        return _text_rows(found.prompts, found.samples, numbers), weight_rows(draws.prompts, draws.log_weights)
    batch = max(4 * settings.rows, len(contexts))
    taken = quasi_rejection(proposal, target, contexts, n=settings.n, beta=beta, most=settings.most, batch=batch, **how)
    numbers = {"log_score": taken.log_score, "log_proposal": taken.log_proposal}
    every = taken.all_proposed
    rows = weight_rows(every.prompts, every.log_weights, every.accepted)
    return _text_rows(taken.prompts, taken.samples, numbers), rows


def _text_rows(prompts: list[str], samples: Samples, numbers: Mapping[str, torch.Tensor]) -> list[Row]:
    rows = []
    for place, (prompt, text) in enumerate(zip(prompts, samples.texts, strict=True)):
        row: Row = {"prompt": prompt, "completion": text, "ended": samples.ended[place], "tokens": samples.ids(place)}
        for name, values in numbers.items():
            value = values[place].item()
            row[name] = value if math.isfinite(value) else None
        if "log_score" in row:
            row["log_weight"] = row["log_score"] - row["log_proposal"]
        rows.append(row)
    return rows


RECIPE = Recipe(
    "sample", "draw from a target without training, with its distance from the target", SampleSettings, plan, run
)
