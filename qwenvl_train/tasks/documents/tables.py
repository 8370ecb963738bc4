"""The table of an element in HTML and in LaTeX, each made from the other if only one is given."""

import re
from html.parser import HTMLParser
from typing import NamedTuple

from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.metrics.latex_tables import latex_as_html, tabulars_in
from qwenvl_train.tasks.documents.parts import Element

_TABLE = re.compile(r"<table[\s>].*</table>", re.DOTALL | re.IGNORECASE)
_DIGITS = 3
"""The most digits of a count of columns or rows that a cell spans."""
# The dollars of a formula are beside it, and no digit comes after the second one, as in Pandoc: $5 and $6 are amounts.
_KEPT = re.compile(
    r"(\\[&%#_${}]|\$\$[^$]+\$\$|\$(?=[^\s$])(?:[^$\\&]|\\.)*(?<=\S)\$(?!\d)|\\\(.*?\\\)|\\\[.*?\\\])", re.DOTALL
)
_ESCAPES = str.maketrans(
    {"\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}", **{one: f"\\{one}" for one in "&%#_${}"}}
)


def html_table(element: Element) -> str:
    if not element.html:
        tabular = next(tabulars_in(element.latex), None)
        if not tabular:
            raise UserError(f"the latex of a {element.kind} has no tabular: {element.latex[:40]!r}")
        return latex_as_html(tabular.text)
    found = _TABLE.search(element.html)
    if not found:
        raise UserError(f"the html of a {element.kind} has no table: {element.html[:40]!r}")
    return found[0]


def latex_table(element: Element) -> str:
    """Return the tabular of a table. A cell below one that spans rows is empty, as LaTeX needs it."""
    if tabular := next(tabulars_in(element.latex), None):
        return tabular.text
    reader = _Cells()
    try:
        reader.feed(html_table(element))
        reader.close()
    except AssertionError as error:  # of a declaration that is none
        raise UserError(f"the html of a {element.kind} cannot be read: {error}") from None
    if not any(reader.rows):
        raise UserError("the html of a table has no cells")
    lines, columns = _lines(reader.rows)
    return "\\begin{tabular}{|" + "l|" * columns + "}\n\\hline\n" + "".join(lines) + "\\end{tabular}"


class _Cell(NamedTuple):
    text: str
    columns: int
    rows: int


def _lines(rows: list[list[_Cell]]) -> tuple[list[str], int]:
    """Return the rows in LaTeX, and the number of columns."""
    covered: dict[tuple[int, int], int] = {}
    lines, columns = [], 0
    for number, row in enumerate(rows):
        parts: list[str] = []
        column = 0
        cells = list(row)
        while cells or (number, column) in covered:
            if (number, column) in covered:
                width = covered[number, column]
                parts.append(_spanning("", width))
                column += width
                continue
            cell = cells.pop(0)
            covered |= {(number + down, column): cell.columns for down in range(1, cell.rows)}
            text = " ".join(cell.text.split())
            text = f"\\multirow{{{cell.rows}}}{{*}}{{{text}}}" if cell.rows > 1 else text
            parts.append(_spanning(text, cell.columns))
            column += cell.columns
        columns = max(columns, column)
        lines.append(" & ".join(parts) + " \\\\ \\hline\n")
    return lines, columns


def _spanning(text: str, columns: int) -> str:
    return f"\\multicolumn{{{columns}}}{{|l|}}{{{text}}}" if columns > 1 else text


_BREAKS = ("br", "p", "div", "ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6")
"""The tags that part the words on both sides."""
_RAISED = {"sup": "^{", "sub": "_{"}


class _Cells(HTMLParser):
    """Collects the cells of an HTML table."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[_Cell]] = []
        self._open = False
        self._raised: list[str] = []
        """The tags of _RAISED that are open in the cell. The dollars of their formula are around the first one."""
        self._tables = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self._tables += 1
            if self._tables > 1:
                raise UserError("the html of a table has a further table, which cannot be part of one in LaTeX")
        if tag in _BREAKS:
            self._add(" ")
        if tag in _RAISED and self._open:
            self._add(_RAISED[tag] if self._raised else f"${_RAISED[tag]}")
            self._raised.append(tag)
        if tag in ("td", "th", "tr"):
            self._close()
        if tag == "tr" or (tag in ("td", "th") and not self.rows):
            self.rows.append([])
        if tag in ("td", "th"):
            named = dict(attrs)
            self.rows[-1].append(_Cell("", *(_count(named.get(name)) for name in ("colspan", "rowspan"))))
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        if tag in _BREAKS:
            self._add(" ")
        if tag in self._raised:
            self._lower(len(self._raised) - 1 - self._raised[::-1].index(tag))
        if tag in ("td", "th", "tr", "table"):
            self._close()

    def handle_data(self, data: str) -> None:
        text = _escaped(data)
        self._add(_without_dollars(text) if self._raised else text)

    def close(self) -> None:
        super().close()
        self._close()

    def _close(self) -> None:
        self._lower(0)
        self._open = False

    def _lower(self, depth: int) -> None:
        """End the raised tags that are further inside than `depth` others."""
        ended = self._raised[depth:]
        del self._raised[depth:]
        self._add("}" * len(ended) + ("$" if ended and not self._raised else ""))

    def _add(self, text: str) -> None:
        if self._open:
            last = self.rows[-1][-1]
            self.rows[-1][-1] = last._replace(text=last.text + text)


def _without_dollars(text: str) -> str:
    """Return a text for LaTeX, for the inside of a formula: formulas in it lose their own dollars."""
    parts = _KEPT.split(text)
    return "".join(part.strip("$") if at % 2 and part.startswith("$") else part for at, part in enumerate(parts))


def _count(value: str | None) -> int:
    """Return how many columns or rows a cell spans."""
    if not value or not value.isascii() or not value.isdigit():
        return 1
    if len(value) > _DIGITS:
        raise UserError(f"a cell of a table spans {value[:20]} columns or rows; at most 999 can be spanned")
    return max(int(value), 1)


def _escaped(text: str) -> str:
    """Return a text for LaTeX. Formulas in it, and characters that are escaped already, stay as they are."""
    parts = _KEPT.split(text)
    return "".join(part if at % 2 else part.translate(_ESCAPES) for at, part in enumerate(parts))
