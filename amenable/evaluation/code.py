"""Generated code in numbers: does it compile, how large is it, how clean is it.

    compile rate          share of texts that `feedback.constraints.compiles` accepts                 Wilson's interval
    AST nodes             nodes of the syntax tree, all that `ast.walk` meets (Module, Load and Store among them)
    lines, characters     size of the text; a last newline adds no line
    PEP8 per character    pycodestyle's violations in text + newline / characters of the text         mean over texts
    moment of a feature   E[φ(x)], the mean of its values over samples

AST nodes exist only for texts that parse. Their mean is a mean over survivors: a model that learns to write `x` compiles
always and has small trees, and one that fails at every long function does too. Read it beside the compile rate and the
length of all texts, and compare it with the prior's samples that compile, a(x|c) b(x, c) / Z, not with all of the prior's.

Sources: Korbak et al. 2021, arXiv 2106.04985 (compile rate, AST nodes, length, PEP8 per character); Khalifa et al. 2021,
arXiv 2012.11635 (moments). Changed from the papers: intervals; what is missing is left out and counted, never 0.
"""

from __future__ import annotations

import ast
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from amenable.errors import DataError
from amenable.evaluation.interval import Estimate, bootstrap_mean, wilson
from amenable.feedback.constraints import compiles, pep8_violations, size
from amenable.feedback.python_text import ended, parse, silent


def ast_nodes(text: str) -> int | None:
    """Nodes of the syntax tree of `text`, 1 for an empty text; None if it does not parse."""
    with silent():
        tree = parse(text)
    return None if tree is None else sum(1 for _ in ast.walk(tree))


def lines(text: str) -> int:
    """Lines of `text`, empty ones too; a last newline adds none."""
    return size(text, "lines")


def characters(text: str) -> int:
    """Code points of `text`."""
    return len(text)


def compile_rate(
    texts: Sequence[str],
    *,
    prompts: Sequence[str] | None = None,
    ended: Sequence[str] | None = None,
    statements: int = 1,
    level: float = 0.95,
) -> Estimate:
    """Share of `texts` (completions of `prompts`, if given) that compile; Wilson's interval, for independent texts.

    `ended` and `statements` are as in `constraints.compiles`: a text that ended by "length" does not compile, nor does one
    with fewer statements that do something. For several texts a prompt use `moments` with `clusters`.
    """
    feature = compiles(statements=statements)
    values = feature([""] * len(texts) if prompts is None else prompts, texts, ended=ended)
    return wilson(values.count(1.0), len(values), level=level)


def mean_ast_nodes(
    texts: Sequence[str],
    *,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Mean AST nodes over the texts that parse, and those alone (the module's head says what that hides); bootstrap."""
    counts = [ast_nodes(text) for text in texts]
    found = _mean(counts, clusters, seed=seed, level=level)
    parsed = sum(count is not None for count in counts)
    return replace(found, method=f"{found.method}, {parsed} of {len(texts)} parse, the others left out")


def pep8_per_character(
    texts: Sequence[str],
    *,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Mean over texts of violations / characters; empty texts are missing. Bootstrap. Give whole programs, prompt and all."""
    values = [pep8_violations(ended(text)) / len(text) if text else None for text in texts]
    return _mean(values, clusters, seed=seed, level=level)


def moments(
    features: Mapping[str, Sequence[float | None]],
    *,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """The mean of each feature's values (samples,), by its name; missing ones are left out, as each `n` shows.

    Values that are all 0 or 1 get Wilson's interval, others a bootstrap; with `clusters` (a prompt a sample) prompts are
    drawn, and `n` counts prompts. The values are to be of samples that nothing was fitted on: moments of the samples that
    the λ were fitted on are right by construction.
    """
    return {
        name: _mean(values, clusters, seed=seed, level=level, share=set(values) <= {0, 1, None})
        for name, values in features.items()
    }


def _mean(
    values: Sequence[float | None],
    clusters: Sequence[Hashable] | None,
    *,
    seed: int,
    level: float,
    share: bool = False,
) -> Estimate:
    """The mean of what is not missing; `share` says that all values are 0 or 1."""
    if clusters is not None and len(clusters) != len(values):
        raise DataError(f"{len(values)} values but {len(clusters)} cluster labels.", "give one label a value.")
    kept = [index for index, value in enumerate(values) if value is not None]
    numbers = [float(value) for value in values if value is not None]
    if share and clusters is None:
        return wilson(numbers.count(1.0), len(numbers), level=level)
    labels = None if clusters is None else [clusters[index] for index in kept]
    found = bootstrap_mean(numbers, clusters=labels, share=share, seed=seed, level=level)
    return replace(found, method=found.method.replace("over tasks", "over texts"))
