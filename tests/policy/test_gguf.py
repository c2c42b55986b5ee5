"""The converted folder is the model that was written: same logits, same ids; the rest is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Q
from gguf_files import quantised, random_model, words, write
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from amenable.errors import ModelError
from amenable.policy.gguf import convert

PRE = {"llama": "smollm", "qwen2": "qwen2"}
ARCHITECTURES = sorted(PRE)
TEXTS = [
    "def is_even(number):\n    return number % 2 == 0\n",
    "x = 3.14159e-10;  year=2024\n\n\n\ty  =\t99   \n",
    "naïve café 日本語 🎉 Ω ½ ٣٤\r\n  mixed\u00a0space\u2003wide",
    " leading and trailing  ",
    "I'm we've DON'T <|im_start|>user\nhello<|im_end|><|endoftext|>",
    "\x00\x7f<0x0A> [PAD1]",
    "",
]


def logits(model: PreTrainedModel) -> torch.Tensor:
    ids = torch.arange(60).reshape(2, 30) * 5
    with torch.no_grad():
        return model(ids).logits


def converted(tmp_path: Path, architecture: str, model: PreTrainedModel, **options: Any) -> Path:
    """The folder made of a GGUF file of the model, in float32."""
    write(tmp_path / "m.gguf", architecture, model, words(PRE[architecture]), **options)
    convert(tmp_path / "m.gguf", tmp_path / "folder", dtype="float32", eos_tokens=["<|endoftext|>"])
    return tmp_path / "folder"


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize("kind", [Q.F32, Q.Q8_0])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_logits_are_those_of_the_model_that_was_written(tmp_path: Path, architecture: str, kind: Q) -> None:
    model = random_model(architecture, words(PRE[architecture]))
    folder = converted(tmp_path, architecture, model, kind=kind)
    assert torch.equal(logits(load(folder)), logits(quantised(model, kind) if kind != Q.F32 else model))


def test_llama_rows_really_are_put_back(tmp_path: Path) -> None:
    """Guards the test above: with the rows as they stand in the file, the logits would differ."""
    from gguf_files import rotary_order

    model = random_model("llama", words("smollm"))
    right = logits(model)
    query = model.model.layers[0].self_attn.q_proj.weight
    with torch.no_grad():
        query.copy_(torch.from_numpy(rotary_order(query.numpy(), "blk.0.attn_q.weight")))
    assert (logits(model) - right).abs().max() > 0.1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_float16_rounds_once_and_loads_as_bfloat16(tmp_path: Path, architecture: str) -> None:
    model = random_model(architecture, words(PRE[architecture]))
    write(tmp_path / "m.gguf", architecture, model, words(PRE[architecture]))
    told: list[tuple[int, int]] = []
    convert(tmp_path / "m.gguf", tmp_path / "half", progress=lambda *step: told.append(step))
    again = load(tmp_path / "half")
    for name, values in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], values.half().float()), name
    with safe_open(tmp_path / "half" / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
        assert file.metadata() == {"format": "pt"}
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "half").dtype == torch.bfloat16
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] == sum(2 * p.numel() for p in model.parameters())


def test_a_second_copy_of_the_embedding_is_one_matrix_and_the_finer_copy_serves_both(tmp_path: Path) -> None:
    model = random_model("qwen2", words("qwen2"))
    matrix = model.model.embed_tokens.weight.numpy(force=True)
    both = {"token_embd.weight": (matrix, Q.Q5_0), "output.weight": (matrix, Q.Q8_0)}
    folder = converted(tmp_path, "qwen2", model, kind=Q.Q8_0, tensors=both)
    again = load(folder)
    assert again.config.tie_word_embeddings is True
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight
    assert torch.equal(logits(again), logits(quantised(model, Q.Q8_0)))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_output_matrix_of_its_own_stays_untied(tmp_path: Path, architecture: str) -> None:
    model = random_model(architecture, words(PRE[architecture]), tied=False)
    again = load(converted(tmp_path, architecture, model))
    assert again.config.tie_word_embeddings is False
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_config_and_ends(tmp_path: Path, architecture: str) -> None:
    vocabulary = words(PRE[architecture])
    model = random_model(architecture, vocabulary)
    folder = converted(tmp_path, architecture, model)
    config = load(folder).config
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size",
                 "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_parameters",
                 "tie_word_embeddings", "model_type", "hidden_act"):  # fmt: skip
        assert getattr(config, name) == getattr(model.config, name), name
    ids = {token: vocabulary.tokens.index(token) for token in ("<|im_end|>", "<|endoftext|>")}
    assert config.eos_token_id == ids["<|im_end|>"]
    assert config.pad_token_id == ids["<|im_end|>" if architecture == "llama" else "<|endoftext|>"]
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [ids["<|im_end|>"], ids["<|endoftext|>"]]
    assert "temperature" not in generation  # the law is the model's own


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_folder_can_be_saved_again(tmp_path: Path, architecture: str) -> None:
    folder = converted(tmp_path, architecture, random_model(architecture, words(PRE[architecture])))
    model, tokenizer = load(folder), AutoTokenizer.from_pretrained(folder)
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    assert torch.equal(logits(load(tmp_path / "saved")), logits(model))
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert [again(text).input_ids for text in TEXTS] == [tokenizer(text).input_ids for text in TEXTS]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_tokenizer_loses_nothing_and_knows_its_special_tokens(tmp_path: Path, architecture: str) -> None:
    vocabulary = words(PRE[architecture])
    folder = converted(tmp_path, architecture, random_model(architecture, vocabulary))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.is_fast
    for text in TEXTS:
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    for index, token in enumerate(vocabulary.tokens):
        if vocabulary.kinds[index] in (3, 4):
            assert tokenizer(token).input_ids == [index]
    assert len(tokenizer) == sum(kind != 5 for kind in vocabulary.kinds)
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == ("<|im_end|>" if architecture == "llama" else "<|endoftext|>")
    assert tokenizer.bos_token == ("<|im_start|>" if architecture == "llama" else None)
    assert tokenizer.decode(tokenizer("a<|im_end|>").input_ids, skip_special_tokens=True) == "a"
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert chat == "<|im_start|>user\nhi<|im_end|>\n"


def test_digits_stand_alone_and_spaces_do_not_join_them(tmp_path: Path) -> None:
    """What transformers' own reading of the file loses: " 2024" is a space and four digits."""
    folder = converted(tmp_path, "llama", random_model("llama", words("smollm")))
    smollm = AutoTokenizer.from_pretrained(folder)
    assert smollm.tokenize("x 2024") == ["x", "Ġ", "2", "0", "2", "4"]


