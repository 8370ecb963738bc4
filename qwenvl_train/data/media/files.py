"""Open the file of a picture or clip, and report why a file cannot be opened."""

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
    """The state of a file at one time. Two states are equal when nothing was written to the file in between."""

    path: str
    size: int
    modified: int
    """The time of the last change, in nanoseconds."""
    name: str = field(compare=False)
    """The name of the file in error messages."""


def name_of(content: Content, kind: str, where: str) -> str:
    """Return the name of a medium for error messages. `kind` is image or video."""
    if isinstance(content, bytes):
        return f"{where}: the {kind} of {len(content)} bytes in the row"
    return f"{where}: the {kind} {content if len(content) <= _LONGEST_NAME else content[:_LONGEST_NAME] + '…'}"


def file_at(path: str, name: str) -> File:
    """Return the state of the file. Raise UserError when the path is not a regular file or the file is empty."""
    with _readable(name):
        facts = os.stat(path)
    if stat.S_ISDIR(facts.st_mode):
        raise UserError(f"{name} is a folder; give the path of a file.")
    if not stat.S_ISREG(facts.st_mode):
        # Opening a pipe would wait for a writer forever.
        raise UserError(f"{name} is not a regular file.")
    if facts.st_size == 0:
        raise UserError(f"{name} is an empty file. Replace it.")
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
