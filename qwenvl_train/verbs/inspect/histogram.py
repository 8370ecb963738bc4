"""The geometry of a histogram, which a page draws as SVG."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from qwenvl_train.reporting.wording import count, many

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 62, 20, 12, 30
MOST_BARS = 40
LOG_FROM = 30
"""If the largest value is more than this many times the smallest, the scale is logarithmic and bars grow in width."""
_GAP = 1.0
_LEAST = 1.5
"""The least height of a bar, so that a count of one among a million is still visible."""


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    text: str


@dataclass(frozen=True)
class Histogram:
    title: str
    note: str
    bars: list[Bar]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    limit: Tick | None
    """The place of a vertical line that marks a limit, or None."""


@dataclass(frozen=True)
class _Axis:
    """The horizontal axis of a histogram."""

    edges: list[float]
    """The edges of the bars."""
    ticks: list[tuple[float, str]]
    logarithmic: bool = False


def histogram_of_lengths(title: str, lengths: np.ndarray, unit: str, limit: int | None) -> Histogram:
    """Return the histogram of lengths, which are whole numbers above 0. `unit` names the things that are counted."""
    low, high = int(lengths.min()), max(int(lengths.max()), limit or 0)

    def describe(start: float, stop: float, number: int) -> str:
        first, last = math.ceil(start), math.ceil(stop) - 1
        tokens = count(first) if first == last else f"{count(first)} to {count(last)}"
        return f"{many(number, unit)} of {tokens} tokens"

    if high / low > LOG_FROM:
        edges = np.unique(np.geomspace(low, high + 1, MOST_BARS + 1).round()).tolist()
        marks = [mark for mark in _one_two_five(high) if mark >= low]
        while len(marks) > 8:
            marks = marks[::-2][::-1]
        ticks = [(mark, count(mark)) for mark in marks]
        return _histogram(title, lengths, _Axis(edges, ticks, logarithmic=True), describe, limit)
    if high - low < MOST_BARS:
        # Each length has its own bar, and its figure stands below the middle of the bar.
        edges = [edge - 0.5 for edge in range(low, high + 2)]
        marks = [mark for mark in linear_ticks(low, high + 1) if low <= mark <= high and mark.is_integer()]
    else:
        edges = linear_ticks(low, high + 1, most=MOST_BARS)
        marks = [mark for mark in linear_ticks(edges[0], edges[-1]) if edges[0] <= mark <= edges[-1]]
    return _histogram(title, lengths, _Axis(edges, [(mark, count(mark)) for mark in marks]), describe, limit)


def histogram_of_shares(title: str, shares: np.ndarray, unit: str) -> Histogram:
    """Return the histogram of shares, which are at most 1. `unit` names the things that are counted."""

    def describe(start: float, stop: float, number: int) -> str:
        return f"{many(number, unit)} filled to {100 * start:.3g} to {100 * stop:.3g} %"

    edges = linear_ticks(min(float(shares.min()), 0.98), 1.0, most=MOST_BARS)
    marks = [mark for mark in linear_ticks(edges[0], 1.0) if edges[0] - 1e-9 <= mark <= 1 + 1e-9]
    ticks = [(mark, f"{100 * mark:.3g} %") for mark in marks]
    # A share of 1 belongs in the last bar, even if rounding put the edge of that bar below 1.
    return _histogram(title, np.minimum(shares, edges[-1]), _Axis(edges, ticks), describe, limit=None)


def _histogram(
    title: str, values: np.ndarray, axis: _Axis, describe: Callable[[float, float, int], str], limit: int | None
) -> Histogram:
    """`describe` returns the text of a bar from its edges and its count."""
    edges = axis.edges
    counts = np.histogram(values, edges)[0]
    x_of = scale(edges[0], edges[-1], LEFT, WIDTH - RIGHT, math.log10 if axis.logarithmic else float)
    heights = [mark for mark in linear_ticks(0, int(counts.max())) if mark.is_integer()]
    y_of = scale(0, heights[-1], HEIGHT - BOTTOM, TOP)
    bars = []
    for (start, stop), number in zip(pairwise(edges), counts, strict=True):
        if number:
            top = min(y_of(number), HEIGHT - BOTTOM - _LEAST)
            width = max(x_of(stop) - x_of(start) - _GAP, _GAP)
            height = round(HEIGHT - BOTTOM - top, 1)
            bars.append(Bar(x_of(start), top, round(width, 1), height, describe(start, stop, int(number))))
    return Histogram(
        title=title,
        note="logarithmic scale" if axis.logarithmic else "",
        bars=bars,
        x_ticks=[Tick(x_of(value), text) for value, text in axis.ticks],
        y_ticks=[Tick(y_of(height), count(height)) for height in heights],
        limit=None if limit is None else Tick(x_of(limit), count(limit)),
    )


def _one_two_five(high: float) -> list[float]:
    marks = (factor * 10.0**power for power in range(math.floor(math.log10(high)) + 1) for factor in (1, 2, 5))
    return [mark for mark in marks if mark <= high]


def linear_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers that cover `low` to `high`. Their distance is 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    stride = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / stride + 1e-9), math.ceil(high / stride - 1e-9)
    return [index * stride for index in range(first, last + 1)]


def scale(
    low: float, high: float, start: float, end: float, of: Callable[[float], float] = float
) -> Callable[[float], float]:
    low, high = of(low), of(high)
    if low == high:
        return lambda value: round((start + end) / 2, 1)
    return lambda value: round(start + (of(value) - low) / (high - low) * (end - start), 1)
