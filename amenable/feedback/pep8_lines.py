r"""Style violations of Python source, line by line, as pycodestyle counts them, in a fraction of its time.

    score of a line = violations that pycodestyle reports on it / its characters, the newline counted

What makes it faster: pycodestyle runs some twenty checks over every logical line, and nearly all find nothing. A check is
run here only where a cheap condition, without which it cannot report anything, holds: "a type is compared" needs `==` or
`!=` in the line, "multiple spaces before an operator" needs two spaces. The checks themselves are pycodestyle's own
functions, so what they report is what it reports. Whatever is out of the ordinary (a text that does not tokenise, odd
characters, a version of pycodestyle that was not compared) goes through pycodestyle whole.

The conditions are tested: the counts are equal, line by line, on the standard library and on generated text.

Source: Korbak et al. 2023, arXiv 2302.08582 (PEP8 violations a character, segments are lines).
Changed from the paper: `# noqa` does not excuse a line (see `python_text`).
"""

from __future__ import annotations

import io
import keyword
import re
import tokenize
from collections.abc import Iterator
from typing import Any

import pycodestyle

from amenable.feedback.python_text import excused, options_of, silent, unreadable

COMPARED = ("2.14", "2.15")
"""Versions of pycodestyle that the conditions were compared with; others run unguarded."""

_SKIPPED = frozenset((tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT))
_NEWLINES = frozenset((tokenize.NL, tokenize.NEWLINE))
_USUAL = _SKIPPED | {tokenize.NAME, tokenize.NUMBER, tokenize.OP, tokenize.STRING, tokenize.COMMENT, tokenize.ENDMARKER}
_WORDS = "|".join(word for word in keyword.kwlist if word not in pycodestyle.SINGLETONS)
_TOUCHED = re.compile(rf"(?<![A-Za-z_])(?:{_WORDS})(?:[^\s:\w]|:=)")  # a keyword, and no space behind it
_SIGNS = "+*/%@&|^<>=!-"
_OPERATOR = r"(?:[-+*/%@&|^<>]|//|\*\*|<<|>>|[-+*/%@&|^<>=!]=|(?://|\*\*|<<|>>)=|=|->)"
_CROWDED = re.compile(  # an operator, comma or colon that may lack a space on a side
    rf"(?<![ {_SIGNS}])[{_SIGNS}]|[{_SIGNS}](?![ {_SIGNS}])|(?<![{_SIGNS}])(?!{_OPERATOR}(?![{_SIGNS}]))[{_SIGNS}]"
    r"|[,;:][^ ]|[^ A-Za-z_](?:and|in|is|or)(?![A-Za-z0-9_])|(?<![A-Za-z_])(?:and|in|is|or)[^ \w]"
)
_SPACED = re.compile(r"[\[({][ \t]|[ \t][\]}),;:]|^@\s")
_AMBIGUOUS = re.compile(r"(?<![A-Za-z_])[lOI](?!\w)")
_FEED = re.compile(r"\S[^\n]*[\v\f]")  # behind a sign it is no white space to pycodestyle; alone on a line it is usual
_HEADS = ("def", "class", "async", "@")
_IMPORTS = ("import ", "from ", "lazy ")


def pep8_by_line(text: str, *, max_line_length: int = 79) -> list[int]:
    """The number of violations on each line of `text`, taken as a whole file: one entry for each of `segments.line_ends`.

    The sum is `python_text.pep8_violations(text)`. What is reported beyond the last line (an open bracket at the end)
    counts for the last; what no tokenizer may see (null bytes, lone surrogates) counts once, where it first stands.
    """
    lines = io.StringIO(excused(text), newline=None).readlines()
    if not lines:
        return []
    with silent():
        rows, stopped = _rows(lines, options_of((), (), max_line_length))
    if unreadable(text):
        rows.append(next(row for row, line in enumerate(lines, start=1) if unreadable(line)))
    elif stopped:
        rows.append(stopped)
    found = [0] * len(lines)
    for row in rows:
        found[min(max(row, 1), len(found)) - 1] += 1
    return found


def reference_rows(lines: list[str], options: Any) -> tuple[list[int], int]:
    """The row of every violation, as pycodestyle itself finds them, and the row on which it broke down (0: it did not)."""
    report = Rows(options)
    checker = pycodestyle.Checker(lines=list(lines), options=options, report=report)
    try:
        checker.check_all()
    except Exception:
        return report.rows, max(1, checker.line_number)
    return report.rows, 0


