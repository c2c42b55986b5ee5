"""A mixture with the policy: its law is what is recorded, its weights are bounded, its estimates unbiased."""

from __future__ import annotations

import math

import pytest
import torch

from amenable.errors import ConfigError
from amenable.method.fdpg import FDPG
from amenable.objective.divergence import JensenShannon
from amenable.policy.tabular import TabularPolicy
from amenable.records import Decoding
from amenable.sampling.defensive import Defensive
from amenable.sampling.proposal import Adaptive, Fixed
from amenable.target.posterior import recorded_log_prob, sequence_log_prob
from amenable.target.potential import constraint

CONTEXTS = ["x", "y"]
DECODING = Decoding(max_tokens=3)


def tables() -> tuple[TabularPolicy, TabularPolicy]:
    return (
        TabularPolicy.random("ab", 3, contexts=CONTEXTS, seed=1, scale=2.0).trainable_copy(),
        TabularPolicy.random("ab", 3, contexts=CONTEXTS, seed=2, scale=2.0),
    )


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_what_is_recorded_is_the_mixture_it_was_drawn_from(share: float) -> None:
    policy, other = tables()
    drawn = Defensive(Fixed(other), share).draw(0, policy, CONTEXTS, n=4000, decoding=DECODING, seed=3)
    recorded = recorded_log_prob(drawn)
    both = torch.stack([sequence_log_prob(policy, drawn), sequence_log_prob(other, drawn)])
    shares = torch.tensor([math.log(share), math.log(1 - share)], dtype=torch.float64)
    assert torch.allclose(recorded, (both + shares[:, None]).logsumexp(0))
    assert float((both[0] - recorded).max()) <= -math.log(share) + 1e-12  # pi/q <= 1/share
    places = [ids[0] for ids in drawn.context_ids]
    assert places == [0] * 4000 + [1] * 4000
    for place, context in enumerate(CONTEXTS):  # every text comes as often as the mixture says
        known = other.everything([context])
        law = torch.stack([sequence_log_prob(policy, known), sequence_log_prob(other, known)])
        expected = 4000 * (law + shares[:, None]).logsumexp(0).exp()
        seen = {}
        for index in range(place * 4000, (place + 1) * 4000):
            key = tuple(drawn.ids(index))
            seen[key] = seen.get(key, 0) + 1
        counts = torch.tensor([float(seen.get(tuple(known.ids(i)), 0)) for i in range(len(known))])
        often = expected > 5
        chi = float(((counts - expected) ** 2 / expected)[often].sum())
        assert chi < int(often.sum()) + 4 * math.sqrt(2 * int(often.sum())), (chi, int(often.sum()))


def test_the_weighted_mean_is_that_of_the_policy() -> None:
    policy, other = tables()
    means = []
    for seed in range(40):
        drawn = Defensive(Fixed(other)).draw(0, policy, ["x"], n=64, decoding=DECODING, seed=seed)
        weights = (sequence_log_prob(policy, drawn) - recorded_log_prob(drawn)).exp()
        means.append(float((weights * drawn.lengths).mean()))
    known = policy.everything(["x"])
    exact = float((sequence_log_prob(policy, known).exp() * known.lengths).sum())
    found = torch.tensor(means)
    assert abs(float(found.mean()) - exact) < 4 * float(found.std()) / math.sqrt(len(means))


def test_a_policy_that_left_the_other_proposal_still_has_a_gradient() -> None:
    """Where q never looks, pi/q is 0 on every sample of q: alone, it would see nothing to improve."""
    _, prior = tables()
    target = prior * constraint(lambda prompts, completions, **columns: [float("a" in text) for text in completions])
    policy = prior.trainable_copy()
    with torch.no_grad():  # the policy says "bbb" alone; the other proposal hardly ever
        policy.logits[:, :, 1] += 60
    other = prior.trainable_copy()
    with torch.no_grad():
        other.logits[:, :, 1] -= 60
    norms = []
    for proposal in (Fixed(other), Defensive(Fixed(other))):
        method = FDPG(policy, target, JensenShannon, contexts=CONTEXTS, samples_per_context=64, proposal=proposal,
                      baseline="target", decoding=DECODING)  # fmt: skip
        policy.logits.grad = None
        for loss in method.losses(policy, 1):
            loss.value.backward()
        assert policy.logits.grad is not None
        norms.append(float(policy.logits.grad.norm()))
    assert norms[0] < 1e-12
    assert norms[1] > 0


def test_it_remembers_what_its_inner_proposal_does() -> None:
    policy, prior = tables()
    target = prior * constraint(lambda prompts, completions, **columns: [float("a" in text) for text in completions])
    first = Defensive(Adaptive(every=1, samples=32))
    first.prepare(0, policy, target, CONTEXTS, DECODING, 1)
    second = Defensive(Adaptive(every=1, samples=32))
    second.restore(policy, first.state())
    drawn = [one.draw(1, policy, CONTEXTS, n=8, decoding=DECODING, seed=5) for one in (first, second)]
    assert torch.equal(drawn[0].tokens, drawn[1].tokens)
    assert torch.equal(drawn[0].log_probs, drawn[1].log_probs)


def test_a_share_of_none_or_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 < share < 1"):
        Defensive(Fixed(tables()[1]), 1.0)
