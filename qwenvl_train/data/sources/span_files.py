"""Keep the positions of the rows of a large text file in the cache, so that the next start need not search the file."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from qwenvl_train.data.cache_files import replacing_index
from qwenvl_train.data.sources.source import stamp

_VERSION = 1
"""Must be increased when the same file may yield other rows than before."""

_LARGE = 64 * 2**20
"""The size in bytes from which positions are kept. A smaller file is read in less time than a person notices."""


def cached_spans(path: Path, mark: str, cache: Path, find: Callable[[Path], np.ndarray]) -> np.ndarray:
    """Return what `find` returns: [3, rows], the start, size and number of each row. `mark` is the stamp of the file.
    For a large file, the result is kept in the cache, and memory-mapped when it is loaded from there."""
    if path.stat().st_size < _LARGE:
        return find(path)
    key = hashlib.sha256(f"{_VERSION} {path.suffix.lower()} {mark}".encode()).hexdigest()[:32]
    file = cache / "spans" / f"{key}.npy"
    cached = _load(file)
    if cached is not None:
        return cached
    spans = find(path)
    if stamp(path) == mark:
        # Without sync, pages lost in a crash would be read as zeros when the file is memory-mapped.
        with replacing_index(file, sync=True) as written:
            np.save(written, spans)
    return spans


def _load(file: Path) -> np.ndarray | None:
    """Return the array in the file, or None when it cannot be read, so that the file is written anew."""
    try:
        spans = np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return spans if spans.dtype == np.int64 and spans.ndim == 2 and len(spans) == 3 else None
