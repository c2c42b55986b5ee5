"""Who may import whom, read from the syntax tree; the table is the rule (docs: the houses and their arrows).

Other rules that hold for the whole package stand here too: one `optimizer.step`, no unpickling,
`transformers` in the policy's house alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EVERYWHERE = {"records", "errors", "seeding", "progress", "cache"}

# house -> what it may import besides itself and EVERYWHERE; a name stands for the module and all under it
ALLOWED: dict[str, set[str]] = {
    "records": set(),
    "errors": set(),
    "seeding": set(),
    "progress": set(),
    "cache": set(),
    "policy": {"target"},  # in `algebra` alone, when asked: prior * potential, prior.tilt, prior.with_moments
    "sandbox": set(),
    "task": set(),
    "objective": set(),
    "feedback": {"policy.protocol", "policy.forward", "sandbox", "durable"},  # forward: a reward model's body is read by it
    "target": {"policy.protocol", "feedback.kinds"},
    "sampling": {"policy", "target"},
    "game": {  # a game is a method of the loop; its runs are scored by the metrics of languages
        "policy.protocol", "feedback.kinds", "objective", "method.loop", "method.protocol", "sampling.proposal",
        "evaluation.compositionality", "evaluation.messages", "evaluation.interval", "evaluation.paired",
        "evaluation.permutation", "report.svg",
    },
    "method": {  # policy.scoring: how sequences are grouped by length, pure functions of lengths
        "policy.protocol", "policy.scoring", "feedback.kinds", "target", "objective", "sampling", "game",
        "runs", "durable", "stopping", "",
    },
    "evaluation": {"policy", "sandbox", "feedback", "task", "target", "objective", "sampling", "game"},
    "report": {"evaluation.interval"},
    "durable": set(),
    "stopping": set(),
    "runs": {"durable"},
    "config": set(),
    "user_code": set(),
    "terminal": {"config"},
    "doctor": {"policy", "sandbox"},
    "export": {"durable", "task", "terminal"},
    "serving": {"policy", "terminal"},
    "selftest": {"config", "user_code", "policy", "target", "objective", "sampling", "method", "evaluation"},
    "running": {"config", "terminal", "recipes", "report", "policy"},
    "recipes": {
        "policy", "sandbox", "task", "objective", "feedback", "target", "sampling", "game", "method",
        "evaluation", "report", "runs", "durable", "config", "user_code", "",
    },
    "cli": {
        "stopping", "config", "terminal", "running", "doctor", "selftest", "recipes", "policy", "sandbox", "report",
        "serving", "export",
    },
    "__main__": {"cli"},
    "": {
        "policy", "sandbox", "task", "objective", "feedback", "target", "method", "evaluation", "report",
        "recipes",
    },
}  # fmt: skip

# a module outside the package -> the only places it may be imported from
ONLY_IN = {
    "transformers": ("policy", "feedback.reward_model", "feedback.classifier"),
    "peft": ("policy", "feedback.reward_model"),
    "gguf": ("policy",),
}


def module_of(path: Path, root: Path) -> str:
    """amenable/policy/engine.py is "policy.engine", its __init__.py "policy", the package's own ""."""
    parts = list(path.relative_to(root / "amenable").with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """(line, full module name) of every import, also those inside functions and for types alone."""
    package = ["amenable", *module_of(path, root).split(".")]
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join(part for part in [*above, node.module or ""] if part)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def within(module: str, places: set[str] | tuple[str, ...]) -> bool:
    """Whether `module` is one of `places` or lies under one ("" is the package's own __init__ alone)."""
    return any(module == place or (place and module.startswith(place + ".")) for place in places)


def violations(root: Path) -> list[str]:
    """One line for each import that the tables do not allow."""
    found = []
    for path in sorted((root / "amenable").rglob("*.py")):
        module = module_of(path, root)
        house = module.split(".")[0]
        where = path.relative_to(root)
        if house not in ALLOWED:
            found.append(f"{where}: the house {house!r} is not in the table of tests/test_layers.py")
            continue
        modules = {module_of(other, root) for other in (root / "amenable").rglob("*.py")}
        for line, name in imports(path, root):
            first, _, rest = name.partition(".")
            if first == "amenable":
                target = rest if rest in modules else rest.rpartition(".")[0]  # a module, or a name in one
                allowed = ALLOWED[house] | EVERYWHERE | ({house} if house else set())
                if house in EVERYWHERE:
                    allowed = EVERYWHERE - {"progress"} | {house}
                if target == "" and house != "" and rest in ("__version__", ""):
                    continue
                if not within(target, allowed):
                    found.append(f"{where}:{line} imports amenable.{rest}, which its house may not")
            elif first in ONLY_IN and not within(module, ONLY_IN[first]):
                found.append(f"{where}:{line} imports {name}, which its house may not")
    return found


def test_every_house_imports_only_what_it_may() -> None:
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("file", "code", "complaint"),
    [
        (
            "objective/f.py",
            "from amenable.policy.engine import Engine",
            "objective/f.py:1 imports amenable.pol",
        ),
        ("objective/f.py", "from amenable import policy", "imports amenable.policy"),
        ("objective/f.py", "import amenable.policy.engine", "imports amenable.policy.engine"),
        ("objective/f.py", "from ..policy import engine", "imports amenable.policy.engine"),
        ("objective/f.py", "from ..policy.engine import Engine", "imports amenable.policy.engine"),
        ("feedback/f.py", "def f():\n    from amenable.policy.engine import E", "feedback/f.py:2 imports"),
        ("method/f.py", "from amenable.feedback.unit_tests import UnitTests", "amenable.feedback.unit_tests"),
        ("evaluation/f.py", "from amenable.method.ilf import x", "imports amenable.method.ilf"),
        ("records.py", "from amenable.progress import say", "imports amenable.progress"),
        ("method/f.py", "import transformers", "imports transformers"),
        ("recipes/f.py", "from transformers.utils import logging", "imports transformers.utils.logging"),
        ("attic/f.py", "", "the house 'attic' is not in the table"),
    ],
)
def test_the_checker_finds_a_forbidden_import(tmp_path: Path, file: str, code: str, complaint: str) -> None:
    layout(tmp_path, {file: code})
    found = violations(tmp_path)
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("method/f.py", "from amenable.policy.protocol import Policy\nfrom amenable.feedback import kinds"),
        ("feedback/f.py", "from amenable.sandbox import Sandbox"),
        ("policy/f.py", "import transformers\nfrom .engine import Engine\nfrom amenable.progress import bar"),
        ("recipes/f.py", "import amenable\nfrom amenable import __version__"),
    ],
)
def test_the_checker_leaves_allowed_imports_alone(tmp_path: Path, file: str, code: str) -> None:
    layout(tmp_path, {file: code})
    assert violations(tmp_path) == []


