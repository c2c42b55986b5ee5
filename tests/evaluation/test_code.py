"""Sizes and rates of generated code."""

from __future__ import annotations

import ast
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.errors import DataError
from amenable.evaluation.code import (
    ast_nodes,
    characters,
    compile_rate,
    lines,
    mean_ast_nodes,
    moments,
    pep8_per_character,
)
from amenable.evaluation.interval import bootstrap_mean, wilson


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("", 1),
        ("# only a comment", 1),
        ("x", 4),  # Module, Expr, Name, Load
        ("x = 1", 5),  # Module, Assign, Name, Store, Constant
        ("x = '\\d'", 5),
        ("x = (", None),
        ("print 1", None),
        ("x = '\0'", None),
        ("x = '\ud800'", None),
        ("x = " + "-" * 100_000 + "1", None),
        ("x" + ".b" * 100_000, None),
    ],
)
def test_nodes_by_hand(text: str, nodes: int | None) -> None:
    assert ast_nodes(text) == nodes


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(["x = 1", "f(a, b=[1, 2])", "def g(): return x", "if x: y"]), max_size=4))
def test_nodes_add_up(statements: list[str]) -> None:
    total = ast_nodes("\n".join(statements))
    assert total == 1 + sum(sum(1 for _ in ast.walk(ast.parse(one).body[0])) for one in statements)


def test_sizes() -> None:
    assert [lines(text) for text in ("", "x", "x\n", "x\n\ny\n", "\n")] == [0, 1, 1, 3, 1]
    assert characters("é😀\n") == 3


def test_the_compile_rate_counts_what_compiles_says() -> None:
    texts = ["x = 1", "x = (", "", "pass"]
    assert compile_rate(texts) == wilson(1, 4)
    assert compile_rate(texts, statements=0) == wilson(3, 4)
    assert compile_rate(["    return 1", "    return ("], prompts=["def f():\n"] * 2) == wilson(1, 2)
    assert compile_rate(["x = 1", "y = 2"], ended=["eos", "length"]) == wilson(1, 2)
    assert compile_rate([]).n == 0
    with pytest.raises(DataError, match="0 prompts for 1"):
        compile_rate(["x"], prompts=[])


def test_nodes_are_averaged_over_what_parses_and_it_says_so() -> None:
    found = mean_ast_nodes(["x", "x = 1", "x = ("])
    assert (found.value, found.n) == (4.5, 2)
    assert "2 of 3 parse" in found.method
    assert math.isnan(mean_ast_nodes(["("]).value)
    assert mean_ast_nodes(["", ""]).high == 1.0, "a number of nodes is no share"


def test_pep8_per_character() -> None:
    assert pep8_per_character(["x=1", "x = 1"]).value == pytest.approx((1 / 3 + 0) / 2)
    assert pep8_per_character(["x=1", ""]).n == 1
    clean = pep8_per_character(["x = 1", "y = 2"])
    assert (clean.value, clean.low, clean.high) == (0, 0, 0)


def test_moments() -> None:
    found = moments({"a": [1.0, 0.0, None, 1.0], "b": [0.5, 0.25, 0.75, None], "c": [None]})
    assert found["a"] == wilson(2, 3)
    assert found["b"].value == pytest.approx(0.5)
    assert (found["b"].low, found["b"].high) == (
        bootstrap_mean([0.5, 0.25, 0.75]).low,
        bootstrap_mean([0.5, 0.25, 0.75]).high,
    )
    assert found["c"].n == 0
    assert math.isnan(found["c"].value)


def test_moments_by_prompt() -> None:
    values = [1.0, 1.0, 1.0, 0.0, 0.0, None]
    prompts = ["a", "a", "a", "b", "b", "c"]
    found = moments({"f": values}, clusters=prompts)["f"]
    assert found.value == pytest.approx(0.6)
    assert found.n == 2
    assert "clusters" in found.method
    assert found.high - found.low > moments({"f": values})["f"].high - moments({"f": values})["f"].low
    with pytest.raises(DataError, match="6 values but 1 cluster labels"):
        moments({"f": values}, clusters=["a"])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.one_of(st.none(), st.sampled_from([0.0, 1.0])), max_size=8))
def test_moments_do_not_depend_on_order_and_missing_is_not_zero(values: list[float | None]) -> None:
    found = moments({"f": values})["f"]
    assert found == moments({"f": values[::-1]})["f"] == moments({"f": [*values, None]})["f"]
