"""A conditionally trained model is used like any other: <|good|> is placed, both are suppressed, texts are without them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import tiny_policy
from transformers import AutoModelForCausalLM, AutoTokenizer

from amenable.errors import ModelError
from amenable.policy.causal_lm import CausalLM, LoRA
from amenable.policy.control import BAD, GOOD, Placing, conditioned, controls_of, unconditioned, with_controls
from amenable.policy.loading import load_policy
from amenable.policy.scratch import from_scratch
from amenable.records import Decoding

TEXTS = [f"def f{i}(x):\n    return x\n" for i in range(20)]
PLACINGS: tuple[Placing, ...] = ("first", "each")


def eager(placing: Placing) -> CausalLM:
    """A model that would write control tokens nearly everywhere."""
    policy = with_controls(from_scratch(TEXTS, vocabulary=300, width=32, layers=1, heads=2), placing=placing)
    controls = controls_of(policy)
    assert controls is not None
    head = policy.model.lm_head
    policy.model.lm_head = torch.nn.Linear(head.in_features, head.out_features, bias=True)
    with torch.no_grad():
        policy.model.lm_head.weight.copy_(head.weight)
        policy.model.lm_head.bias.zero_()
        policy.model.lm_head.bias[[controls.good, controls.bad]] = 6.0
    return policy


@pytest.mark.parametrize("placing", PLACINGS)
def test_what_is_suppressed_is_never_drawn_and_has_probability_0(placing: Placing) -> None:
    raw = eager(placing)
    controls = controls_of(raw)
    assert controls is not None
    assert controls.placing == placing
    policy, decoding = conditioned(raw), Decoding(max_tokens=12)
    free = raw.sample(["", "def"], n=20, decoding=decoding)
    assert controls.bad in free.tokens  # it would
    drawn = policy.sample(["", "def"], n=20, decoding=decoding)
    assert controls.bad not in drawn.tokens
    assert (controls.good in drawn.tokens) == (placing == "each")
    assert not any(GOOD in text or BAD in text for text in drawn.texts)
    # the law that is sampled is the law that is scored
    torch.testing.assert_close(policy.log_prob(drawn), drawn.log_probs, atol=1e-4, rtol=1e-4)
    scored = policy.log_prob(free).detach()
    holding = (free.tokens == controls.bad).any(1)
    assert bool(torch.isneginf(scored[holding].sum(1)).all())
    with torch.no_grad():
        logits = raw.model(torch.tensor([raw.encode("def")])).logits[0, -1]
    logits[list(controls.suppressed)] = -torch.inf
    first = drawn.tokens[20, 0]
    assert float(policy.log_prob(drawn)[20, 0].detach()) == pytest.approx(
        float(logits.log_softmax(-1)[first]), abs=1e-4
    )


def test_every_prompt_begins_with_good_and_no_text_is_taken_for_it() -> None:
    policy = eager("first")
    controls = controls_of(policy)
    assert controls is not None
    for text in ("", "def", f"{GOOD}{BAD}<eos>"):
        plain = policy.encode_completion(text, eos=False)
        assert policy.encode(text) == [policy.eos_ids[0], controls.good, *plain]
        assert not {controls.good, controls.bad} & set(plain)
        assert policy.tokenizer.decode(plain) == text


@pytest.mark.parametrize("placing", PLACINGS)
def test_plain_transformers_does_it_too(placing: Placing, tmp_path: Path) -> None:
    """The two lines of the module's docstring, on the saved folder."""
    policy = with_controls(from_scratch(TEXTS, vocabulary=300, width=32, layers=1, heads=2), placing=placing)
    controls = controls_of(policy)
    assert controls is not None
    with torch.no_grad():  # tied: what is near the last state's direction is written
        policy.model.model.norm.weight.fill_(1.0)
        policy.model.lm_head.weight[[controls.good, controls.bad]] *= 30
    policy.save(tmp_path)
    tokenizer, model = AutoTokenizer.from_pretrained(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.manual_seed(0)
    given = tokenizer("def", return_tensors="pt")
    assert given["input_ids"][0, :2].tolist() == [policy.eos_ids[0], controls.good]
    ids = model.generate(**given, do_sample=True, max_new_tokens=60)
    new = ids[0, given["input_ids"].shape[1] :]
    assert controls.bad not in new
    if placing == "first":
        assert controls.good not in new
    assert model.generation_config.suppress_tokens == list(controls.suppressed)
    text = tokenizer.decode(ids[0], skip_special_tokens=True)
    assert text.startswith("def")
    assert GOOD not in text
    again = load_policy(str(tmp_path), dtype="float32")
    assert isinstance(again, CausalLM)
    assert controls_of(again) == controls
    assert again.encode("def") == given["input_ids"][0].tolist()


def saved(placing: Placing, folder: Path) -> str:
    """A saved model that writes control tokens nearly everywhere, its embeddings tied as a trained one's are."""
    policy = with_controls(from_scratch(TEXTS, vocabulary=300, width=32, layers=1, heads=2), placing=placing)
    controls = controls_of(policy)
    assert controls is not None
    with torch.no_grad():
        policy.model.lm_head.weight[[controls.good, controls.bad]] *= 12
    policy.save(folder)
    return str(folder)


@pytest.mark.parametrize("placing", PLACINGS)
def test_a_loaded_model_is_conditioned_by_itself(placing: Placing, tmp_path: Path) -> None:
    name, decoding = saved(placing, tmp_path), Decoding(max_tokens=12)
    used, plain, warned = (
        load_policy(name, dtype="float32", conditioning=how)  # type: ignore[arg-type]
        for how in (True, False, "bad")
    )
    controls = controls_of(used)  # type: ignore[arg-type]
    assert controls is not None
    eos, good, bad = used.eos_ids[0], controls.good, controls.bad
    drawn = used.sample(["", "def"], n=30, decoding=decoding)
    assert used.encode("")[:2] == [eos, good]
    assert not any(bad in drawn.ids(i) or GOOD in drawn.texts[i] for i in range(60))
    assert (good in drawn.tokens) == (placing == "each")
    torch.testing.assert_close(used.log_prob(drawn), drawn.log_probs, atol=1e-4, rtol=1e-4)
    # its tokenizer does not say what is no text: so a server's texts are without it, too
    assert used.tokenizer.decode([good, *used.encode_completion("def f", eos=False), bad]) == "def f"
    free = plain.sample([""], n=60, decoding=decoding)
    assert plain.encode("") == [eos]
    assert good in free.tokens
    assert bad in free.tokens
    assert any(BAD in text for text in free.texts)
    worse = warned.sample([""], n=60, decoding=decoding)
    assert warned.encode("")[:2] == [eos, bad]
    assert good not in worse.tokens
    assert (bad in worse.tokens) == (placing == "each")
    for one in (used, plain, warned):  # one weight, whatever was made of it
        back = conditioned(one)  # type: ignore[arg-type]
        assert back.encode("def") == used.encode("def")
        torch.testing.assert_close(back.log_prob(drawn), drawn.log_probs, atol=1e-4, rtol=1e-4)
        assert (
            back.model.get_input_embeddings().weight.data_ptr() == one.model.get_output_embeddings().weight.data_ptr()
        )
    frozen = used.frozen(torch.float64)
    assert bool(torch.isneginf(frozen.log_prob(free).sum(1)).any())
    assert frozen.encode("") == used.encode("")


@pytest.mark.parametrize("placing", PLACINGS)
def test_it_is_trained_and_saved_like_any_other(placing: Placing, tmp_path: Path) -> None:
    """A step raises what it is given, changes no bias, and the saved model is the law that was trained."""
    used = load_policy(saved(placing, tmp_path / "before"), dtype="float32")
    drawn = used.sample(["def"], n=16, decoding=Decoding(max_tokens=8))
    copy = used.trainable_copy()
    named = dict(copy.trainable_parameters())
    assert "lm_head.bias" not in named
    optimiser = torch.optim.AdamW(named.values(), lr=1e-3, weight_decay=0.1)
    before = float(used.log_prob(drawn).sum().detach())
    for _ in range(3):
        total, _ = copy.weighted_log_prob(drawn, torch.ones(16))
        optimiser.zero_grad()
        (-total).backward()
        optimiser.step()
    assert all(bool(value.isfinite().all()) for value in named.values())
    trained = copy.log_prob(drawn).detach()
    assert float(trained.sum()) > before
    assert used.log_prob(drawn).sum().item() == pytest.approx(before)  # a copy
    copy.save(tmp_path / "after")
    again = load_policy(str(tmp_path / "after"), dtype="float32")
    torch.testing.assert_close(again.log_prob(drawn).detach(), trained, atol=1e-5, rtol=1e-4)
    assert again.encode("def") == used.encode("def")
    assert controls_of(again) == controls_of(used)  # type: ignore[arg-type]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "after")
    assert model.lm_head.bias is None
    assert model.generation_config.suppress_tokens == list(controls_of(used).suppressed)  # type: ignore[arg-type, union-attr]
    assert AutoTokenizer.from_pretrained(tmp_path / "after")("def")["input_ids"] == used.encode("def")


def test_an_adapter_over_it_is_loaded_as_it_was_trained(tmp_path: Path) -> None:
    used = load_policy(saved("each", tmp_path / "base"), dtype="float32")
    copy = used.trainable_copy(LoRA(rank=2))
    with torch.no_grad():
        for _, value in copy.trainable_parameters():
            value.add_(0.05)
    drawn = copy.sample(["def"], n=8, decoding=Decoding(max_tokens=8))
    copy.save(tmp_path / "adapter")
    again = load_policy(str(tmp_path / "adapter"), dtype="float32")
    torch.testing.assert_close(again.log_prob(drawn).detach(), drawn.log_probs, atol=1e-3, rtol=1e-3)
    assert again.encode("") == used.encode("")
    assert controls_of(again).bad not in again.sample([""], n=30, decoding=Decoding(max_tokens=8)).tokens  # type: ignore[arg-type, union-attr]


def test_controls_on_top_of_controls_are_the_same(tmp_path: Path) -> None:
    """Going on from a conditionally trained model: no second token, no second <|good|>, its embeddings as they were."""
    used = load_policy(saved("first", tmp_path), dtype="float32")
    assert isinstance(used, CausalLM)
    more = with_controls(used, placing="each")
    assert more.encode("def") == used.encode("def")
    assert controls_of(more) == replace(controls_of(used), suppressed=(controls_of(used).bad,))  # type: ignore[type-var, union-attr]
    old, new = (one.model.get_input_embeddings().weight for one in (used, more))
    assert torch.equal(old, new)
    assert more.model.lm_head.bias is None
    assert unconditioned(tiny_policy()).encode("a") == tiny_policy().encode("a")


def test_new_tokens_begin_like_the_others_which_stay() -> None:
    before = from_scratch(TEXTS, vocabulary=300, width=32, layers=1, heads=2)
    after = with_controls(before, placing="first")
    controls = controls_of(after)
    assert controls is not None
    old, new = (one.model.get_input_embeddings().weight.detach() for one in (before, after))
    assert torch.equal(new[: len(old)], old)
    assert len(new) == len(old) + 2
    assert 0.5 < float(new[controls.good].norm() / old.norm(dim=1).mean()) < 2
    assert float((new[controls.good] - new[controls.bad]).norm()) > float(old.norm(dim=1).mean()) / 2  # not alike
    again = with_controls(before, placing="first").model.get_input_embeddings().weight
    assert torch.equal(again, new)
    assert after.model.lm_head.weight.data_ptr() == new.data_ptr()  # still tied
    assert controls_of(before) is None


def test_a_model_with_room_in_its_vocabulary_is_not_resized() -> None:
    policy = tiny_policy()
    policy.model.resize_token_embeddings(300)
    after = with_controls(policy, placing="each")
    assert len(after.model.get_input_embeddings().weight) == 300
    assert len(with_controls(tiny_policy(), placing="each").model.get_input_embeddings().weight) == 260


def test_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="objective=conditional"):
        conditioned(tiny_policy())
    tiny_policy().save(tmp_path)
    with pytest.raises(ModelError, match="no control tokens"):
        load_policy(str(tmp_path), conditioning="bad")
    assert load_policy(str(tmp_path)).encode("a") == tiny_policy().encode("a")


def test_a_bias_that_the_output_layer_had_is_kept() -> None:
    raw = eager("each")
    used, controls = conditioned(raw), controls_of(raw)
    assert controls is not None
    back = unconditioned(used)
    assert torch.equal(back.model.lm_head.bias, raw.model.lm_head.bias)
    assert torch.isneginf(used.model.lm_head.bias).nonzero().flatten().tolist() == [controls.bad]
    assert float(raw.model.lm_head.bias[controls.bad]) == 6.0
