"""Which samples make up which row: a pure function of seed and position, the same on every process.

The position in this order is all the state that a resumed run needs.
"""

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=2)
def epoch_order(samples: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(samples)


def samples_of_row(row: int, batch_size: int, samples: int, seed: int) -> list[int]:
    """Rows cut the endless stream of shuffled epochs into pieces of batch_size."""
    places = range(row * batch_size, (row + 1) * batch_size)
    return [int(epoch_order(samples, seed, place // samples)[place % samples]) for place in places]
