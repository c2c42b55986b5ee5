"""Loading by name: folders, what is missing in them, adapters, and names nobody knows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import tiny_policy

from amenable.errors import ConfigError, ModelError
from amenable.policy import loading, zoo
from amenable.policy.causal_lm import LoRA
from amenable.policy.loading import find_folder, load_policy
from amenable.records import Decoding


def test_a_saved_policy_loads_to_the_same_law(tmp_path: Path) -> None:
    policy = tiny_policy()
    policy.save(tmp_path)
    loaded = load_policy(str(tmp_path), dtype="float32")
    samples = policy.sample(["ab"], n=4, decoding=Decoding(max_tokens=9))
    torch.testing.assert_close(loaded.log_prob(samples), policy.log_prob(samples))
    assert loaded.eos_ids == policy.eos_ids
    assert load_policy(str(tmp_path), dtype="bfloat16").model.dtype == torch.bfloat16


def test_an_adapter_loads_with_its_base(tmp_path: Path) -> None:
    tiny_policy().save(tmp_path / "base")
    adapted = load_policy(str(tmp_path / "base"), dtype="float32").trainable_copy(LoRA(rank=4))
    with torch.no_grad():
        for _, value in adapted.trainable_parameters():
            value.add_(0.03)
    adapted.save(tmp_path / "adapter")
    loaded = load_policy(str(tmp_path / "adapter"), dtype="float32")
    samples = adapted.sample(["ab"], n=4, decoding=Decoding(max_tokens=9))
    torch.testing.assert_close(loaded.log_prob(samples), adapted.log_prob(samples).detach(), atol=1e-4, rtol=1e-4)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no folder"):
        load_policy("./nowhere")
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_policy(str(tmp_path))
    tiny_policy().save(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(ModelError, match="no tokenizer"):
        load_policy(str(tmp_path))


def test_weights_that_are_pickles_are_not_loaded(tmp_path: Path) -> None:
    tiny_policy().save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_policy(str(tmp_path))


def test_code_that_a_model_brings_is_run_only_if_the_model_is_named_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    model, mark = tmp_path / "model", tmp_path / "ran"
    tiny_policy().save(model)
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "bringer", "architectures": ["Bringer"]}
    config["auto_map"] = {"AutoConfig": "bringer.BringerConfig", "AutoModelForCausalLM": "bringer.Bringer"}
    (model / "config.json").write_text(json.dumps(config))
    (model / "bringer.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        f"open({str(mark)!r}, 'w').close()\n"
        "class BringerConfig(LlamaConfig):\n    model_type = 'bringer'\n"
        "class Bringer(LlamaForCausalLM):\n    config_class = BringerConfig\n"
    )
    with pytest.raises(ModelError, match=r"brings code of its own.*\n.*trust_remote_code="):
        load_policy(str(model))
    with pytest.raises(ConfigError, match="is not the model that is loaded"):
        load_policy(str(model), trust_remote_code="True")
    assert not mark.exists()
    policy = load_policy(str(model), trust_remote_code=str(model))
    assert mark.exists()
    assert policy.brings_code
    assert not tiny_policy().brings_code


def test_an_unknown_name_says_where_it_was_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_from_hub", lambda *_, **__: None)
    with pytest.raises(ModelError, match="not in the Hugging Face cache"):
        load_policy("nobody/nothing")
    with pytest.raises(ConfigError, match="dtype"):
        load_policy("nobody/nothing", dtype="int3")


def test_a_named_small_model_in_the_cache_is_used_without_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def hub(_: str, *, local_files_only: bool, code: bool) -> None:
        asked.append(local_files_only)

    monkeypatch.setattr(loading, "_from_hub", hub)
    monkeypatch.setattr(zoo, "folder_of", lambda entry: tmp_path)
    monkeypatch.setattr(zoo, "ensure", lambda entry: tmp_path)
    assert find_folder("smollm2-135m") == tmp_path
    assert asked == [True]  # the cache alone
