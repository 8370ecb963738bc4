"""What verbs write to stdout: JSON and nothing else with output=json, and no complaint where a reader leaves early."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

_reserved: TextIO | None = None
"""The real stdout, while everything else that is written there goes to stderr."""


@contextmanager
def reserve_stdout() -> Iterator[None]:
    """Send to stderr what is printed meanwhile, also by C code and by child processes, but for `print_json`."""
    global _reserved
    sys.stdout.flush()
    stdout = sys.stdout.fileno()
    with os.fdopen(os.dup(stdout), "w", encoding="utf-8") as reserved:
        os.dup2(2, stdout)
        _reserved = reserved
        try:
            with redirect_stdout(sys.stderr):
                yield
        finally:
            _reserved = None
            os.dup2(reserved.fileno(), stdout)


def print_json(value: Any) -> None:
    """Write one line of JSON to stdout."""
    print(json.dumps(value), file=_reserved or sys.stdout, flush=True)


@contextmanager
def readers_may_leave() -> Iterator[None]:
    """End quietly where nobody reads any more, as `| head` does."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would write the rest at its end, and complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), (_reserved or sys.stdout).fileno())
