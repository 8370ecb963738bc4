"""Breaks plain text into lines of a given width, between words and without Rich, so that --help is quick."""

import textwrap


def wrapped(line: str, width: int, hanging: str | None = None) -> str:
    """Return a line, broken between words. Its continuation begins with `hanging`, or is indented as the line is. A
    shell command is continued with backslashes."""
    indent = line[: len(line) - len(line.lstrip())]
    if line.lstrip().startswith(("qwenvl-train ", "torchrun ")):
        return _lines(line, width - 2, f"{indent}    ").replace("\n", " \\\n")
    return _lines(line, width, indent if hanging is None else hanging)


def _lines(line: str, width: int, hanging: str) -> str:
    # Spaces inside a line, such as those between columns, are kept.
    return textwrap.fill(
        line, width, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
    )
