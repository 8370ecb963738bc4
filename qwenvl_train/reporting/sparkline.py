"""Sparklines: curves as one line of text."""

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite

LEVELS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Return a curve of at most `width` characters, from the lowest value to the highest. Each character is the mean
    of its part of the values; those that are not numbers are left out. Less than two values make no curve."""
    known = [value for value in values if value is not None and isfinite(value)]
    if len(known) < 2:
        return ""
    parts = min(width, len(known))
    edges = [round(part * len(known) / parts) for part in range(parts + 1)]
    means = [sum(known[start:end]) / (end - start) for start, end in pairwise(edges)]
    lowest, highest = min(means), max(means)
    if lowest == highest:
        return LEVELS[0] * parts
    return "".join(LEVELS[round((mean - lowest) / (highest - lowest) * (len(LEVELS) - 1))] for mean in means)
