"""A small BERT that was trained to tell texts with an x from those without, as a score; and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import byte_tokenizer
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from amenable.errors import ConfigError, DataError, FeedbackError, ModelError
from amenable.feedback.classifier import Classifier
from amenable.feedback.constraints import above, all_of, contains, negated
from amenable.feedback.feature import NamedScore
from amenable.seeding import python_random

TEXTS = ["abx", "abc", "x", "a", "hello there", "a text with an x in it", "zzzzzzzzzz", "xxxx"]


def config(**settings: Any) -> BertConfig:
    sizes: dict[str, Any] = {
        "vocab_size": 258, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "max_position_embeddings": 48, "pad_token_id": 257, "id2label": {0: "without", 1: "with_x"},
        "label2id": {"without": 0, "with_x": 1},
    }  # fmt: skip
    return BertConfig(**{**sizes, **settings})


def random_texts(count: int, seed: int) -> list[str]:
    rng = python_random(seed, "texts")
    texts = ["".join(rng.choices("abcdefgh wz", k=rng.randint(1, 24))) for _ in range(count)]
    return [
        text[: (at := rng.randrange(len(text)))] + "x" + text[at + 1 :] if rng.random() < 0.5 else text
        for text in texts
    ]


@pytest.fixture(scope="module")
def trained() -> BertForSequenceClassification:
    torch.manual_seed(0)
    model, tokenizer = BertForSequenceClassification(config()), byte_tokenizer(pad_is_eos=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    texts = random_texts(64 * 60, seed=0)
    for start in range(0, len(texts), 64):
        batch = texts[start : start + 64]
        inputs = tokenizer(batch, padding=True, return_tensors="pt")
        labels = torch.tensor([int("x" in text) for text in batch])
        model(inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.fixture
def tokenizer() -> Any:
    return byte_tokenizer(pad_is_eos=False)


def test_it_tells_texts_with_x_from_those_without(trained: Any, tokenizer: Any) -> None:
    score: NamedScore = Classifier(trained, "with_x", tokenizer=tokenizer)
    texts = random_texts(200, seed=1)
    values = score([""] * len(texts), texts)
    right = [value is not None and (value > 0.5) == ("x" in text) for value, text in zip(values, texts, strict=True)]
    assert sum(right) >= 190
    assert (score.name, score.binary) == ("P(with_x)", False)
    toxic = above(score, 0.5)
    agree = [value == float("x" in text) for value, text in zip(toxic([""] * 200, texts), texts, strict=True)]
    assert agree == right
    assert all_of(toxic, negated(toxic), contains("x"))([""], ["x"]) == [0.0]


def test_probabilities_are_the_models_own_whatever_the_batch(trained: Any, tokenizer: Any) -> None:
    expected = []
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            expected.append(trained(ids).logits.softmax(-1)[0, 1].item())
    tokenizer.padding_side = "left"
    for size in (1, 3, 32):
        score = Classifier(trained, "with_x", tokenizer=tokenizer, batch_size=size)
        assert score([""] * len(TEXTS), TEXTS) == pytest.approx(expected, abs=1e-5)
        assert score([""] * len(TEXTS), TEXTS[::-1]) == pytest.approx(expected[::-1], abs=1e-5)
    other = Classifier(trained, 0, tokenizer=tokenizer)
    assert other([""] * len(TEXTS), TEXTS) == pytest.approx([1 - value for value in expected], abs=1e-5)


def test_no_gradient_no_dropout_and_the_models_mode_stays(trained: Any, tokenizer: Any) -> None:
    score = Classifier(trained, "with_x", tokenizer=tokenizer)
    trained.train()
    try:
        assert score([""] * len(TEXTS), TEXTS) == score([""] * len(TEXTS), TEXTS)
        assert trained.training
    finally:
        trained.eval()
    assert all(parameter.grad is None for parameter in trained.parameters())


def test_with_the_prompt_or_without(trained: Any, tokenizer: Any) -> None:
    alone = Classifier(trained, "with_x", tokenizer=tokenizer)
    whole = Classifier(trained, "with_x", tokenizer=tokenizer, with_prompt=True)
    assert whole(["ab"], ["x"]) == alone([""], ["abx"])
    assert alone(["ab"], ["x"]) == alone([""], ["x"])
    assert alone([], []) == []
    with pytest.raises(DataError, match="1 prompts for 2"):
        alone(["a"], ["b", "c"])


def test_a_text_without_tokens_has_no_score(trained: Any, tokenizer: Any) -> None:
    values = Classifier(trained, "with_x", tokenizer=tokenizer)([""] * 3, ["", "x", ""])
    assert [value is None for value in values] == [True, False, True]


def test_long_texts_are_refused_or_cut_if_asked(trained: Any, tokenizer: Any) -> None:
    texts = ["x" * 48, "a" * 49]
    with pytest.raises(DataError, match="sample 1 has 49 tokens, and the classifier sees 48"):
        Classifier(trained, "with_x", tokenizer=tokenizer)([""] * 2, texts)
    cutting = Classifier(trained, "with_x", tokenizer=tokenizer, truncate=True)
    assert cutting([""] * 2, texts) == cutting([""] * 2, [texts[0], "a" * 48])
    shorter = Classifier(trained, "with_x", tokenizer=tokenizer, truncate=True, max_tokens=3)
    assert shorter([""], ["aaax"]) == shorter([""], ["aaa"])
    tokenizer.model_max_length = 10
    with pytest.raises(DataError, match="sees 10"):
        Classifier(trained, "with_x", tokenizer=tokenizer)([""], ["a" * 11])


def test_roberta_sees_fewer_tokens_than_it_has_positions(tokenizer: Any) -> None:
    settings = config(pad_token_id=1, max_position_embeddings=20).to_dict()
    settings.pop("model_type")
    model = RobertaForSequenceClassification(RobertaConfig(**settings))
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(1)
    score = Classifier(model, "with_x", tokenizer=tokenizer)
    assert score.max_tokens == 18
    assert score([""], ["a" * 18])[0] is not None


def test_labels_beside_each_other_have_a_sigmoid_each(trained: Any, tokenizer: Any) -> None:
    model = BertForSequenceClassification(config(problem_type="multi_label_classification"))
    model.load_state_dict(trained.state_dict())
    with torch.no_grad():
        logits = trained(torch.tensor([tokenizer("abx")["input_ids"]])).logits[0]
    [score] = Classifier(model, "with_x", tokenizer=tokenizer)([""], ["abx"])
    assert score == pytest.approx(logits.sigmoid()[1].item(), abs=1e-5)
    assert score != pytest.approx(logits.softmax(-1)[1].item(), abs=1e-5)
    [forced] = Classifier(model, "with_x", tokenizer=tokenizer, activation="softmax")([""], ["abx"])
    assert forced == pytest.approx(logits.softmax(-1)[1].item(), abs=1e-5)


def test_models_that_read_the_last_token(tokenizer: Any) -> None:
    torch.manual_seed(0)
    settings = GPT2Config(
        vocab_size=258, n_embd=32, n_layer=1, n_head=2, n_positions=64, pad_token_id=257, num_labels=2
    )
    model = GPT2ForSequenceClassification(settings).eval()
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    expected = []
    for text in TEXTS:
        with torch.no_grad():
            expected.append(model(torch.tensor([tokenizer(text)["input_ids"]])).logits.softmax(-1)[0, 1].item())
    score = Classifier(model, "LABEL_1", tokenizer=tokenizer)
    assert score([""] * len(TEXTS), TEXTS) == pytest.approx(expected, abs=1e-5)
    model.config.pad_token_id = 5
    with pytest.raises(ModelError, match="pads with token 257, and the model takes 5"):
        Classifier(model, "LABEL_1", tokenizer=tokenizer)
    assert Classifier(model, "LABEL_1", tokenizer=tokenizer, batch_size=1)([""] * 2, TEXTS[:2])[0] is not None


def test_a_saved_classifier_is_loaded_by_its_folder(trained: Any, tokenizer: Any, tmp_path: Path) -> None:
    trained.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = Classifier(tmp_path, "with_x", name="has an x")
    expected = Classifier(trained, "with_x", tokenizer=tokenizer)([""] * len(TEXTS), TEXTS)
    assert loaded([""] * len(TEXTS), TEXTS) == pytest.approx(expected, abs=1e-4)
    assert loaded.name == "has an x"


def test_a_checkpoint_without_a_trained_head_is_refused(trained: Any, tokenizer: Any, tmp_path: Path) -> None:
    body = BertModel(config())
    body.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"no trained weights for classifier"):
        Classifier(tmp_path, "with_x")


@pytest.mark.parametrize(
    ("settings", "error", "complaint"),
    [
        ({"label": "withx"}, ConfigError, "no label 'withx'(.|\n)*did you mean 'with_x'"),
        ({"label": 2}, ConfigError, "no label 2; it has 2(.|\n)*known: without, with_x"),
        ({"activation": "tanh"}, ConfigError, "activation='tanh'"),
        ({"batch_size": 0}, ConfigError, "batch_size=0"),
        ({"tokenizer": None}, ConfigError, "without its tokenizer"),
    ],
)
def test_wrong_settings(trained: Any, tokenizer: Any, settings: dict[str, Any], error: type, complaint: str) -> None:
    with pytest.raises(error, match=complaint):
        Classifier(trained, **{"label": "with_x", "tokenizer": tokenizer, **settings})


def test_models_that_are_no_classifiers(trained: Any, tokenizer: Any, tmp_path: Path) -> None:
    one_number = BertForSequenceClassification(config(id2label={0: "reward"}, label2id={"reward": 0}))
    with pytest.raises(ConfigError, match="a number and no choice"):
        Classifier(one_number, "reward", tokenizer=tokenizer)
    assert Classifier(one_number, 0, tokenizer=tokenizer, activation="sigmoid")([""], ["x"])[0] is not None
    with pytest.raises(ModelError, match="could not be loaded as a text classifier"):
        Classifier(tmp_path / "nothing", "with_x")
    tokenizer.pad_token = None
    with pytest.raises(ModelError, match="no padding token"):
        Classifier(trained, "with_x", tokenizer=tokenizer)


def test_a_score_that_is_no_number_is_an_error(tokenizer: Any) -> None:
    model = BertForSequenceClassification(config())
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    with pytest.raises(FeedbackError, match="sample 0 is nan"):
        Classifier(model, "with_x", tokenizer=tokenizer)([""], ["x"])
