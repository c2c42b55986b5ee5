"""Imitation and the loop: it learns what it is shown, the prompt is not trained on, and a killed run ends in the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_policy

from amenable.errors import TrainingError
from amenable.method import checkpoint
from amenable.method.imitation import Example, Imitation
from amenable.method.loop import Optimisation, train
from amenable.method.protocol import Loss
from amenable.policy.causal_lm import CausalLM, LoRA
from amenable.records import Decoding
from amenable.sampling.proposal import State

EXAMPLES = [Example("ab", "cd"), Example("x", "longer completion"), Example("q: 1 ", "one"), Example("q: 2 ", "two")]


def imitation(epochs: int = 3, positions: int = 1024) -> Imitation:
    return Imitation(EXAMPLES, epochs=epochs, batch_size=3, seed=1, positions=positions)


def weights(policy: CausalLM) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in policy.trainable_parameters()}


def test_every_epoch_visits_every_example_once_in_its_own_order() -> None:
    method = imitation(epochs=4)
    assert method.steps == 8
    epochs = [method.batch(2 * i) + method.batch(2 * i + 1) for i in range(4)]
    assert all(sorted(epoch, key=repr) == sorted(EXAMPLES, key=repr) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert method.batch(3) == imitation().batch(3)
    sizes = [len(Imitation([EXAMPLES[0]] * 9, epochs=1, batch_size=8, seed=0).batch(step)) for step in (0, 1)]
    assert sizes == [4, 5]  # not 8 and 1: a batch of one would weigh as much as a batch of eight


def test_the_loss_is_that_of_the_completion_with_its_eos_and_not_of_the_prompt(policy: CausalLM) -> None:
    method = Imitation([Example("ab", "cd")], epochs=1, batch_size=1, seed=0)
    (loss,) = method.losses(policy, 0)
    ids = torch.tensor([[*policy.encode("ab"), *policy.encode_completion("cd")]])
    log_probs = policy.model(ids).logits[0].log_softmax(-1)
    exact = -(log_probs[1, ids[0, 2]] + log_probs[2, ids[0, 3]] + log_probs[3, 256]) / 3
    torch.testing.assert_close(loss.value, exact)
    assert loss.sums["tokens"] == 3


def test_micro_batches_do_not_change_the_gradient(policy: CausalLM) -> None:
    gradients = []
    for positions in (1024, 8):
        copy = policy.trainable_copy()
        for loss in imitation(positions=positions).losses(copy, 0):
            loss.value.backward()
        gradients.append({name: value.grad for name, value in copy.trainable_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapter", [None, LoRA(rank=16)])  # at rank 8 it depends on the processor's rounding
def test_it_learns_to_say_what_it_was_shown(tmp_path: Path, precision: str, adapter: LoRA | None) -> None:
    copy = tiny_policy(scale=2.0).trainable_copy(adapter)
    rate = 1e-2
    method = imitation(epochs=120)
    train(copy, method, optimisation=Optimisation(learning_rate=rate, precision=precision), folder=tmp_path)
    learned = copy.frozen(torch.float32)
    greedy = learned.sample([e.prompt for e in EXAMPLES], decoding=Decoding(max_tokens=20, temperature=0))
    said = list(zip(greedy.texts, EXAMPLES, strict=True))
    if adapter is None:
        assert [text for text, _ in said] == [example.completion for _, example in said]
    else:  # an adapter of this rank does not move the head enough to learn where to end
        assert all(text.startswith(example.completion) for text, example in said), greedy.texts
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == method.steps


def test_a_resumed_training_ends_in_the_same_bits(tmp_path: Path) -> None:
    settings = Optimisation(learning_rate=1e-2, precision="float32")
    whole = tiny_policy().trainable_copy()
    train(whole, imitation(), optimisation=settings, folder=tmp_path / "whole")

    class Killed(Exception):
        pass

    class DiesAt4(Imitation):
        def losses(self, policy: CausalLM, step: int):  # type: ignore[no-untyped-def]
            if step == 4:
                raise Killed
            yield from super().losses(policy, step)

    dying = DiesAt4(EXAMPLES, epochs=3, batch_size=3, seed=1)
    with pytest.raises(Killed):
        train(tiny_policy().trainable_copy(), dying, optimisation=settings, folder=tmp_path / "cut", checkpoint_every=3)
    assert [path.name for path in (tmp_path / "cut").glob("checkpoint-*")] == ["checkpoint-3"]
    resumed = tiny_policy(seed=5).trainable_copy()  # other weights: all must come from the checkpoint
    train(resumed, imitation(), optimisation=settings, folder=tmp_path / "cut", checkpoint_every=3)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "cut/metrics.jsonl").read_bytes()


SCRIPT = """
import sys, torch
sys.path.insert(0, {tests!r})
torch.set_num_threads(1)
from pathlib import Path
from tiny import tiny_policy
torch.set_num_threads(1)
from amenable.method.imitation import Example, Imitation
from amenable.method.loop import Optimisation, train
policy = tiny_policy().trainable_copy()
method = Imitation([Example(f"q{{i}}", f"a{{i * i}}") for i in range(9)], epochs=40, batch_size=3, seed=1)
train(policy, method, optimisation=Optimisation(learning_rate=1e-3), folder=Path(sys.argv[1]), checkpoint_every=2)
policy.save(Path(sys.argv[1]) / "model")
"""


def test_a_process_killed_with_sigkill_resumes_to_the_same_bits(tmp_path: Path) -> None:
    script = SCRIPT.format(tests=str(Path(__file__).parents[1]))
    command = [sys.executable, "-c", script]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    kills = 0
    for _ in range(3):
        process = subprocess.Popen([*command, str(tmp_path / "cut")], stderr=subprocess.DEVNULL)
        lines_before = len(list((tmp_path / "cut").glob("checkpoint-*")))
        deadline = time.monotonic() + 60
        seen: set[str] = set()
        while process.poll() is None and time.monotonic() < deadline:
            seen |= {path.name for path in (tmp_path / "cut").glob("checkpoint-*")}
            if len(seen) > lines_before + 6:
                os.kill(process.pid, signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
                break
        process.wait()
    assert kills >= 1
    subprocess.run([*command, str(tmp_path / "cut")], check=True, capture_output=True)
    whole, cut = (load_file(tmp_path / name / "model/model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "cut/metrics.jsonl").read_bytes()


def test_a_torn_checkpoint_is_named_and_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Dies(Imitation):
        def losses(self, policy: CausalLM, step: int):  # type: ignore[no-untyped-def]
            if step == 5:
                raise KeyboardInterrupt
            yield from super().losses(policy, step)

    with pytest.raises(KeyboardInterrupt):
        train(
            tiny_policy().trainable_copy(),
            Dies(EXAMPLES, epochs=3, batch_size=3, seed=1),
            optimisation=Optimisation(precision="float32"),
            folder=tmp_path,
            checkpoint_every=2,
        )
    with open(tmp_path / "checkpoint-4" / "optimizer.safetensors", "ab") as file:
        file.truncate(100)
    whole, again = tiny_policy().trainable_copy(), tiny_policy().trainable_copy()
    train(again, imitation(), optimisation=Optimisation(precision="float32"), folder=tmp_path)
    said = capsys.readouterr().err
    assert "checkpoint-4 is torn" in said
    assert "checkpoint-2" not in said  # the one before is whole, and used
    train(whole, imitation(), optimisation=Optimisation(precision="float32"), folder=tmp_path / "whole")
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(whole).items())


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    copy = tiny_policy().trainable_copy()
    names = dict(copy.trainable_parameters())
    optimizer = torch.optim.AdamW(names.values())
    from amenable.runs import MetricsLog

    log = MetricsLog(tmp_path / "metrics.jsonl")
    checkpoint.save(tmp_path, names, optimizer, log, step=2, identity="another", state=State())
    with pytest.raises(TrainingError, match="belongs to another training"):
        train(copy, imitation(), optimisation=Optimisation(), folder=tmp_path)


def test_a_gradient_that_is_not_finite_stops_before_the_step(tmp_path: Path) -> None:
    copy = tiny_policy().trainable_copy()
    before = weights(copy)

    class Broken:
        steps, identity = 1, "broken"

        def losses(self, policy: CausalLM, step: int):  # type: ignore[no-untyped-def]
            value = next(iter(policy.trainable_parameters()))[1]
            yield Loss(value.sum() * float("nan"))

    with pytest.raises(TrainingError, match="gradient's norm is nan"):
        train(copy, Broken(), optimisation=Optimisation(precision="float32"), folder=tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in weights(copy).items())


def test_schedules_by_hand() -> None:
    cosine = Optimisation(learning_rate=1.0, schedule="cosine", warmup=0.2)
    assert [round(cosine.rate(step, 10), 4) for step in (0, 1, 2, 6)] == [0.5, 1.0, 1.0, 0.5]
    assert Optimisation(learning_rate=2.0, schedule="linear", warmup=0.0).rate(5, 10) == 1.0
    assert Optimisation(learning_rate=2.0, schedule="constant", warmup=0.0).rate(9, 10) == 2.0


def test_nothing_to_imitate_is_an_error_with_a_way_out() -> None:
    with pytest.raises(TrainingError, match="nothing to imitate"):
        Imitation([], epochs=1, batch_size=1, seed=0)
