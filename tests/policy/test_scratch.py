"""A policy made from nothing: its tokens say every text and end with lines, its weights are the seed's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from amenable.errors import ConfigError
from amenable.policy.causal_lm import CausalLM
from amenable.policy.loading import load_policy
from amenable.policy.scratch import EOS, from_scratch
from amenable.records import Decoding

TEXTS = [f"def name_{i}(self, value):\n    if value is None:\n        return self.x{i}\n" for i in range(30)]


def small(seed: int = 0, **sizes: int) -> CausalLM:
    return from_scratch(TEXTS, **{"vocabulary": 300, "width": 32, "layers": 2, "heads": 2, "seed": seed, **sizes})


POLICY = small()
TEXT = st.text() | st.text(alphabet="ab_ \n\t(:):1é<eos>\u2028", max_size=40)


@settings(deadline=None)
@given(TEXT)
@example("")
@example(f"x = '{EOS}'\n")
@example("\r\n \x85\x00 \U0001f600\n\n\n")
def test_any_text_round_trips_and_none_of_it_is_eos(text: str) -> None:
    ids = POLICY.encode_completion(text, eos=False)
    assert POLICY.tokenizer.decode(ids) == text
    assert POLICY.eos_ids[0] not in ids
    assert POLICY.encode_completion(text) == [*ids, *POLICY.eos_ids]
    assert POLICY.encode(text) == [*POLICY.eos_ids, *ids]


@settings(deadline=None)
@given(TEXT, TEXT)
@example("def f(x):\n", "    return x\n")
@example("a  \n", " \n")
def test_no_token_reaches_over_the_end_of_a_line(first: str, rest: str) -> None:
    first += "\n"
    assert POLICY.encode(first) + POLICY.encode_completion(rest) == [
        *POLICY.eos_ids,
        *POLICY.encode_completion(first + rest),
    ]


def test_merges_are_learnt_and_special_tokens_are_one() -> None:
    tokenizer = POLICY.tokenizer
    assert len(tokenizer) == POLICY.model.config.vocab_size == 300
    assert len(POLICY.encode_completion(TEXTS[0])) < len(TEXTS[0]) / 2
    assert tokenizer.eos_token_id == tokenizer.bos_token_id == tokenizer.pad_token_id == POLICY.eos_ids[0]
    assert POLICY.model.get_input_embeddings().padding_idx is None  # <eos> is learnt like any other
    assert POLICY.eos_ids == [POLICY.model.config.eos_token_id]
    assert POLICY.encode("") == POLICY.eos_ids


def test_weights_are_the_seeds_and_nobody_elses_stream_moves() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    again, other = small(), small(seed=1)
    assert torch.equal(torch.rand(3), expected)
    same = [torch.equal(a, b) for a, b in zip(POLICY.model.parameters(), again.model.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(POLICY.model.lm_head.weight, other.model.lm_head.weight)
    assert again.tokenizer.get_vocab() == POLICY.tokenizer.get_vocab()


def test_a_saved_policy_is_the_same_law_and_the_same_tokens(tmp_path: Path) -> None:
    POLICY.save(tmp_path)
    loaded = load_policy(str(tmp_path), dtype="float32")
    for text in ("", TEXTS[3], f"{EOS} é\n", "  \n\n x"):
        assert loaded.encode(text) == POLICY.encode(text)
        assert loaded.encode_completion(text) == POLICY.encode_completion(text)
    samples = POLICY.sample(["", "def f(x):\n"], n=3, decoding=Decoding(max_tokens=12))
    torch.testing.assert_close(loaded.log_prob(samples), POLICY.log_prob(samples))
    torch.testing.assert_close(POLICY.log_prob(samples), samples.log_probs, atol=1e-4, rtol=1e-4)


def test_the_usual_size() -> None:
    policy = from_scratch(TEXTS)
    weights = sum(value.numel() for value in policy.model.parameters())
    assert 3_000_000 < weights < 4_000_000


@pytest.mark.parametrize(("sizes", "says"), [({"vocabulary": 200}, "every byte"), ({"width": 33}, "2 heads")])
def test_sizes_that_cannot_be(sizes: dict[str, int], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        small(**sizes)
