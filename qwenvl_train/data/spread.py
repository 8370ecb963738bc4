"""The choice of a few samples that stand for all: the same number from each source, drawn with the seed."""

from collections.abc import Sequence

import numpy as np


def spread(sources: Sequence[Sequence[int]], count: int, seed: int) -> list[int]:
    """Return `count` of the indices in `sources`, or all of them if there are fewer, in ascending order.

    Each source gives the same number of indices, except that a source with fewer gives all it has. If there are more
    sources than `count`, the seed also decides which of them give one.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(sources))
    drawn = [
        generator.choice(len(sources[place]), min(count, len(sources[place])), replace=False).tolist()
        for place in order
    ]
    taken: list[int] = []
    for turn in range(max(map(len, drawn), default=0)):
        taken += [int(sources[place][rows[turn]]) for place, rows in zip(order, drawn, strict=True) if turn < len(rows)]
        if len(taken) >= count:
            break
    return sorted(taken[:count])
