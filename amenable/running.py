"""`amenable run`, `evaluate`, `sample`, `judge`, `compare`: resolve the settings, show the plan, run, print the report.

A run folder is resumed by naming it with `--out`: the settings in its config.yaml are then the defaults.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import textwrap
import warnings
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from amenable.config import describe, nearest, resolve, to_yaml
from amenable.errors import ConfigError, DataError, SamplingError, StorageError, TrainingError
from amenable.terminal import Parser, out

if TYPE_CHECKING:
    from amenable.recipes.settings import Recipe

SETTLED = (ConfigError, DataError, SamplingError, TrainingError)
"""Errors that the same run would meet again: their fix is another run, or other data, not to go on."""


def _parser(prog: str, first: str) -> Parser:
    parser = Parser(prog)
    parser.add_argument("first", nargs="?", metavar=first)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--config", type=Path, metavar="FILE")
    parser.add_argument("--out", type=Path, metavar="DIR")
    parser.add_argument("--dry-run", action="store_true")
    return parser


def _recipe(name: str) -> Recipe:
    from amenable.recipes import RECIPES

    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}", f"{nearest(name, RECIPES)} `amenable run` lists them")
    return RECIPES[name]


def run(arguments: list[str], *, debug: bool) -> int:
    options = _parser("amenable run", "NAME").intermixed(arguments)
    if options.first is None:
        from amenable.recipes import RECIPES

        width = max(map(len, RECIPES), default=0)
        out("recipes, for `amenable run NAME [key=value ...]`:")
        for name, recipe in RECIPES.items():
            out(f"  {name:<{width}}  {recipe.summary}")
        return 0
    recipe = _recipe(options.first)
    if options.help:
        out(recipe_help(recipe, f"amenable run {recipe.name} [key=value ...]"))
        return 0
    return _carryout(recipe, options, _with_models(recipe, options.overrides), debug=debug)


def _with_models(recipe: Recipe, given: list[str]) -> list[str]:
    """What was given, its words without "=" as the models of a recipe that puts some side by side."""
    named = [part for part in given if "=" not in part]
    if not named or "models" not in {row.name for row in describe(recipe.settings)}:
        return given
    return [f"models={','.join(named)}", *(part for part in given if "=" in part)]


def evaluate(arguments: list[str], *, debug: bool) -> int:
    options = _parser("amenable evaluate", "MODEL").intermixed(arguments)
    recipe = _recipe("evaluate")
    if options.help:
        out(recipe_help(recipe, "amenable evaluate MODEL [key=value ...]"))
        return 0
    if options.first is None or options.first.split("=")[0] in {row.name for row in describe(recipe.settings)}:
        raise ConfigError(
            "no model is named",
            "amenable evaluate MODEL: a folder, a Hugging Face id, or a name of `amenable models`",
        )
    return _carryout(recipe, options, [f"model={options.first}", *options.overrides], debug=debug)


def sample(arguments: list[str], *, debug: bool) -> int:
    options = _parser("amenable sample", "key=value").intermixed(arguments)
    recipe = _recipe("sample")
    if options.help:
        out(recipe_help(recipe, "amenable sample target=TARGET [key=value ...]"))
        return 0
    return _carryout(recipe, options, [*filter(None, [options.first]), *options.overrides], debug=debug)


def compare(arguments: list[str], *, debug: bool) -> int:
    from amenable.recipes.compare import RECIPE

    options = _parser("amenable compare", "RUN_A").intermixed(arguments)
    if options.help:
        out(recipe_help(RECIPE, "amenable compare RUN_A RUN_B [key=value ...]"))
        return 0
    known = {row.name for row in describe(RECIPE.settings)}
    given = [*filter(None, [options.first]), *options.overrides]
    runs = [part for part in given if part.split("=")[0] not in known]
    if len(runs) not in (0, 2) or (not runs and options.out is None and not any(part[:2] == "a=" for part in given)):
        told = f"{len(runs)} runs are named" + (f": {', '.join(runs)}" if runs else "")
        raise ConfigError(f"{told}; two are compared", "amenable compare RUN_A RUN_B [judge=...] [key=value ...]")
    rest = [part for part in given if part not in runs]
    named = [f"{side}={name}" for side, name in zip("ab", runs, strict=False)]
    return _carryout(RECIPE, options, [*named, *rest], debug=debug)


def judge(arguments: list[str], *, debug: bool) -> int:
    if arguments[:1] == ["calibrate"]:
        from amenable.recipes.judge_calibrate import RECIPE as calibration

        return _with_file(calibration, "judge calibrate", "labelled", arguments[1:], debug=debug)
    from amenable.recipes.judge import RECIPE as labelling

    return _with_file(labelling, "judge", "pairs", arguments, debug=debug)


def _with_file(recipe: Recipe, command: str, key: str, arguments: list[str], *, debug: bool) -> int:
    """A command whose first argument may be a file, which is the setting `key`."""
    options = _parser(f"amenable {command}", key.upper()).intermixed(arguments)
    if options.help:
        out(recipe_help(recipe, f"amenable {command} {key.upper()} [key=value ...]"))
        return 0
    first = [options.first] if options.first is not None else []
    if first and first[0].split("=")[0] not in {row.name for row in describe(recipe.settings)}:
        first = [f"{key}={first[0]}"]
    return _carryout(recipe, options, [*first, *options.overrides], debug=debug)


def _carryout(recipe: Recipe, options: argparse.Namespace, overrides: list[str], *, debug: bool) -> int:
    """Show the plan, run in the folder, print the report; if it stops, leave word of how to go on."""
    folder = options.out or _free_folder(recipe.name)
    resumed = _config_of(folder)
    settings = resolve(recipe.settings, file=options.config, overrides=overrides, resumed=resumed)
    if not debug:
        warnings.simplefilter("ignore")
    for line in recipe.plan(settings):
        out(line)
    out(f"{'resumes' if resumed else 'writes to'} {folder}")
    if options.dry_run:
        out(f"\n{to_yaml(settings)}", end="")
        return 0
    if not debug:
        from amenable.policy.quiet import quiet

        quiet()
    new = not folder.exists()
    _make(folder, free=options.out is None)
    try:
        report = recipe.run(settings, folder)
    except BaseException as error:
        with suppress(OSError):
            if new:
                folder.rmdir()  # works only where nothing was written
        if folder.exists() and not isinstance(error, SETTLED):
            error.add_note(f"to go on: amenable run {recipe.name} --out {shlex.quote(str(folder))}")
        raise
    from amenable.report.text import report_text

    out(f"\n{report_text(report)}\n\nreport: {folder / 'report.html'}")
    return 0


def _config_of(folder: Path) -> Path | None:
    """The configuration of the run in `folder`, None for a new one. Errors: ConfigError for other folders."""
    if (folder / "config.yaml").is_file():
        return folder / "config.yaml"
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"{folder} is not a run folder: it has no config.yaml", "give a new folder with --out")
    return None


def _free_folder(name: str) -> Path:
    return next(folder for n in count(1) if not (folder := Path("runs") / f"{name}-{n}").exists())


def _make(folder: Path, *, free: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=not free)
    except FileExistsError as error:
        raise StorageError(f"{folder} was taken by another run just now", "run the same command again") from error
    except OSError as error:
        what = f"{folder} cannot be written: {error.strerror}"
        raise StorageError(what, "give a folder you may write to with --out") from error


def recipe_help(recipe: Recipe, usage: str) -> str:
    """Every setting of a recipe with its default, type, choices and help."""
    width = max(60, min(shutil.get_terminal_size().columns, 110))
    lines = [
        f"usage: {usage}",
        "",
        textwrap.fill(recipe.summary, width),
        "",
        "settings, with their defaults:",
    ]
    for row in describe(recipe.settings):
        chosen = f"one of {', '.join(row.choices)}" if row.choices else row.type
        text = textwrap.wrap(f"{row.help} ({chosen})", width - 32)
        left = f"  {row.name}={row.default}"
        if len(left) > 30:
            lines.append(left)
            left = ""
        lines.append(f"{left:<32}{text[0]}")
        lines += [" " * 32 + rest for rest in text[1:]]
    lines += [
        "",
        "options:",
        "  --config FILE                 settings from a YAML file; key=value goes before it",
        "  --out DIR                     the run's folder (default runs/NAME-N); an existing run is resumed",
        "  --dry-run                     show the plan and the settings, and do nothing",
        "  --debug                       show tracebacks and warnings",
    ]
    return "\n".join(lines)
