"""A report as one HTML file: no server, no network, no fonts or scripts from elsewhere.

The style and the script are the package's own two files, written into the page and allowed by their SHA-256
in a content security policy that forbids everything else; data never enters the script. So even a mistake
in escaping could not run what a model wrote. The page reads in full without scripts: samples are
`<details>`, and the script only adds filter, search, pages and the choice of light or dark. The same report
gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from amenable.errors import StorageError
from amenable.report.blocks import block_html, table_html
from amenable.report.escape import attribute, escaped
from amenable.report.page import Report, Section, Table


def render(report: Report) -> str:
    """The page as text (UTF-8 when written)."""
    style, script = _asset("style.css"), _asset("script.js")
    policy = (
        f"default-src 'none'; style-src 'sha256-{_digest(style)}'; script-src 'sha256-{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    title = escaped(report.title)
    subtitle = f'<p class="subtitle">{escaped(report.subtitle)}</p>' if report.subtitle else ""
    summary = "".join(f"<p>{escaped(line)}</p>" for line in report.summary)
    sections = "".join(_section(section, number) for number, section in enumerate(report.sections, start=1))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{attribute(report.title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        '<button type="button" id="theme" hidden aria-label="Switch between light and dark">Dark</button>\n'
        f"<header><h1>{title}</h1>{subtitle}</header>\n<main>\n"
        f'<div class="summary">{summary}</div>\n{_contents(report)}{sections}</main>\n{_footer(report)}'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def write(report: Report, path: str | os.PathLike[str]) -> Path:
    """Write the page to `path`, whole or not at all; makes the folder if it is missing."""
    target = Path(path)
    text = render(report)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", newline="\n", dir=target.parent, suffix=".part", delete=False
        ) as part:
            part.write(text)
        os.chmod(part.name, 0o644)
        os.replace(part.name, target)
    except OSError as error:
        raise StorageError(
            f"the report could not be written to {target}: {error.strerror or error}.",
            "make room or choose another folder; the run's own files are untouched.",
        ) from error
    return target


def _section(section: Section, number: int) -> str:
    text = "".join(f"<p>{escaped(paragraph)}</p>" for paragraph in section.text)
    blocks = "".join(block_html(block) for block in section.blocks)
    return f'<section id="part-{number}"><h2>{escaped(section.title)}</h2>{text}{blocks}</section>\n'


def _contents(report: Report) -> str:
    if len(report.sections) < 3:
        return ""
    links = "".join(
        f'<li><a href="#part-{number}">{escaped(section.title)}</a></li>'
        for number, section in enumerate(report.sections, start=1)
    )
    return f'<nav aria-label="Contents"><ol>{links}</ol></nav>\n'


def _footer(report: Report) -> str:
    command = setting = ""
    facts = []
    if report.command:
        command = f'<h3>To run this again</h3><pre class="command">{escaped(report.command)}</pre>'
    if report.minutes:
        rows = [(stage, f"{spent:,.1f}") for stage, spent in report.minutes.items()]
        rows.append(("all", f"{sum(report.minutes.values()):,.1f}"))
        facts.append(_facts("Minutes", ("stage", "minutes"), rows, opened=True))
    for name, pairs in (("Machine", report.machine), ("Versions", report.versions)):
        if pairs:
            facts.append(_facts(name, ("what", "value"), flat(pairs), opened=True))
    if report.config:
        setting = _facts("Configuration", ("setting", "value"), flat(report.config), opened=False)
    if not (command or facts or setting):
        return ""
    together = f'<div class="facts">{"".join(facts)}</div>' if facts else ""
    return f"<footer><h2>How this was made</h2>{command}{together}{setting}</footer>\n"


def _facts(name: str, columns: tuple[str, str], rows: Sequence[tuple[str, str]], *, opened: bool) -> str:
    return (
        f"<details{' open' if opened else ''}><summary>{escaped(name)}</summary>"
        f'<div class="scroll">{table_html(Table(name, columns, rows))}</div></details>'
    )


def flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as ("optimizer.lr", "5e-06") pairs, in their own order."""
    pairs: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            pairs += flat(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", str(value)))
    return pairs


def _asset(name: str) -> str:
    return resources.files("amenable.report").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
