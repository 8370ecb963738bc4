"""Keep the positions of the rows of a large text file in the cache, so that the next start need not search the file."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import numpy as np

from qwenvl_train.data.sources.source import stamp
from qwenvl_train.errors import UserError

_VERSION = 1
"""Must be increased when the same file may yield other rows than before."""

_LARGE = 64 * 2**20
"""The size in bytes from which positions are kept. A smaller file is read in less time than a person notices."""


def kept_spans(path: Path, mark: str, cache: Path, find: Callable[[Path], np.ndarray]) -> np.ndarray:
    """Return what `find` returns: [3, rows], the start, size and number of each row. `mark` is the stamp of the file.
    For a large file, the result is kept in the cache, and memory-mapped when it is loaded from there."""
    if path.stat().st_size < _LARGE:
        return find(path)
    key = hashlib.sha256(f"{_VERSION} {path.suffix.lower()} {mark}".encode()).hexdigest()[:32]
    file = cache / "spans" / f"{key}.npy"
    kept = _load(file)
    if kept is not None:
        return kept
    spans = find(path)
    if stamp(path) == mark:
        _save(spans, file)
    return spans


def _save(spans: np.ndarray, file: Path) -> None:
    part = file.with_suffix(f".{uuid4().hex}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as written:
            np.save(written, spans)
            # Without this, pages lost in a crash would be read as zeros when the file is memory-mapped.
            written.flush()
            os.fsync(written.fileno())
        part.replace(file)
    except OSError as error:
        raise UserError(f"data.cache: {file.parent} cannot be written: {error}. Name another folder.") from None


def _load(file: Path) -> np.ndarray | None:
    """Return the array in the file, or None when it cannot be read, so that the file is written anew."""
    try:
        spans = np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return spans if spans.dtype == np.int64 and spans.ndim == 2 and len(spans) == 3 else None
