"""What the commands share: results on the standard output, and options whose complaints are ConfigErrors."""

from __future__ import annotations

import argparse
from typing import NoReturn

from amenable.config import nearest
from amenable.errors import ConfigError


class ReaderGone(Exception):
    """Whoever read the standard output has closed it."""


def out(text: str, end: str = "\n") -> None:
    """Print a result now. Errors: ReaderGone if nobody reads it."""
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError as error:
        raise ReaderGone from error


class Parser(argparse.ArgumentParser):
    """A command's options; everything that argparse would exit on is a ConfigError."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog=prog, add_help=False, allow_abbrev=False)
        self.add_argument("-h", "--help", action="store_true")

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, f"see `{self.prog} --help`")

    def options(self, arguments: list[str]) -> argparse.Namespace | None:
        """The options, in any order; None after printing the help that was asked for."""
        if "-h" in arguments or "--help" in arguments:
            out(self.format_help(), end="")
            return None
        return self.intermixed(arguments)

    def intermixed(self, arguments: list[str]) -> argparse.Namespace:
        """The options, in any order, `help` among them. Errors: ConfigError with the nearest option."""
        options, unknown = self.parse_known_intermixed_args(arguments)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            hint = nearest(unknown[0].split("=")[0], known)
            what = f"{self.prog} has no option {unknown[0]}"
            raise ConfigError(what, f"{hint} Settings are written key=value, without dashes")
        return options
