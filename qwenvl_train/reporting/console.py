"""Rich consoles, and lines of text that break between words. What is printed is also written to the log of a run."""

import os
import re
import sys
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwenvl_train.reporting.run_log import LOGGER

LOG_WIDTH = 160
NARROW = 60
"""The columns of a terminal below which a bar shows only what changes."""
_WORD = re.compile(r"\s*(?P<letters>\S+)")


class QuietConsole(Console):
    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError. Rich would exit with code 1, which stands for a fault of this project."""
        raise BrokenPipeError


def console_on(stream: TextIO | None = None) -> Console:
    """Return a Rich console for the stream. A log file is LOG_WIDTH columns wide, unless COLUMNS is set."""
    stream = stream or sys.stdout
    own = stream.isatty() or "COLUMNS" in os.environ
    return QuietConsole(file=stream, highlight=False, width=None if own else LOG_WIDTH)


def say(console: Console, line: Text | str, hanging: int = 0) -> None:
    """Print a line, and write it to log.txt in a run. It breaks only between words, and the continuation is indented by
    `hanging` columns. In a file or a pipe it does not break. Rich does not interpret anything in the line as markup."""
    text = Text(line) if isinstance(line, str) else line
    _log(text.plain)
    # A live bar is drawn again after each print, so all lines are printed at once.
    console.print(_broken(text, console, hanging) if _has_columns(console) else text, soft_wrap=True)


def print_line(line: str) -> None:
    """Print a line on stdout. It breaks as in `say`."""
    say(console_on(), line)


def print_table(table: Table, console: Console) -> None:
    """Print a table, and write it to log.txt in a run. In a file or a pipe, its lines do not end with spaces."""
    if not console.is_terminal:
        for line in _lines_of(table, console):
            say(console, line)
        return
    console.print(table, markup=False)
    _log("\n".join(_lines_of(table, Console(width=console.width))))


def width_of(table: Table, console: Console) -> int:
    """Return the columns that a table takes if none of its cells is cut."""
    return console.measure(table, options=console.options.update(width=10_000)).maximum


def _lines_of(table: Table, console: Console) -> list[str]:
    with console.capture() as captured:
        console.print(table, markup=False)
    return [line.rstrip() for line in Text.from_ansi(captured.get()).plain.splitlines()]


def _log(text: str) -> None:
    for line in filter(None, text.splitlines()):
        LOGGER.info(line)


def _has_columns(console: Console) -> bool:
    return console.is_terminal or "COLUMNS" in os.environ


def _broken(text: Text, console: Console, hanging: int) -> Text:
    shown: list[Text] = []
    for line in text.split(allow_blank=True):
        if line.cell_len <= console.width:
            shown.append(line)
            continue
        first, *rest = line.divide(_breaks(line.plain, console.width - hanging))
        shown += [first, *(Text(" " * hanging) + part for part in rest)]
    for line in shown:
        line.rstrip()
    return Text("\n").join(shown)


def _breaks(line: str, width: int) -> list[int]:
    """Return where the line breaks: at the starts of words. A word that is longer than `width` stays whole."""
    breaks, used = [], 0
    for word in _WORD.finditer(line):
        size = cell_len(word[0])
        if used and used + size > width:
            breaks.append(word.start("letters"))
            size, used = cell_len(word["letters"]), 0
        used += size
    return breaks
