"""Log-probabilities of a reference model, computed before the run and kept on disk: of each pair's learned tokens."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from qwenvl_train.data.media.cache_files import holds, read, write
from qwenvl_train.errors import UserError

CHUNK = 64
"""Samples in a file: what a killed start loses of each process."""


@dataclass(frozen=True)
class References:
    """Those of all samples of a source; workers get this object, and read."""

    counts: np.ndarray
    """Learned tokens of each sample."""
    files: tuple[Path, ...]
    """Of each chunk."""

    def holds(self, chunk: int) -> bool:
        return holds(self.files[chunk], 4 * int(self.of_chunk(chunk).sum()))

    def of_chunk(self, chunk: int) -> np.ndarray:
        """Its part of `counts`."""
        return self.counts[samples_of(chunk, len(self.counts))]

    def read(self, index: int) -> np.ndarray:
        chunk, place = divmod(index, CHUNK)
        counts = self.of_chunk(chunk)
        values = _read(self.files[chunk], int(counts.sum()))
        if values is None:
            # No fault of a row, to be left out.
            raise RuntimeError(
                f"{self.files[chunk]} is gone or damaged, and held log-probabilities of the reference model. Start "
                "again: they are computed anew."
            )
        start = int(counts[:place].sum())
        own = values[start : start + int(counts[place])]
        if np.isnan(own).any():
            raise UserError(
                f"{self.files[chunk]} has nothing for a pair that could not be decoded before. Where it can be now, "
                "delete that file, and start again."
            )
        return own

    def write(self, chunk: int, values: np.ndarray) -> None:
        """[learned tokens of the chunk]"""
        write(self.files[chunk], values.astype(np.float32).view(np.uint8))


@lru_cache(maxsize=64)
def _read(file: Path, count: int) -> np.ndarray | None:
    stored = read(file, 4 * count)
    if stored is None:
        file.unlink(missing_ok=True)  # the next start would take a damaged file for whole
        return None
    return stored.view(np.float32)


def samples_of(chunk: int, samples: int) -> slice:
    return slice(chunk * CHUNK, min((chunk + 1) * CHUNK, samples))
