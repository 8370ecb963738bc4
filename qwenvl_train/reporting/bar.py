"""A progress bar for long work. It is shown on stderr, so that it does not mix with what a verb prints on stdout."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from rich.progress import MofNCompleteColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn

from qwenvl_train.reporting.console import NARROW, console_on
from qwenvl_train.reporting.wording import count, percent

Item = TypeVar("Item")


_PAUSE = 30.0
"""The least number of seconds between two lines."""


@contextmanager
def counting(
    words: str, total: int, shown: bool = True, tell: Callable[[str], None] | None = None
) -> Iterator[Callable[[int], None]]:
    """Show a progress bar and yield a function that takes the number of items done. A log file gets no bar.

    Args:
        tell: Takes a line from time to time where no bar can be shown.
    """
    console = console_on(sys.stderr)
    if not (shown and console.is_interactive):
        # Before rich 15, even a disabled bar writes a newline.
        yield _in_lines(words, total, tell) if shown and tell else lambda done: None
        return
    columns: tuple[str | ProgressColumn, ...]
    columns = (*Progress.get_default_columns(), TextColumn("left"), MofNCompleteColumn())
    if console.width < NARROW:
        columns = ("{task.description}", TaskProgressColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(words, total=total)
        yield lambda done: bar.update(task, completed=done)


def _in_lines(words: str, total: int, tell: Callable[[str], None]) -> Callable[[int], None]:
    last = monotonic()

    def progress(done: int) -> None:
        nonlocal last
        if monotonic() - last >= _PAUSE and done < total:
            last = monotonic()
            tell(f"{words}: {count(done)} of {count(total)} ({percent(done / total)})")

    return progress


def counted(items: Iterable[Item], words: str, total: int) -> Iterator[Item]:
    with counting(words, total) as progress:
        for done, item in enumerate(items, start=1):
            yield item
            progress(done)
