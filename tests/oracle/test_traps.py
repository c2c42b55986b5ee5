"""Mistakes that published code made, or that this package could make, each as a test that such code would fail.

Where it can be told, the test also does the mistake, and shows that the difference is seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from laws.methods import CONTEXTS as BYTES
from tables import (
    CONTEXTS,
    Values,
    count_b,
    exact_gradient,
    has_b,
    know,
    listed,
    log_law,
    log_target,
    rewards_of,
    table,
)
from tiny import byte_tokenizer, tiny_policy
from transformers import AutoModelForCausalLM, GPT2Config

from amenable.errors import ConfigError, FeedbackError, TrainingError
from amenable.method.fdpg import FDPG
from amenable.method.loop import Optimisation, train
from amenable.objective.divergence import (
    ChiSquaredForward,
    ForwardKL,
    JensenShannon,
    ReverseKL,
    TotalVariation,
)
from amenable.objective.reward import ExpectedReward
from amenable.objective.score_gradient import coefficients
from amenable.policy.causal_lm import CausalLM
from amenable.policy.tabular import TabularPolicy
from amenable.records import Decoding, Samples
from amenable.sampling.proposal import Adaptive, Corpus, Fixed, OnPolicy, Proposal, Replay
from amenable.target.posterior import Target, sequence_log_prob
from amenable.target.potential import constraint, tilt

SHORT = Decoding(max_tokens=6)
FLOAT32 = Optimisation(learning_rate=1e-2, precision="float32")


def gradient_of(method: FDPG, policy: TabularPolicy, step: int = 0) -> torch.Tensor:
    """The gradient that one step of the method would follow."""
    return exact_gradient(policy, torch.stack([loss.value for loss in method.losses(policy, step)]).sum())


# --- baselines
def test_z_as_a_constant_off_policy_is_biased_and_ours_is_not() -> None:
    """Released code subtracts Z from P/q, whatever drew x (Z pi/q is right): by enumeration, its gradient is another one."""
    prior, other = table(max_tokens=3), table(max_tokens=3, seed=3)
    policy, target = table(max_tokens=3, seed=2).trainable_copy(), prior.tilt(count_b, beta=1.0)
    log_p, log_z = log_target(target, prior)
    wanted = exact_gradient(policy, ForwardKL.value(log_law(policy), log_p).mean())
    batch = listed(target, policy, other)
    n, q = len(batch.prompts), batch.log_proposal.exp() / 2
    z = log_z.repeat_interleave(n // 2)

    def expected(c: torch.Tensor) -> torch.Tensor:
        return exact_gradient(policy, (q * c * log_law(policy).flatten()).sum())

    p_over_q = (batch.log_weights - z).exp()
    theirs, gdc = expected(-(p_over_q - 1)), expected(-(p_over_q - (batch.log_policy - batch.log_proposal).exp()))
    ours = expected(
        n * coefficients(
            ForwardKL.rewards(batch.log_policy, batch.scores.log_prior, batch.scores.log_potential, z),
            batch.log_policy, batch.log_proposal, baseline="target", at_target=ForwardKL.at_target,
        )
    )  # fmt: skip
    torch.testing.assert_close(ours, wanted, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(gdc, wanted, rtol=1e-8, atol=1e-10)
    assert float((theirs - wanted).norm()) > 0.3 * float(wanted.norm())


def test_log_pi_inside_the_reward_is_held_constant() -> None:
    """Released code differentiates through it, and weighs each sample by 1 + |log pi| besides."""
    prior, policy = table(), table(seed=2).trainable_copy()
    target = prior.tilt(count_b, beta=1.0)
    for divergence in (ForwardKL, ReverseKL, JensenShannon, ChiSquaredForward):
        for proposal in (None, Fixed(table(seed=3))):
            method = FDPG(
                policy, target, divergence, contexts=CONTEXTS, baseline="none", bootstrap=0, proposal=proposal
            )
            know(method, target, prior)
            found = gradient_of(method, policy)
            batch = method.draw(policy, 0, method._contexts(0), 16, _seed(method, 0))
            c = coefficients(rewards_of(method, batch), batch.log_policy, batch.log_proposal, baseline="none")
            log_pi = policy.log_prob(batch.samples).sum(-1)
            torch.testing.assert_close(found, exact_gradient(policy, (c * log_pi).sum()), rtol=1e-9, atol=1e-12)
        assert divergence.slope is not None
        batch = method.draw(policy, 0, CONTEXTS, 16, 1)
        log_pi = policy.log_prob(batch.samples).sum(-1)
        log_t = log_pi - batch.scores.log_score + method.partition.log_z(batch.prompts)
        ratio = (batch.log_policy - batch.log_proposal).exp()
        held, through = (ratio * divergence.slope(t) * log_pi for t in (log_t.detach(), log_t))
        gap = exact_gradient(policy, through.mean()) - exact_gradient(policy, held.mean())
        assert float(gap.norm()) > 0.1 * float(exact_gradient(policy, held.mean()).norm())


def _seed(method: FDPG, step: int) -> int:
    from amenable.seeding import derive

    return derive(method.seed, "step", step)


# --- contexts and feedback of which nothing is known
def only_left(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> Values:
    return [float(prompt == "left" and "b" in text) for prompt, text in zip(prompts, completions, strict=True)]


@pytest.mark.parametrize("divergence", [ForwardKL, JensenShannon, TotalVariation], ids=lambda d: d.name)
def test_a_context_without_a_positive_sample_adds_nothing_and_is_counted(divergence: Any) -> None:
    """Of the context "right" no Z is known: its rows of the table get no gradient, and the other's are not scaled down."""
    prior, policy = table(), table(seed=2).trainable_copy()
    target = prior * constraint(only_left)
    method = FDPG(policy, target, divergence, contexts=CONTEXTS, samples_per_context=32, baseline="leave-one-out")
    (loss,) = method.losses(policy, 0)
    found = exact_gradient(policy, loss.value).view(2, -1)
    assert float(found[1].abs().max()) == 0
    assert float(found[0].abs().max()) > 0
    assert loss.sums["missing"] == 32
    assert loss.sums["samples"] == 64
    assert all(math.isfinite(loss.sums[name]) for name in ("reward", "kl_target_policy", "ess", "entropy"))
    nowhere = prior * constraint(lambda prompts, completions, **_: [0.0] * len(completions))
    method = FDPG(policy, nowhere, divergence, contexts=CONTEXTS, samples_per_context=8)
    (loss,) = method.losses(policy, 0)
    assert float(exact_gradient(policy, loss.value).abs().max()) == 0
    assert loss.sums["missing"] == 16


