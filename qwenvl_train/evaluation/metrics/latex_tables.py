"""Reads tables in LaTeX as HTML."""

import re
from collections import Counter
from collections.abc import Iterator
from html import escape
from typing import NamedTuple

_BOUND = re.compile(r"\\(begin|end)\{tabular[*xy]?\}")
_OPTION = r"\s*(?:\[[^\[\]]*\]\s*)?"
_GROUP = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*+\})*+\}"
_BEGIN = re.compile(rf"\\begin\{{tabular(?:[*xy]\}}\s*{_GROUP}|\}}){_OPTION}(?:{_GROUP})?")
_END = re.compile(r"\\end\{tabular[*xy]?\}")
_TOKEN = re.compile(r"\\(?:begin|end)\{[^{}]*\}|\\\\(?:\[[^\[\]]*\])?|\\tabularnewline\b|\\.|[{}&]", re.DOTALL)
_RULE = re.compile(r"\\(?:hline|toprule|midrule|bottomrule)\b|\\c(?:line|midrule)(?:\([^()]*\))?\{[^{}]*\}")
_SPAN = re.compile(
    rf"\s*\\multi(column|row){_OPTION}\{{(\d+)\}}{_OPTION}(?:{_GROUP}|\*){_OPTION}\{{(.*)\}}\s*\Z", re.DOTALL
)
_SPANS_IN_SPANS = 4
_MOST_SPANNED = 100
_ESCAPED = re.compile(r"\\([&%#_${}])|\\textbackslash\{\}|\\([\^~])\{\}")


class Tabular(NamedTuple):
    """A tabular environment in a text, with those inside it."""

    start: int
    end: int
    text: str


class _Cell(NamedTuple):
    text: str
    columns: int = 1
    rows: int = 1


def tabulars_in(text: str) -> Iterator[Tabular]:
    """Yield the outermost tabular environments of a text. One that does not end goes on to the end of the text."""
    depth = start = 0
    for bound in _BOUND.finditer(text):
        if bound[1] == "begin":
            start = start if depth else bound.start()
            depth += 1
        elif depth:
            depth -= 1
            if not depth:
                yield Tabular(start, bound.end(), text[start : bound.end()])
    if depth:
        yield Tabular(start, len(text), text[start:])


def without_tabulars(text: str) -> str:
    parts, at = [], 0
    for found in tabulars_in(text):
        parts.append(text[at : found.start])
        at = found.end
    return "".join((*parts, text[at:]))


def latex_as_html(tabular: str) -> str:
    """Return a tabular environment as an HTML table."""
    inside = _BEGIN.sub("", tabular, count=1)
    if tabulars := [*_END.finditer(inside)]:
        inside = inside[: tabulars[-1].start()] if tabulars[-1].end() == len(inside) else inside
    rows = [_RULE.sub("", row) for row in _split(inside, ("\\\\", "\\tabularnewline"))]
    covered: set[tuple[int, int]] = set()
    lines = []
    for number, row in enumerate(row for row in rows if row.strip()):
        lines.append(f"<tr>{''.join(_cells(row, number, covered))}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _split(text: str, separators: tuple[str, ...]) -> Iterator[str]:
    """Yield the parts of a text between separators, of which those in groups and in environments are none."""
    tokens = [(token[0], token.start(), token.end()) for token in _TOKEN.finditer(text)]
    steps = _steps([token for token, _, _ in tokens])
    depth = at = 0
    for number, (token, start, end) in enumerate(tokens):
        depth += steps.get(number, 0)
        if not depth and token.startswith(separators):
            yield text[at:start]
            at = end
    yield text[at:]


def _steps(tokens: list[str]) -> dict[int, int]:
    """Return by how much the depth changes at a token: 1 where a group or an environment begins that ends, and -1 at
    this end. What does not end, as in a broken answer, counts as if it were not there."""
    steps: dict[int, int] = {}
    kinds = {"{": "group", "}": "group"}
    waiting: list[tuple[str, int]] = []
    counts: Counter[str] = Counter()
    for number, token in enumerate(tokens):
        if token == "{" or token.startswith("\\begin{"):
            waiting.append((kinds.get(token, "environment"), number))
            counts[waiting[-1][0]] += 1
        elif token == "}" or token.startswith("\\end{"):
            wanted = kinds.get(token, "environment")
            while counts[wanted]:
                kind, start = waiting.pop()
                counts[kind] -= 1
                if kind == wanted:
                    steps[start], steps[number] = 1, -1
                    break
    return steps


def _cells(row: str, number: int, covered: set[tuple[int, int]]) -> Iterator[str]:
    """Yield the cells of a row. Empty ones below a cell that spans rows only hold its place."""
    column = 0
    for part in _split(row, ("&",)):
        cell = _cell(part)
        if (number, column) in covered and not cell.text:
            column += cell.columns
            continue
        covered |= {(number + down, column + right) for down in range(1, cell.rows) for right in range(cell.columns)}
        spans = "".join(
            f' {name}="{count}"' for name, count in (("colspan", cell.columns), ("rowspan", cell.rows)) if count > 1
        )
        yield f"<td{spans}>{escape(cell.text)}</td>"
        column += cell.columns


def _cell(text: str) -> _Cell:
    """Return a cell. A \\multirow may stand in a \\multicolumn, and the other way round."""
    columns = rows = 1
    for _ in range(_SPANS_IN_SPANS):
        if not (found := _SPAN.match(text)):
            break
        count, text = min(int(found[2][:9]), _MOST_SPANNED), found[3]
        columns, rows = (count, rows) if found[1] == "column" else (columns, count)
    return _Cell(_ESCAPED.sub(_plain, " ".join(_flat(text).split())), columns, rows)


def _flat(text: str) -> str:
    """Return the text of a cell with the cells of a table inside it as words."""
    if not _BOUND.search(text):
        return text
    inside = _END.sub(" ", _BEGIN.sub(" ", text))
    return _TOKEN.sub(lambda token: " " if token[0].startswith(("\\\\", "\\tabularnewline", "&")) else token[0], inside)


def _plain(escaped: re.Match[str]) -> str:
    return escaped[1] or escaped[2] or "\\"
