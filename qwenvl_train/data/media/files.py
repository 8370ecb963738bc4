"""Opens the file of a picture or clip, and says what keeps it from being opened."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

from qwenvl_train.data.sample import Content
from qwenvl_train.errors import UserError

_LONGEST_NAME = 300


@dataclass(frozen=True)
class File:
    """A file as it is now: equal to another where nothing has been written in between."""

    path: str
    size: int
    modified: int
    """In nanoseconds."""
    name: str = field(compare=False)
    """How an error names it."""


def name_of(content: Content, kind: str, where: str) -> str:
    """How an error names it; `kind` is picture or video."""
    if isinstance(content, bytes):
        return f"{where}: the {kind} of {len(content)} bytes in the row"
    return f"{where}: the {kind} {content if len(content) <= _LONGEST_NAME else content[:_LONGEST_NAME] + '…'}"


def file_at(path: str, name: str) -> File:
    """Refuses what is no file with something in it."""
    with _readable(name):
        facts = os.stat(path)
    if stat.S_ISDIR(facts.st_mode):
        raise UserError(f"{name} is a folder; give the path of a file.")
    if not stat.S_ISREG(facts.st_mode):
        # Opening a pipe would wait for a writer forever.
        raise UserError(f"{name} is not a regular file.")
    if facts.st_size == 0:
        raise UserError(f"{name} is empty, a file of 0 bytes. Replace it.")
    return File(os.path.join(os.getcwd(), path), facts.st_size, facts.st_mtime_ns, name)


def open_file(content: Content, name: str) -> BinaryIO:
    if isinstance(content, bytes):
        return io.BytesIO(content)
    file_at(content, name)
    with _readable(name):
        return open(content, "rb")


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{name} does not exist.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{name} cannot be read: {reason}.") from None
