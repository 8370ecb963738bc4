"""Markdown tables whose rows have differing numbers of cells."""

import re
from collections.abc import Iterator

from qwenvl_train.curation.rules.rule import Rule, RuleSection
from qwenvl_train.curation.text import without_programs
from qwenvl_train.curation.verdict import Verdict, quoted
from qwenvl_train.curation.view import RowView

_DELIMITERS = re.compile(r"\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?")
# Pipes that are no borders of cells: escaped ones, and those in code.
_NO_BORDER = re.compile(r"\\.|(?<!(?<!\\)`)(`+)(?!`).*?(?<!`)\1(?!`)")


def judge(row: RowView, settings: RuleSection) -> Verdict | None:
    found = [table for answer in row.answers for table in tables_in(answer.text)]
    if not found:
        return None
    for header, rows in found:
        columns = cells_in(header)
        for line in rows:
            if cells_in(line) != columns:
                evidence = f"{cells_in(line)} cells instead of {columns} in {quoted(line)}"
                return Verdict(True, evidence=evidence)
    return Verdict(False)


def tables_in(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the header and the further rows of each table, with the line of dashes first among these. A table ends at
    the first line without a pipe."""
    if "|" not in text or "-" not in text:
        return
    lines = [line.strip() for line in without_programs(text).splitlines()]
    header, table = "", None
    for line in lines:
        if table is not None and "|" in line:
            table.append(line)
            continue
        if table is not None:
            yield header, table
            table = None
        if "|" in line and "|" in header and _DELIMITERS.fullmatch(line):
            table = [line]
        else:
            header = line
    if table is not None:
        yield header, table


def cells_in(line: str) -> int:
    """Return the number of cells of a row. Pipes at its beginning and end may be left out."""
    borders = _NO_BORDER.sub("", line).strip()
    return borders.removeprefix("|").removesuffix("|").count("|") + 1


RULE = Rule("malformed_tables", "Markdown tables with rows of differing lengths", True, judge)
