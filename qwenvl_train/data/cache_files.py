"""Files of a cache that several workers, runs and machines may share.

A file appears in the cache only once it is complete, and its content is checked when it is read.
"""

import hashlib
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from qwenvl_train.data.sample import Content
from qwenvl_train.errors import UserError
from qwenvl_train.files import replacing

KEEP_FREE = 10 * 2**30
"""The disk space in bytes that a cache leaves free, because checkpoints need room too."""
_CHECK_BYTES = 4


def make_folder(folder: Path, instead: str) -> None:
    """Create the folder of a cache. `instead` names the settings that work without the cache, for the error message."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"The cache {folder} cannot be created: {error.strerror}. Set data.cache to a writable folder, or set "
            f"{instead}."
        ) from None


@contextmanager
def replacing_index(path: Path, sync: bool = False) -> Iterator[BinaryIO]:
    """Yield the file that becomes `path`, an index that every run needs. Raise UserError when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, sync) as file:
            yield file
    except OSError as error:
        raise UserError(f"data.cache: {path.parent} cannot be written: {error}. Choose another folder.") from None


def identity(content: Content) -> str:
    """Return a string that identifies the content and changes when the file is changed. Raise OSError when there is no
    file."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    facts = os.stat(content)
    return f"{os.path.abspath(content)} {facts.st_size} {facts.st_mtime_ns}"


def path_in(folder: Path, facts: object) -> Path:
    """Return the path in the folder for a file whose content is determined by `facts` alone."""
    name = hashlib.sha256(repr(facts).encode()).hexdigest()
    return folder / name[:2] / name


def holds(path: Path, size: int) -> bool:
    """Return whether a file with `size` bytes of content was written. Only `read` checks that the content is whole."""
    try:
        return path.stat().st_size == size + _CHECK_BYTES
    except OSError:
        return False


def read(path: Path, size: int) -> np.ndarray | None:
    """Return the content, [size] uint8, or None when the file is missing or its content is not what was written."""
    try:
        stored = np.fromfile(path, dtype=np.uint8)
    except OSError:
        return None
    content, check = stored[:-_CHECK_BYTES], stored[-_CHECK_BYTES:]
    return content if content.size == size and check.tobytes() == _check(content) else None


def write(path: Path, content: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as file:
        file.write(content.data)
        file.write(_check(content))


def _check(content: np.ndarray) -> bytes:
    """Return a checksum of the content. It is needed even on a reliable disk: after a crash, a file may have its length
    but not its content."""
    return zlib.crc32(content.data).to_bytes(_CHECK_BYTES, "little")
