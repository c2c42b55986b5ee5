"""A small model trained here, by our own loop, to write programs: sometimes right ones, in drafts and refinements alike."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import byte_tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig

from amenable.feedback.refiner import refinement_prompt
from amenable.method.imitation import Example, Imitation
from amenable.method.loop import Optimisation, train
from amenable.policy.causal_lm import CausalLM

NUMBERS = (1, 2, 3)


def prompt_of(index: int) -> str:
    return f"def f{index}(x):\n"


def completion_of_number(number: int) -> str:
    return f"    return x + {number}\n"


@pytest.fixture(scope="session")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder: a byte-level Llama that continues a header with "return x + d", d about evenly one of 1, 2, 3."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=258, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, eos_token_id=256, pad_token_id=256, bos_token_id=None,
    )  # fmt: skip
    policy = CausalLM(AutoModelForCausalLM.from_config(config), byte_tokenizer(), name="writer").trainable_copy()
    draw = random.Random(0)
    examples = []
    for _ in range(600):
        prompt = prompt_of(draw.randrange(40))
        if draw.random() < 0.5:
            said, wrong = draw.choice(NUMBERS), draw.choice(NUMBERS)
            words = f"The code is incorrect. `f(1)` returns {1 + wrong}, but it should return {1 + said}."
            draft = prompt + completion_of_number(wrong)
            prompt = refinement_prompt(draft, words if draw.random() < 0.7 else "") + prompt
        examples.append(Example(prompt, completion_of_number(draw.choice(NUMBERS))))
    method = Imitation(examples, epochs=3, batch_size=24, seed=0, positions=8192)
    folder = tmp_path_factory.mktemp("writer")
    train(policy, method, optimisation=Optimisation(learning_rate=4e-3, precision="float32"), folder=folder / "log")
    policy.save(folder / "model")
    return folder / "model"


@pytest.fixture
def tasks_file(tmp_path: Path) -> Path:
    """24 tasks of one's own, 16 to train on and 8 held out, every number about as often."""
    rows = []
    for index in range(24):
        number = NUMBERS[index % 3]
        tests = [f"assert f{index}({value}) == {value + number}" for value in (1, 5, 9)]
        rows.append(
            {
                "task_id": f"own/{index}",
                "prompt": prompt_of(index),
                "tests": tests,
                "solution": prompt_of(index) + completion_of_number(number),
                "split": "train" if index < 16 else "test",
            }
        )
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Recipes set the number of threads; other tests get theirs back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