def test_qwen_keeps_the_tokens_for_filling_in_when_it_decodes(tmp_path: Path) -> None:
    folder = converted(tmp_path, "qwen2", random_model("qwen2", words("qwen2")))
    qwen = AutoTokenizer.from_pretrained(folder)
    ids = qwen("<|fim_prefix|>a<tool_call>b<|endoftext|>").input_ids
    assert qwen.decode(ids, skip_special_tokens=True) == "<|fim_prefix|>a<tool_call>b"
    assert qwen.tokenize("12") == ["1", "2"]


FREQUENCIES = (np.ones(8, np.float32), Q.F32)
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("no such split", {"pre": "llama-bpe"}, "scheme 'llama-bpe'"),
    ("a scaled rotation", {"metadata": {"llama.rope.scaling.type": "linear"}}, "'linear'"),
    ("a tensor missing", {"tensors": {"blk.1.ffn_up.weight": None}}, "lacks the tensor 'blk.1.ffn_up"),
    ("an unknown tensor", {"tensors": {"rope_freqs.weight": FREQUENCIES}}, "'rope_freqs.weight'"),
    ("a malformed merge", {"merges": ["a b c"]}, "'a b c'"),
]


@pytest.mark.parametrize(("change", "named"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_not_known_to_convert_rightly_is_refused(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    vocabulary = words("smollm")
    model = random_model("llama", vocabulary)
    vocabulary.pre = change.pop("pre", vocabulary.pre)
    vocabulary.merges = change.pop("merges", vocabulary.merges)
    write(tmp_path / "m.gguf", "llama", model, vocabulary, **change)
    with pytest.raises(ModelError, match="fix:") as caught:
        convert(tmp_path / "m.gguf", tmp_path / "folder")
    assert named in caught.value.what
    assert not (tmp_path / "folder").exists()


def test_another_architecture_is_named_with_the_way_out(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", "gemma2", random_model("llama", words("smollm")), words("smollm"))
    with pytest.raises(ModelError, match=r"'gemma2'; only llama, qwen2[\s\S]*fix: load the model from its"):
        convert(tmp_path / "m.gguf", tmp_path / "folder")


def test_a_value_too_large_for_float16_is_an_error(tmp_path: Path) -> None:
    model = random_model("llama", words("smollm"))
    with torch.no_grad():
        model.model.norm.weight[3] = 1e5
    write(tmp_path / "m.gguf", "llama", model, words("smollm"))
    with pytest.raises(ModelError, match=r"'model.norm.weight' has values that are not finite in float16"):
        convert(tmp_path / "m.gguf", tmp_path / "folder")


def test_an_end_token_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", "llama", random_model("llama", words("smollm")), words("smollm"))
    with pytest.raises(ModelError, match="no token '</s>'"):
        convert(tmp_path / "m.gguf", tmp_path / "folder", eos_tokens=["</s>"])


@pytest.mark.parametrize("keep", [0, 3, 100, 5_000, -1])
def test_a_file_that_is_cut_off_is_no_gguf(tmp_path: Path, keep: int) -> None:
    write(tmp_path / "m.gguf", "llama", random_model("llama", words("smollm")), words("smollm"))
    whole = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(whole[: len(whole) // 2] if keep < 0 else whole[:keep])
    with pytest.raises(ModelError, match="cannot be read as GGUF"):
        convert(tmp_path / "m.gguf", tmp_path / "folder")
