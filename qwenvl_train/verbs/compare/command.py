"""The verb compare. It compares runs on the terminal, and on one page beside the folder of the first."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from qwenvl_train.errors import UserError
from qwenvl_train.reporting.console import console_on, say
from qwenvl_train.reporting.recorded import read_run, refuse_other_folder
from qwenvl_train.verbs.compare.comparison import ComparedRow, Comparison, compare
from qwenvl_train.verbs.compare.page import write_page

PAGE = "comparison.html"


def run(*folders: Path) -> None:
    for folder in folders:
        refuse_other_folder("compare", folder)
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("compare: a run folder is named twice.")
    comparison = compare([read_run(folder) for folder in folders])
    path = folders[0].resolve().parent / PAGE
    write_page(comparison, path)
    print_comparison(comparison, console_on())
    print(f"page        {path}")


def print_comparison(comparison: Comparison, console: Console) -> None:
    names = list(comparison.runs)
    _print_rows("", names, comparison.figures, console)
    if not comparison.same_samples:
        say(console, "The runs were evaluated on different samples, so their held-out scores cannot be compared.")
    say(console, "")
    if comparison.settings:
        _print_rows("settings that differ", names, comparison.settings, console)
    else:
        say(console, "settings that differ: none")
    if comparison.answers:
        differ = sum(answer.differs for answer in comparison.answers)
        say(console, f"\nanswers that differ: {differ} of {len(comparison.answers)}")


def _print_rows(heading: str, names: list[str], rows: list[ComparedRow], console: Console) -> None:
    """Print a table with a column for each run, or one line for each row and run if the table is too wide."""
    plain = not console.is_terminal
    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2 if plain else 1, 0, 0))
    table.add_column(heading, no_wrap=True)
    for name in names:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(row.name, *row.cells)
    if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
        console.print(table, markup=False)
        return
    if heading:
        say(console, heading)
    for row in rows:
        say(console, row.name)
        for name, cell in zip(names, row.cells, strict=True):
            if cell:
                say(console, f"  {name}: {cell}", hanging=4)
