"""The interval in which a share probably lies, given the samples in which it was measured."""

import math

_DEVIATIONS = 1.959964
"""The number of standard deviations on each side of the mean that hold 95 % of a normal distribution."""


def share_interval(share: float, samples: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of samples. Unlike that of a bootstrap, it has a width if the share is 0
    or 1."""
    square = _DEVIATIONS**2 / samples
    middle = (share + square / 2) / (1 + square)
    half = _DEVIATIONS / (1 + square) * math.sqrt(share * (1 - share) / samples + square / (4 * samples))
    return middle - half if share > 0 else 0.0, middle + half if share < 1 else 1.0
