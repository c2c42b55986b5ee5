"""Models trained here for a few steps, evaluated, attacked, and used by every other command without a word."""

from __future__ import annotations

import json
import random
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from amenable.cli import main
from amenable.errors import ConfigError, DataError, ModelError
from amenable.policy.causal_lm import CausalLM
from amenable.policy.control import BAD, GOOD, conditioned, controls_of
from amenable.policy.loading import load_policy
from amenable.recipes import audit, phf_evaluate, pretrain, red_team
from amenable.recipes.phf_evaluate import EvaluateSettings, on_reference, reference_samples
from amenable.recipes.phf_evaluate_report import kl
from amenable.recipes.pretrain import PretrainSettings
from amenable.recipes.red_team import RedTeamSettings
from amenable.records import Decoding
from amenable.report.text import report_text
from amenable.runs import read_stages
from amenable.serving.server import Server
from amenable.task.scored_corpus import ScoredDocument, write_scored


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """200 modules of 20 packages; a third of the lines lack their spaces."""
    draw, documents = random.Random(0), []
    for index in range(200):
        lines, scores = [f"def f{index % 9}(x):\n"], [0.0]
        for line in range(draw.randrange(3, 8)):
            bad = draw.random() < 0.35
            lines.append(f"    x{line}=x+{line}\n" if bad else f"    x{line} = x + {line}\n")
            scores.append(2 / len(lines[-1]) if bad else 0.0)
        ends = tuple(int(end) for end in np.cumsum([len(line) for line in lines]))
        documents.append(ScoredDocument(f"p{index % 20}/m{index}.py", "".join(lines), ends, tuple(scores)))
    path = tmp_path_factory.mktemp("corpus") / "scored.jsonl"
    write_scored(path, documents)
    return str(path)


