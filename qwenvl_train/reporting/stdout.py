"""The output of verbs on stdout. With output=json it is nothing but JSON, and it is no error if the process that reads
it ends early."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

_reserved: TextIO | None = None
"""The real stdout while `reserve_stdout` is active, and None otherwise."""


@contextmanager
def reserve_stdout() -> Iterator[None]:
    """Redirect stdout to stderr, also for C code and for child processes. Only `print_json` still writes to stdout."""
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
    """Suppress the error that occurs when the process that reads stdout has ended, such as in `| head`."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Without this, Python would flush the rest of the output when it exits, and print the error once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), (_reserved or sys.stdout).fileno())
