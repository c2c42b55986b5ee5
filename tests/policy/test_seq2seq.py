"""The contract of design.md section 3, on small real encoder-decoder models: T5 (starts with pad) and BART (with eos)."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from tiny import tiny_policy, tiny_seq2seq
from transformers import AutoModelForSeq2SeqLM, SwitchTransformersConfig

from amenable.errors import ModelError, SamplingError
from amenable.method.imitation import Example, Imitation
from amenable.method.loop import Optimisation, train
from amenable.policy.causal_lm import CausalLM, LoRA
from amenable.policy.loading import load_policy
from amenable.policy.seq2seq import Seq2Seq
from amenable.records import Decoding, Samples

LETTERS = "abcdefgh"
CONTEXTS = ["a", "hgfedcbabcdefgh", "abcdabc", "b", "c" * 40, "dd", "a"]
KINDS = pytest.mark.parametrize("kind", ["t5", "bart"])


def given(source: list[int], rows: list[list[int]]) -> Samples:
    """Token ids that nobody drew, as samples of one source."""
    lengths = torch.tensor([len(row) for row in rows])
    tokens = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int64)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = torch.tensor(row)
    return Samples([source] * len(rows), tokens, lengths, tokens * math.nan, [""] * len(rows), ["eos"] * len(rows))


@KINDS
@pytest.mark.parametrize("pad_is_eos", [True, False])
def test_sampler_and_scorer_agree(kind: str, pad_is_eos: bool) -> None:
    policy = tiny_seq2seq(kind, letters=LETTERS, pad_is_eos=pad_is_eos)
    policy.rows = 7  # smaller than the work: several batches, and sources whose samples lie in two of them
    samples = policy.sample(CONTEXTS, n=5, decoding=Decoding(max_tokens=50), seed=3)
    scored = policy.log_prob(samples)
    assert (scored - samples.log_probs).abs().max() < 1e-4
    assert (scored[~samples.mask] == 0).all()
    assert len(set(samples.lengths.tolist())) > 5  # ragged for real
    assert samples.context_ids[5:10] == [policy.encode(CONTEXTS[1])] * 5


@KINDS
@pytest.mark.parametrize("pad_is_eos", [True, False])
@torch.no_grad()
def test_the_scorer_gives_what_the_model_gives_one_sequence_at_a_time(kind: str, pad_is_eos: bool) -> None:
    policy = tiny_seq2seq(kind, letters=LETTERS, pad_is_eos=pad_is_eos)
    pad, eos = policy.tokenizer.pad_token_id, policy.eos_ids[0]
    sources = [policy.encode(context) for context in ("abc", "h", "gfedcba")]
    rows = [[0, pad, pad, 1, eos], [eos], [3, 3, pad]]  # pad may be sampled: it counts like any token
    found = policy.log_prob(
        Samples(sources, given([], rows).tokens, torch.tensor([5, 1, 3]), torch.zeros(3, 5), [""] * 3, ["eos"] * 3)
    )
    for index, (source, row) in enumerate(zip(sources, rows, strict=True)):
        decoder = torch.tensor([[*policy.prefix, *row[:-1]]])
        logits = policy.model(
            input_ids=torch.tensor([source]),
            attention_mask=torch.ones(1, len(source)),
            decoder_input_ids=decoder,
            decoder_attention_mask=torch.ones_like(decoder),
        ).logits[0]
        exact = logits.log_softmax(-1)[torch.arange(len(row)), torch.tensor(row)]
        torch.testing.assert_close(found[index, : len(row)], exact, atol=1e-5, rtol=1e-5)


@KINDS
@pytest.mark.parametrize("pad_is_eos", [True, False])
def test_every_sampled_token_counts_up_to_and_including_the_first_eos(kind: str, pad_is_eos: bool) -> None:
    policy = tiny_seq2seq(kind, letters=LETTERS, pad_is_eos=pad_is_eos)
    samples = policy.sample(CONTEXTS, n=12, decoding=Decoding(max_tokens=12), seed=0)
    eos = policy.eos_ids[0]
    assert {"eos", "length"} == set(samples.ended)
    for index, ended in enumerate(samples.ended):
        ids = samples.ids(index)
        assert ids.count(eos) == (1 if ended == "eos" else 0)
        assert ended != "eos" or ids[-1] == eos
        assert len(ids) == 12 or ended == "eos"
        assert (samples.log_probs[index, : len(ids)] < 0).all()  # the EOS term is there, though pad is eos
        assert "<eos>" not in samples.texts[index]


@KINDS
@torch.no_grad()
def test_the_law_sums_to_one_and_samples_follow_it(kind: str) -> None:
    """All outcomes of at most 3 tokens over 5 or 6 symbols (pad and <s> among them); chi-squared of 6,000 samples."""
    policy, most, size = tiny_seq2seq(kind, letters="ab", seed=1), 3, 5
    eos, total = policy.eos_ids[0], 6000
    others = [token for token in range(size) if token != eos]
    outcomes = [[*head, eos] for length in range(most) for head in itertools.product(others, repeat=length)]
    outcomes += [list(head) for head in itertools.product(others, repeat=most)]  # cut at the limit
    source = policy.encode("abba")
    log_probs = policy.log_prob(given(source, outcomes)).double().sum(1)
    assert abs(float(log_probs.exp().sum()) - 1) < 1e-5
    policy.rows = 1000
    samples = policy.sample(["abba"], n=total, decoding=Decoding(max_tokens=most), seed=2)
    drawn = [tuple(samples.ids(index)) for index in range(total)]
    expected = {tuple(row): total * float(value.exp()) for row, value in zip(outcomes, log_probs, strict=True)}
    cells = [(drawn.count(row), value) for row, value in expected.items() if value >= 10]
    cells.append((total - sum(seen for seen, _ in cells), total - sum(value for _, value in cells)))  # the rare ones
    assert len(cells) > 12
    statistic = sum((seen - value) ** 2 / value for seen, value in cells)
    degrees = len(cells) - 1
    assert statistic < degrees + 4 * (2 * degrees) ** 0.5  # four standard deviations of chi-squared


@KINDS
def test_same_seed_same_bits_and_batch_size_does_not_change_the_samples(kind: str) -> None:
    policy = tiny_seq2seq(kind, letters=LETTERS)
    settings = {"n": 3, "decoding": Decoding(max_tokens=30), "seed": 5}
    one, two = policy.sample(CONTEXTS, **settings), policy.sample(CONTEXTS, **settings)
    assert torch.equal(one.tokens, two.tokens)
    assert torch.equal(one.log_probs, two.log_probs)
    seen: list[tuple[int, int]] = []
    for rows in (1, 4):
        policy.rows = rows
        narrow = policy.sample(CONTEXTS, **settings, progress=lambda done, total: seen.append((done, total)))
        assert torch.equal(one.tokens, narrow.tokens)
        assert seen[-1] == (21, 21)
    assert policy.sample(CONTEXTS, **{**settings, "seed": 6}).texts != one.texts
    assert one.ids(0) != one.ids(18)  # the same context twice: each sample has its own uniforms
    assert len(policy.sample([], decoding=Decoding(max_tokens=5))) == 0


@KINDS
def test_samples_share_what_the_encoder_and_the_decoder_made_of_their_source(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tiny_seq2seq(kind, letters=LETTERS)
    policy.rows = 4
    encoded: list[int] = []
    encoder = policy.model.get_encoder()
    forward = encoder.forward
    monkeypatch.setattr(encoder, "forward", lambda **given: encoded.append(len(given["input_ids"])) or forward(**given))
    projected: list[int] = []
    modules = policy.model.named_modules()
    keys = next(module for name, module in modules if name.endswith(("EncDecAttention.k", "encoder_attn.k_proj")))
    hook = keys.register_forward_pre_hook(lambda _, inputs: projected.append(len(inputs[0])))
    samples = policy.sample(["abc", "a", "abc", "hh"], n=6, decoding=Decoding(max_tokens=4), seed=1)
    hook.remove()
    assert sum(encoded) == 3  # distinct sources, of 24 samples
    assert projected == [1, 1, 1, 1, 2, 1]  # once a source of each batch of four
    encoded.clear()
    policy.log_prob(samples)
    assert sum(encoded) <= 4


def test_finished_rows_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_seq2seq("bart", letters=LETTERS)
    widths: list[int] = []
    decoder = policy.model.get_decoder()
    forward = decoder.forward
    monkeypatch.setattr(decoder, "forward", lambda **given: widths.append(len(given["input_ids"])) or forward(**given))
    samples = policy.sample(["abc"], n=40, decoding=Decoding(max_tokens=40), seed=1)
    assert widths[0] == 1  # the prefix is read once for the source
    alive = [int((samples.lengths > step).sum()) for step in range(1, len(widths))]
    assert all(living <= width < living / 0.75 + 1 for living, width in zip(alive, widths[1:], strict=True))


@KINDS
def test_stop_strings_cut_the_text_and_keep_the_tokens(kind: str) -> None:
    policy = tiny_seq2seq(kind, letters=LETTERS)
    plain = policy.sample(["abc"], n=40, decoding=Decoding(max_tokens=30), seed=2)
    stop = next(text for text in plain.texts if len(text) > 4 and text.isalpha())[2:4]
    stopped = policy.sample(["abc"], n=40, decoding=Decoding(max_tokens=30, stop=(stop,)), seed=2)
    assert {"stop", "eos"} <= set(stopped.ended)
    decode = policy.tokenizer.decode
    for index, ended in enumerate(stopped.ended):
        ids = stopped.ids(index)
        assert ids == plain.ids(index)[: len(ids)]
        assert stop not in stopped.texts[index]
        assert (stop in decode(ids)) == (ended == "stop")
    assert (policy.log_prob(stopped) - stopped.log_probs).abs().max() < 1e-4


def test_what_does_not_fit_is_refused_and_named() -> None:
    policy = tiny_seq2seq("bart")
    with pytest.raises(
        SamplingError, match=r"source 1 has 152 tokens, more than the 128 that the encoder of tiny-bart"
    ):
        policy.sample(["ok", "x" * 150], decoding=Decoding(max_tokens=20))
    with pytest.raises(SamplingError, match="129 new tokens are more than the 128 that the decoder"):
        policy.sample(["ok"], decoding=Decoding(max_tokens=129))
    most = policy.sample(["x" * 126], decoding=Decoding(max_tokens=128, temperature=0))
    assert policy.log_prob(most).shape == most.tokens.shape
    with pytest.raises(SamplingError, match="source 0 has 129 tokens"):
        policy.log_prob(given([1] * 129, [[2]]))
    assert (
        tiny_seq2seq("t5").sample(["x" * 600], decoding=Decoding(max_tokens=2)).lengths.max() <= 2
    )  # relative positions


def test_completions_are_opened_and_closed_as_the_decoder_was_trained() -> None:
    t5, bart = tiny_seq2seq("t5", letters=LETTERS), tiny_seq2seq("bart", letters=LETTERS)
    eos, pad, bos = 8, 9, 10
    assert (t5.prefix, t5.encode("ab"), t5.encode_completion("ab")) == ([pad], [0, 1, eos], [0, 1, eos])
    assert (bart.prefix, bart.encode("ab"), bart.encode_completion("ab")) == ([eos], [bos, 0, 1, eos], [bos, 0, 1, eos])
    assert bart.encode_completion("ab", eos=False) == [bos, 0, 1]
    bart.model.generation_config.forced_bos_token_id = bos  # as in the released BARTs: given, hence not sampled
    forced = Seq2Seq(bart.model, bart.tokenizer, name="forced")
    assert (forced.prefix, forced.encode_completion("ab")) == ([eos, bos], [0, 1, eos])
    samples = forced.sample(CONTEXTS, n=4, decoding=Decoding(max_tokens=20), seed=1)
    assert (forced.log_prob(samples) - samples.log_probs).abs().max() < 1e-4
    opened = given(forced.encode("abc"), [[bos, 0, 1, eos]])
    torch.testing.assert_close(
        bart.log_prob(opened)[0, 1:], forced.log_prob(given(forced.encode("abc"), [[0, 1, eos]]))[0]
    )
    assert bart._text(opened, 0) == "ab"  # <s> is scored, and no part of the text


@pytest.mark.parametrize(("kind", "adapter"), [("t5", None), ("bart", None), ("t5", LoRA(rank=8))])
def test_it_learns_to_write_what_it_was_shown(tmp_path: Path, kind: str, adapter: LoRA | None) -> None:
    policy = tiny_seq2seq(kind, scale=1.0).trainable_copy(adapter)
    examples = [Example(word, word.upper()) for word in ("cat", "mouse", "ox", "giraffe")]
    method = Imitation(examples, epochs=70 if adapter is None else 40, batch_size=4, seed=1)
    before = float(next(iter(method.losses(policy, 0))).value.detach())
    train(policy, method, optimisation=Optimisation(learning_rate=1e-2, precision="float32"), folder=tmp_path)
    after = float(next(iter(method.losses(policy, 0))).value.detach())
    if adapter is None:
        learned = policy.frozen(torch.float32)
        greedy = learned.sample([e.prompt for e in examples], decoding=Decoding(max_tokens=12, temperature=0))
        assert greedy.texts == [example.completion for example in examples]
        assert set(greedy.ended) == {"eos"}
    else:
        assert after < 0.8 * before


@KINDS
def test_a_frozen_copy_has_the_law_and_no_gradient_and_a_trainable_one_has_both(kind: str) -> None:
    policy = tiny_seq2seq(kind, letters=LETTERS)
    samples = policy.sample(["a", "bc"], n=4, decoding=Decoding(max_tokens=10))
    frozen, trainable = policy.frozen(torch.float32), policy.trainable_copy()
    assert isinstance(frozen, Seq2Seq)
    assert not frozen.log_prob(samples).requires_grad
    torch.testing.assert_close(frozen.log_prob(samples), trainable.log_prob(samples).detach())
    trainable.log_prob(samples).sum().backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for _, value in trainable.trainable_parameters())
    with torch.no_grad():
        for _, value in trainable.trainable_parameters():
            value.add_(0.1)
    torch.testing.assert_close(policy.log_prob(samples).detach(), frozen.log_prob(samples))  # copies, not views
    coarse = policy.frozen(torch.bfloat16)
    drawn = coarse.sample(CONTEXTS, n=3, decoding=Decoding(max_tokens=20))
    assert drawn.log_probs.dtype == coarse.log_prob(drawn).dtype == torch.float32


@KINDS
def test_a_saved_policy_loads_to_the_same_law_in_transformers_and_here(kind: str, tmp_path: Path) -> None:
    policy = tiny_seq2seq(kind, letters=LETTERS)
    policy.save(tmp_path)
    theirs = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    inputs = {"input_ids": torch.tensor([policy.encode("abc")]), "decoder_input_ids": torch.tensor([policy.prefix])}
    torch.testing.assert_close(theirs(**inputs).logits, policy.model(**inputs).logits)
    loaded = load_policy(str(tmp_path), dtype="float32")
    assert isinstance(loaded, Seq2Seq)
    assert (loaded.prefix, loaded.opening, loaded.eos_ids) == (policy.prefix, policy.opening, policy.eos_ids)
    samples = policy.sample(CONTEXTS, n=2, decoding=Decoding(max_tokens=9))
    torch.testing.assert_close(loaded.log_prob(samples), policy.log_prob(samples))
    assert loaded.sample(CONTEXTS, n=2, decoding=Decoding(max_tokens=9)).texts == samples.texts
    tiny_policy().save(tmp_path / "causal")
    assert isinstance(load_policy(str(tmp_path / "causal")), CausalLM)


def test_an_adapter_starts_at_the_same_law_trains_alone_merges_and_loads(tmp_path: Path) -> None:
    tiny_seq2seq("t5", letters=LETTERS).save(tmp_path / "base")
    policy = load_policy(str(tmp_path / "base"), dtype="float32")
    samples = policy.sample(["a", "bb"], n=4, decoding=Decoding(max_tokens=10))
    adapted = policy.trainable_copy(LoRA(rank=4))
    torch.testing.assert_close(adapted.log_prob(samples), policy.log_prob(samples))
    adapted.log_prob(samples).sum().backward()
    assert all("lora_" in name for name, _ in adapted.trainable_parameters())
    touched = {name.split(".")[2] for name, value in adapted.trainable_parameters() if value.grad is not None}
    assert touched == {"encoder", "decoder"}  # the encoder that is called by itself is the adapted one
    with torch.no_grad():
        for _, value in adapted.trainable_parameters():
            value.add_(0.02)
    law = adapted.log_prob(samples).detach()
    assert (law - policy.log_prob(samples)).abs().max() > 1e-3
    torch.testing.assert_close(adapted.frozen(torch.float32).log_prob(samples), law, atol=1e-4, rtol=1e-4)
    drawn = adapted.sample(CONTEXTS, n=3, decoding=Decoding(max_tokens=10))
    assert (adapted.log_prob(drawn) - drawn.log_probs).abs().max() < 1e-4
    adapted.save(tmp_path / "adapter")
    loaded = load_policy(str(tmp_path / "adapter"), dtype="float32")
    assert isinstance(loaded, Seq2Seq)
    torch.testing.assert_close(loaded.log_prob(samples), law, atol=1e-4, rtol=1e-4)


def test_models_without_one_law_or_a_start_are_refused() -> None:
    policy = tiny_seq2seq("t5", letters=LETTERS)
    config = SwitchTransformersConfig(
        vocab_size=11, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, num_experts=2
    )
    with pytest.raises(ModelError, match="experts have a bounded capacity"):
        Seq2Seq(AutoModelForSeq2SeqLM.from_config(config), policy.tokenizer, name="switch")
    for place in (policy.model.config, policy.model.generation_config):
        place.decoder_start_token_id = place.bos_token_id = None
    with pytest.raises(ModelError, match="which token its decoder starts with"):
        Seq2Seq(policy.model, policy.tokenizer, name="startless")