def _rows(lines: list[str], options: Any) -> tuple[list[int], int]:
    if pycodestyle.__version__.rpartition(".")[0] in COMPARED and not any(map(_FEED.search, lines)):
        report = Rows(options)
        try:
            Guarded(list(lines), options, report).check_all()
            return report.rows, 0
        except Exception:  # it does not tokenise, or pycodestyle fails on it: again, and as pycodestyle does it
            pass
    return reference_rows(lines, options)


class Rows(pycodestyle.BaseReport):  # type: ignore[misc]
    """A report that keeps the rows of the violations that count, in the order in which they are found."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.rows: list[int] = []

    def error(self, line_number: int, offset: int, text: str, check: Any) -> None:
        if not self._ignore_code(text[:4]):
            self.rows.append(line_number)


class Guarded(pycodestyle.Checker):  # type: ignore[misc]
    """pycodestyle's checker, that runs a check only where it can find something. Raises where a text is irregular."""

    def __init__(self, lines: list[str], options: Any, report: Rows) -> None:
        super().__init__(lines=lines, options=options, report=report)
        self.table = {name: (check, names) for name, check, names in self._logical_checks}
        self.always = [name for name in self.table if name not in _KNOWN]
        self.state = self._checker_states.setdefault("module_imports_on_top_of_file", {})

    def check_all(self, expected: Any = None, line_offset: int = 0) -> None:
        self.total_lines = len(self.lines)
        if self._ast_checks:
            raise NotImplementedError("checks on the syntax tree")
        self.line_number = self.indent_level = self.previous_indent_level = self.blank_lines = self.blank_before = 0
        self.indent_char = None
        self.previous_logical = self.previous_unindented_logical_line = before = ""
        self.tokens: list[Any] = []
        depth = 0
        for token in tokenize.generate_tokens(self.readline):
            kind, text, start, end, line = token
            if start[0] > self.total_lines:
                break
            if kind in _NEWLINES or (line.endswith("\\\n") and line[end[1] :].lstrip() == "\\\n"):
                self._physical(line or before)
            elif kind == tokenize.STRING and "\n" in text:
                self._physical_of_string(start[0], end[0])
            elif kind not in _USUAL:
                self.maybe_check_physical(token, before)
            before = line
            self.tokens.append(token)
            if kind == tokenize.OP:
                depth += (text in "([{") - (text in "}])")
            elif not depth and kind in _NEWLINES:
                if kind == tokenize.NEWLINE:
                    self.check_logical()
                    self.blank_before = 0
                elif len(self.tokens) == 1:
                    self.blank_lines += 1
                    self.tokens.clear()
                else:
                    self.check_logical()
        if self.tokens:
            self.check_physical(self.lines[-1])
            self.check_logical()

    def _physical(self, line: str, more: str = "") -> None:
        """Checks on a physical line (with `more` behind it), unless it is short, ends in text, and is indented by spaces."""
        clean = (
            len(line) <= self.max_line_length + 1
            and line[-1:] == "\n"
            and line[-2:-1] not in _BLANKS
            and "\t" not in line
            and (self.indent_char == " " or line[0] != " ")
            and self.line_number != self.total_lines
        )
        if not clean:
            self.check_physical(line + more)

    def _physical_of_string(self, first: int, last: int) -> None:
        """The lines of a string of several, but for the last, which is checked with the rest of its line."""
        self.multiline, self.line_number = True, first
        for row in range(first, last):
            self._physical(self.lines[row - 1], "\n")
            self.line_number += 1
        self.multiline = False

    def check_logical(self) -> None:
        """Build the logical line and run the checks that could find something."""
        tokens = self.tokens
        kinds = {token[0] for token in tokens}
        if kinds <= _SKIPPED:
            return  # nothing but indentation: its tokens, and the blank lines, count for what follows
        first = next(token for token in tokens if token[0] not in _SKIPPED)
        rows = 1 + tokens[-1][2][0] - tokens[0][2][0]
        mapping = self._build(first, kinds, rows)
        row, column = first[2]
        margin = self.lines[row - 1][:column]
        self.indent_level = column if not margin.strip(" ") else pycodestyle.expand_indent(margin)
        self.blank_before = max(self.blank_before, self.blank_lines)
        plain = kinds <= _USUAL and self.logical_line.isprintable()
        names = self._due(rows, kinds) if plain else self.table
        for name in names:
            if name in self.table:
                self._run(name, mapping)
        if self.logical_line:
            self.previous_indent_level = self.indent_level
            self.previous_logical = self.logical_line
            if not self.indent_level:
                self.previous_unindented_logical_line = self.logical_line
        self.blank_lines = 0
        self.tokens = []

    def _build(self, first: Any, kinds: set[int], rows: int) -> Any:
        """Set `logical_line`; what maps its offsets to places, or None where that is left for later."""
        if rows > 1 or tokenize.COMMENT in kinds or not kinds <= _USUAL:
            return self.build_tokens_line()
        line, at, last, parts = first[4], first[2][1], first[3][1], []
        for kind, text, start, end, _ in self.tokens:
            if kind == tokenize.STRING:
                parts += [line[at : start[1]], pycodestyle.mute_string(text)]
                at = end[1]
            if kind not in _SKIPPED:
                last = end[1]
        self.logical_line = "".join([*parts, line[at:last]])
        return None

    def _run(self, name: str, mapping: Any) -> None:
        check, names = self.table[name]
        self.init_checker_state(name, names)
        for offset, text in self.run_check(check, names) or ():
            if not isinstance(offset, tuple):
                mapping = mapping or self.build_tokens_line()
                offset = next(place for length, place in mapping if length >= offset)
            self.report_error(offset[0], offset[1], text, check)

    def _due(self, rows: int, kinds: set[int]) -> Iterator[str]:
        """The names of the checks that could report something on this logical line of `rows` physical lines."""
        line, level, comment = self.logical_line, self.indent_level, tokenize.COMMENT in kinds
        yield from self.always
        if (
            self.blank_lines > 1
            or (self.blank_lines and self.previous_logical.startswith("@"))
            or line.startswith(_HEADS)
            or (not level and self.previous_unindented_logical_line.startswith(_HEADS))
        ):
            yield "blank_lines"
        step = level - self.previous_indent_level
        if level % 4 or not (0 < step <= 4 if self.previous_logical.endswith(":") else step <= 0):
            yield "indentation"
        if comment:
            yield "whitespace_before_comment"
        if rows > 1:
            yield from ("continued_indentation", "explicit_line_join", "python_3000_invalid_escape_sequence")
        elif "\\" in self.tokens[0][4]:
            yield "python_3000_invalid_escape_sequence"
        if not line:
            return
        if not level and (not self.state.get("seen_non_imports") or line.startswith(_IMPORTS)):
            yield "module_imports_on_top_of_file"
        if (comment and (rows > 1 or line[-1].isalpha())) or _TOUCHED.search(line):
            yield "missing_whitespace_after_keyword"
        if (rows > 1 and tokenize.OP in kinds) or (comment and line[-1] in ",;:") or _CROWDED.search(line):
            yield "missing_whitespace"
        if "  " in line:
            yield from ("whitespace_around_keywords", "whitespace_around_operator", "whitespace_around_comma")
        yield from self._due_by_words(line, rows)

    def _due_by_words(self, line: str, rows: int) -> Iterator[str]:
        """Those that need certain characters or words in the line."""
        if _SPACED.search(line):
            yield "extraneous_whitespace"
        if " (" in line or " [" in line:
            yield "whitespace_before_parameters"
        if "=" in line:
            if "(" in line or "[" in line:
                yield "whitespace_around_named_parameter_equals"
            if "==" in line or "!=" in line:
                yield "comparison_to_singleton"
                if "type" in line:
                    yield "comparison_type"
        if ";" in line or -1 < line.find(":") < len(line) - 1:
            yield "compound_statements"
        if line.startswith("import "):
            yield "imports_on_separate_lines"
        if line.startswith("except"):
            yield "bare_except"
        if "not " in line:
            yield "comparison_negative"
        if _AMBIGUOUS.search(line):
            yield "ambiguous_identifier"
        if rows > 1:
            yield from ("break_before_binary_operator", "break_after_binary_operator")


_BLANKS = frozenset((" ", "\t", "\v", "\x0c", "\r"))
_KNOWN = frozenset(
    "blank_lines indentation whitespace_before_comment continued_indentation explicit_line_join "
    "python_3000_invalid_escape_sequence module_imports_on_top_of_file missing_whitespace_after_keyword "
    "missing_whitespace whitespace_around_keywords whitespace_around_operator whitespace_around_comma "
    "extraneous_whitespace whitespace_before_parameters whitespace_around_named_parameter_equals "
    "comparison_to_singleton comparison_type compound_statements imports_on_separate_lines bare_except "
    "comparison_negative ambiguous_identifier break_before_binary_operator break_after_binary_operator "
    "maximum_doc_length".split()
)