def layout(root: Path, files: dict[str, str]) -> None:
    """A small package with some of the real modules, empty, and `files`."""
    modules = (
        "__init__", "records", "progress", "policy/__init__", "policy/engine", "policy/protocol",
        "method/ilf", "feedback/__init__", "feedback/kinds", "feedback/unit_tests", "sandbox/__init__",
        "method/__init__",
    )  # fmt: skip
    for name, code in {**{f"{module}.py": "" for module in modules}, **files}.items():
        path = root / "amenable" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)


def trees() -> Iterator[tuple[Path, ast.AST]]:
    for path in sorted((ROOT / "amenable").rglob("*.py")):
        yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def steps(tree: ast.AST) -> list[int]:
    """Lines that call `.step(...)` on something named an optimiser."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "step"
        and "optim" in ast.unparse(node.func.value).lower()
    ]


PICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


# `trusted` is true, and the others are not empty, only if the user has named the model itself (policy/loading.py)
ASKED_FOR = ("trusted", "settings.trust_remote_code", "asking.trust_remote_code", "made if prior.brings_code else ''")


def unpickles(tree: ast.AST) -> list[int]:
    """Lines that could run what a file says: pickle and its kin, `torch.load`, a model's own code."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            base = getattr(node, "module", None)
            names = [f"{base}.{alias.name}" if base else alias.name for alias in node.names]
            if any(name.split(".")[0] in PICKLERS or name == "torch.load" for name in names):
                lines.append(node.lineno)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.jit.load"):
            lines.append(node.lineno)
        elif (
            isinstance(node, ast.keyword)
            and node.arg in ("allow_pickle", "trust_remote_code")
            and ast.unparse(node.value) not in ("False", *ASKED_FOR)
        ):
            lines.append(node.value.lineno)
    return lines


def test_there_is_one_optimizer_step() -> None:
    found = [f"{path}:{line}" for path, tree in trees() for line in steps(tree)]
    assert len(found) == 1, found


def test_nothing_is_unpickled() -> None:
    assert [f"{path}:{line}" for path, tree in trees() for line in unpickles(tree)] == []


def test_the_other_checkers_find_what_they_look_for() -> None:
    assert steps(ast.parse("self.optimizer.step()\nscheduler.step()\noptimiser.step(closure)")) == [1, 3]
    bad = ("import pickle", "from dill import loads", "torch.load(f)", "from torch import load")
    worse = ("load(allow_pickle=True)", "load(trust_remote_code=x)")
    assert sorted(unpickles(ast.parse("\n".join([*bad, *worse])))) == [1, 2, 3, 4, 5, 6]
    assert unpickles(ast.parse("load(trust_remote_code=False)\ntorch.save(x)")) == []
