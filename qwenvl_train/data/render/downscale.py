"""How small a sample's media have to become for it to fit, and how large they are then: arithmetic, no file is read."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from qwenvl_train.data.media.pictures import PictureSize
from qwenvl_train.data.media.videos import ClipSize

_SMALLEST = 1 / 16384
"""How far media are shrunk at most; below it they are at one token each anyway."""

_Size = TypeVar("_Size", bound=PictureSize | ClipSize)


def largest_share(length: Callable[[float], int], max_length: int) -> float:
    """Bisects the share of their pixels that all media keep; the smallest where even that does not fit.

    `length` is the sample's at a given share.
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
    """Whole tokens in about the same shape, at most `share` of their number, and at least one in each frame."""
    layers, rows, columns = size.grid
    height, width = rows // merge, columns // merge
    side = size.resized[0] // height
    shorter, longer = sorted((height, width))
    most = share * height * width
    shorter = max(1, math.floor(shorter * math.sqrt(share)))
    # Where the shorter side stops at one token the longer has to give more.
    longer = max(1, math.floor(min(longer * math.sqrt(share), most / shorter)))
    height, width = (shorter, longer) if height <= width else (longer, shorter)
    return replace(
        size,
        resized=(height * side, width * side),
        grid=(layers, height * merge, width * merge),
        tokens=layers * height * width,
    )