def silent_about_c(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> Values:
    return [None if text.startswith("c") else float(text.count("b")) for text in completions]


def zero_for_c(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> Values:
    return [value or 0.0 for value in silent_about_c(prompts, completions)]


def test_missing_feedback_is_dropped_and_not_0() -> None:
    prior, policy = table(), table(seed=2).trainable_copy()
    found = {}
    for score in (silent_about_c, zero_for_c):
        method = FDPG(
            policy, prior.tilt(score, beta=1), JensenShannon, contexts=CONTEXTS, samples_per_context=64, seed=5
        )
        (loss,) = method.losses(policy, 0)
        found[score.__name__] = exact_gradient(policy, loss.value), loss.sums, method.partition.of("left")
    batch = method.draw(policy, 0, method._contexts(0), 64, _seed(method, 0))
    silent = sum(text.startswith("c") for text in batch.samples.texts)
    assert 0 < silent < 128
    gradient, sums, z = found["silent_about_c"]
    assert sums["missing"] == silent
    assert not torch.allclose(gradient, found["zero_for_c"][0])
    assert z.n < found["zero_for_c"][2].n == 128
    assert found["zero_for_c"][1]["missing"] == 0
    assert bool(gradient.isfinite().all())


def test_a_score_that_raises_names_the_sample() -> None:
    def broken(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> Values:
        if any(text == "b" for text in completions):
            raise ValueError("no b alone, please")
        return [1.0] * len(completions)

    policy = table().trainable_copy()
    method = FDPG(policy, table() * constraint(broken), JensenShannon, contexts=CONTEXTS, samples_per_context=64)
    with pytest.raises(FeedbackError, match=r"broken raised ValueError: no b alone, please for sample \d+: 'b'"):
        list(method.losses(policy, 0))


# --- the law that is drawn from is the law that is trained
@pytest.mark.parametrize("changed", [{"temperature": 0.8}, {"temperature": 0}, {"top_k": 5}, {"top_p": 0.9}])
def test_another_law_than_the_policys_is_refused_for_training(changed: dict[str, Any]) -> None:
    (name,) = changed
    with pytest.raises(ConfigError, match=rf"training draws with {name}=") as caught:
        FDPG(table(), table().tilt(count_b, beta=1), ForwardKL, contexts=CONTEXTS, decoding=Decoding(**changed))
    assert "temperature=1, top_k=0, top_p=1" in caught.value.fix


class Drifting(TabularPolicy):
    """What it writes down while drawing is not what it computes with gradient."""

    gap = 0.01

    def sample(self, *arguments: Any, **settings: Any) -> Samples:
        samples = super().sample(*arguments, **settings)
        samples.log_probs.add_(self.gap * samples.mask)
        return samples


def test_a_sampler_that_disagrees_with_the_trainer_is_refused_at_step_0(tmp_path: Path) -> None:
    of = table()
    policy = Drifting(of.alphabet, of.max_tokens, of.contexts, torch.nn.Parameter(of.logits.clone()))
    method = FDPG(policy, of.tilt(count_b, beta=1), ForwardKL, contexts=CONTEXTS, steps=3)
    before = policy.logits.detach().clone()
    with pytest.raises(TrainingError, match=r"sampler and trainer differ by 0\.01 nats a token") as caught:
        train(policy, method, optimisation=FLOAT32, folder=tmp_path / "apart")
    assert "precision" in caught.value.fix
    assert torch.equal(policy.logits, before)
    policy.gap = float("nan")
    with pytest.raises(ConfigError, match="given and not drawn"):
        train(policy, method, optimisation=FLOAT32, folder=tmp_path / "nan")
    policy.gap = 1e-5
    train(policy, method, optimisation=FLOAT32, folder=tmp_path / "rounding")
    assert not torch.equal(policy.logits, before)


def falling(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> Values:
    return [-float(len(text)) for text in completions]


def dropping(seed: int = 0) -> CausalLM:
    """A model whose configuration asks for dropout everywhere."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=258, n_embd=32, n_layer=2, n_head=4, n_positions=64, attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5,
        bos_token_id=None, eos_token_id=256, pad_token_id=256,
    )  # fmt: skip
    return CausalLM(AutoModelForCausalLM.from_config(config), byte_tokenizer(), name="dropping")


@pytest.mark.parametrize("proposal", ["policy", "fixed", "adaptive"])
def test_dropout_is_off_in_drawing_scoring_and_training(proposal: str, tmp_path: Path) -> None:
    """Released code trains with dropout 0.1 while the other laws have none: then pi/q is not 1 even where pi = q."""
    prior = dropping()
    policy = prior.trainable_copy()
    assert not any(module.training for module in policy.model.modules())
    draws: dict[str, Proposal] = {"policy": OnPolicy(), "fixed": Fixed(prior), "adaptive": Adaptive(every=2, samples=8)}
    method = FDPG(
        policy, Target(prior.exact(), tilt(falling, beta=5.0)), ForwardKL, contexts=BYTES, steps=2, samples_per_context=4,
        decoding=SHORT, proposal=draws[proposal],
    )  # fmt: skip
    if proposal == "policy":
        batch = method.draw(policy, 0, BYTES, 8, 1)
        torch.testing.assert_close(batch.log_policy, batch.log_proposal)
        torch.testing.assert_close(batch.log_policy, sequence_log_prob(policy, batch.samples), rtol=0, atol=1e-4)
        torch.testing.assert_close(
            batch.scores.log_prior, batch.log_policy, rtol=0, atol=1e-4
        )  # pi = a before training
    train(policy, method, optimisation=FLOAT32, folder=tmp_path)
    assert not any(module.training for module in policy.model.modules())


def test_the_first_eos_counts_where_pad_is_eos_too() -> None:
    """`ids != pad` loses the decision to stop: a law without it does not sum to 1 over texts of all lengths."""
    same, apart = tiny_policy(pad_is_eos=True), tiny_policy(pad_is_eos=False)
    apart.model.load_state_dict(same.model.state_dict())
    for policy in (same, apart):  # transformers starts the row of the pad token, here the end, with zeros
        with torch.no_grad():
            weight = policy.model.get_output_embeddings().weight
            weight[256] = 1.5 * weight[97]
    samples = same.sample(BYTES, n=400, seed=1, decoding=SHORT)
    ended = [place for place, why in enumerate(samples.ended) if why == "eos"]
    assert len(ended) > 10
    assert all(int(samples.tokens[place, int(samples.lengths[place]) - 1]) == 256 for place in ended)
    scored = sequence_log_prob(same, samples)
    torch.testing.assert_close(scored, samples.log_probs.double().sum(-1), rtol=0, atol=1e-4)
    torch.testing.assert_close(scored, sequence_log_prob(apart, samples), rtol=0, atol=1e-4)
    last = samples.log_probs[ended, samples.lengths[ended] - 1]
    assert float(last.max()) < -1e-3  # the term that would be lost
    target = Target(same.exact(), tilt(lambda prompts, completions, **_: [0.0] * len(completions), beta=1.0))
    prompts = [context for context in BYTES for _ in range(400)]
    torch.testing.assert_close(target.log_weights(prompts, samples), torch.zeros(1200).double(), rtol=0, atol=1e-4)


def test_a_text_that_is_cut_is_the_event_of_its_prefix() -> None:
    """With fewer tokens than the table has, prior and policy are laws over prefixes: nothing is said of what would follow."""
    prior, policy = table(max_tokens=4), table(max_tokens=4, seed=2).trainable_copy()
    short = Decoding(max_tokens=2)
    target = prior.tilt(count_b, beta=1.0)
    samples = prior.sample(CONTEXTS, n=20_000, seed=1, decoding=short)
    prompts = [context for context in CONTEXTS for _ in range(20_000)]
    weights = target.log_weights(prompts, samples).exp().view(2, -1)
    small = TabularPolicy("abc", 2, CONTEXTS, prior.logits[:, :4])  # the same conditionals, and nothing beyond
    log_z = log_target(small.tilt(count_b, beta=1.0), small)[1]
    error = weights.std(-1) / math.sqrt(20_000)
    assert bool(((weights.mean(-1) - log_z.exp()).abs() < 4 * error).all())
    method = FDPG(policy, target, ForwardKL, contexts=CONTEXTS, decoding=short)
    beyond = gradient_of(method, policy).view(2, -1, 4)[:, 4:]
    assert float(beyond.abs().max()) == 0


# --- what must not move
def test_training_does_not_move_the_reference(tmp_path: Path) -> None:
    prior = tiny_policy()
    target = Target(prior.exact(), tilt(falling, beta=1.0))
    samples = prior.sample(BYTES, n=4, seed=1, decoding=SHORT)
    before = [sequence_log_prob(law, samples) for law in (prior, target.prior)]
    policy = prior.trainable_copy()
    method = FDPG(policy, target, ForwardKL, contexts=BYTES, steps=3, samples_per_context=4, decoding=SHORT)
    train(policy, method, optimisation=FLOAT32, folder=tmp_path)
    for law, then in zip((prior, target.prior), before, strict=True):
        torch.testing.assert_close(sequence_log_prob(law, samples), then, rtol=0, atol=0)
    assert float((sequence_log_prob(policy, samples) - before[0]).abs().max()) > 0.01


def test_the_penalty_is_the_kl_of_sequences_and_not_of_tokens() -> None:
    """An average over tokens would divide beta by the length, text by text."""
    prior, policy = table(), table(seed=2)
    batch = listed(prior.tilt(count_b, beta=1.0), policy, prior)
    objective, none = ExpectedReward(beta=0.7, of="log-potential"), torch.zeros(len(batch.prompts)).double()
    rewards = objective.rewards(batch.log_policy, batch.scores.log_prior, batch.scores.log_potential, none)
    tokens = policy.log_prob(batch.samples) - prior.log_prob(batch.samples)
    torch.testing.assert_close(batch.scores.log_potential - rewards, 0.7 * tokens.sum(-1))
    assert len(set(batch.samples.lengths.tolist())) > 1


def test_a_first_z_is_there_before_the_first_step() -> None:
    """Total variation takes the side of Z it stands on: with a Z of a few samples it would start in the wrong direction."""
    prior, policy = table(), table(seed=2).trainable_copy()
    target = prior.tilt(count_b, beta=1.0)
    method = FDPG(
        policy, target, TotalVariation, contexts=CONTEXTS, samples_per_context=4, contexts_per_step=1, bootstrap=500
    )
    next(iter(method.losses(policy, 0)))
    _, log_z = log_target(target, prior)
    for context, exact in zip(CONTEXTS, log_z.tolist(), strict=True):
        found = method.partition.of(context)
        assert found.n >= 500  # also of the context that has not had its turn
        assert abs(found.value - exact) < 4 * found.standard_error + 0.05


def test_a_reward_that_is_minus_infinity_is_refused_and_the_fix_named() -> None:
    policy = table().trainable_copy()
    target = table() * constraint(has_b)
    method = FDPG(policy, target, ExpectedReward(of="log-potential"), contexts=CONTEXTS)
    with pytest.raises(TrainingError, match=r"mean of log phi is -inf here: the target forbids \d+%") as caught:
        list(method.losses(policy, 0))
    assert "of='potential'" in caught.value.fix


# --- a checkpoint belongs to one training
def test_every_setting_is_part_of_what_a_training_is() -> None:
    """Resumed with another setting, a run would go on as something that was never started."""
    prior, policy = table(), table().trainable_copy()
    corpus = prior.sample(CONTEXTS, n=4)
    prompts = [context for context in CONTEXTS for _ in range(4)]

    def identity(objective: Any = ForwardKL, target: Any = None, **settings: Any) -> str:
        settings = {"contexts": CONTEXTS, **settings}
        return FDPG(policy, target or prior.tilt(count_b, beta=1), objective, **settings).identity

    others = [
        identity(ReverseKL), identity(ExpectedReward()), identity(ExpectedReward(beta=0.1)),
        identity(ExpectedReward(of="log-potential")), identity(ExpectedReward(of="log-potential", scale=0.5)),
        identity(target=prior.tilt(count_b, beta=2)), identity(target=prior * constraint(has_b)),
        identity(contexts=CONTEXTS[:1]), identity(steps=7), identity(contexts_per_step=1), identity(samples_per_context=8),
        identity(baseline="none"), identity(decoding=Decoding(max_tokens=3)), identity(window=3), identity(bootstrap=5),
        identity(one_z=True), identity(seed=1), identity(proposal=Fixed(prior)), identity(proposal=Adaptive()),
        identity(proposal=Adaptive(every=3)), identity(proposal=Adaptive(by="tv")), identity(proposal=Adaptive(samples=9)),
        identity(proposal=Adaptive(contexts=2)), identity(proposal=Replay()), identity(proposal=Replay(0.6)),
        identity(proposal=Replay(batches=5)), identity(proposal=Corpus(prompts, corpus)),
        identity(proposal=OnPolicy(torch.bfloat16)),
    ]  # fmt: skip
    assert len({identity(), *others}) == 1 + len(others)
    assert identity() == identity()


# --- feedback that says less than it seems
def test_the_empty_text_compiles_and_is_no_program() -> None:
    compiles = pytest.importorskip("amenable.feedback.constraints").compiles
    columns = {"ended": ["eos", "length", "eos"]}
    texts = ["", "return 1", "return 1"]
    prompts = ["def f():\n  "] * 3
    assert compiles()(prompts=["", *prompts[1:]], completions=texts, **columns) == [0.0, 0.0, 1.0]
    assert compiles(statements=0)(prompts=[""], completions=[""]) == [1.0]


def test_lists_may_be_of_any_kind() -> None:
    """A score may answer with a tensor, and contexts may be a tuple."""
    prior, policy = table(), table(seed=2).trainable_copy()

    def tensor(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> Any:
        return torch.tensor([float(text.count("b")) for text in completions])

    one = FDPG(policy, prior.tilt(tensor, beta=1), JensenShannon, contexts=tuple(CONTEXTS))
    two = FDPG(policy, prior.tilt(count_b, beta=1), JensenShannon, contexts=list(CONTEXTS))
    torch.testing.assert_close(gradient_of(one, policy), gradient_of(two, policy))
