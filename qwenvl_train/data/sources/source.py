"""What a file, an arrow folder or a hub id looks like to the rest: numbered raw rows."""

from pathlib import Path
from typing import Protocol

from qwenvl_train.errors import UserError

LARGEST_ROW = 64 * 2**20


class Source(Protocol):
    @property
    def name(self) -> str:
        """How errors name it."""

    @property
    def folder(self) -> Path:
        """Where relative media paths start."""

    def __len__(self) -> int: ...

    def line(self, index: int) -> int:
        """The line in a .jsonl file, else the number of the row; counted from 1."""

    def row(self, index: int) -> object:
        """As it is stored; `formats` says whether it is a row at all."""

    def fingerprint(self) -> str:
        """Changes when the rows may have changed."""


def stamp(path: Path) -> str:
    status = path.stat()
    return f"{path.absolute()} {status.st_size} {status.st_mtime_ns}"


def unreadable(path: object, error: OSError) -> UserError:
    return UserError(f"{error.filename or path} cannot be read: {error.strerror or error}.")


def too_large(where: str, size: int) -> UserError:
    return UserError(
        f"{where} is {size / 2**20:.0f} MiB large, a row may have {LARGEST_ROW / 2**20:.0f}; "
        "put its media into files and name their paths in the row."
    )
