"""The target: prior times potential, p(x|c) = a(x|c) phi(x, c) / Z(c), known up to Z(c).

    a    prior       the pretrained model, frozen              Z(c)   one a context: sum_x a(x|c) phi(x, c)
    phi  potential   the feedback (`potential`)                P      a phi, the unnormalised target

Source: the energy-based view of Khalifa et al. 2021, arXiv 2012.11635; conditional: Korbak et al. 2022, arXiv 2112.00791.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from amenable.errors import ConfigError
from amenable.policy.protocol import Policy
from amenable.records import Samples
from amenable.target.potential import Potential


@dataclass(frozen=True)
class Scores:
    """N samples under a target: log a and log phi, (N,) float64 nats a sequence. NaN: the feedback gave no answer."""

    log_prior: torch.Tensor
    log_potential: torch.Tensor

    @property
    def log_score(self) -> torch.Tensor:
        """log P = log a + log phi, (N,); -inf where the potential forbids, whatever the prior says."""
        forbidden = torch.isneginf(self.log_potential)
        return torch.where(forbidden, -torch.inf, self.log_prior + self.log_potential)

    @property
    def missing(self) -> torch.Tensor:
        """True where the feedback gave no answer: (N,) bool."""
        return self.log_potential.isnan()


class Target:
    """`prior * potential`. Multiply it by further potentials; nothing is changed in place."""

    def __init__(self, prior: Policy, potential: Potential) -> None:
        self.prior, self.potential = prior, _checked(potential)

    def __mul__(self, potential: Potential) -> Target:
        return Target(self.prior, self.potential * _checked(potential))

    def scores(self, prompts: Sequence[str], samples: Samples) -> Scores:
        """log a and log phi of samples, which continue `prompts` (N texts)."""
        return Scores(sequence_log_prob(self.prior, samples), self.potential.log_values(prompts, samples))

    def log_weights(self, prompts: Sequence[str], samples: Samples) -> torch.Tensor:
        """log P - log q (N,) float64: q is the law that the samples were drawn from, as they recorded it."""
        return self.scores(prompts, samples).log_score - recorded_log_prob(samples)


def _checked(potential: Potential) -> Potential:
    if not isinstance(potential, Potential):
        raise ConfigError(
            f"a prior is multiplied by a potential, not by a {type(potential).__name__}",
            "make one of a score: constraint(score), tilt(score, beta=0.1) or weight(score)",
        )
    return potential


@torch.no_grad()
def sequence_log_prob(policy: Policy, samples: Samples) -> torch.Tensor:
    """log pi(x|c) of whole sequences under a policy: (N,) float64 nats, no gradient."""
    return policy.log_prob(samples).double().sum(-1).cpu()


def recorded_log_prob(samples: Samples) -> torch.Tensor:
    """log q(x|c) as it was written down at the draw: (N,) float64 nats.

    Errors: ConfigError where the law is unknown (given, not drawn), or was not a policy's own (temperature, top-k, top-p).
    """
    changed = samples.decoding.deviations()
    if changed:
        raise ConfigError(
            f"these samples were drawn with {', '.join(changed)}: not the law of any policy, so their weights are unknown",
            "draw with temperature=1, top_k=0, top_p=1",
        )
    found = samples.log_probs.double().sum(-1).cpu()
    if bool(found.isnan().any()):
        raise ConfigError(
            "these texts were given and not drawn, so the law they come from is unknown",
            "score them under the policy that wrote them (replace log_probs), or imitate them (method.imitation)",
        )
    return found
