"""`amenable selftest`: what ships passes, what is right passes, and each wrong function fails for its own reason."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from amenable.cli import main
from amenable.config import describe
from amenable.method import fdpg
from amenable.objective.divergence import Divergence, ForwardKL, ReverseKL
from amenable.objective.score_gradient import coefficients
from amenable.selftest import Settings, selftest
from amenable.selftest.baselines import baseline_checks
from amenable.selftest.bench import bench, every_proposal, gradient_check, training_check
from amenable.selftest.check import Check, within
from amenable.selftest.divergences import as_divergence, divergence_checks
from amenable.selftest.rewards import reward_checks

ON = bench(0)


def first_failed(checks: Iterator[Check]) -> Check:
    """The first FAILED check; what comes after it is not computed."""
    found = next((check for check in checks if check.ok is False), None)
    assert found is not None, "nothing was found wrong"
    return found


def all_of(checks: Iterator[Check]) -> list[Check]:
    found = list(checks)
    assert [check for check in found if check.ok is False] == []
    return found


# --- what ships


@pytest.mark.slow
def test_everything_that_ships_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{len(lines) - 2} checks, none failed"
    assert all(line.startswith("ok ") for line in lines[:-2])
    for divergence in ("forward-kl", "reverse-kl", "js", "tv", "chi2-forward", "chi2-reverse", "alpha=0.5"):
        for q in ("policy", "fixed", "adaptive", "replay", "corpus"):
            for b in ("none", "constant", "leave-one-out", "target"):
                assert any(f" {divergence}, q {q}, B {b} " in line for line in lines)


def test_a_wrong_gradient_in_the_package_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, fixed = every_proposal(ON)[:2]

    def found(draws: Any) -> Check:
        return gradient_check("it", ReverseKL, ON, draws, "leave-one-out", seed=0)

    assert found(policy).ok
    assert found(fixed).ok

    def unweighted(
        rewards: torch.Tensor, log_policy: torch.Tensor, log_proposal: torch.Tensor, **rest: Any
    ) -> torch.Tensor:
        return coefficients(rewards, log_policy, log_policy, **rest)

    monkeypatch.setattr(fdpg, "coefficients", unweighted)  # off policy, without pi/q
    assert found(policy).ok
    assert found(fixed).why == "the gradients that FDPG draws do not scatter around the exact one"
    monkeypatch.setattr(fdpg, "coefficients", lambda *a, **k: 1.5 * coefficients(*a, **k))
    assert found(policy).ok is False
    monkeypatch.setattr("amenable.evaluation.oracle.coefficients", unweighted)
    assert "on average the estimator is" in found(fixed).why


# --- functions f


def skewed(t: torch.Tensor) -> torch.Tensor:
    """KL(pi || 0.3 pi + 0.7 p)."""
    return t * (t / (0.3 * t + 0.7)).log()


def sixth(t: torch.Tensor) -> torch.Tensor:
    """Convex, with the limit 1, but t**6 overflows early."""
    return (t - 1) ** 6 / t**5


def humped(t: torch.Tensor) -> torch.Tensor:
    return (t - 1) ** 2 * (1 - 3 * (-((t - 3) ** 2)).exp())


def hidden(t: torch.Tensor) -> torch.Tensor:
    return -t.log().detach() + 0 * t


def floored(t: torch.Tensor) -> torch.Tensor:
    return torch.where(t < 0.01, math.nan, -t.log())


def steep(t: torch.Tensor) -> torch.Tensor:
    return t**10 - 1 - 10 * (t - 1)


WRONG_F: list[tuple[Callable[[torch.Tensor], Any], str, str]] = [
    (lambda t: math.log(t.sum().item()), "a tensor function of t", "it must give one value for each t"),
    (lambda t: t.sum(), "a tensor function of t", "it must give one value for each t"),
    (lambda t: t.undefined(), "a tensor function of t", "raised AttributeError"),
    (lambda t: -t.log().detach(), "a tensor function of t", "has no gradient"),
    (floored, "a tensor function of t", "is nan: f must be finite for every t > 0"),
    (lambda t: -t.log() + t.mean() - t.mean().detach() + t.max(), "one t at a time", "f is a function of one t"),
    (lambda t: -t.log() + 0.5, "f(1) = 0", "f(1) = 0.5, so D(p, p) is not 0: subtract it from f"),
    (lambda t: t.log(), "convex", "f is concave: its sign is wrong, -f is convex"),
    (humped, "convex", "f is not convex near t = 1."),
    (hidden, "slope", "hidden from autograd"),
    (steep, "large log t", "f'(t) overflows beyond |log t| = 70"),
    (lambda t: 2 * (t - 1), "D(pi, p) >= 0", "f is linear, and has no gradient to follow"),
]


@pytest.mark.parametrize(("f", "name", "reason"), WRONG_F)
def test_a_wrong_f_fails_for_its_reason(f: Callable[..., Any], name: str, reason: str) -> None:
    check = first_failed(divergence_checks(as_divergence(f), seed=0))
    assert name in check.name
    assert reason in check.why


@pytest.mark.parametrize(
    ("divergence", "name", "reason"),
    [
        (Divergence("mine", ForwardKL.f, lambda log_t: -1.1 * (-log_t).exp()), "slope", "`slope` is not f' of log t"),
        (Divergence("mine", skewed, None, 0.7), "f'(inf)", "tends to 1.204, but at_infinity says 0.7"),
    ],
)
def test_a_divergence_that_states_something_wrong_fails(divergence: Divergence, name: str, reason: str) -> None:
    check = first_failed(divergence_checks(divergence, seed=0))
    assert name in check.name
    assert reason in check.why


def test_a_training_that_leads_away_is_told() -> None:
    check = training_check("it", as_divergence(lambda t: t.log()), ON, steps=30, seed=0)
    assert check.why == "training led away from the target"
    check = training_check("it", as_divergence(hidden), ON, steps=5, seed=0)
    assert check.why == "training led hardly towards the target"


def test_a_right_f_passes_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def skewed(t):\n    return t * (t / (0.3 * t + 0.7)).log()\n")
    assert main(["selftest", f"f={path}:skewed"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{len(lines) - 2} checks, none failed"
    assert "ok      skewed, f'(inf)                               1.204: hard constraints are allowed" in lines
    assert sum("skewed, q " in line for line in lines) == 20
    assert any("skewed, training" in line and "KL(p||pi) 0.940 -> 0.0" in line for line in lines)


def test_an_overflow_is_told_and_the_limit_before_it_is_found() -> None:
    checks = {}
    for check in divergence_checks(as_divergence(sixth), seed=0):
        checks[check.name] = check
        if "hard constraint" in check.name:
            break
    assert {name for name, check in checks.items() if not check.ok} == {"sixth, large log t"}
    assert checks["sixth, f'(inf)"].found == "1: hard constraints are allowed"


# --- rewards


def length(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    return [float(len(text)) for text in completions]


def has_letter(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[bool]:
    return ["a" in text for text in completions]


def some(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> np.ndarray:
    pairs = zip(prompts, completions, strict=True)
    return np.array([None if "def" in text else len(prompt) + len(text) for prompt, text in pairs])


def tensor(prompts: Sequence[str], completions: Sequence[str], ended: Any, lengths: Any) -> torch.Tensor:
    return torch.tensor(lengths, dtype=torch.float32)


def amazing(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    return [float("amazing" in text) for text in completions]


def rank(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    return [float(sorted(completions).index(text)) for text in completions]


def normalised(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    values = [float(len(text)) for text in completions]
    return [value - sum(values) / len(values) for value in values]


def later_is_better(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    return [len(text) + 10.0 * (place > 0) for place, text in enumerate(completions)]


def novel(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    return [1.0 / completions.count(text) for text in completions]


def batches_only(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    if len(completions) == 1:
        raise ValueError("too few")
    return length(prompts, completions)


def sorts(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    completions.sort()
    return length(prompts, completions)


def first_letter(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    return [float(ord(text[0])) for text in completions]


def latin(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    return [float(len(text.encode("latin-1"))) for text in completions]


def recursive(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    def depth(text: str) -> float:
        return 1 + depth(text[50:]) if text else 0.0

    return [depth(text) for text in completions]


WRONG_REWARDS: list[tuple[Callable[..., Any], str, str]] = [
    (lambda prompts, completions, **k: [1.0], "one number a sample", "returned 1 values for 10 samples"),
    (lambda prompts, completions, **k: 1.0, "one number a sample", "returned 1.0, where a list of numbers is due"),
    (lambda prompts, completions, **k: [*"good text"], "one number a sample", "returned 9 values for 10"),
    (lambda prompts, completions, **k: ["1"] * 10, "one number a sample", "returned '1' for 'No.'"),
    (lambda prompts, completions, **k: torch.zeros(10, 2), "one number a sample", "return one number"),
    (lambda prompts, completions, **k: [math.nan] * 10, "one number a sample", "return None where there is no answer"),
    (lambda prompts, completions, **k: [int(text) for text in completions], "one number", "for the text 'No.'"),
    (lambda prompts, completions, **k: [None for _ in completions], "missing", "no answer for any sample"),
    (lambda prompts, completions, **k: [random.random() for _ in completions], "again", "it is random, or remembers"),
    (sorts, "one number a sample", "changed the lists"),
    (rank, "alone", "A reward depends on its own text alone: else leave-one-out is biased"),
    (normalised, "alone", "'No.' scores -15.3 in the batch and 0 alone"),
    (later_is_better, "alone", "in the batch and 3 alone"),
    (novel, "in another batch", "'No.' scores 1 in the batch and 0.5 beside a copy of itself"),
    (batches_only, "alone", "raised ValueError: too few. A batch may be a single sample"),
    (first_letter, "empty text", "'' (0 characters): it raised IndexError"),
    (latin, "unicode", "raised UnicodeEncodeError"),
    (recursive, "very long text", "(200000 characters): it raised RecursionError"),
]


@pytest.mark.parametrize(("reward", "name", "reason"), WRONG_REWARDS)
def test_a_wrong_reward_fails_for_its_reason(reward: Callable[..., Any], name: str, reason: str) -> None:
    check = first_failed(reward_checks(reward, mine=None, seed=0))
    assert name in check.name
    assert reason in check.why


def test_a_reward_that_depends_on_its_place_alone_is_found_in_another_order() -> None:
    def place(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
        return [
            float(place) if len(completions) > 1 else float(len(text) % 7) for place, text in enumerate(completions)
        ]

    failed = [check for check in reward_checks(place, mine=None, seed=0) if check.ok is False]
    assert {check.name for check in failed} == {
        "place, alone as in a batch",
        "place, in another order",
        "place, in another batch",
    }


@pytest.mark.parametrize("reward", [has_letter, some, tensor])
def test_right_rewards_pass_with_their_target_and_gradients(reward: Callable[..., Any]) -> None:
    checks = {check.name: check for check in all_of(reward_checks(reward, mine=None, seed=0))}
    assert checks[f"{reward.__name__}, enumerated target"].ok
    assert checks["reverse-kl, q fixed, B leave-one-out"].ok
    assert ("as a constraint: forward-kl, q policy, B leave-one-out" in checks) == (reward is has_letter)
    if reward is some:
        assert checks["some, missing"].found.startswith("None for 1 of 10 samples")


def test_a_reward_that_says_the_same_of_all_needs_texts_that_it_tells_apart() -> None:
    last = all_of(reward_checks(amazing, mine=None, seed=0))[-1]
    assert last.ok is None
    assert "pieces=ONE,TWO" in last.why
    checks = all_of(reward_checks(amazing, pieces=("amazing ", "dull "), mine=None, seed=0))
    assert checks[-1].name == "amazing, training (reverse-kl)"


def test_a_reward_that_hangs_is_left_behind() -> None:
    import threading

    with pytest.raises(TimeoutError, match="no answer within"):
        within(0.05, threading.Event().wait)
    with pytest.raises(KeyError):
        within(1, lambda: {}["a"])
    assert within(1, lambda: 3) == 3


# --- baselines

Groups = Sequence[torch.Tensor]


def leave_one_out(rewards: torch.Tensor, ratio: torch.Tensor, groups: Groups) -> torch.Tensor:
    shift = torch.zeros_like(rewards)
    for chosen in groups:
        values = (rewards * ratio)[chosen]
        shift[chosen] = (values.sum() - values) / max(1, len(chosen) - 1)
    return shift


def leave_one_out_of_all(rewards: torch.Tensor, ratio: torch.Tensor, groups: Groups) -> torch.Tensor:
    """Over all contexts: another variance, no bias."""
    return (rewards.sum() - rewards) / max(1, len(rewards) - 1)


def one(rewards: torch.Tensor, ratio: torch.Tensor, groups: Groups) -> torch.Tensor:
    """Z pi/q, subtracted from P/q."""
    return torch.ones_like(rewards)


def batch_mean(rewards: torch.Tensor, ratio: torch.Tensor, groups: Groups) -> torch.Tensor:
    return rewards.mean().expand_as(rewards)


def group_mean(rewards: torch.Tensor, ratio: torch.Tensor, groups: Groups) -> torch.Tensor:
    shift = torch.zeros_like(rewards)
    for chosen in groups:
        shift[chosen] = rewards[chosen].mean()
    return shift


def largest(rewards: torch.Tensor, ratio: torch.Tensor, groups: Groups) -> torch.Tensor:
    return rewards.max().expand_as(rewards)


def constant_z(rewards: torch.Tensor, ratio: torch.Tensor, groups: Groups) -> torch.Tensor:
    """Z, subtracted from P/q."""
    return 1 / ratio


def standardised(rewards: torch.Tensor, ratio: torch.Tensor, groups: Groups) -> torch.Tensor:
    """So that rewards - shift is the z-score in the batch."""
    return rewards - (rewards - rewards.mean()) / rewards.std(correction=0)


def undefined_alone(rewards: torch.Tensor, ratio: torch.Tensor, groups: Groups) -> torch.Tensor:
    return (rewards.sum() - rewards) / (len(rewards) - 1)


def in_place(rewards: torch.Tensor, ratio: torch.Tensor, groups: Groups) -> torch.Tensor:
    return rewards.sub_(1)


@pytest.mark.parametrize("baseline", [leave_one_out, leave_one_out_of_all, one])
def test_right_baselines_pass(baseline: Callable[..., Any]) -> None:
    checks = all_of(baseline_checks(baseline, mine=None, seed=0))
    assert len(checks) == 10
    assert all("variance x" in check.found for check in checks[3:])


MEAN = "which is (n-1)/n: the batch mean includes the sample itself. Take the mean of the others"
WRONG_BASELINES: list[tuple[Callable[..., Any], str, str]] = [
    (batch_mean, "forward-kl, on policy", f"the gradient is 0.5, 0.6667 times the right one, {MEAN}"),
    (group_mean, "forward-kl, on policy", f"the gradient is 0.5, 0.6667 times the right one, {MEAN}"),
    (largest, "forward-kl, on policy", "the shift of a sample changes with its own reward"),
    (constant_z, "forward-kl, off policy", "Is it Z that is subtracted from P/q, where Z pi/q is meant?"),
    (standardised, "one sample alone", "return 0 for it, not nan"),
    (undefined_alone, "one sample alone", "return 0 for it, not nan"),
    (in_place, "one number a sample", "it changed the rewards"),
    (lambda rewards, ratio, groups: rewards.mean(), "one number a sample", "shape () for 6 samples"),
    (lambda rewards, ratio, groups: 0.5, "one number a sample", "returned a float: return a tensor"),
    (lambda rewards, ratio, groups: rewards[:5], "one number a sample", "shape (5,) for 6 samples"),
    (lambda rewards, ratio, groups: rewards.mine, "one number a sample", "raised AttributeError"),
    (lambda rewards, ratio, groups: torch.rand(len(rewards)), "again", "it is random, or it remembers"),
]


@pytest.mark.parametrize(("baseline", "name", "reason"), WRONG_BASELINES)
def test_a_wrong_baseline_fails_for_its_reason(baseline: Callable[..., Any], name: str, reason: str) -> None:
    check = first_failed(baseline_checks(baseline, mine=None, seed=0))
    assert name in check.name or "the same answer again" in check.name
    assert reason.replace("it is random", "random") in check.why or reason in check.why


def test_a_batch_mean_over_contexts_counts_all_its_samples() -> None:
    *_, last = baseline_checks(batch_mean, mine=None, seed=0)
    assert last.name == "batch_mean, two contexts at once"
    assert f"the gradient is 0.75 times the right one, {MEAN}" in last.why


def test_a_baseline_that_divides_by_the_spread_is_told_about_equal_rewards() -> None:
    checks = [check.why for check in baseline_checks(standardised, mine=None, seed=0)]
    assert "for some batches it returns what is not finite: equal rewards, or a spread of 0?" in checks


# --- the command


FILE = """
import torch
from amenable.objective.divergence import Divergence, JensenShannon

