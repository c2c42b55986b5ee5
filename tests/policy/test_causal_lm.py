"""The contract of design.md section 3, on real (small) models of several architectures."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_policy

from amenable.errors import SamplingError
from amenable.policy.causal_lm import CausalLM, LoRA
from amenable.records import Decoding

CONTEXTS = ["a", "longer context here", "mid size", "b", "x" * 40, "yy"]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("pad_is_eos", [True, False])
def test_sampler_and_scorer_agree(kind: str, pad_is_eos: bool) -> None:
    policy = tiny_policy(kind, pad_is_eos=pad_is_eos)
    policy.rows = 7  # smaller than the work, so that the batch is refilled and compacted many times
    samples = policy.sample(CONTEXTS, n=5, decoding=Decoding(max_tokens=120), seed=3)
    scored = policy.log_prob(samples)
    assert (scored - samples.log_probs).abs().max() < 1e-4
    assert (scored[~samples.mask] == 0).all()
    assert len(set(samples.lengths.tolist())) > 5  # ragged for real


def test_every_sampled_token_counts_up_to_and_including_the_first_eos(policy: CausalLM) -> None:
    samples = policy.sample(CONTEXTS, n=20, decoding=Decoding(max_tokens=60), seed=0)
    assert {"eos", "length"} <= set(samples.ended)
    for index, ended in enumerate(samples.ended):
        ids = samples.ids(index)
        assert (256 in ids) == (ended == "eos")
        assert ids.count(256) == (1 if ended == "eos" else 0)
        assert ended != "eos" or ids[-1] == 256
        assert (samples.log_probs[index, : len(ids)] < 0).all()  # the EOS term is there, though pad is eos


@torch.no_grad()
def test_the_law_is_the_models_own() -> None:
    """10,000 two-token samples against exact enumeration of their law: chi-squared over the likely pairs."""
    policy = tiny_policy(scale=24.0)
    policy.rows = 2500
    samples = policy.sample(["q"], n=10_000, decoding=Decoding(max_tokens=2), seed=1)
    prompt = policy.encode("q")
    first = policy.model(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    pairs = []
    for token in first.topk(8).indices.tolist():
        second = policy.model(torch.tensor([[*prompt, token]])).logits[0, -1].softmax(-1)
        pairs += [((token, other), 10_000 * float(first[token] * second[other])) for other in range(258)]
    cells = [(expected, pair) for pair, expected in pairs if expected >= 20 and pair[0] != 256]
    drawn = [tuple(samples.ids(index)) for index in range(10_000)]
    assert len(cells) >= 10
    statistic = sum((drawn.count(pair) - expected) ** 2 / expected for expected, pair in cells)
    degrees = len(cells)
    assert statistic < degrees + 4 * (2 * degrees) ** 0.5  # four standard deviations of chi-squared


def test_same_seed_same_bits_and_batch_size_does_not_change_the_samples(policy: CausalLM) -> None:
    settings = {"n": 3, "decoding": Decoding(max_tokens=40), "seed": 5}
    one, two = policy.sample(CONTEXTS, **settings), policy.sample(CONTEXTS, **settings)
    assert torch.equal(one.tokens, two.tokens)
    assert torch.equal(one.log_probs, two.log_probs)
    policy.rows = 4
    narrow = policy.sample(CONTEXTS, **settings)
    assert torch.equal(one.tokens, narrow.tokens)
    assert policy.sample(CONTEXTS, **{**settings, "seed": 6}).texts != one.texts


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("contexts", [["a"], CONTEXTS])
def test_threads_share_the_work_and_not_the_samples(policy: CausalLM, threads: int, contexts: list[str]) -> None:
    settings = {"n": 7, "decoding": Decoding(max_tokens=30), "seed": 5}
    alone = policy.sample(contexts, **settings)
    seen: list[tuple[int, int]] = []
    torch.set_num_threads(threads)
    try:
        shared = policy.sample(contexts, **settings, progress=lambda done, total: seen.append((done, total)))
        again = policy.sample(contexts, **settings)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(1)
    assert torch.equal(shared.tokens, alone.tokens)
    assert torch.equal(shared.log_probs, again.log_probs)  # same threads, same bits
    assert seen[-1] == (len(contexts) * 7, len(contexts) * 7)


def test_an_error_in_one_thread_ends_the_others_and_comes_out(policy: CausalLM) -> None:
    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt):
            policy.sample(CONTEXTS, n=40, decoding=Decoding(max_tokens=100), progress=fail)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert policy.sample(["a"], decoding=Decoding(max_tokens=3)).texts


def test_a_long_prompt_does_not_crowd_out_the_short_ones(policy: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amenable.policy.engine.POSITIONS", 400)
    monkeypatch.setattr("amenable.policy.engine.READ", 64)
    contexts = ["x" * 150, *CONTEXTS]
    samples = policy.sample(contexts, n=3, decoding=Decoding(max_tokens=40), seed=1)
    assert (policy.log_prob(samples) - samples.log_probs).abs().max() < 1e-4
    monkeypatch.undo()
    assert torch.equal(policy.sample(contexts, n=3, decoding=Decoding(max_tokens=40), seed=1).tokens, samples.tokens)


def test_stop_strings_cut_the_text_and_keep_the_tokens(policy: CausalLM) -> None:
    plain = policy.sample(["s"], n=40, decoding=Decoding(max_tokens=50), seed=2)
    stop = plain.texts[0][9:11]
    stopped = policy.sample(["s"], n=40, decoding=Decoding(max_tokens=50, stop=(stop,)), seed=2)
    assert "stop" in stopped.ended
    decode = policy.tokenizer.decode
    for index, ended in enumerate(stopped.ended):
        ids = stopped.ids(index)
        assert ids == plain.ids(index)[: len(ids)]
        assert stop not in stopped.texts[index]
        assert stop not in decode(ids[:-1])
        assert (stop in decode(ids)) == (ended == "stop")
        assert decode(ids).startswith(stopped.texts[index])
    assert (policy.log_prob(stopped) - stopped.log_probs).abs().max() < 1e-4


def test_a_prompt_over_the_context_is_refused_and_named(policy: CausalLM) -> None:
    with pytest.raises(
        SamplingError, match=r"prompt 1 has 250 tokens; with 20 new tokens it exceeds the context of 256"
    ):
        policy.sample(["ok", "x" * 250], decoding=Decoding(max_tokens=20))


def test_a_frozen_copy_has_the_law_and_no_gradient_and_a_trainable_one_has_both(policy: CausalLM) -> None:
    samples = policy.sample(["a"], n=4, decoding=Decoding(max_tokens=10))
    frozen, trainable = policy.frozen(torch.float32), policy.trainable_copy()
    assert not frozen.log_prob(samples).requires_grad
    torch.testing.assert_close(frozen.log_prob(samples), trainable.log_prob(samples).detach())
    trainable.log_prob(samples).sum().backward()
    assert all(value.grad is not None for _, value in trainable.trainable_parameters())
    with torch.no_grad():
        for _, value in trainable.trainable_parameters():
            value.add_(0.1)
    torch.testing.assert_close(policy.log_prob(samples).detach(), frozen.log_prob(samples))  # copies, not views


def test_an_adapter_starts_at_the_same_law_trains_alone_and_merges(policy: CausalLM) -> None:
    samples = policy.sample(["a", "bb"], n=4, decoding=Decoding(max_tokens=10))
    adapted = policy.trainable_copy(LoRA(rank=4))
    torch.testing.assert_close(adapted.log_prob(samples), policy.log_prob(samples))
    names = [name for name, _ in adapted.trainable_parameters()]
    assert names
    assert all("lora_" in name for name in names)
    with torch.no_grad():
        for _, value in adapted.trainable_parameters():
            value.add_(0.02)
    merged = adapted.frozen(torch.float32)
    torch.testing.assert_close(merged.log_prob(samples), adapted.log_prob(samples).detach(), atol=1e-4, rtol=1e-4)
    assert (merged.log_prob(samples) - policy.log_prob(samples)).abs().max() > 1e-3


def test_only_the_policys_own_law_counts_as_the_training_law() -> None:
    assert Decoding(max_tokens=5, stop=("x",)).deviations() == []
    assert Decoding(temperature=0.8, top_k=5).deviations() == ["temperature=0.8", "top_k=5"]
