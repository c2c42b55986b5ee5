"""Reward models: what the head reads, what is refused, and that transformers reads the same off the disk."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import byte_tokenizer, tiny_policy, tiny_seq2seq
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from amenable.errors import ConfigError, DataError, FeedbackError, ModelError
from amenable.feedback import reward_reading
from amenable.feedback.reward_model import RewardModel, load_reward_model, new_reward_model
from amenable.feedback.reward_reading import Encoded, Reads
from amenable.policy import forward
from amenable.policy.causal_lm import LoRA
from amenable.policy.loading import load_policy

PROMPTS = ["ask: ", "ask: ", "a much longer prompt than the others have: "]
ANSWERS = ["yes", "no, and here is why it cannot be", ""]


def body(folder: Path, kind: str = "llama", *, pad_is_eos: bool = True) -> Path:
    tiny_policy(kind, pad_is_eos=pad_is_eos).save(folder)
    return folder


def trained(folder: Path, kind: str = "llama", **options: object) -> RewardModel:
    """A reward model whose head is not 0."""
    made = new_reward_model(body(folder, kind), dtype="float32", **options)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    return made.with_head(torch.randn(made.weight.shape[1], generator=generator), mean=0.25)


def plain_scores(folder: Path, texts: list[str], *, batch: bool) -> list[float]:
    """What transformers alone makes of a folder."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        if batch:
            found = model(**tokenizer(texts, return_tensors="pt", padding=True)).logits
        else:
            found = torch.cat([model(**tokenizer([text], return_tensors="pt")).logits for text in texts])
    return [float(value) for value in found[:, 0]]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_transformers_reads_the_same_scores_off_the_disk(kind: str, tmp_path: Path) -> None:
    """Also in a padded batch, although the body's own tokenizer pads with the end token, which stands last in every text."""
    model = trained(tmp_path / "body", kind)
    model.save(tmp_path / "saved")
    mine = model(PROMPTS, ANSWERS)
    again = load_reward_model(tmp_path / "saved", dtype="float32")
    assert again(PROMPTS, ANSWERS) == pytest.approx(mine, abs=1e-6)
    facts = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (facts["reward_mean"], facts["reward_end_token_id"]) == (0.25, 256)
    assert facts["pad_token_id"] != 256
    texts = [prompt + answer + "<eos>" for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    for batch in (False, True):
        theirs = plain_scores(tmp_path / "saved", texts, batch=batch)
        assert [value - facts["reward_mean"] for value in theirs] == pytest.approx(mine, abs=1e-5)


def test_without_another_special_token_single_texts_still_agree_and_batches_are_refused(tmp_path: Path) -> None:
    """GPT-2's tokenizer has one special token. Padding with it would read the token before the end, in silence."""
    folder = body(tmp_path / "body", "gpt2")
    tokenizer = byte_tokenizer()
    text = json.loads(tokenizer.backend_tokenizer.to_str())
    text["added_tokens"] = [token for token in text["added_tokens"] if token["content"] == "<eos>"]
    saved = json.loads((folder / "tokenizer_config.json").read_text())
    saved.pop("added_tokens_decoder", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(saved))
    (folder / "tokenizer.json").write_text(json.dumps(text))
    model = new_reward_model(folder, dtype="float32")
    model = model.with_head(torch.ones(model.weight.shape[1]))
    model.save(tmp_path / "saved")
    texts = [prompt + answer + "<eos>" for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    assert plain_scores(tmp_path / "saved", texts, batch=False) == pytest.approx(model(PROMPTS, ANSWERS), abs=1e-5)
    with pytest.raises(ValueError, match="pad"):
        plain_scores(tmp_path / "saved", texts, batch=True)


def test_the_score_is_read_at_the_last_token_whatever_stands_behind_it(tmp_path: Path) -> None:
    model = trained(tmp_path / "body")
    alone = [model([prompt], [answer])[0] for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    assert model(PROMPTS, ANSWERS) == pytest.approx(alone, abs=1e-5)
    text = model.encode("ask: ", "yes")
    ids = text.ids
    assert text == Encoded([*model.tokenizer("ask: yes")["input_ids"], 256], start=8, prompt=5)
    assert len(text) == 9
    with torch.no_grad():
        hidden = model.model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
    assert model(["ask: "], ["yes"])[0] == pytest.approx(float(hidden @ model.weight[0].detach()) - 0.25, abs=1e-5)
    assert model(["ask: "], ["yes<eos>"]) == model(["ask: "], ["yes"])  # the end stands there once


def test_a_body_cut_after_some_layers_is_that_part_of_the_model(tmp_path: Path) -> None:
    folder = body(tmp_path / "body", "qwen2")
    short = new_reward_model(folder, depth=0.5, dtype="float32")
    text = short.encode("ask: ", "yes")
    policy = load_policy(str(folder), dtype="float32")
    with torch.no_grad():
        first = policy.model.model(input_ids=torch.tensor([text.ids]), output_hidden_states=True).hidden_states[1][
            0, -1
        ]
        expected = policy.model.model.norm(first)
    assert torch.allclose(short.features([text])[0], expected, atol=1e-5)
    short.with_head(torch.ones(32)).save(tmp_path / "saved")
    assert load_reward_model(tmp_path / "saved").model.config.num_hidden_layers == 1
    for wrong in (0.0, 1.5):
        with pytest.raises(ConfigError, match="no share of the layers"):
            new_reward_model(folder, depth=wrong)


def test_a_text_that_is_too_long_is_an_error_or_missing_and_never_cut(tmp_path: Path) -> None:
    body(tmp_path / "body")
    strict = new_reward_model(tmp_path / "body", max_tokens=20)
    with pytest.raises(DataError, match="sample 1 has 38 tokens, and the reward model sees 20"):
        strict(["ask: "] * 2, ANSWERS[:2])
    lenient = new_reward_model(tmp_path / "body", max_tokens=20, too_long="missing")
    found = lenient(PROMPTS, ["yes", ANSWERS[1], "x" * 300])
    assert found == [0.0, None, None]
    assert lenient(PROMPTS[1:2], ANSWERS[1:2]) == [None]
    with pytest.raises(DataError, match="257 tokens"):  # the model's own positions
        new_reward_model(tmp_path / "body")([""], ["x" * 256])
    with pytest.raises(ConfigError, match="nothing is cut"):
        new_reward_model(tmp_path / "body", too_long="cut")


def test_centred_scores_average_0_and_keep_their_differences(tmp_path: Path) -> None:
    model = trained(tmp_path / "body")
    centred = model.centred_on(PROMPTS, ANSWERS)
    before, after = model(PROMPTS, ANSWERS), centred(PROMPTS, ANSWERS)
    assert math.fsum(after) == pytest.approx(0.0, abs=1e-5)  # type: ignore[arg-type]
    assert after[0] - after[1] == pytest.approx(before[0] - before[1], abs=1e-6)  # type: ignore[operator]
    assert model(PROMPTS, ANSWERS) == before


def test_a_body_in_bfloat16_has_a_float32_head(tmp_path: Path) -> None:
    model = trained(tmp_path / "body")
    model.save(tmp_path / "saved", dtype=torch.bfloat16)
    half = load_reward_model(tmp_path / "saved", dtype="bfloat16")
    assert half.weight.dtype == torch.float32
    assert half.model.base_model.dtype == torch.bfloat16
    assert torch.equal(half.weight, model.weight)
    assert half(PROMPTS, ANSWERS) == pytest.approx(model(PROMPTS, ANSWERS), abs=0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.rewards([model.encode(p, a) for p, a in zip(PROMPTS, ANSWERS, strict=True)])
    assert found.dtype == torch.float32


@pytest.mark.parametrize("reads", ["last", "answer"])
@pytest.mark.parametrize("adapter", [None, LoRA(rank=2)], ids=["all weights", "lora"])
def test_trainable_copies(adapter: LoRA | None, reads: Reads, tmp_path: Path) -> None:
    """The same scores at first; gradient where it belongs; a merged copy is what was trained."""
    model = trained(tmp_path / "body", reads=reads)
    copy, again = model.trainable_copy(adapter), model.trainable_copy(adapter)
    names = dict(copy.trainable_parameters())
    assert copy(PROMPTS, ANSWERS) == pytest.approx(model(PROMPTS, ANSWERS), abs=1e-5)
    assert any(name.endswith("score.weight") for name in names)
    assert adapter is None or all("lora" in name or "score" in name for name in names)
    assert all(torch.equal(value, dict(again.trainable_parameters())[name]) for name, value in names.items())
    texts = [copy.encode(p, a) for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    copy.rewards(texts).sum().backward()
    assert all(value.grad is not None for value in names.values())
    with torch.no_grad():
        for value in names.values():
            value.add_(0.01)
    changed = copy(PROMPTS, ANSWERS)
    assert changed != pytest.approx(model(PROMPTS, ANSWERS), abs=1e-3)
    assert copy.frozen()(PROMPTS, ANSWERS) == pytest.approx(changed, abs=1e-4)
    copy.save(tmp_path / "saved")
    assert load_reward_model(tmp_path / "saved", dtype="float32")(PROMPTS, ANSWERS) == pytest.approx(changed, abs=1e-4)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_the_answer_is_read_and_transformers_reads_the_same_by_the_lines_of_the_docs(kind: str, tmp_path: Path) -> None:
    """The block of Python in docs/reward_model.md, run as it stands there; and by hand, token by token."""
    model = trained(tmp_path / "body", kind, reads="answer")
    model.save(tmp_path / "saved")
    mine = model(PROMPTS, ANSWERS)
    assert load_reward_model(tmp_path / "saved", dtype="float32")(PROMPTS, ANSWERS) == pytest.approx(mine, abs=1e-6)
    facts = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert facts["architectures"][0].endswith("ForTokenClassification")
    assert (facts["reward_reads"], facts["reward_mean"], facts["reward_end_token_id"]) == ("answer", 0.25, 256)

    page = (Path(__file__).parents[2] / "docs" / "reward_model.md").read_text()
    block = next(
        part for part in page.split("```python\n") if "AutoModelForTokenClassification" in part.split("```")[0]
    )
    for prompt, answer, own in zip(PROMPTS, ANSWERS, mine, strict=True):
        given: dict[str, Any] = {"folder": tmp_path / "saved", "prompt": prompt, "answer": answer}
        exec(block.split("```")[0], given)
        assert float(given["reward"]) == pytest.approx(own, abs=1e-5)

    ids = [*model.tokenizer("ask: yes")["input_ids"], 256]
    plain = AutoModelForTokenClassification.from_pretrained(tmp_path / "saved", dtype=torch.float32).eval()
    with torch.no_grad():
        each = plain(torch.tensor([ids])).logits[0, len("ask: ") :, 0]
    assert len(each) == 4  # y, e, s, end
    assert mine[0] == pytest.approx(float(each.mean()) - 0.25, abs=1e-5)
    said = model.per_token("ask: ", "yes")
    assert [text for text, _ in said] == ["y", "e", "s", "<eos>"]
    assert [worth for _, worth in said] == pytest.approx((each - 0.25).tolist(), abs=1e-5)


def test_what_of_a_text_is_the_answer(tmp_path: Path) -> None:
    """A token across the border is the answer's; an empty answer is its end; prompts and padding are not read."""
    model = trained(tmp_path / "body", reads="answer")
    assert model.encode("ask: ", "yes").start == 5
    assert model.encode("ask: ", "").start == 5
    assert model.encode("", "yes").start == 0
    assert model.encode("é: ", "yes").start == 4  # é is two tokens
    assert model.encode("ask: ", "yes<eos>") == model.encode("ask: ", "yes")
    model.end = None
    assert model.encode("ask: ", "").start == 4  # nothing to read but the last token
    model.end = 256
    merged = AutoTokenizer.from_pretrained(tmp_path / "body")
    merged.add_tokens([": y"])
    model.tokenizer = merged
    text = model.encode("ask: ", "yes")
    assert merged.convert_ids_to_tokens(text.ids)[text.start] == ": y"
    alone = [model([prompt], [answer])[0] for prompt, answer in zip(PROMPTS[1:], ANSWERS[1:], strict=True)]
    assert model(PROMPTS[1:], ANSWERS[1:]) == pytest.approx(alone, abs=1e-5)


def test_a_token_classifier_that_does_not_say_what_it_reads_is_refused(tmp_path: Path) -> None:
    trained(tmp_path / "body", reads="answer").save(tmp_path / "saved")
    path = tmp_path / "saved" / "config.json"
    facts = json.loads(path.read_text())
    del facts["reward_reads"]
    path.write_text(json.dumps(facts))
    with pytest.raises(ModelError, match="which of its numbers are the reward"):
        load_reward_model(tmp_path / "saved")
    path.write_text(json.dumps({**facts, "reward_reads": "first"}))
    with pytest.raises(ModelError, match="reward_reads is first"):
        load_reward_model(tmp_path / "saved")
    with pytest.raises(ConfigError, match="reads='first' is not known"):
        new_reward_model(tmp_path / "body", reads="first")  # type: ignore[arg-type]
    model = trained(tmp_path / "other")

    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match="where in the text its tokens stand"):
        RewardModel(model.model, Slow(), name="slow", reads="answer")


def test_another_head_leaves_the_first_model_alone(tmp_path: Path) -> None:
    model = trained(tmp_path / "body")
    before = model(PROMPTS, ANSWERS)
    other = model.with_head(torch.zeros(model.weight.shape[1]), mean=-1.0)
    assert other(PROMPTS, ANSWERS) == [1.0, 1.0, 1.0]
    assert model(PROMPTS, ANSWERS) == before
    assert other.fingerprint() == model.fingerprint() != model.frozen(torch.bfloat16).fingerprint()


def test_what_is_no_reward_model_is_refused(tmp_path: Path) -> None:
    folder = body(tmp_path / "lm")
    with pytest.raises(ModelError, match="2 labels"):
        load_reward_model(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "id2label": {"0": "reward"}}))
    with pytest.raises(ModelError, match=r"no trained weights for score\.weight"):
        load_reward_model(folder)
    tiny_seq2seq("bart").save(tmp_path / "bart")
    with pytest.raises(ModelError):
        new_reward_model(tmp_path / "bart")
    with pytest.raises(ModelError, match="not a model folder"):
        load_reward_model(tmp_path / "nowhere")
    model = trained(tmp_path / "body")
    with pytest.raises(DataError, match="1 prompts for 2 completions"):
        model(["a"], ["b", "c"])
    with torch.no_grad():
        model.weight.fill_(math.nan)
    with pytest.raises(FeedbackError, match="is nan"):
        model(["a"], ["b"])
    assert model([], []) == []


@pytest.mark.parametrize("reads", ["last", "answer"])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_prompt_that_answers_share_is_read_once_and_nothing_is_padded(
    kind: str, reads: Reads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained(tmp_path / "body", kind, reads=reads)
    prompts = ["a prompt of some length: ", "another of some size: "] * 3
    answers = ["yes", "", "no, and here is why it cannot be", "perhaps", "x" * 40, "no"]
    texts = [model.encode(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    assert [text.prompt for text in texts] == [len(prompt) for prompt in prompts]  # a byte is a token
    read: list[int] = []
    whole = forward._Gated.forward
    monkeypatch.setattr(
        forward._Gated, "forward", lambda ctx, hidden, *rest: (read.append(len(hidden)), whole(ctx, hidden, *rest))[1]
    )
    learner = model.trainable_copy()
    found = []
    for written in (True, False):
        monkeypatch.setattr(reward_reading, "written_down", lambda *_, written=written: written)
        rewards = learner.rewards(texts)
        learner.model.zero_grad()
        (rewards * torch.linspace(-1, 1, 6)).sum().backward()
        slopes = [value.grad.flatten() for _, value in learner.trainable_parameters() if value.grad is not None]
        found.append((torch.tensor(model(prompts, answers)), rewards.detach(), torch.cat(slopes)))
    each_once = len(prompts[0]) + len(prompts[1]) - 1  # both begin with an a, which is read once, too
    assert set(read) == {each_once + sum(len(text) - text.prompt for text in texts)}
    for own, theirs in zip(*found, strict=True):
        assert float((own - theirs).norm()) <= 1e-5 * float(theirs.norm())


def test_texts_of_one_prompt_are_read_side_by_side(tmp_path: Path) -> None:
    """Whatever their order and the rows of a batch: prompts in the order of their longest text."""
    model = trained(tmp_path / "body")
    prompts, answers = ["a: ", "longer: ", "a: ", "longer: ", "b: "], ["x" * 9, "y", "", "z" * 50, "x"]
    texts = [model.encode(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    assert reward_reading.by_prompt(texts) == [4, 2, 0, 1, 3]
    alone = torch.cat([model.features([text]) for text in texts])
    for rows in (2, 3):
        model.rows = rows
        assert torch.allclose(model.features(texts), alone, atol=1e-5)


def test_a_bfloat16_body_is_read_nearer_to_float32_than_by_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = trained(tmp_path / "body")
    lowered = exact.frozen(torch.bfloat16)
    texts = [exact.encode(prompt, answer * times) for prompt in PROMPTS for answer in ANSWERS for times in (1, 2)]
    errors = []
    for written in (True, False):
        if not written:
            monkeypatch.setattr(reward_reading, "written_down", lambda *_: False)
        errors.append(float((lowered.features(texts) - exact.features(texts)).norm()))
    assert 0 < errors[0] < errors[1]
