"""Groups samples into the packed rows that are answered together."""

from collections.abc import Iterable

import numpy as np

MAX_TOKENS = 16384
"""The largest number of tokens of a packed row, unless a single sample is longer."""


def batches_of(indices: Iterable[int], lengths: np.ndarray, size: int, max_tokens: int = MAX_TOKENS) -> list[list[int]]:
    """Return the samples in groups of at most `size` samples and `max_tokens` tokens.

    The samples of a group are of similar length, since the keys and values of shorter ones are padded. The longest come
    first, so that a group that is too large for the device is found at once.

    Args:
        lengths: [samples]: number of tokens of each sample.
    """
    groups: list[list[int]] = []
    tokens = 0
    for index in sorted(indices, key=lambda index: (-int(lengths[index]), index)):
        if not groups or len(groups[-1]) == size or tokens + int(lengths[index]) > max_tokens:
            groups.append([])
            tokens = 0
        groups[-1].append(index)
        tokens += int(lengths[index])
    return groups
