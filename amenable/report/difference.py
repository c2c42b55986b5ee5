"""The change from a draft to a refinement, line by line and within lines, as HTML.

Rows hold an old and a new cell: side by side where there is room, one above the other on a phone
(style.css). Lines are aligned by longest matching blocks (difflib); a replaced line that was paired with a
new one shows the changed tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from amenable.report.escape import escaped

_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")
_LINES = 400  # beyond this many lines a side, lines are paired by number: alignment takes quadratic time
_TOKENS = 400  # beyond this many tokens a line, no marks within it
_CELLS = 900  # beyond this many pairs of lines in a replaced block, lines are paired by number
_ALIKE = 0.5


def difference(before: str, after: str, *, labels: tuple[str, str] = ("Draft", "Refinement")) -> str:
    """A table-like block with a row a line; deleted and added lines carry a sign as well as a colour."""
    old, new = before.split("\n"), after.split("\n")
    head = "".join(f"<div>{escaped(label)}</div>" for label in labels)
    rows = [f'<div class="diff-row diff-head">{head}</div>']
    if max(len(old), len(new)) > _LINES:
        operations = [("replace", 0, len(old), 0, len(new))]
    else:
        operations = list(SequenceMatcher(None, old, new, autojunk=False).get_opcodes())
    for kind, i, i_end, j, j_end in operations:
        if kind == "equal":
            rows += [
                _row(_cell("same", i + k, escaped(old[i + k])), _cell("same again", j + k, escaped(new[j + k])))
                for k in range(i_end - i)
            ]
            continue
        for left, right in _pairs(old[i:i_end], new[j:j_end]):
            before_line = None if left is None else old[i + left]
            after_line = None if right is None else new[j + right]
            gone, come = _marked(before_line, after_line)
            rows.append(
                _row(
                    _cell("void", None, "") if left is None else _cell("gone", i + left, gone),
                    _cell("void", None, "") if right is None else _cell("come", j + right, come),
                )
            )
    return f'<div class="diff">{"".join(rows)}</div>'


def _row(left: str, right: str) -> str:
    return f'<div class="diff-row">{left}{right}</div>'


def _cell(kind: str, line: int | None, content: str) -> str:
    sign = {"gone": "−", "come": "+"}.get(kind, "")
    number = "" if line is None else str(line + 1)
    return (
        f'<div class="cell {kind}"><span class="line-number">{number}</span><span class="sign">{sign}</span>'
        f"<code>{content}</code></div>"
    )


def _pairs(old: Sequence[str], new: Sequence[str]) -> list[tuple[int | None, int | None]]:
    """Pairs of line numbers in order, of the greatest total similarity; None where a line has no partner."""
    if not old or not new or len(old) * len(new) > _CELLS:
        longest = range(max(len(old), len(new)))
        return [(k if k < len(old) else None, k if k < len(new) else None) for k in longest]
    alike = [[_similarity(x, y) for y in new] for x in old]
    best = [[0.0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i in reversed(range(len(old))):
        for j in reversed(range(len(new))):
            best[i][j] = max(best[i + 1][j], best[i][j + 1], alike[i][j] + best[i + 1][j + 1])
    pairs: list[tuple[int | None, int | None]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        if i < len(old) and j < len(new) and alike[i][j] and best[i][j] == alike[i][j] + best[i + 1][j + 1]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif i < len(old) and (j == len(new) or best[i][j] == best[i + 1][j]):
            pairs.append((i, None))
            i += 1
        else:
            pairs.append((None, j))
            j += 1
    return pairs


def _similarity(old: str, new: str) -> float:
    """Share of tokens in common, 0 for lines that are not worth pairing."""
    ratio = SequenceMatcher(None, _TOKEN.findall(old.strip()), _TOKEN.findall(new.strip()), autojunk=False).ratio()
    return ratio if ratio >= _ALIKE else 0.0


def _marked(before: str | None, after: str | None) -> tuple[str, str]:
    """Both lines, escaped, with what differs marked where they are alike enough for marks to help."""
    plain = escaped(before or ""), escaped(after or "")
    if before is None or after is None:
        return plain
    old, new = _TOKEN.findall(before), _TOKEN.findall(after)
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    if max(len(old), len(new)) > _TOKENS or matcher.ratio() < _ALIKE:
        return plain
    gone, come = [], []
    for kind, i, i_end, j, j_end in matcher.get_opcodes():
        left, right = escaped("".join(old[i:i_end])), escaped("".join(new[j:j_end]))
        gone.append(left if kind == "equal" or not left else f"<del>{left}</del>")
        come.append(right if kind == "equal" or not right else f"<ins>{right}</ins>")
    return "".join(gone), "".join(come)
