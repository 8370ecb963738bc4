"""Finds tables in the text of an answer, in HTML, LaTeX or Markdown."""

import re
from html import escape

from qwenvl_train.evaluation.metrics.latex_tables import latex_as_html, tabulars_in, without_tabulars

_HTML = re.compile(r"<table(?=[\s>]).*?(?:</table>|\Z)", re.DOTALL | re.IGNORECASE)
_ROW = r"^[ \t]*\|.*\|[ \t]*$"
_RULE = r"[ \t]*\|(?=[ \t:|]*-)(?:[ \t:-]*+\|)++[ \t]*$"
_MARKDOWN = re.compile(rf"{_ROW}\n{_RULE}(?:\n{_ROW})*", re.MULTILINE)


def tables_in(text: str) -> list[str]:
    """Return the tables in a text as HTML, in order. An HTML table that does not end goes on to the end of the text.
    Tables in LaTeX count only if there are none in HTML, and those in Markdown only if there are no others."""
    return (
        _HTML.findall(text)
        or [latex_as_html(found.text) for found in tabulars_in(text)]
        or [_as_html(found[0]) for found in _MARKDOWN.finditer(text)]
    )


def without_tables(text: str) -> str:
    return _MARKDOWN.sub("", without_tabulars(_HTML.sub("", text)))


def _as_html(markdown: str) -> str:
    head, _, *body = [_cells(line) for line in markdown.splitlines()]
    rows = "".join(_row(cells) for cells in body)
    return f"<table><thead>{_row(head)}</thead><tbody>{rows}</tbody></table>"


def _row(cells: list[str]) -> str:
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _cells(line: str) -> list[str]:
    inside = line.strip().removeprefix("|").removesuffix("|")
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inside)]
