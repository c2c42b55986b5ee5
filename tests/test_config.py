"""Settings: where they come from, what is refused, and what a refusal says."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amenable.config import Row, describe, nearest, resolve, to_yaml
from amenable.errors import ConfigError
from amenable.recipes.settings import setting

RUNS = Path("runs")


@dataclass(frozen=True)
class Study:
    """One setting of each type."""

    model: str = setting("tiny", "the model")
    rounds: int = setting(1, "how often")
    rate: float = setting(5e-6, "peak learning rate")
    resume: bool = setting(True, "go on")
    task: str = setting("embedded", "which tasks", ("embedded", "mbpp", "file"))
    k: tuple[int, ...] = setting((1, 10), "pass@k")
    tags: tuple[str, ...] = setting((), "labels")
    cap: float | None = setting(None, "at most")
    level: int = setting(2, "how much", (1, 2, 3))
    parts: tuple[str, ...] = setting(("a",), "which parts", ("a", "b"))
    where: Path = setting(RUNS, "folder")  # noqa: RUF009 (Path is immutable)
    mode: Literal["fast", "exact"] = setting("fast", "how")
    label: str | None = setting(None, "a name")


def test_without_file_and_arguments_the_defaults_hold() -> None:
    assert resolve(Study) == Study()


def test_arguments_win_over_the_file_and_the_file_over_a_resumed_run(tmp_path: Path) -> None:
    resumed, file = tmp_path / "config.yaml", tmp_path / "mine.yaml"
    resumed.write_text("rounds: 2\nmodel: resumed\ntask: mbpp\n")
    file.write_text("model: filed\ntask: file\n")
    settings = resolve(Study, resumed=resumed, file=file, overrides=["task=embedded"])
    assert (settings.rounds, settings.model, settings.task) == (2, "filed", "embedded")


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("rate=1e-5", 1e-5),
        ("rate=3", 3.0),
        ("rate=.5", 0.5),
        ("rounds=8", 8),
        ("rounds= -1 ", -1),
        ("resume=false", False),
        ("resume=No", False),
        ("resume=1", True),
        ("model=a=b", "a=b"),
        ("model=", ""),
        ("model=none", "none"),
        ("task=mbpp", "mbpp"),
        ("k=5", (5,)),
        ("k=1,10, 100", (1, 10, 100)),
        ("k=[1,2]", (1, 2)),
        ("k=", ()),
        ("tags=a,b", ("a", "b")),
        ("cap=none", None),
        ("cap=1e3", 1000.0),
        ("level=3", 3),
        ("parts=b,a", ("b", "a")),
        ("where=a/b", Path("a/b")),
        ("mode=exact", "exact"),
        ("label=null", None),
        ("label=x", "x"),
    ],
)
def test_text_becomes_the_type_of_its_setting(override: str, value: Any) -> None:
    found = getattr(resolve(Study, overrides=[override]), override.partition("=")[0])
    assert found == value
    assert type(found) is type(value) or isinstance(value, Path)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("rate: 1e-5", 1e-5),  # YAML reads this as text
        ("rate: 1", 1.0),
        ("rounds: '3'", 3),
        ("k: [1, 5]", (1, 5)),
        ("k: 5", (5,)),
        ("k: 1,5", (1, 5)),
        ("cap: null", None),
        ("cap: ~", None),
        ("resume: off", False),
        ("tags: ['x, y', z]", ("x, y", "z")),
        ("where: runs/a", Path("runs/a")),
    ],
)
def test_yaml_values_become_the_type_of_their_setting(tmp_path: Path, line: str, value: Any) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(line + "\n")
    assert getattr(resolve(Study, file=file), line.partition(":")[0]) == value


def test_a_setting_may_have_a_second_name(tmp_path: Path) -> None:
    """`from` cannot be a field's name; the settings that are written have the field's."""

    @dataclass(frozen=True)
    class Going:
        model: str = setting("", "where to begin", also="from")

    (tmp_path / "c.yaml").write_text("from: tiny\n")
    assert resolve(Going, overrides=["from=tiny"]) == resolve(Going, file=tmp_path / "c.yaml") == Going("tiny")
    assert to_yaml(Going("tiny")) == "model: tiny\n"
    with pytest.raises(ConfigError, match="model is given twice"):
        resolve(Going, overrides=["from=tiny", "model=tiny"])
    with pytest.raises(ConfigError, match="there is no setting 'from'"):
        resolve(Study, overrides=["from=tiny"])


@pytest.mark.parametrize(
    ("overrides", "what", "fix"),
    [
        (["round=2"], "there is no setting 'round' (on the command line)", "did you mean 'rounds'?"),
        (["qqqq=2"], "there is no setting 'qqqq'", "known: model, rounds, rate"),
        (["rounds=two"], "rounds=two (on the command line) is not a whole number", "the default is 1"),
        (["rounds=1.0"], "rounds=1.0 (on the command line) is not a whole number", "the default is 1"),
        (["rounds="], "rounds= (on the command line) is not a whole number", "the default is 1"),
        (["rate=fast"], "rate=fast (on the command line) is not a number, such as 0.7 or 1e-5", "5e-06"),
        (["rate=nan"], "rate=nan (on the command line) is not a number", ""),
        (["resume=maybe"], "resume=maybe (on the command line) is not true or false", "default is true"),
        (
            ["task=mbbp"],
            "is not one of embedded, mbpp, file",
            "did you mean 'mbpp'? choose embedded, mbpp, file",
        ),
        (["mode=exacto"], "is not one of fast, exact", "did you mean 'exact'?"),
        (["level=7"], "level=7 (on the command line) is not one of 1, 2, 3", "the default is 2"),
        (["parts=a,c"], "parts=c (on the command line) is not one of a, b", ""),
        (
            ["k=1,x"],
            "k=1,x (on the command line) is not a list with commas, each of a whole number",
            "is 1,10",
        ),
        (["k=1,,2"], "k=1,,2", ""),
        (["cap=much"], "cap=much (on the command line) is not a number, such as 0.7 or 1e-5, or none", ""),
        (["rounds"], "'rounds' is not a setting: it has no key=value", "such as seed=1"),
        (["=3"], "'=3' is not a setting", ""),
        (["rounds=1", "rounds=1"], "rounds is given twice", "keep one rounds=value"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(overrides: list[str], what: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(Study, overrides=overrides)
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rounds: 1\nrounds: 2\n", "the key 'rounds' is given twice"),
        ("rounds: [1\n", "is not YAML"),
        ("- a\n- b\n", "does not hold keys and values"),
        ("7\n", "does not hold keys and values"),
        ("1: 2\n", "does not hold keys and values"),
        ("ronds: 1\n", "did you mean 'rounds'?"),
        ("rounds: true\n", "rounds=true (in "),
        ("rounds: 1.5\n", "rounds=1.5 (in "),
        ("rate: true\n", "rate=true (in "),
        ("rate: .nan\n", "rate=nan (in "),
        ("resume: 7\n", "resume=7 (in "),
        ("model: no\n", "model=false (in "),  # YAML: the text no is false
        ("model: 1.0\n", "is not text"),
        ("rounds: null\n", "rounds=none (in "),
        ("k: {a: 1}\n", "is not a list with commas"),
        ("where: [a]\n", "is not a path"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        resolve(Study, file=file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("# nothing yet\n")
    assert resolve(Study, file=file) == Study()


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        resolve(Study, file=tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        resolve(Study, file=tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"model: caf\xe9\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        resolve(Study, file=tmp_path / "latin.yaml")


def test_a_file_cannot_make_objects(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("model: !!python/object/apply:os.system ['touch /tmp/amenable-was-here']\n")
    with pytest.raises(ConfigError, match="is not YAML"):
        resolve(Study, file=file)


@dataclass(frozen=True)
class Strict:
    """A required setting, one made by a factory, a check of its own."""

    name: str
    sizes: tuple[int, ...] = field(default_factory=lambda: (1, 2))

    def __post_init__(self) -> None:
        if self.sizes == (0,):
            raise ConfigError("sizes=0 cannot work")


def test_required_settings_and_the_settings_own_checks() -> None:
    with pytest.raises(ConfigError, match="name has no default"):
        resolve(Strict)
    assert resolve(Strict, overrides=["name=x"]).sizes == (1, 2)
    with pytest.raises(ConfigError, match="sizes=0 cannot work"):
        resolve(Strict, overrides=["name=x", "sizes=0"])
    assert [row.default for row in describe(Strict)] == ["(required)", "1,2"]


def test_every_key_is_described() -> None:
    rows = {row.name: row for row in describe(Study)}
    assert list(rows) == list(Study.__dataclass_fields__)
    assert rows["task"] == Row("task", "str", "embedded", ("embedded", "mbpp", "file"), "which tasks")
    assert rows["mode"] == Row("mode", "str", "fast", ("fast", "exact"), "how")
    assert (rows["k"].type, rows["k"].default) == ("int,...", "1,10")
    assert (rows["cap"].type, rows["cap"].default) == ("float | none", "none")
    assert rows["resume"].default == "true"


def test_a_default_as_help_shows_it_can_be_typed() -> None:
    assert resolve(Study, overrides=[f"{row.name}={row.default}" for row in describe(Study)]) == Study()


def test_settings_are_written_as_yaml_in_their_order() -> None:
    keys = [line.split(":")[0] for line in to_yaml(Study()).splitlines() if ":" in line]
    assert keys == list(Study.__dataclass_fields__)


@given(
    rate=st.floats(allow_nan=False),
    rounds=st.integers(),
    model=st.text(st.characters(codec="utf-8", exclude_characters="\x00")),
    tags=st.lists(st.text(st.characters(codec="utf-8"))).map(tuple),
    cap=st.none() | st.floats(allow_nan=False),
)
def test_any_settings_survive_a_file(
    tmp_path_factory: pytest.TempPathFactory,
    rate: float,
    rounds: int,
    model: str,
    tags: Any,
    cap: float | None,
) -> None:
    settings = Study(rate=rate, rounds=rounds, model=model, tags=tags, cap=cap)
    file = tmp_path_factory.getbasetemp() / "round.yaml"
    file.write_text(to_yaml(settings), encoding="utf-8")
    assert resolve(Study, file=file) == settings


@pytest.mark.parametrize("model", ["\x85", "caf\u00e9", "\u2028", "no", "1e-5", "~", "", " a ", "a: b", "'\n\t"])
def test_awkward_text_survives_a_file(tmp_path: Path, model: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(to_yaml(Study(model=model)), encoding="utf-8")
    assert resolve(Study, file=file).model == model


def test_the_nearest_name() -> None:
    assert nearest("ifl", ["ilf", "evaluate"]) == "did you mean 'ilf'?"
    assert nearest("EVALUATE", ["ilf", "evaluate"]) == "did you mean 'evaluate'?"
    assert nearest("zzz", ["ilf", "evaluate"]) == "known: ilf, evaluate."