mine = Divergence("own", JensenShannon.f)

def f(t):
    return t.log()

def reward(prompts, completions, **columns):
    return [float(sorted(completions).index(text)) for text in completions]

def plain(prompts, completions):
    return [1.0 for _ in completions]

def wants_answers(prompts, completions, answer, **columns):
    return [1.0 for _ in completions]

def baseline(rewards, ratio, groups):
    return rewards.mean().expand_as(rewards)

class Thing:
    pass

number = 3
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(FILE)
    (tmp_path / "broken.py").write_text("import torch\n\n1 / 0\n")
    (tmp_path / "syntax.py").write_text("def f(t:\n    pass\n")
    (tmp_path / "beside.py").write_text("from mine import f as g\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mine.py"


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["f=none.py:f"], ["there is no file none.py", "check the path"]),
        (["f=mine.py"], ["f=mine.py does not name a function", "f=my_file.py:my_f"]),
        (["f=mine.py:"], ["does not name a function"]),
        (["f=no_such_module_at_all:f"], ["there is no module 'no_such_module_at_all'", "for a file write"]),
        (["reward=mine.py:rewards"], ["mine.py has no 'rewards'", "did you mean 'reward'?"]),
        (["f=broken.py:f"], ["broken.py cannot be run: ZeroDivisionError", "(line 3)"]),
        (["f=syntax.py:f"], ["syntax.py cannot be run: SyntaxError", "(line 1)"]),
        (["f=mine.py:number"], ["number is a int, no function", "def number(t)"]),
        (["f=mine.py:Thing"], ["Thing is a class, no function"]),
        (
            ["f=mine.py:baseline"],
            ["baseline(rewards, ratio, groups) cannot be called as baseline(t)", "def baseline(t)"],
        ),
        (
            ["reward=mine.py:plain"],
            ["unexpected keyword argument 'ended'", "def plain(prompts, completions, **columns)"],
        ),
        (["reward=mine.py:wants_answers"], ["missing a required argument: 'answer'"]),
        (
            ["baseline=mine.py:f"],
            ["f(t) cannot be called as f(rewards, ratio, groups)", "def f(rewards, ratio, groups)"],
        ),
        (["g=mine.py:f"], ["there is no setting 'g'"]),
        (["mine.py:f"], ["is not a setting: it has no key=value"]),
        (["--f=mine.py:f"], ["has no option --f=mine.py:f"]),
    ],
)
def test_what_cannot_be_tested_is_answered_with_what_to_write(
    file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], messages: list[str]
) -> None:
    assert main(["selftest", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    for message in messages:
        assert message in captured.err


def test_wrong_ones_together_exit_with_1_and_each_reason_is_told_once(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["selftest", "reward=mine.py:reward", "baseline=mine.py:baseline"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith(" checks FAILED")
    reasons = [line for line in lines if line.startswith("        ! ")]
    assert sum("A reward depends on its own text alone" in line for line in reasons) >= 1
    assert sum("(n-1)/n" in line for line in reasons) == 2  # of one context, and of two
    assert sum(line.startswith("FAILED") for line in lines) > len(reasons)


def test_a_divergence_object_a_neighbours_import_and_a_modules_name_are_found(file: Path) -> None:
    first = next(selftest(Settings(f="mine.py:mine")))
    assert first.name.startswith("own, ")
    assert next(selftest(Settings(f="beside.py:g"))).name.startswith("f, ")
    assert next(selftest(Settings(f="amenable.objective.divergence:ForwardKL"))).ok


def test_the_self_test_runs_on_one_thread_and_gives_the_others_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        checks = selftest(Settings(f="amenable.objective.divergence:ForwardKL"))
        next(checks)
        assert torch.get_num_threads() == 1
        checks.close()  # type: ignore[attr-defined]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_help_names_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--help"]) == 0
    shown = capsys.readouterr().out
    for row in describe(Settings):
        assert f"  {row.name}={row.default}" in shown
        assert row.help in shown
