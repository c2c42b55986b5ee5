"""Functions out of source: what is taken and what is left out, and that splits share no module."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from amenable.errors import DataError
from amenable.task import functions as source
from amenable.task.functions import SPLITS, Function, contexts, fingerprint, functions_in, of_split, standard_library


def texts(source: str, **how: int) -> list[str]:
    return [function.text for function in functions_in(source, "m", **how)]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(x):\n    return x\n", ["def f(x):\n    return x\n"]),
        ("@cached\n@other(1)\ndef f(x):\n    return x", ["def f(x):\n    return x\n"]),
        ('def f(x):\n    """Says\n    much."""\n\n    return x\n', ["def f(x):\n    return x\n"]),
        ('class A:\n    """A."""\n    def f(self):\n        "Does."\n        # why\n        self.x = 1\n    y = 2\n',
         ["def f(self):\n    # why\n    self.x = 1\n"]),
        ("if a:\n    try:\n        def f():\n            pass\n    except E:\n        def g():\n            pass\n",
         ["def f():\n    pass\n", "def g():\n    pass\n"]),
        ("def f(a,\n      b=(1,\n         2)):  # both\n    return a\n",
         ["def f(a,\n      b=(1,\n         2)):\n    return a\n"]),
        ("async def f():\r\n    await g()\r\n", ["async def f():\n    await g()\n"]),
        ("def f():\n    def g():\n        return 1\n    return g\n",
         ["def f():\n    def g():\n        return 1\n    return g\n"]),
        ("class A:\n  def f(self):\n    if self:\n\n      return 1\n", ["def f(self):\n  if self:\n\n    return 1\n"]),
        ("def f(x) -> dict[str, int]:\n    return {'a': 1}\n", ["def f(x) -> dict[str, int]:\n    return {'a': 1}\n"]),
        # left out
        ("def f(x): return x\n", []),
        ('def f(x):\n    """Only words."""\n', []),
        ('def f(x):\n    "words"; return x\n', []),
        ('class A:\n    def f(self):\n        return """\nno indent"""\n', []),
        ("f = lambda x: x\n", []),
        ("this is no Python\n", []),
        ("", []),
    ],
)  # fmt: skip
def test_what_is_taken(source: str, found: list[str]) -> None:
    assert texts(source) == found


def test_signature_and_body_are_the_whole_and_length_is_a_limit() -> None:
    (function,) = functions_in("def f(x):\n    return x\n", "a.b")
    assert (function.module, function.signature, function.body) == ("a.b", "def f(x):\n", "    return x\n")
    assert texts("def f(x):\n    return x\n", longest=23) == ["def f(x):\n    return x\n"]
    assert len(function.text) == 23
    assert texts("def f(x):\n    return x\n", longest=22) == []


def test_the_standard_library() -> None:
    functions = standard_library()
    assert len(functions) > 5000
    for function in functions[::7]:
        (node,) = ast.parse(function.text).body
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        assert ast.get_docstring(node) is None
        assert function.text.startswith(("def ", "async def "))
        assert function.signature.endswith(":\n")
        assert function.body[0] in " \t#"
        assert function.body[-1] == "\n" != function.body[-2]
        assert len(function.text) <= 1000
    assert len({" ".join(function.text.split()) for function in functions}) == len(functions)
    modules = [function.module for function in functions]
    assert modules == sorted(modules)
    assert "json.decoder" in modules
    assert not [module for module in modules if "test" in module.split(".") or "site-packages" in module]


def test_the_same_functions_every_time() -> None:
    first = fingerprint(standard_library())
    source._all.cache_clear()
    source._of_file.cache_clear()
    assert fingerprint(standard_library()) == first
    assert fingerprint(standard_library()[1:]) != first


def test_splits_share_no_module_and_every_function_has_one() -> None:
    functions = standard_library()
    parts = {split: of_split(functions, split) for split in SPLITS}
    assert sum(map(len, parts.values())) == len(functions)
    modules = [{function.module for function in part} for part in parts.values()]
    assert not modules[0] & modules[1] | modules[0] & modules[2] | modules[1] & modules[2]
    shares = [len(part) / len(functions) for part in parts.values()]
    assert shares[0] > 0.6
    assert min(shares) > 0.03
    with pytest.raises(DataError, match="test"):
        of_split(functions, "test")


def test_contexts_are_short_distinct_and_disjoint() -> None:
    functions = standard_library()
    chosen = {split: contexts(functions, split, 60) for split in ("train", "held-out")}
    for split, some in chosen.items():
        assert len({function.signature for function in some}) == 60
        assert all(function.split == split for function in some)
        assert all(len(function.body) <= 160 and len(function.signature) <= 80 for function in some)
    trained = of_split(functions, "train")
    assert not {f.signature for f in chosen["held-out"]} & {f.signature for f in trained}
    assert not {f.module for f in chosen["held-out"]} & {f.module for f in trained}
    assert contexts(functions, "train", 60) == chosen["train"]
    assert contexts(functions, "train", 60, seed=1) != chosen["train"]
    with pytest.raises(DataError, match="100000 contexts"):
        contexts(functions, "train", 100_000)


def test_packages_are_read_besides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "ownpackage"
    (package / "tests").mkdir(parents=True)
    (package / "__init__.py").write_text("def of_my_own(q):\n    return q\n")
    (package / "inner.py").write_text(
        "# -*- coding: latin-1 -*-\ndef with_\xe9(q):\n    return q\n", encoding="latin-1"
    )
    (package / "torn.py").write_bytes(b"def f(:\n\xff")
    (package / "tests" / "all.py").write_text("def a_test_of_it():\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    besides = set(standard_library(packages=("ownpackage",))) - set(standard_library())
    assert besides == {
        Function("ownpackage", "def of_my_own(q):\n", "    return q\n"),
        Function("ownpackage.inner", "def with_\xe9(q):\n", "    return q\n"),
    }
    with pytest.raises(DataError, match="no_such_package"):
        standard_library(packages=("no_such_package",))


def test_a_prefix_is_the_function_s_beginning_cut_at_a_border_of_words() -> None:
    head, body = "def f(a, b):\n", "    if a:\n        return [a, b]\n    return b\n"
    ends = ["", "    if", "if a:\n", "        return", "[a,", "b]\n", "    return"]  # what stands last before each cut
    function = Function("m", head, body)
    found = sorted({function.prefix(seed) for seed in range(200)}, key=len)
    assert [function.text.startswith(one) for one in found] == [True] * len(ends)
    assert [one.endswith(end) for one, end in zip(found, ends, strict=True)] == [True] * len(ends)
    assert found[0] == head
    assert function.prefix(3) == function.prefix(3)
