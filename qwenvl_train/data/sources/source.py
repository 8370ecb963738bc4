"""The interface through which the package reads a file, an arrow folder or a hub id: a source of numbered raw rows."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Protocol

from qwenvl_train.errors import UserError

LARGEST_ROW = 64 * 2**20
_SEARCHED = 1000
"""The number of rows whose keys are the columns of a text file."""


class Source(Protocol):
    @property
    def name(self) -> str:
        """The name of the source in error messages."""

    @property
    def folder(self) -> Path | str:
        """The folder that relative media paths start from, or its address."""

    def __len__(self) -> int: ...

    def line(self, index: int) -> int:
        """Return the line number in a .jsonl file, or the row number in any other source. Both are counted from 1."""

    def columns(self) -> list[str]:
        """Return the columns of a table, or the keys of the first rows of a text file."""

    def row(self, index: int) -> object:
        """Return the raw row as it is stored. `formats` checks whether it is a valid row."""

    def fingerprint(self) -> str:
        """Return a string that changes when the rows may have changed."""


class InFile:
    """The name and folder of a source that is one file."""

    path: Path
    address: str | None = None
    """Where the file was fetched from, if it was."""

    @property
    def name(self) -> str:
        return self.address or str(self.path)

    @property
    def folder(self) -> Path | str:
        return self.address.rpartition("/")[0] if self.address else self.path.absolute().parent


def keys_of_first(rows: Iterable[Callable[[], object]]) -> list[str]:
    """Return all keys of the first rows, each of which is read by a function. Rows that cannot be read are skipped."""
    keys: dict[str, None] = {}
    for read in islice(rows, _SEARCHED):
        with suppress(UserError):
            row = read()
            keys |= dict.fromkeys(map(str, row)) if isinstance(row, dict) else {}
    return list(keys)


def stamp(path: Path) -> str:
    status = path.stat()
    return f"{path.absolute()} {status.st_size} {status.st_mtime_ns}"


def unreadable(path: object, error: OSError) -> UserError:
    return UserError(f"{error.filename or path} cannot be read: {error.strerror or error}.")


def too_large(where: str, size: int) -> UserError:
    return UserError(
        f"{where} is {size / 2**20:.0f} MiB large, but a row may have {LARGEST_ROW / 2**20:.0f}; "
        "store its media in files and give their paths in the row."
    )
