"""A conditionally trained model is used like any other: <|good|> is placed, both are suppressed, texts are without them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import tiny_policy
from transformers import AutoModelForCausalLM, AutoTokenizer

from amenable.errors import ModelError
from amenable.policy.causal_lm import CausalLM
from amenable.policy.control import BAD, GOOD, Placing, conditioned, controls_of, with_controls
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
    drawn = conditioned(again).sample([""], n=8, decoding=Decoding(max_tokens=10))
    assert controls.bad not in drawn.tokens


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


def test_what_cannot_be() -> None:
    with pytest.raises(ModelError, match="objective=conditional"):
        conditioned(tiny_policy())
    with pytest.raises(ModelError, match="cannot be trained"):
        conditioned(eager("first")).trainable_copy()
