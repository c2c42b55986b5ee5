"""What `bench/rlhf.py` rests on, as far as TRL is not needed: equal steps of the two losses, one reward, statistics, clock."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import tiny_policy
from transformers import AutoModelForSequenceClassification, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))  # which is no package

import clock
import peers
import rlhf_curve
import rlhf_peers
from rlhf_reward import agreement, reward_folder

from amenable.method.rlhf import rlhf
from amenable.policy.causal_lm import CausalLM
from amenable.records import Decoding

PROMPTS = ["ask: ", "say: ", "tell: "]
TOKENS, EACH, BETA = 6, 4, 0.2


def vowels(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    return [0.1 * len(text) + sum(letter in "aeiou" for letter in text) for text in completions]


def our_step(
    learner: CausalLM, estimator: str, *, moved: bool
) -> tuple[torch.Tensor, list[tuple[list[int], list[int]]]]:
    """Our gradient at one step, and the samples it is of."""
    method = rlhf(
        learner, vowels, beta=BETA, estimator=estimator, contexts=PROMPTS, steps=1, samples_per_context=EACH,
        decoding=Decoding(max_tokens=TOKENS), seed=3,
    )  # fmt: skip
    if moved:
        with torch.no_grad():
            for _, value in learner.trainable_parameters():
                value.add_(0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1)))
    drawn = rlhf_peers.recorded(method.proposal)
    for loss in method.losses(learner, 0):
        loss.value.backward()
    return gradient(learner), drawn[0]


def gradient(learner: CausalLM) -> torch.Tensor:
    found = torch.cat([value.grad.flatten() for _, value in learner.trainable_parameters() if value.grad is not None])
    learner.model.zero_grad()
    return found


def plain(policy: CausalLM, prompt: list[int], ids: list[int]) -> torch.Tensor:
    logits = policy.model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
    found: torch.Tensor = logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)]
    return found


def test_rloo_of_trl_times_its_scale_is_our_step() -> None:
    """advantage: r - beta sum(log pi - log a), less the mean of the others; loss: the mean over samples."""
    prior, learner = tiny_policy(), tiny_policy().trainable_copy()
    mine, drawn = our_step(learner, "leave-one-out", moved=True)
    texts = [prior.tokenizer.decode([i for i in ids if i not in prior.eos_ids]) for _, ids in drawn]
    log_probs = [plain(learner, *one) for one in drawn]
    kl = torch.stack(
        [now.detach().sum() - plain(prior, *one).detach().sum() for now, one in zip(log_probs, drawn, strict=True)]
    )
    grouped = (torch.tensor(vowels([], texts)) - BETA * kl).view(-1, EACH)
    advantages = grouped - (grouped.sum(1, keepdim=True) - grouped) / (EACH - 1)
    (-(advantages.flatten() * torch.stack([one.sum() for one in log_probs])).mean()).backward()
    scale = rlhf_curve.scale("leave-one-out", beta=BETA, each=EACH, tokens=TOKENS)
    assert float(kl.abs().max()) > 0.01
    assert torch.allclose(mine, scale * gradient(learner), rtol=1e-3, atol=1e-4 * float(mine.abs().max()))


def test_grpo_of_trl_times_its_scale_is_our_first_step() -> None:
    """advantage: (r - mean) / (deviation + 1e-4) of the prompt; loss_type dr_grpo: tokens over N T. No KL yet: pi = a."""
    learner = tiny_policy().trainable_copy()
    mine, drawn = our_step(learner, "group", moved=False)
    texts = [learner.tokenizer.decode([i for i in ids if i not in learner.eos_ids]) for _, ids in drawn]
    grouped = torch.tensor(vowels([], texts)).view(-1, EACH)
    advantages = ((grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-4)).flatten()
    sums = torch.stack([plain(learner, *one).sum() for one in drawn])
    (-(advantages * sums).sum() / (len(drawn) * TOKENS)).backward()
    scale = rlhf_curve.scale("group", beta=BETA, each=EACH, tokens=TOKENS)
    assert torch.allclose(mine, scale * gradient(learner), rtol=1e-2, atol=2e-3 * float(mine.abs().max()))


def test_trl_clips_and_divides_in_its_own_units() -> None:
    given = {"n": 12, "prompts": PROMPTS, "tokens": TOKENS, "beta": BETA, "learning_rate": 1e-3}
    rloo, grpo = rlhf_curve.trl_settings("leave-one-out", given), rlhf_curve.trl_settings("group", given)
    assert (rloo["max_grad_norm"], rloo["adam_epsilon"]) == pytest.approx((0.2, 2e-9))
    assert (grpo["max_grad_norm"], grpo["adam_epsilon"]) == pytest.approx((1 / 8, 1.25e-9))
    assert rloo["beta"] == grpo["beta"] == BETA


def test_the_reward_is_one_function_and_transformers_reads_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMENABLE_CACHE", str(tmp_path / "cache"))
    tiny_policy().save(tmp_path / "policy")
    prompts = [f"{word}: " for word in ("ask", "say", "tell", "speak", "write", "read")]
    folder = reward_folder("tiny", str(tmp_path / "policy"), prompts, scripted=False, tokens=8)
    assert folder == reward_folder("tiny", "nowhere", [], scripted=False, tokens=8)
    right, pairs = agreement(folder)
    assert (pairs, right >= pairs / 2) == (60, True)
    reward, means = rlhf_peers.reward_of({"reward": str(folder)})
    texts = ["yes", "no, and here is why", "", "perhaps", "it may be", "so so"]
    found = reward(prompts=prompts, completions=texts, completion_ids=[[1]] * 6, trainer_state=None)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, facts = AutoTokenizer.from_pretrained(folder), model.config
    end = tokenizer.decode([facts.reward_end_token_id])
    with torch.no_grad():
        asked = [prompt + text + end for prompt, text in zip(prompts, texts, strict=True)]
        logits = model(**tokenizer(asked, return_tensors="pt", padding=True)).logits[:, 0]
    assert [float(value) - facts.reward_mean for value in logits] == pytest.approx(found, abs=1e-4)
    assert means == pytest.approx([sum(found) / 6])
    assert max(found) - min(found) > 0.1


def test_differences_over_seeds_have_students_interval_and_a_verdict() -> None:
    found = rlhf_curve.difference([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert (found.value, found.n) == (2.0, 3)
    assert (found.low, found.high) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-3)
    verdicts = {
        "better": [0.4, 0.5, 0.6], "worse": [-0.4, -0.5, -0.6], "not worse": [0.01, 0.0, -0.01], "undecided": [1.0, 0.0, -1.0],
        "one seed says nothing": [0.5],
    }  # fmt: skip
    for expected, changes in verdicts.items():
        assert rlhf_curve.verdict(rlhf_curve.difference(changes, [0.0] * len(changes)), 1.0) == expected
    assert rlhf_curve.verdict(rlhf_curve.difference([-0.01, 0.0, 0.01], [0.0] * 3), 0.1) == "undecided"


def test_results_are_paired_by_seed(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {
            "system": system, "estimator": estimator, "seed": seed, "name": system, "start": 0.0, "kl": 1.0, "seconds": 2.0,
            "rewards": [9.0, end, end], "reward": end,
        }
        for estimator, peer in rlhf_curve.PAIRS.items()
        for seed in (1, 0)
        for system, end in (("ours", 1.0 + seed), (peer, 0.5 + seed))
    ]  # fmt: skip
    rlhf_curve.print_results(rows, 2, 0.1)
    said = capsys.readouterr().out
    assert "| leave-one-out, rloo | last 2 steps | +1.000 | +0.500 [+0.500, +0.500], n=2 | better |" in said
    assert said.count("| grpo | ") == 2


def test_weights_are_put_back_and_distances_are_those_of_all_weights(tmp_path: Path) -> None:
    prior, learner = tiny_policy(), tiny_policy().trainable_copy()
    with torch.no_grad():
        for _, value in learner.trainable_parameters():
            value.add_(0.01)
    given = {"weights": str(tmp_path / "weights.safetensors")}
    rlhf_peers.finish(given, learner.model, [0.0], [1.0], 0.0)
    again = rlhf_curve.with_weights(prior, Path(given["weights"]))
    mine, theirs, start = (dict(one.model.named_parameters()) for one in (again, learner, prior))
    count = sum(value.numel() for value in start.values())
    assert rlhf_curve.distances(start, mine, theirs) == pytest.approx((0.0, 0.01 * count**0.5), rel=1e-3)


def test_trl_is_given_our_samples_by_prompt() -> None:
    trainer = SimpleNamespace()
    rlhf_peers.replay(trainer, json.loads("[[[[1], [5]], [[2], [6, 7]], [[1], [8]]]]"), "grpo")
    assert trainer._generate_single_turn([[1], [1], [2]], None, {}, 2) == ([[5], [8], [6, 7]], None)


def test_a_phase_inside_another_counts_once(capsys: pytest.CaptureFixture[str]) -> None:
    class Work:
        def outer(self) -> None:
            self.inner()

        def inner(self) -> None:
            sum(range(2_000_000))

        def step(self) -> None:
            pass

    watch = clock.Clock()
    watch.watch(Work, "outer", "outer")
    watch.watch(Work, "inner", "inner")
    watch.watch_optimiser(Work)
    watch.start()
    Work().outer()
    Work().step()
    (found,) = peers.said(capsys.readouterr().out, "STEP")
    assert found["inner"] > 10 * found["outer"] >= 0
    assert sum(value for name, value in found.items() if name != "step") == pytest.approx(found["step"])


def test_ratios_are_of_the_same_repeat() -> None:
    runs, base = [[{"step": 2.0}], [{"step": 8.0}]], [[{"step": 1.0}], [{"step": 2.0}, {"step": 2.0}]]
    assert peers.ratios(runs, base) == [2.0, 4.0]
    with pytest.raises(SystemExit, match="steps2=3: not known"):
        peers.given_words(["steps2=3"], ["steps"])
