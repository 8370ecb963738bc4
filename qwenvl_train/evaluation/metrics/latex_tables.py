"""Reads tables in LaTeX as HTML."""

import re
from collections.abc import Iterator
from html import escape
from typing import NamedTuple

TABULAR = re.compile(r"\\begin\{tabular\*?\}(.*?)(?:\\end\{tabular\*?\}|\Z)", re.DOTALL)
_ROW = re.compile(r"\\\\(?:\[[^\]]*\])?|\\tabularnewline\b")
_RULE = re.compile(r"\\(?:hline|toprule|midrule|bottomrule)\b|\\c(?:line|midrule)(?:\([^)]*\))?\{[^}]*\}")
_SPAN = re.compile(r"\s*\\multi(column|row)\s*\{(\d+)\}\s*(?:\{[^{}]*\}|\*)\s*\{(.*)\}\s*\Z", re.DOTALL)
_MOST_SPANNED = 100


class _Cell(NamedTuple):
    text: str
    columns: int = 1
    rows: int = 1


def latex_as_html(tabular: str) -> str:
    """Return the content of a tabular environment as an HTML table."""
    rows = [_RULE.sub("", row) for row in _ROW.split(_without_columns(tabular))]
    covered: set[tuple[int, int]] = set()
    lines = []
    for number, row in enumerate(row for row in rows if row.strip()):
        lines.append(f"<tr>{''.join(_cells(row, number, covered))}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _cells(row: str, number: int, covered: set[tuple[int, int]]) -> Iterator[str]:
    """Yield the cells of a row. Empty ones below a cell that spans rows only hold its place."""
    column = 0
    for part in re.split(r"(?<!\\)&", row):
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
    while found := _SPAN.match(text):
        count, text = min(int(found[2]), _MOST_SPANNED), found[3]
        columns, rows = (count, rows) if found[1] == "column" else (columns, count)
    return _Cell(re.sub(r"\\([&%#_])", r"\1", " ".join(text.split())), columns, rows)


def _without_columns(tabular: str) -> str:
    """Return the rows, without the description of the columns, which is in braces that can be nested."""
    depth = 0
    for place, character in enumerate(tabular):
        depth += (character == "{") - (character == "}")
        if not depth and character == "}":
            return tabular[place + 1 :]
        if not depth and not character.isspace():
            break
    return tabular
