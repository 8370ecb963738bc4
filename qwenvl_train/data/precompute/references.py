"""The reference model's log-probabilities of each preference pair's learned tokens, computed before the run and kept
on disk."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from qwenvl_train.data.cache_files import holds, read, write
from qwenvl_train.errors import UserError

CHUNK = 64
"""Number of samples in a file. At most this many are lost for each process if a start is killed."""


@dataclass(frozen=True)
class References:
    """The log-probabilities of all samples of a Samples object. Workers receive this object and read from its files."""

    counts: np.ndarray
    """[samples]: number of learned tokens in each sample."""
    files: tuple[Path, ...]
    """The file of each chunk."""

    def holds(self, chunk: int) -> bool:
        return holds(self.files[chunk], 4 * int(self.of_chunk(chunk).sum()))

    def of_chunk(self, chunk: int) -> np.ndarray:
        """Return the part of `counts` that belongs to a chunk."""
        return self.counts[samples_of(chunk, len(self.counts))]

    def read(self, index: int) -> np.ndarray:
        chunk, number = divmod(index, CHUNK)
        counts = self.of_chunk(chunk)
        values = _read(self.files[chunk], int(counts.sum()))
        if values is None:
            # Not a UserError, because the sample is not at fault and must not be skipped.
            raise RuntimeError(
                f"{self.files[chunk]} with log-probabilities of the reference model is missing or damaged. Start "
                "the run again to compute them again."
            )
        start = int(counts[:number].sum())
        of_sample = values[start : start + int(counts[number])]
        if np.isnan(of_sample).any():
            raise UserError(
                f"{self.files[chunk]} has no values for a pair that could not be decoded before. If it can be "
                "decoded now, delete that file and start the run again."
            )
        return of_sample

    def write(self, chunk: int, values: np.ndarray) -> None:
        """Store the values of a chunk, [learned tokens of the chunk]."""
        write(self.files[chunk], values.astype(np.float32).view(np.uint8))


@lru_cache(maxsize=64)
def _read(file: Path, count: int) -> np.ndarray | None:
    stored = read(file, 4 * count)
    if stored is None:
        file.unlink(missing_ok=True)  # otherwise the next start would accept a damaged file
        return None
    return stored.view(np.float32)


def samples_of(chunk: int, samples: int) -> slice:
    return slice(chunk * CHUNK, min((chunk + 1) * CHUNK, samples))