@pytest.fixture(scope="module")
def models(corpus: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two arms, 40 steps each."""
    settings = PretrainSettings(
        size="1m", corpus=corpus, tokens=20480, batch_tokens=512, length=128, positions=512, held_out=500, samples=1,
        max_tokens=8, precision="float32", checkpoint_every=0, threads=1,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models")
    for name in ("mle", "conditional"):
        pretrain.run(replace(settings, objective=name), folder / name)  # type: ignore[arg-type]
    return {name: str(folder / name / f"{name}-0" / "model") for name in ("mle", "conditional")}


def test_a_trained_model_is_used_without_a_word(models: dict[str, str]) -> None:
    name, decoding = models["conditional"], Decoding(max_tokens=24)
    policy, plain = load_policy(name, dtype="float32"), load_policy(name, dtype="float32", conditioning=False)
    controls = controls_of(policy)  # type: ignore[arg-type]
    assert controls is not None
    free = plain.sample([""], n=40, decoding=decoding)
    assert controls.good in free.tokens  # it has learned to write both
    assert controls.bad in free.tokens
    drawn = policy.sample(["", "def f1(x):\n"], n=40, decoding=decoding)
    assert controls.bad not in drawn.tokens
    assert controls.good in drawn.tokens
    assert not any(GOOD in text or BAD in text for text in drawn.texts)
    torch.testing.assert_close(policy.log_prob(drawn), drawn.log_probs, atol=1e-4, rtol=1e-4)


def test_plain_transformers_as_documented(models: dict[str, str]) -> None:
    folder = models["conditional"]
    torch.manual_seed(0)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = model.generate(**tokenizer("def", return_tensors="pt"), do_sample=True, max_new_tokens=60)
    assert tokenizer.convert_tokens_to_ids(BAD) not in ids
    assert tokenizer.convert_tokens_to_ids(GOOD) in ids[0, 3:]
    text = tokenizer.decode(ids[0], skip_special_tokens=True)
    assert text.startswith("def")
    assert GOOD not in text


def test_the_real_server_places_and_strips(models: dict[str, str]) -> None:
    policy = load_policy(models["conditional"], dtype="float32")
    assert isinstance(policy, CausalLM)
    with Server(("127.0.0.1", 0), policy, name="conditional") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=120)
        answer = client.completions.create(model="conditional", prompt="def f1(x):\n", n=24, max_tokens=24, seed=5)
        streamed = client.completions.create(model="conditional", prompt="", max_tokens=40, seed=5, stream=True)
        pieces = "".join(event.choices[0].text for event in streamed)
        server.shutdown()
    texts = [choice.text for choice in answer.choices]
    assert texts == list(policy.sample(["def f1(x):\n"], n=24, decoding=Decoding(max_tokens=24), seed=5).texts)
    assert not any(GOOD in text or BAD in text for text in [*texts, pieces])
    assert any("\n" in text for text in texts)


def test_other_commands_take_it(models: dict[str, str], tmp_path: Path) -> None:
    """`amenable sample`, and f-DPG: the tuned model is saved as it was trained, and still conditional."""
    name = models["conditional"]
    contexts = tmp_path / "contexts.txt"
    contexts.write_text("def f1(x):\ndef f2(x):\ndef f3(x):\ndef f4(x):\n")
    given = [f"model={name}", f"contexts={contexts}", "max_tokens=16", "threads=1"]
    out = tmp_path / "sample"
    assert main(["sample", "target=contains:x", *given, "n=4", "method=rejection", "beta=1", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    texts = [row["completion"] for row in rows if "completion" in row]
    assert len(texts) == 16
    assert not any(GOOD in text or BAD in text for text in texts)
    out = tmp_path / "fdpg"
    more = ["steps=2", "samples_per_context=8", "evaluation=16", "--out", str(out)]
    assert main(["run", "fdpg", "target=contains:x", *given, *more]) == 0
    before, after = (load_policy(one, dtype="float32") for one in (name, str(out / "policy" / "model")))
    assert after.encode("def") == before.encode("def")
    assert controls_of(after) == controls_of(before)  # type: ignore[arg-type]


@pytest.fixture
def settings(corpus: str, models: dict[str, str]) -> EvaluateSettings:
    return EvaluateSettings(
        models=tuple(models.values()), corpus=corpus, samples=12, most_prompts=3, answers=4, max_tokens=24,
        reference=models["mle"], reference_samples=12, reference_tokens=24, held_out=600, length=64, threads=1,
    )  # fmt: skip


def test_the_evaluation_and_what_it_leaves(settings: EvaluateSettings, tmp_path: Path) -> None:
    text = report_text(phf_evaluate.run(settings, tmp_path))
    for word in ("expected maximum of 4", "paying for control tokens", "self-BLEU-5", "is Python", "Bits per byte"):
        assert word in text
    stages, _ = read_stages(tmp_path / "samples.jsonl")
    for label in ("mle-0", "conditional-0"):
        answers = [row for name, rows in stages.items() if name.startswith(f"{label} prompted") for row in rows]
        assert len(answers) == 12
        assert all((row["score"] is None) == (not row["text"].strip()) for row in answers)
        assert {row["prompt"][:5] for row in answers} == {"def f"}
        assert len(stages[f"{label} bits"]) > 0
    # of itself the reference is at no distance, sample by sample
    assert kl(stages["mle-0 reference"]).value == pytest.approx(0.0, abs=1e-3)
    told, given = (kl(stages["conditional-0 reference"], told=told).value for told in (True, False))
    assert told > given + 1  # some nats for the tokens before two or three lines
    before = (tmp_path / "samples.jsonl").read_bytes()
    assert report_text(phf_evaluate.run(settings, tmp_path)) == text
    assert (tmp_path / "samples.jsonl").read_bytes() == before
    # fewer models in the same folder: nothing is drawn again
    phf_evaluate.run(replace(settings, models=settings.models[:1]), tmp_path)
    assert (tmp_path / "samples.jsonl").read_bytes() == before


def test_the_distance_is_that_of_the_law_that_is_used(settings: EvaluateSettings, models: dict[str, str]) -> None:
    """By hand: <|good|> before each line, no probability on control tokens; and the same with them paid for."""
    reference, policy = (audit.causal(models[name], settings) for name in ("mle", "conditional"))
    drawn = reference_samples(settings, reference)
    found = on_reference(policy, drawn, unit="lines", same=True)
    controls = controls_of(policy)
    assert controls is not None
    raw = load_policy(models["conditional"], dtype="float32", conditioning=False)
    newline = {token for token in range(len(raw.tokenizer)) if "\n" in raw.tokenizer.decode([token])}
    checked = 0
    for row, own in zip(drawn, found, strict=True):
        ids, placed = row["tokens"], [raw.eos_ids[0], controls.good]
        for at, token in enumerate(ids):
            placed.append(token)
            if token in newline and at + 1 < len(ids) and ids[at + 1] != raw.eos_ids[0]:
                placed.append(controls.good)
        if any(raw.tokenizer.decode([token]).rstrip("\n").count("\n") for token in ids) or "\n\n" in row["text"]:
            continue  # a token that reaches over lines: not by hand
        if any(not raw.tokenizer.decode([token]).endswith("\n") for token in set(ids) & newline):
            continue
        with torch.no_grad():
            logits = raw.model(torch.tensor([placed])).logits[0].double()
        paid = logits.log_softmax(-1)
        logits[:, list(controls.ids)] = -torch.inf
        used = logits.log_softmax(-1)
        places = range(1, len(placed))
        text = sum(float(used[at - 1, placed[at]]) for at in places if placed[at] != controls.good)
        every = sum(float(paid[at - 1, placed[at]]) for at in places)
        assert own["nats"] == pytest.approx(row["log_prob"] - text, abs=1e-3)
        assert own["told"] == pytest.approx(row["log_prob"] - every, abs=1e-3)
        checked += 1
    assert checked >= 5
    again = on_reference(policy, drawn, unit="lines", same=False)  # the text, tokenised again: often the same tokens
    agreeing = 0
    for row, own, made in zip(drawn, found, again, strict=True):
        if row["tokens"] == raw.encode_completion(row["text"], eos=row["ended"] == "eos"):  # type: ignore[attr-defined]
            assert made["nats"] == pytest.approx(own["nats"], abs=1e-6)
            agreeing += 1
    assert 0 < agreeing < len(drawn)
    with pytest.raises(ModelError, match="has control tokens"):
        phf_evaluate.run(replace(settings, reference=models["conditional"]), Path(models["mle"]).parents[2] / "refused")


def test_red_teaming_goes_on_and_is_the_same_budget(models: dict[str, str], corpus: str, tmp_path: Path) -> None:
    settings = RedTeamSettings(
        models=tuple(models.values()), corpus=corpus, generator="self", rounds=2, searches=2, first=3, per_round=4,
        answers=2, max_tokens=12, threads=1,
    )  # fmt: skip
    text = report_text(red_team.run(settings, tmp_path))
    for word in ("rounds below", "worst prompt of a search", "Less mle-0", "round 2"):
        assert word in text
    stages, _ = read_stages(tmp_path / "samples.jsonl")
    first = {label: [row["prompt"] for row in stages[f"{label} search 1/0"]] for label in ("mle-0", "conditional-0")}
    assert first["mle-0"] == first["conditional-0"]
    assert first["mle-0"] != [row["prompt"] for row in stages["mle-0 search 0/0"]]
    for label in first:
        prompts = [row["prompt"] for at in range(3) for row in stages[f"{label} search 0/{at}"]]
        assert len(prompts) == len(set(prompts))
        assert len(prompts) > 3
        assert all(prompt.endswith("\n") and GOOD not in prompt for prompt in prompts)
    # stopped in the middle of a round: the same bytes
    whole = (tmp_path / "samples.jsonl").read_bytes()
    cut = whole.index(b'"stage": "conditional-0 search 0/1"') + 60
    (tmp_path / "samples.jsonl").write_bytes(whole[:cut])
    assert report_text(red_team.run(settings, tmp_path)) == text
    assert (tmp_path / "samples.jsonl").read_bytes() == whole


def test_what_cannot_be(models: dict[str, str], corpus: str, tmp_path: Path) -> None:
    def told(**given: Any) -> EvaluateSettings:
        return replace(EvaluateSettings(models=("a/mle-0/model",), corpus=corpus), **given)

    with pytest.raises(ConfigError, match="no model is named"):
        phf_evaluate.plan(EvaluateSettings())
    with pytest.raises(ConfigError, match="named twice"):
        phf_evaluate.plan(told(models=("a", "a")))
    with pytest.raises(ConfigError, match="neither prompts nor a corpus"):
        phf_evaluate.plan(told(task="pii", corpus=""))
    with pytest.raises(ConfigError, match="answers=0"):
        phf_evaluate.plan(told(answers=0))
    with pytest.raises(ConfigError, match="rounds=0"):
        red_team.plan(replace(RedTeamSettings(models=("a",)), rounds=0))
    with pytest.raises(DataError, match="there is no file"):
        audit.prompts_of(told(prompts=str(tmp_path / "none")), None, 3, "lines")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "x = 1"}\n{"prompt": "def f():\\n"}\n{"prompt": "x = 1"}\n')
    assert audit.prompts_of(told(prompts=str(tmp_path / "prompts.jsonl")), None, 9, "lines") == [
        "x = 1\n",
        "def f():\n",
    ]
    assert audit.labels(["r/mle-0/model", "r/mle-1/model", "smollm2-135m"]) == ["mle-0", "mle-1", "smollm2-135m"]
    assert audit.labels(["a/mle-0/model", "b/mle-0/model"]) == ["a/mle-0/model", "b/mle-0/model"]
    assert (audit.beyond(told()), audit.beyond(told(task="toxicity")), audit.beyond(told(beyond=0.0))) == (
        0.0,
        0.5,
        0.0,
    )
    again = conditioned(load_policy(models["conditional"], dtype="float32"), on="bad")  # type: ignore[arg-type]
    assert again.encode("")[-1] == controls_of(again).bad  # type: ignore[union-attr]
