"""Computes how far a sample's media must shrink for the sample to fit, and their new sizes. No file is read."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from qwenvl_train.data.media.pictures import PictureSize
from qwenvl_train.data.media.videos import ClipSize

_SMALLEST = 1 / 16384
"""Smallest share of the pixels that media are shrunk to. Below it they are at their fewest tokens anyway."""

_Size = TypeVar("_Size", bound=PictureSize | ClipSize)


def largest_share(length: Callable[[float], int], max_length: int) -> float:
    """Return the largest share of their pixels that all media can keep for the sample to fit, found by bisection.

    Return the smallest share if the sample does not fit even then. `length` returns the number of tokens of the sample
    at a given share.
    """
    if length(_SMALLEST) > max_length:
        return _SMALLEST
    low, high = _SMALLEST, 1.0
    while high - low > low / 64:
        middle = (low * high) ** 0.5
        if length(middle) <= max_length:
            low = middle
        else:
            high = middle
    return low


def shrunk(size: _Size, share: float, merge: int) -> _Size:
    """Return `size` reduced to at most `share` of its tokens, in about the same shape.

    Height and width stay whole numbers of tokens, and each layer of the grid keeps at least one token.
    """
    layers, rows, columns = size.grid
    height, width = rows // merge, columns // merge
    side = size.resized[0] // height
    shorter, longer = sorted((height, width))
    most = share * height * width
    shorter = max(1, math.floor(shorter * math.sqrt(share)))
    # If the shorter side stops at one token, the longer side has to shrink more.
    longer = max(1, math.floor(min(longer * math.sqrt(share), most / shorter)))
    height, width = (shorter, longer) if height <= width else (longer, shorter)
    return replace(
        size,
        resized=(height * side, width * side),
        grid=(layers, height * merge, width * merge),
        tokens=layers * height * width,
    )
