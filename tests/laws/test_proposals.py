"""What every proposal must obey: what it writes down is the law it drew from, and nothing it remembers is lost.

A class in `sampling.proposal` without an instance here fails. The policy changes between steps, as in a training.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from tables import CONTEXTS, SOFT, count_b, everything, log_law, table
from tiny import tiny_policy

from amenable.errors import ConfigError
from amenable.policy.tabular import TabularPolicy
from amenable.records import Decoding, Samples
from amenable.sampling import proposal as module
from amenable.sampling.batches import concatenated
from amenable.sampling.proposal import Adaptive, Corpus, Fixed, OnPolicy, Proposal, Replay, State
from amenable.target.posterior import sequence_log_prob
from amenable.target.potential import constraint

LONG = Decoding(max_tokens=64)


def corpus() -> Corpus:
    """A tenth of it of another law than the rest."""
    first, second = table(seed=8).sample(CONTEXTS, n=900, seed=1), table(seed=9).sample(CONTEXTS, n=100, seed=1)
    prompts = [context for n in (900, 100) for context in CONTEXTS for _ in range(n)]
    return Corpus(prompts, concatenated([first, second]))


BUILDERS: dict[str, Callable[[], Proposal]] = {
    "OnPolicy": lambda: OnPolicy(),
    "Fixed": lambda: Fixed(table(seed=8)),
    "Adaptive": lambda: Adaptive(every=1, samples=64),
    "Adaptive/tv": lambda: Adaptive(every=2, by="tv", samples=64),
    "Replay": lambda: Replay(0.3, 3),
    "Replay/fresh": lambda: Replay(1.0, 1),
    "Corpus": corpus,
}
every = pytest.mark.parametrize("name", BUILDERS)


def learner(step: int) -> TabularPolicy:
    """The policy after `step` steps: another one each time."""
    return table(seed=20 + step).trainable_copy()


def run(proposal: Proposal, steps: range, n: int = 40) -> list[Samples]:
    """What is drawn at `steps`, as `FDPG.losses` draws it."""
    target, batches = SOFT["tilt"](table()), []
    for step in steps:
        policy = learner(step)
        proposal.prepare(step, policy, target, CONTEXTS, LONG, seed=100 + step)
        batches.append(proposal.draw(step, policy, CONTEXTS, n=n, decoding=LONG, seed=step))
    return batches


def test_every_proposal_has_an_instance_here() -> None:
    classes = {
        name for name, thing in inspect.getmembers(module, inspect.isclass)
        if thing.__module__ == module.__name__ and hasattr(thing, "draw") and name != "Proposal"
    }  # fmt: skip
    assert classes == {name.partition("/")[0] for name in BUILDERS}
    names = [build().name for build in BUILDERS.values()]
    assert len(set(names)) == len(names)


@every
def test_there_are_n_of_each_context_in_order(name: str) -> None:
    for n in (1, 2, 7):
        for batch in run(BUILDERS[name](), range(4), n=n):
            assert [ids[0] for ids in batch.context_ids] == [0] * n + [1] * n
            assert batch.log_probs.dtype == torch.float64
            assert not bool((batch.log_probs != 0)[~batch.mask].any())
            assert not batch.decoding.deviations()


@every
def test_what_is_written_down_is_the_law_that_drew(name: str) -> None:
    """Each sample's record is its score under the policy that drew it, and the draws follow that law.

    For every sequence x, the mean over samples of 1[x_i = x] / q_i(x) is 1, whatever laws q_i are mixed.
    """
    laws = [table(seed=seed) for seed in (8, 9, *range(20, 26))]
    batches = run(BUILDERS[name](), range(6), n=1500)
    used = set()
    _, listed = everything(laws[0])
    keys = zip((ids[0] for ids in listed.context_ids), listed.texts, listed.ended, strict=True)
    place = {key: index for index, key in enumerate(keys)}
    for batch in batches:
        recorded = batch.log_probs.sum(-1)
        scores = torch.stack([sequence_log_prob(law, batch) for law in laws])
        gap = (scores - recorded).abs()
        assert float(gap.amin(0).max()) < 1e-12
        used |= {int(index) for index in gap.argmin(0)}
        keys = zip((ids[0] for ids in batch.context_ids), batch.texts, batch.ended, strict=True)
        rows = torch.tensor([place[key] for key in keys])
        mean = torch.zeros(len(listed)).double().index_add(0, rows, (-recorded).exp()) / 1500
        least = torch.stack([log_law(law).flatten() for law in laws]).amin(0).exp()  # q(x) is at least this
        common = least > 0.01
        spread = (1 / (least * 1500)).sqrt()
        assert float(((mean - 1).abs() / spread)[common].max()) < 5
    expected = {
        "OnPolicy": set(range(2, 8)), "Fixed": {0}, "Corpus": {0, 1},
        "Replay": set(range(2, 8)), "Replay/fresh": set(range(2, 8)),
    }  # fmt: skip
    assert used == expected.get(name, used)


@every
def test_who_is_on_policy_says_so(name: str) -> None:
    """`on_policy` spares the scoring, so it must never be claimed wrongly."""
    proposal = BUILDERS[name]()
    own = True
    for step, batch in enumerate(run(proposal, range(4))):
        own &= torch.allclose(batch.log_probs.sum(-1), sequence_log_prob(learner(step), batch), atol=1e-12)
    assert own == (name in ("OnPolicy", "Replay/fresh"))
    assert not proposal.on_policy or own


@every
def test_state_and_restore_go_on_with_the_same_draws(name: str, tmp_path: Path) -> None:
    """Through what a checkpoint is made of: JSON and safetensors."""
    whole = run(BUILDERS[name](), range(9))
    for cut in (1, 4):
        before = BUILDERS[name]()
        run(before, range(cut))
        state = before.state()
        kept = {key: value.contiguous() for key, value in state.tensors.items()}
        save_file(kept, tmp_path / "method.safetensors")
        facts = json.loads(json.dumps(state.facts))
        after, policy = BUILDERS[name](), learner(cut)
        weights = policy.logits.detach().clone()
        after.restore(policy, State(load_file(tmp_path / "method.safetensors"), facts))
        assert torch.equal(policy.logits, weights)  # borrowed, and given back
        again = after.state()
        assert json.dumps(again.facts) == json.dumps(state.facts)
        assert again.tensors.keys() == state.tensors.keys()
        assert all(torch.equal(value, again.tensors[key]) for key, value in state.tensors.items())
        for batch, other in zip(whole[cut:], run(after, range(cut, 9)), strict=True):
            assert torch.equal(batch.tokens, other.tokens)
            assert torch.equal(batch.log_probs, other.log_probs)
            assert torch.equal(batch.lengths, other.lengths)
            assert (batch.texts, batch.ended) == (other.texts, other.ended)
            assert [list(ids) for ids in batch.context_ids] == [list(ids) for ids in other.context_ids]


@every
def test_the_same_seed_draws_the_same_and_another_seed_does_not(name: str) -> None:
    one, two = run(BUILDERS[name](), range(3)), run(BUILDERS[name](), range(3))
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[1].tokens[:, :1], one[2].tokens[:, :1])


def test_adaptive_moves_only_to_what_is_closer() -> None:
    """Policies that come closer to the target are taken; one that is farther away is not. Exact laws decide which is which."""
    prior = table(max_tokens=3)
    target = prior.tilt(count_b, beta=0.7)
    prompts, samples = everything(prior)
    log_score = target.scores(prompts, samples).log_score.view(2, -1)
    log_p = log_score.log_softmax(-1)
    ways: tuple[Literal["kl", "tv"], ...] = ("kl", "tv")
    for by in ways:
        proposal = Adaptive(every=1, by=by, samples=4000)
        taken: list[float] = []
        best = float("inf")
        for step, strength in enumerate((0.0, 0.5, 0.2, 0.9, -0.5, 1.0, 0.3)):
            policy = toward(prior, strength / 0.7).trainable_copy()
            log_pi = log_law(policy).detach()
            distance = {
                "kl": float((log_p.exp() * (log_p - log_pi)).sum(-1).mean()),
                "tv": float((log_p.exp() - log_pi.exp()).abs().sum(-1).mean() / 2),
            }[by]
            before = proposal.changes
            proposal.prepare(step, policy, target, CONTEXTS, LONG, seed=step)
            closer = distance < best - 1e-9
            best = min(best, distance)
            assert proposal.changes - before == (closer and step > 0), (by, step, strength)
            taken += [strength] if closer else []
        assert taken == [0.0, 0.5, 0.9, 1.0]


def toward(prior: TabularPolicy, strength: float) -> TabularPolicy:
    """The prior with `strength` added to the logit of b everywhere."""
    logits = prior.logits.clone()
    logits[..., 1] += strength
    return TabularPolicy(prior.alphabet, prior.max_tokens, prior.contexts, logits)


def test_adaptive_does_not_compare_a_policy_with_itself() -> None:
    """The bootstrap of Z asks at step 0 first: there q is pi, and rounding alone would decide."""
    asked = 0

    def counting(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        nonlocal asked
        asked += len(completions)
        return [0.0] * len(completions)

    proposal, target = Adaptive(every=1, samples=16), table().tilt(counting, beta=1.0)
    for _ in range(2):
        proposal.prepare(0, learner(0), target, CONTEXTS, LONG, seed=0)
    assert (proposal.changes, asked) == (0, 0)
    proposal.prepare(1, learner(1), target, CONTEXTS, LONG, seed=1)
    assert asked == 32


def test_adaptive_stays_where_nothing_can_be_said() -> None:
    """No sample of q satisfies the constraint: no estimate, no move, no error."""
    prior = table()
    target = prior * constraint(lambda prompts, completions, **_: [0.0] * len(completions))
    ways: tuple[Literal["kl", "tv"], ...] = ("kl", "tv")
    for by in ways:
        proposal = Adaptive(every=1, by=by, samples=16)
        for step in range(3):
            proposal.prepare(step, learner(step), target, CONTEXTS, LONG, seed=step)
        assert proposal.changes == 0
    missing = prior * constraint(lambda prompts, completions, **_: [None] * len(completions))
    proposal = Adaptive(every=1, samples=16)
    for step in range(3):
        proposal.prepare(step, learner(step), missing, CONTEXTS, LONG, seed=step)
    assert proposal.changes == 0


def test_what_makes_no_sense_is_refused() -> None:
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: Replay(0.0), "0 < fresh <= 1"),
        (lambda: Replay(0.5, 0), "at least one batch"),
        (lambda: Adaptive(by="js"), "by=kl or tv"),  # type: ignore[arg-type]
        (lambda: Adaptive(every=0), "every >= 1"),
    ]
    for make, complaint in refused:
        with pytest.raises(ConfigError, match=re.escape(complaint)):
            make()
    samples = table().sample(["left"], n=4)
    with pytest.raises(ConfigError, match="no sample that continues 'right'"):
        Corpus(["left"] * 4, samples).draw(0, None, CONTEXTS, n=2, decoding=LONG, seed=0)
    with pytest.raises(ConfigError, match=r"drawn with temperature=0\.7"):
        Corpus(["ab"] * 2, tiny_policy().sample(["ab"], n=2, decoding=Decoding(max_tokens=4, temperature=0.7)))
    given = table().sample(["left"], n=4)
    given.log_probs.fill_(torch.nan)
    with pytest.raises(ConfigError, match="given and not drawn"):
        Corpus(["left"] * 4, given)


def test_a_copy_in_another_precision_is_another_law_and_is_scored_again() -> None:
    policy = tiny_policy().trainable_copy()
    proposal = OnPolicy(torch.bfloat16)
    assert not proposal.on_policy
    samples = proposal.draw(0, policy, ["ab"], n=8, decoding=Decoding(max_tokens=12), seed=1)
    coarse = sequence_log_prob(policy.frozen(torch.bfloat16), samples)
    recorded, fine = samples.log_probs.double().sum(-1), sequence_log_prob(policy, samples)
    assert float((recorded - coarse).abs().max()) < 0.05 * float((recorded - fine).abs().max()) + 0.05


def test_replay_takes_old_samples_without_repetition() -> None:
    """A quarter is new in every step but the first; no old sample comes twice in one."""
    proposal = Replay(0.25, 3)
    for step in range(7):
        before = [kept["left"] for kept in proposal._memory]
        batch = proposal.draw(step, learner(step), ["left"], n=8, decoding=LONG, seed=step)
        new = (sequence_log_prob(learner(step), batch) - batch.log_probs.sum(-1)).abs() < 1e-12
        assert int(new.sum()) == (2 if step else 8)
        held = [float(row.sum()) for kept in before for row in kept.log_probs]
        old = [float(batch.log_probs[i].sum()) for i in range(8) if not new[i]]
        assert all(old.count(one) <= held.count(one) for one in old)
        assert [len(kept["left"]) for kept in proposal._memory] == ([8] + [2] * 6)[max(0, step - 2) : step + 1]
    with pytest.raises(ConfigError, match="batches >= 3"):
        Replay(0.25, 2)


def test_a_context_the_replay_does_not_know_is_drawn_afresh() -> None:
    proposal, policy = Replay(0.5, 4), learner(0)
    proposal.draw(0, policy, ["left"], n=8, decoding=LONG, seed=0)
    batch = proposal.draw(1, learner(1), ["right", "left"], n=8, decoding=LONG, seed=1)
    assert [ids[0] for ids in batch.context_ids] == [1] * 8 + [0] * 8
    own = (sequence_log_prob(learner(1), batch) - batch.log_probs.sum(-1)).abs() < 1e-12
    assert own[:8].all()
    assert own[8:].sum() == 4
