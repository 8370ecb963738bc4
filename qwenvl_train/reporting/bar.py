"""A progress bar for long work. It is shown on stderr, so that it does not mix with what a verb prints on stdout."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.progress import MofNCompleteColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn

from qwenvl_train.reporting.console import NARROW, console_on

Item = TypeVar("Item")


@contextmanager
def counting(words: str, total: int, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Show a progress bar and yield a function that takes the number of items done. A log file gets no bar."""
    console = console_on(sys.stderr)
    if not (shown and console.is_interactive):
        yield lambda done: None  # before rich 15, even a disabled bar writes a newline
        return
    columns: tuple[str | ProgressColumn, ...]
    columns = (*Progress.get_default_columns(), TextColumn("left"), MofNCompleteColumn())
    if console.width < NARROW:
        columns = ("{task.description}", TaskProgressColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(words, total=total)
        yield lambda done: bar.update(task, completed=done)


def counted(items: Iterable[Item], words: str, total: int) -> Iterator[Item]:
    with counting(words, total) as progress:
        for done, item in enumerate(items, start=1):
            yield item
            progress(done)
