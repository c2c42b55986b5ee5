"""The exact oracle: every law, divergence, gradient and estimator on a table (`policy.tabular`), by listing every sequence.

    D_f(pi || p) = sum_x p f(pi/p),  grad D_f by autograd of that sum           (no score function, no f', no sampling)
    E[g]         = sum over batches of prod_i q_i(x_i) * sum_i c_i grad log pi(x_i),   c = `score_gradient.coefficients`

The second is what the package's estimator gives on average, with the exact Z: whatever it draws, weighs or subtracts, it must
equal the first. The average is over whole batches, since a baseline may look at a batch's other samples.

    letter   name            shape     unit
    C, X     contexts, sequences of a context          P   logits of the table, flattened
    pi, a    log_policy, log_prior       (C, X)   nats a sequence
    phi, p   log_potential, log_target   (C, X)   nats; -inf: forbidden; NaN: missing, which p leaves out
    Z        log_z           (C,)      nats
    q        log_laws        (C, X)    nats: the law of one draw of each context; n of them make a batch

Source: Go et al. 2023, arXiv 2302.08215, theorem 1; the test of exact gradients is our own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from amenable.errors import ConfigError
from amenable.objective.divergence import Divergence
from amenable.objective.reward import ExpectedReward, Objective
from amenable.objective.score_gradient import coefficients
from amenable.policy.tabular import TabularPolicy
from amenable.records import Samples
from amenable.seeding import torch_generator
from amenable.target.posterior import Target

Baseline = Callable[[torch.Tensor, torch.Tensor, list[torch.Tensor]], torch.Tensor]
"""(rewards (N,), ratio pi/q (N,), places of each context's samples) -> what is subtracted from each reward (N,)."""

MOST_BATCHES = 100_000


@dataclass(frozen=True)
class Laws:
    """Every sequence of every context, context-major in `samples` and `prompts`, and its log-probabilities (C, X)."""

    prompts: list[str]
    samples: Samples
    log_policy: torch.Tensor
    log_prior: torch.Tensor
    log_potential: torch.Tensor

    @property
    def log_score(self) -> torch.Tensor:
        """log P = log a + log phi, (C, X); -inf where it is forbidden or missing."""
        usable = self.log_potential > -torch.inf
        return torch.where(usable, self.log_prior + self.log_potential, -torch.inf)

    @property
    def log_z(self) -> torch.Tensor:
        """(C,) nats; -inf for a context that the potential forbids altogether."""
        return self.log_score.logsumexp(1)

    @property
    def log_target(self) -> torch.Tensor:
        """log p, (C, X)."""
        return self.log_score - self.log_z[:, None]


@dataclass(frozen=True)
class Expectation:
    """The mean (P,) of a gradient estimator over all batches, and its total variance: the trace of its covariance."""

    mean: torch.Tensor
    variance: float


@dataclass(frozen=True)
class Comparison:
    """Sampled gradients against the exact one: `slope` times it along it, give or take `slope_error` (one standard error).

    `z`: the largest |difference| / standard error along the exact gradient and some random directions.
    """

    slope: float
    slope_error: float
    z: float


def laws(policy: TabularPolicy, target: Target) -> Laws:
    """The exact laws; `log_policy` carries gradient if the policy is a trainable copy."""
    samples = policy.everything(policy.contexts)
    count = len(samples) // len(policy.contexts)
    prompts = [context for context in policy.contexts for _ in range(count)]
    scores = target.scores(prompts, samples)
    shape = len(policy.contexts), count
    log_policy = policy.log_prob(samples).sum(-1).view(shape)
    return Laws(prompts, samples, log_policy, scores.log_prior.view(shape), scores.log_potential.view(shape))


# --- of laws (..., X)


def expectation(log_law: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """E[values], (...,); what has probability 0 counts for nothing, even if it is infinite or missing."""
    return torch.where(log_law > -torch.inf, log_law.exp() * values, 0.0).sum(-1)


def entropy(log_law: torch.Tensor) -> torch.Tensor:
    """-E[log law], (...,) nats a sequence."""
    return -expectation(log_law, log_law)


def kl(log_law: torch.Tensor, log_other: torch.Tensor) -> torch.Tensor:
    """KL(law || other), (...,) nats a sequence; inf where other forbids what law gives."""
    return expectation(log_law, log_law - log_other)


# --- of objectives


def loss(objective: Objective, policy: TabularPolicy, target: Target) -> torch.Tensor:
    """What `objective` minimises, averaged over contexts: D_f(pi || p), or -(E_pi[r] - beta KL(pi || a)). Carries gradient.

    Errors: ConfigError for an objective of another kind.
    """
    table = laws(policy, target)
    if isinstance(objective, Divergence):
        return objective.value(table.log_policy, table.log_target).mean()
    if isinstance(objective, ExpectedReward):
        potential = table.log_potential
        reward = potential.exp() if objective.of == "potential" else objective.scale * potential
        divergence = kl(table.log_policy, table.log_prior)
        return (objective.beta * divergence - expectation(table.log_policy, reward)).mean()
    raise ConfigError(f"{objective.name} has no exact value here", "use a Divergence or ExpectedReward")


def gradient(objective: Objective, policy: TabularPolicy, target: Target) -> torch.Tensor:
    """The exact gradient (P,) of `loss` with respect to the policy's logits, by autograd of the sum over all sequences."""
    copy = policy.trainable_copy()
    (found,) = torch.autograd.grad(loss(objective, copy, target), copy.logits)
    return found.flatten()


def score_function(policy: TabularPolicy) -> torch.Tensor:
    """grad log pi(x|c) of every sequence: (C, X, P)."""
    copy = policy.trainable_copy()
    log_policy = copy.log_prob(copy.everything(copy.contexts)).sum(-1)
    rows = [torch.autograd.grad(value, copy.logits, retain_graph=True)[0].flatten() for value in log_policy]
    return torch.stack(rows).view(len(copy.contexts), -1, copy.logits.numel())


def rewards(objective: Objective, table: Laws) -> torch.Tensor:
    """R of every sequence with the exact Z: (C, X), NaN where the feedback is missing."""
    log_z = table.log_z[:, None].expand_as(table.log_policy)
    log_policy = table.log_policy.detach()
    parts = (log_policy, table.log_prior, table.log_potential, log_z)
    found = objective.rewards(*(part.flatten() for part in parts))
    return torch.where(table.log_potential.isnan(), torch.nan, found.view(log_policy.shape))


# --- of estimators


def expected_gradient(
    objective: Objective,
    policy: TabularPolicy,
    target: Target,
    *,
    log_laws: Sequence[torch.Tensor],
    baseline: str | Baseline = "leave-one-out",
    constant: float = 0.0,
    jointly: bool = False,
) -> Expectation:
    """The estimator's mean over all batches of len(`log_laws`) draws a context, the i-th of the law `log_laws[i]` (C, X).

    The mean is that over contexts, as in `gradient`. `jointly`: list the batches of all contexts together, which a baseline
    that looks across contexts needs; X to the power of all draws must then be small.
    Errors: ConfigError if there are more than `MOST_BATCHES` batches.
    """
    table = laws(policy.frozen(), target)
    values, scores = rewards(objective, table), score_function(policy)
    contexts = range(len(policy.contexts))
    mean, variance = torch.zeros(policy.logits.numel(), dtype=torch.float64), 0.0
    together = [list(contexts)] if jointly else [[c] for c in contexts]
    for chosen in together:
        slots = [(c, law[c]) for c in chosen for law in log_laws]
        part = _over_batches(values, table.log_policy, scores, slots, baseline, constant, objective.at_target)
        mean += part.mean * len(chosen) / len(contexts)
        variance += part.variance * (len(chosen) / len(contexts)) ** 2
    return Expectation(mean, variance)


def _over_batches(
    values: torch.Tensor,
    log_policy: torch.Tensor,
    scores: torch.Tensor,
    slots: Sequence[tuple[int, torch.Tensor]],
    baseline: str | Baseline,
    constant: float,
    at_target: float,
) -> Expectation:
    """The mean over batches whose i-th sample continues context `slots[i][0]` and comes from the law `slots[i][1]` (X,)."""
    count = values.shape[1] ** len(slots)
    if count > MOST_BATCHES:
        raise ConfigError(
            f"{len(slots)} draws of {values.shape[1]} sequences are {count:,} batches", "use a smaller table"
        )
    rows = torch.cartesian_prod(*[torch.arange(values.shape[1])] * len(slots)).view(-1, len(slots))
    where = torch.tensor([context for context, _ in slots])
    log_proposal = torch.stack([law[rows[:, i]] for i, (_, law) in enumerate(slots)], 1)
    possible = (log_proposal > -torch.inf).all(1)
    rows, log_proposal = rows[possible], log_proposal[possible]
    groups = [(where == context).nonzero().flatten() for context in dict.fromkeys(where.tolist())]
    found = torch.stack(
        [
            batch_coefficients(
                values[where, row],
                log_policy[where, row],
                law,
                baseline=baseline,
                constant=constant,
                at_target=at_target,
                groups=groups,
            )
            for row, law in zip(rows, log_proposal, strict=True)
        ]
    )
    gradients = torch.einsum("bk,bkp->bp", found, scores[where, rows])
    chance = log_proposal.sum(1).exp()
    mean = chance @ gradients
    return Expectation(mean, float(chance @ (gradients - mean).square().sum(1)))


def batch_coefficients(
    values: torch.Tensor,
    log_policy: torch.Tensor,
    log_proposal: torch.Tensor,
    *,
    baseline: str | Baseline,
    constant: float = 0.0,
    at_target: float = 0.0,
    groups: Sequence[torch.Tensor],
) -> torch.Tensor:
    """`score_gradient.coefficients` (N,) of one batch, also with a baseline that is a function, given known rewards alone."""
    if isinstance(baseline, str):
        return coefficients(
            values,
            log_policy,
            log_proposal,
            baseline=baseline,
            constant=constant,
            at_target=at_target,
            groups=groups,
        )
    known = ~values.isnan()
    place = known.cumsum(0) - 1
    own = [place[chosen[known[chosen]]] for chosen in groups if bool(known[chosen].any())]
    shift = torch.zeros_like(values)
    if bool(known.any()):
        shift[known] = baseline(values[known], (log_policy - log_proposal)[known].exp(), own).to(values)
    found = coefficients(values - shift, log_policy, log_proposal, baseline="none")
    return torch.where(shift.isnan(), torch.nan, found)  # not taken for a missing reward


def compare(sampled: torch.Tensor, exact: torch.Tensor, *, directions: int = 8, seed: int = 0) -> Comparison:
    """Independent estimates (B, P) against the exact gradient (P,), along it and along `directions` - 1 random ones."""
    others = torch.randn(directions - 1, len(exact), generator=torch_generator(seed, "directions"), dtype=torch.float64)
    along = torch.cat([exact[None] / exact.norm().clamp(min=1e-300), others / others.norm(dim=1, keepdim=True)])
    found, true = sampled @ along.T, along @ exact
    error = found.std(0) / math.sqrt(len(sampled))
    z = (found.mean(0) - true).abs() / error.clamp(min=1e-12 * (1 + float(exact.norm())))
    size = float(exact.norm().clamp(min=1e-300))
    return Comparison(float(found[:, 0].mean()) / size, float(error[0]) / size, float(z.max()))
