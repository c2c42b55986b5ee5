"""What a policy says of a prefix is what its head reads there: one row a sampled token, in the order of the samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from amenable.policy import scoring
from amenable.policy.tabular import TabularPolicy
from amenable.records import Decoding
from tests.policy.test_head import CASES, drawn
from tests.tiny import tiny_seq2seq


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("case", CASES)
def test_the_head_reads_them(case: str, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "SHARED", 0.0 if shared else 2.0)
    policy = CASES[case]()
    samples = drawn(policy, ["abcdefgh", "abcdef", "abcdefxyz"] if shared else ["a", "abcdef"])
    found = policy.prefix_features(samples)
    assert found.shape == (int(samples.lengths.sum()), policy.model.config.hidden_size)
    assert not found.requires_grad
    check(policy, samples, found, cap=5.0 if case == "soft-capped" else None)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_the_decoders_head_reads_them(kind: str) -> None:
    policy = tiny_seq2seq(kind, letters="abc").trainable_copy()
    samples = policy.sample(["abc", "c"], n=6, decoding=Decoding(max_tokens=7), seed=2)
    assert len(set(samples.lengths.tolist())) > 1
    found = policy.prefix_features(samples)
    assert not found.requires_grad
    scale = policy.model.config.d_model**-0.5 if kind == "t5" and policy.model.config.tie_word_embeddings else 1.0
    check(policy, samples, found * scale, bias=getattr(policy.model, "final_logits_bias", 0.0))


def check(policy: Any, samples: Any, found: torch.Tensor, *, cap: float | None = None, bias: Any = 0.0) -> None:
    with torch.no_grad():
        logits = policy.model.get_output_embeddings()(found) + bias
        if cap is not None:
            logits = cap * torch.tanh(logits / cap)
        values = logits.log_softmax(-1).gather(-1, samples.tokens[samples.mask].unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(values, policy.log_prob(samples)[samples.mask], atol=2e-5, rtol=1e-4)


def test_of_a_table_they_are_its_rows() -> None:
    policy = TabularPolicy.random("abc", 3, contexts=("left", "right"), seed=1)
    samples = policy.sample(["right", "left"], n=20, seed=3)
    found = policy.prefix_features(samples)
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert found.sum(-1).unique().tolist() == [1.0]
    rows = policy.logits.flatten(0, 1).log_softmax(-1)
    tokens = samples.tokens[samples.mask]
    torch.testing.assert_close((found @ rows).gather(-1, tokens[:, None])[:, 0], samples.log_probs[samples.mask])
