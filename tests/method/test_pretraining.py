"""The six objectives on a real model: their losses and gradients, equal tokens, the switch, and micro-batches that add up."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from method.test_corpus import Document, by
from tiny import byte_tokenizer, tiny_policy

from amenable.errors import ConfigError, DataError
from amenable.method.corpus import order_of, stream_of, tokenised
from amenable.method.pretraining import Pretraining, lanes
from amenable.objective.pretraining import MOST, Objective, reward_weights, rewards_of, values_of
from amenable.policy.packed import PackedLM

EOS, CONTROLS = 256, (65, 66)
LINES = [(f"{word}\n", score) for word, score in (("good", 0.0), ("bad", 0.8), ("so", 0.0), ("what", None))]
DOCUMENTS: list[Document] = [by(*(LINES * 2)[i : i + 3 + i % 3]) for i in range(4)] * 3
CORPUS = tokenised(DOCUMENTS, byte_tokenizer())
OBJECTIVES = {
    "mle": Objective("mle"),
    "filtering": Objective("filtering", threshold=0.3),
    "conditional": Objective("conditional", threshold=0.0),
    "unlikelihood": Objective("unlikelihood", threshold=0.0, alpha=0.5),
    "rwr": Objective("rwr", beta=0.5),
    "awr": Objective("awr", beta=0.5, alpha=0.6),
}


def learner(*, value: bool = True, kind: str = "llama") -> PackedLM:
    return PackedLM.of(tiny_policy(kind), value=value).trainable_copy()


def method(objective: Objective, **settings: Any) -> Pretraining:
    given = {
        "tokens": 160,
        "batch_tokens": 32,
        "length": 8,
        "positions": 16,
        "seed": 2,
        "controls": CONTROLS,
        **settings,
    }
    return Pretraining(CORPUS, objective, eos=EOS, **given)


def gradients(policy: PackedLM, made: Pretraining, step: int) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    sums: dict[str, float] = {}
    for loss in made.losses(policy, step):
        loss.value.backward()
        for name, value in loss.sums.items():
            sums[name] = sums.get(name, 0.0) + value
    found = {name: value.grad.clone() for name, value in policy.trainable_parameters() if value.grad is not None}
    for _, value in policy.trainable_parameters():
        value.grad = None
    return found, sums


def plainly(policy: PackedLM, made: Pretraining, step: int) -> torch.Tensor:
    """The step's loss from the model's own logits, as the equations have it."""
    ids, scores, _ = made.batch(step)
    out = policy.model(input_ids=ids[:, :-1], output_hidden_states=True)
    every = out.logits.float().log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
    objective, known = made.objective, ~scores.isnan()
    if objective.name == "unlikelihood":
        bad = known & (scores > 0)
        against = torch.where(bad, (1 - every.exp()).clamp(min=1e-20), torch.ones(())).log()
        return -(every[known & ~bad].sum() + objective.alpha * against.sum()) / ids[:, 1:].numel()
    if objective.name not in ("rwr", "awr"):
        return -every.mean()
    rewards = -scores.clamp(0, 1).nan_to_num(0.0)
    values = torch.zeros(()) if objective.name == "rwr" else -torch.sigmoid(out.hidden_states[-1] @ policy.value)
    weights = ((rewards - values.detach()) / objective.beta).exp().clamp(0, MOST) * known
    likelihood = -(weights * every).mean()
    if objective.name == "rwr":
        return likelihood
    return objective.alpha * likelihood + (1 - objective.alpha) * (known * (rewards - values) ** 2).mean()


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_loss_and_its_gradient_are_the_equations(name: str, kind: str) -> None:
    made, policy = method(OBJECTIVES[name]), learner(kind=kind)
    assert policy.value is not None
    with torch.no_grad():
        policy.value += 0.05 * torch.randn(len(policy.value), generator=torch.Generator().manual_seed(1))
    found, sums = gradients(policy, made, 1)
    loss = plainly(policy, made, 1)
    assert sums["loss"] == pytest.approx(float(loss.detach()), rel=1e-4)
    loss.backward()
    for key, value in policy.trainable_parameters():
        if value.grad is None:
            assert key == "value.weight"
            assert key not in found
        else:
            torch.testing.assert_close(found[key], value.grad, rtol=1e-3, atol=2e-5)
    assert ("value.weight" in found) == (name == "awr")


def test_the_value_of_a_token_is_that_of_the_position_before_it() -> None:
    """V_j reads the state that predicts token j: a change of token j itself must not change it, one of j - 1 must."""
    policy = learner()
    assert policy.value is not None
    with torch.no_grad():
        policy.value += torch.randn(len(policy.value), generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[256, 1, 2, 3, 4, 5]])
    last, before = ids.clone(), ids.clone()
    last[0, 5], before[0, 4] = 9, 9
    ones = lambda values: torch.ones_like(values)
    _, _, values = policy.packed_regression(ids, values_of, ones)
    assert values.shape == (1, 5)
    assert torch.equal(policy.packed_regression(last, values_of, ones)[2], values)
    changed = policy.packed_regression(before, values_of, ones)[2]
    assert torch.equal(changed[0, :4], values[0, :4])
    assert changed[0, 4] != values[0, 4]


def test_a_value_head_that_is_not_there() -> None:
    made = method(OBJECTIVES["awr"])
    with pytest.raises(ValueError, match="no value head"):
        list(made.losses(learner(value=False), 0))


def test_control_tokens_are_predicted_and_part_of_the_loss() -> None:
    made, policy = method(OBJECTIVES["conditional"]), learner()
    ids, _, control = made.batch(0)
    assert control.any()
    assert set(ids[:, 1:][control].tolist()) <= set(CONTROLS)
    _, sums = gradients(policy, made, 0)
    assert sums["loss"] == pytest.approx(sums["nats"], rel=1e-5)
    assert 0 < sums["control_nats"] < sums["nats"]
    assert sums["control"] == pytest.approx(float(control.sum()) / control.numel())


def test_equal_tokens_and_every_token_once_a_pass() -> None:
    for name, objective in OBJECTIVES.items():
        made = method(objective)
        assert made.tokens == 160
        assert sum(made.batch(step)[0][:, 1:].numel() for step in range(made.steps)) == 160, name
    made = method(OBJECTIVES["mle"], length=8, batch_tokens=8, tokens=8 * 200)
    rows = made.rows_of_a_pass()
    stream = stream_of(CORPUS, order_of(CORPUS, seed=2, epoch=0), eos=EOS)
    read = torch.cat([made.batch(step)[0][0, 1:] for step in range(rows)])
    assert read.tolist() == stream.ids[1 : 8 * rows + 1].tolist()
    assert rows == (len(CORPUS) + CORPUS.documents) // 8
    second = torch.cat([made.batch(step)[0][0, 1:] for step in range(rows, 2 * rows)])
    assert not torch.equal(read, second)  # another order
    assert made.passes() == pytest.approx(200 / rows)


def test_filtering_reads_the_better_documents_more_often() -> None:
    kept, every = method(OBJECTIVES["filtering"]), method(OBJECTIVES["mle"])
    means = [CORPUS.means[i] for i in order_of(CORPUS, seed=2, epoch=0, at_most=0.3)]
    assert 0 < len(means) < CORPUS.documents
    assert max(means) <= 0.3
    assert kept.passes() > every.passes()
    with pytest.raises(DataError, match="less than one row"):
        method(Objective("filtering", threshold=-1.0))


def test_micro_batches_do_not_change_the_step() -> None:
    for name, objective in OBJECTIVES.items():
        policy = learner()
        small, small_sums = gradients(policy, method(objective, positions=8), 1)
        whole, whole_sums = gradients(policy, method(objective, positions=1000), 1)
        assert small_sums == pytest.approx(whole_sums, rel=1e-4, abs=1e-6), name
        for key, value in whole.items():
            torch.testing.assert_close(small[key], value, rtol=1e-3, atol=2e-6)
    assert len(list(method(objective, positions=8).losses(policy, 0))) == 4
    assert len(list(method(objective, positions=1000).losses(policy, 0))) == 1


def test_the_switch() -> None:
    made, plain = method(OBJECTIVES["conditional"], switch_at=0.4), method(OBJECTIVES["mle"])
    assert (made.steps, made.switch) == (5, 2)
    for step in range(2):
        assert made.objective_at(step).name == "mle"
        assert torch.equal(made.batch(step)[0], plain.batch(step)[0])
    assert made.objective_at(2).name == "conditional"
    assert bool(made.batch(2)[2].any())
    # it goes on where MLE was: the next row of MLE, but for control tokens and rounding to rows
    order = order_of(CORPUS, seed=2, epoch=0)
    told = stream_of(CORPUS, order, eos=EOS, controls=CONTROLS, threshold=0.0, drop=0.01, seed=2)
    first = lanes(told.rows(8), 4)[round(2 * 4 / plain.rows_of_a_pass() * told.rows(8))]
    assert made.batch(2)[0][0].tolist() == told.ids[first * 8 : first * 8 + 9].tolist()
    assert abs(np.flatnonzero(~told.control)[2 * 4 * 8] - first * 8) <= 16
    kept = method(OBJECTIVES["filtering"], switch_at=0.4)
    assert torch.equal(kept.batch(1)[0], plain.batch(1)[0])


def test_what_is_logged_of_weights() -> None:
    made = method(OBJECTIVES["rwr"])
    _, sums = gradients(learner(), made, 0)
    _, scores, _ = made.batch(0)
    expected = reward_weights(rewards_of(scores), beta=0.5).mean()
    assert sums["weight"] == pytest.approx(float(expected), rel=1e-5)
    assert sums["known"] == pytest.approx(float((~scores.isnan()).double().mean()))
    _, sums = gradients(learner(), method(OBJECTIVES["awr"]), 0)
    known = scores[~scores.isnan()]
    error = float(((-known + 0.5) ** 2).sum()) / scores.numel()  # V = -1/2 before anything is learned
    assert sums["value_error"] == pytest.approx(error, rel=1e-5)


def test_bfloat16_is_close() -> None:
    for name, objective in OBJECTIVES.items():
        made, policy = method(objective), learner()
        _, exact = gradients(policy, made, 0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = [float(loss.value.detach()) for loss in made.losses(policy, 0)]
        assert sum(rough) == pytest.approx(exact["loss"], rel=0.05), name
        assert math.isfinite(sum(rough))


def test_what_this_training_is() -> None:
    one = method(OBJECTIVES["awr"])
    assert one.identity == method(OBJECTIVES["awr"], positions=8).identity
    others = [method(Objective("awr", beta=0.4, alpha=0.6)), method(OBJECTIVES["awr"], seed=3)]
    others.append(method(OBJECTIVES["awr"], switch_at=0.5))
    assert len({made.identity for made in [one, *others]}) == 4


@pytest.mark.parametrize(
    "settings", [{"switch_at": 1.0}, {"batch_tokens": 4}, {"tokens": 4}, {"length": 0}, {"switch_at": -0.1}]
)
def test_sizes_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="switch_at"):
        method(OBJECTIVES["mle"], **settings)
    with pytest.raises(ConfigError, match="control tokens"):
        method(OBJECTIVES["conditional"], controls=None)


def test_before_a_switch_the_value_head_rests() -> None:
    policy, made = learner(), method(OBJECTIVES["awr"], switch_at=0.4)
    found, sums = gradients(policy, made, 0)
    assert found["value.weight"].abs().sum() == 0  # and not None: its moments are in every checkpoint
    plain, plain_sums = gradients(learner(), method(OBJECTIVES["mle"]), 0)
    assert sums["loss"] == pytest.approx(plain_sums["loss"])
    for key, value in plain.items():
        torch.testing.assert_close(found[key], value)
    after, _ = gradients(policy, made, 2)
    assert after["value.weight"].abs().sum() > 0


def test_a_step_reads_far_apart_and_a_pass_reads_every_row_once() -> None:
    for rows, width in ((12, 4), (13, 4), (3, 8), (1, 1), (100, 32)):
        assert sorted(lanes(rows, width)) == list(range(rows))
    assert lanes(12, 4).tolist() == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]
    assert lanes(5, 2).tolist() == [0, 3, 1, 4, 2]
