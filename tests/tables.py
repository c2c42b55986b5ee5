"""Tables small enough to be listed, targets on them, and their exact laws: what the oracle tests compare with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from amenable.method.fdpg import FDPG, Batch
from amenable.objective.divergence import DIVERGENCES, Divergence, alpha_divergence
from amenable.policy.tabular import TabularPolicy
from amenable.records import Samples
from amenable.sampling.batches import subset
from amenable.target.posterior import Target, sequence_log_prob
from amenable.target.potential import constraint, features, tilt, weight

CONTEXTS = ("left", "right")
Values = list[float | None]

MINE = Divergence("skewed kl of a user", lambda t: t * (t / (0.3 * t + 0.7)).log())  # KL(pi || 0.3 pi + 0.7 p)
EVERY = (*DIVERGENCES, alpha_divergence(0.3), alpha_divergence(-1), alpha_divergence(2), MINE)


def table(alphabet: str = "abc", max_tokens: int = 4, scale: float = 0.7, seed: int = 1) -> TabularPolicy:
    """A random law over (V^(T+1) - 1) / (V - 1) sequences in two contexts: 121 for the default, 364 for max_tokens=5."""
    return TabularPolicy.random(alphabet, max_tokens, contexts=CONTEXTS, scale=scale, seed=seed)


# --- feedback: scores of completions, and the targets made of them
def count_b(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> Values:
    return [float(text.count("b")) for text in completions]


def has_b(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> Values:
    return [float("b" in text) for text in completions]


def has_a(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> Values:
    return [float("a" in text) for text in completions]


def share_a(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> Values:
    """In (0, 1]; another one in each context, so that Z differs."""
    return [
        (1 + text.count("a")) / (2 + len(text)) * (0.2 if prompt == "right" else 1.0)
        for prompt, text in zip(prompts, completions, strict=True)
    ]


def ended(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> Values:
    """1 unless the text was cut; short texts are worth less."""
    pairs = zip(completions, columns["ended"], strict=True)
    return [0.1 * len(text) if why == "eos" else -0.5 for text, why in pairs]


SOFT: dict[str, Callable[[TabularPolicy], Target]] = {
    "tilt": lambda prior: prior.tilt(count_b, beta=0.8),
    "features": lambda prior: prior * features([count_b, has_a], [-0.4, 1.1]),
    "product": lambda prior: prior * weight(share_a) * tilt(ended, beta=0.5),
}
HARD: dict[str, Callable[[TabularPolicy], Target]] = {
    "constraint": lambda prior: prior * constraint(has_b),
    "constraint and tilt": lambda prior: prior.tilt(count_b, beta=0.8) * constraint(has_a),
}


# --- exact laws
def everything(policy: TabularPolicy) -> tuple[list[str], Samples]:
    """Every sequence of every context, context-major, with the prompts it continues."""
    samples = policy.everything(policy.contexts)
    return [context for context in policy.contexts for _ in range(len(samples) // len(policy.contexts))], samples


def log_law(policy: TabularPolicy, like: TabularPolicy | None = None) -> torch.Tensor:
    """log pi of every sequence, (contexts, X), with gradient if the policy is trainable."""
    _, samples = everything(like or policy)
    return policy.log_prob(samples).sum(-1).view(len(policy.contexts), -1)


def log_target(target: Target, like: TabularPolicy) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact log p (contexts, X) and log Z (contexts,)."""
    prompts, samples = everything(like)
    log_score = target.scores(prompts, samples).log_score.view(len(like.contexts), -1)
    log_z = log_score.logsumexp(-1)
    return log_score - log_z.unsqueeze(-1), log_z


def kl(log_p: torch.Tensor, log_q: torch.Tensor) -> float:
    """KL(p || q) in nats, mean over contexts."""
    terms = torch.where(log_p.isneginf(), 0.0, log_p.exp() * (log_p - log_q))
    return float(terms.sum(-1).mean())


def exact_gradient(policy: TabularPolicy, value: torch.Tensor) -> torch.Tensor:
    """d value / d logits of a trainable table, flat."""
    (logits,) = [parameter for _, parameter in policy.trainable_parameters()]
    (gradient,) = torch.autograd.grad(value, logits, retain_graph=True)
    return gradient.flatten()


def with_law(log_p: torch.Tensor, like: TabularPolicy) -> TabularPolicy:
    """The table whose law over `everything` is exp(log_p) (contexts, X)."""
    size, width = len(like.alphabet), like.logits.shape[1]
    logits = torch.full_like(like.logits, -torch.inf)
    for place, row in enumerate(log_p):
        at_and_below = row.clone()  # log mass of every node and what lies under it; a node's own is what ends there
        for node in reversed(range(width)):
            logits[place, node, :size] = at_and_below[node * size + 1 : node * size + size + 1]
            logits[place, node, size] = row[node]
            at_and_below[node] = logits[place, node].logsumexp(0)
    return TabularPolicy(like.alphabet, like.max_tokens, like.contexts, logits)


# --- a method that knows Z
def know(method: FDPG, target: Target, like: TabularPolicy) -> None:
    """Put the exact log Z into a method's partition, from so many samples that a batch more does not change it."""
    _, log_z = log_target(target, like)
    if method.one_z:
        log_z = (log_z.logsumexp(0) - math.log(len(log_z))).expand(len(log_z))
    n = 10**15
    state = {}
    for key, value in zip(method._keys(like.contexts), log_z.tolist(), strict=True):
        state[key] = [[n, value + math.log(n), 2 * value + math.log(n)]]
    method.partition.restore(state)


def listed(target: Target, policy: TabularPolicy, proposal: TabularPolicy) -> Batch:
    """Every sequence of every context as a batch that `proposal` wrote down its probabilities of."""
    prompts, samples = everything(proposal)
    return batch_of(target, policy, prompts, samples)


def batch_of(target: Target, policy: TabularPolicy, prompts: list[str], samples: Samples) -> Batch:
    """Samples that know the law they come from, scored as `FDPG.draw` does."""
    scores = target.scores(prompts, samples)
    return Batch(prompts, samples, scores, sequence_log_prob(policy, samples), samples.log_probs.sum(-1))


def rewards_of(method: FDPG, batch: Batch) -> torch.Tensor:
    """The rewards that the method gives a batch."""
    return method._rewards(batch)


def taken(samples: Samples, places: Sequence[int]) -> Samples:
    """Some of the samples."""
    return subset(samples, list(places))
