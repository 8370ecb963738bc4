"""Groups samples into the packed rows that are answered together, and smaller ones where the device is too small."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch

from qwenvl_train.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

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


def in_halves(
    items: Sequence[Item],
    compute: Callable[[Sequence[Item]], list[Result]],
    place_of: Callable[[Item], str],
    way_out: str = "lower the number of new tokens (max_new_tokens) or model.max_pixels",
) -> list[Result]:
    """Return the results of `compute` on all items together. If the device has no room, compute them in halves.

    Args:
        way_out: What the user can do if there is no room for a single item.

    Raises:
        UserError: If there is no room for a single item. It begins with what `place_of` returns.
    """
    try:
        return compute(items)
    except torch.OutOfMemoryError:
        if len(items) == 1:
            raise UserError(f"{place_of(items[0])}: the device has no room to answer this sample; {way_out}.") from None
    torch.cuda.empty_cache()
    half = len(items) // 2
    return [result for part in (items[:half], items[half:]) for result in in_halves(part, compute, place_of, way_out)]
