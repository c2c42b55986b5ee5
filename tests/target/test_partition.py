"""log Z against enumeration, its standard error against its spread, and the tail index against known tails."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch
from tables import CONTEXTS, HARD, SOFT, log_target, table

from amenable.policy.tabular import TabularPolicy
from amenable.target.partition import PARETO_LIMIT, Partition, effective_sample_size, groups, pareto_k
from amenable.target.posterior import Target

LAWS: dict[str, Callable[[], TabularPolicy]] = {"prior": lambda: table(scale=0.3), "another": lambda: near(2)}


def near(seed: int) -> TabularPolicy:
    """Laws whose weights have a variance that a few hundred samples show."""
    return table(seed=seed, scale=0.3)


def weighed(target: Target, law: TabularPolicy, n: int, seed: int) -> tuple[list[str], torch.Tensor]:
    samples = law.sample(CONTEXTS, n=n, seed=seed)
    prompts = [context for context in CONTEXTS for _ in range(n)]
    return prompts, target.log_weights(prompts, samples)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", [*SOFT, *HARD])
def test_log_z_is_that_of_enumeration_and_the_error_is_honest(kind: str, law: str) -> None:
    """50 estimates from 1,000 samples in each of two contexts: z-scores of mean 0 and variance 1, as far as 100 show."""
    prior = near(1)
    target = {**SOFT, **HARD}[kind](prior)
    _, exact = log_target(target, prior)
    assert abs(float(exact[0] - exact[1])) > 0.01  # one Z a context
    _, weights = weighed(target, LAWS[law](), 50 * 1000, 1)
    scores = []
    for context, value, many in zip(CONTEXTS, exact.tolist(), weights.view(2, 50, 1000), strict=True):
        for few in many:
            partition = Partition()
            partition.add([context] * 1000, few)
            found = partition.of(context)
            assert found.n == 1000
            scores.append((found.value - value) / found.standard_error)
    z = torch.tensor(scores)
    assert abs(float(z.mean())) < 4 / math.sqrt(100) + 0.1  # log, and skewed weights, pull it down
    assert 0.75 < float(z.std()) < 1.3


def test_terms_of_changing_proposals_are_one_unbiased_mean() -> None:
    """E[sum w / n] = Z exactly when every batch has another law: the mean of many runs is as close as their spread says."""
    prior = near(1)
    target = SOFT["product"](prior)
    _, exact = log_target(target, prior)
    drawn = [weighed(target, near(seed), 300 * 20, seed)[1].view(2, 300, 20) for seed in range(4)]
    means = []
    for run in range(300):
        partition = Partition()
        for batch in drawn:
            partition.add([context for context in CONTEXTS for _ in range(20)], batch[:, run].flatten())
        means.append([math.exp(partition.of(context).value) for context in CONTEXTS])
    found = torch.tensor(means).double()
    error = found.std(0) / math.sqrt(len(means))
    assert bool(((found.mean(0) - exact.exp()).abs() < 4 * error).all())


def test_by_hand() -> None:
    """Weights 1, 2, 3, one missing, and one that is 0: Z = 6/4."""
    partition = Partition()
    partition.add(["a"] * 5, torch.tensor([1.0, 2.0, 3.0, math.nan, 0.0]).log())
    found = partition.of("a")
    assert found.n == 4
    assert found.value == pytest.approx(math.log(6 / 4))
    assert found.ess == pytest.approx(36 / 14)
    spread = math.sqrt((1 + 4 + 9) / 4 - (6 / 4) ** 2)
    assert found.standard_error == pytest.approx(spread / math.sqrt(4) / (6 / 4))
    assert effective_sample_size(torch.tensor([1.0, 2.0, 3.0, math.nan, 0.0]).log()) == pytest.approx(36 / 14)


def test_the_order_and_size_of_batches_do_not_matter() -> None:
    values = torch.randn(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole, parts = Partition(), Partition()
    whole.add(["a"] * 60, values)
    for chosen in torch.split(torch.randperm(60, generator=torch.Generator().manual_seed(2)), 7):
        parts.add(["a"] * len(chosen), values[chosen])
    one, two = whole.of("a"), parts.of("a")
    assert one.n == two.n
    assert one.value == pytest.approx(two.value, rel=1e-12)
    assert one.standard_error == pytest.approx(two.standard_error, rel=1e-9)


def test_a_window_forgets_and_no_window_does_not() -> None:
    windowed, whole = Partition(window=2), Partition()
    for value in (50.0, 0.0, 0.0):
        for partition in (windowed, whole):
            partition.add(["a", "a"], torch.tensor([value, value]).double())
    partition = windowed
    partition.add(["b"], torch.tensor([7.0]).double())  # another context does not push a's out
    assert windowed.of("a").value == pytest.approx(0)
    assert windowed.of("a").n == 4
    assert whole.of("a").value == pytest.approx(50 - math.log(3))
    assert windowed.log_z(["b", "a", "b"]).tolist() == pytest.approx([7, 0, 7])


def test_missing_forbidden_and_unseen() -> None:
    partition = Partition()
    partition.add(["a", "a", "b"], torch.tensor([math.nan, math.nan, -math.inf]))
    unseen, never, none = partition.of("c"), partition.of("b"), partition.of("a")
    assert (unseen.n, never.n, none.n) == (0, 1, 0)
    assert math.isnan(unseen.value)
    assert math.isnan(none.value)
    assert never.value == -math.inf
    assert (never.ess, unseen.ess) == (0.0, 0.0)
    partition.add(["b"], torch.tensor([2.0]).double().log())  # a positive one at last
    assert partition.of("b").value == pytest.approx(0)
    assert effective_sample_size(torch.tensor([-math.inf, math.nan])) == 0.0
    assert effective_sample_size(torch.tensor([])) == 0.0


def test_weights_of_whole_sequences_do_not_overflow() -> None:
    partition = Partition()
    partition.add(["a"] * 3, torch.tensor([900.0, 901.0, -2000.0]).double())
    partition.add(["b"] * 2, torch.tensor([-5000.0, -5000.0]).double())
    assert partition.of("a").value == pytest.approx(901 + math.log(1 + math.exp(-1)) - math.log(3))
    assert partition.of("b").value == pytest.approx(-5000)
    assert partition.of("b").ess == pytest.approx(2)


@pytest.mark.parametrize("window", [0, 3])
def test_the_state_goes_through_json_and_continues(window: int) -> None:
    generator = torch.Generator().manual_seed(3)
    batches = [torch.randn(6, generator=generator, dtype=torch.float64) * 10 for _ in range(8)]
    batches[2][0], batches[3][1] = -math.inf, math.nan
    whole, first = Partition(window), Partition(window)
    names = ["a", "b", "größe\n", "a", "b", "a"]
    for batch in batches:
        whole.add(names, batch)
    for batch in batches[:5]:
        first.add(names, batch)
    first.add(["forbidden"], torch.tensor([-math.inf]))
    whole.add(["forbidden"], torch.tensor([-math.inf]))
    second = Partition(window)
    second.restore(json.loads(json.dumps(first.state())))
    for batch in batches[5:]:
        second.add(names, batch)
    for name in (*names, "forbidden"):
        one, two = whole.of(name), second.of(name)
        assert (one.n, one.value, one.ess) == (two.n, two.value, two.ess)  # bit by bit


def test_groups_keep_order() -> None:
    found = groups(["x", "y", "x", "z", "y"])
    assert {name: places.tolist() for name, places in found.items()} == {"x": [0, 2], "y": [1, 4], "z": [3]}
    assert list(found) == ["x", "y", "z"]


# --- the tail
def pareto(k: float, n: int, seed: int) -> torch.Tensor:
    """log of weights whose tail has the shape k."""
    uniforms = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return -k * uniforms.log()


@pytest.mark.parametrize("k", [0.3, 0.7, 1.2])
def test_pareto_k_of_pareto_weights(k: float) -> None:
    found = torch.tensor([pareto_k(pareto(k, 4000, seed)) for seed in range(30)])
    assert float(found.mean()) == pytest.approx(k, abs=0.05)
    assert float(found.std()) < 0.15
    shifted = pareto_k(pareto(k, 4000, 1) - 3000)  # weights times a constant, however small
    assert shifted == pytest.approx(pareto_k(pareto(k, 4000, 1)), abs=1e-6)


def test_bounded_weights_are_trusted_and_heavy_ones_are_not() -> None:
    uniforms = torch.rand(4000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert pareto_k((1 + uniforms).log()) < 0.1  # a uniform law has k = -1
    normal = torch.randn(4000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert pareto_k(0.3 * normal) < 0.5
    assert pareto_k(4 * normal) > PARETO_LIMIT
    prior = near(1)
    _, weights = weighed(SOFT["tilt"](prior), prior, 2000, 1)
    assert pareto_k(weights) < PARETO_LIMIT


def test_pareto_k_where_there_is_nothing_to_fit() -> None:
    assert math.isnan(pareto_k(torch.zeros(1000)))  # all equal: on policy at the target
    assert math.isnan(pareto_k(torch.tensor([])))
    assert math.isnan(pareto_k(pareto(0.5, 20, 1)))  # fewer than 5 in the tail
    assert math.isnan(pareto_k(torch.full((1000,), -math.inf)))
    assert math.isnan(pareto_k(torch.full((1000,), math.nan)))


def test_pareto_k_of_discrete_weights_is_a_number_or_says_there_is_none() -> None:
    """Weights of a constraint are 0 or of a few sizes: many in the tail are equal to the one before it."""
    prior = near(1)
    for seed in range(5):
        _, weights = weighed(HARD["constraint"](prior), prior, 1000, seed)
        assert set(weights.exp().round(decimals=6).tolist()) == {0.0, 1.0}
        assert math.isnan(pareto_k(weights)) or pareto_k(weights) < PARETO_LIMIT
        few = torch.tensor([0.0] * 900 + [1.0] * 60 + [1.1] * 10 + [1.3] * 30).double()
        assert math.isnan(pareto_k(few)) or pareto_k(few) < PARETO_LIMIT


def test_missing_weights_are_left_out_of_the_tail() -> None:
    values = pareto(0.7, 3000, 2)
    with_missing = torch.cat([values, torch.full((100,), math.nan, dtype=torch.float64)])
    assert pareto_k(with_missing) == pareto_k(values)


def test_pareto_k_counts_weights_of_0_as_samples() -> None:
    """A constraint that 15% satisfy, with a heavy tail among them: the tail is that of the positive ones."""
    values = torch.cat([pareto(1.2, 600, 3), torch.full((3400,), -math.inf, dtype=torch.float64)])
    assert pareto_k(values) > PARETO_LIMIT
