"""The interface through which the package reads a file, an arrow folder or a hub id: a source of numbered raw rows."""

from pathlib import Path
from typing import Protocol

from qwenvl_train.errors import UserError

LARGEST_ROW = 64 * 2**20


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
