"""Marks spikes of the training loss: logged values that are far above those before them.

A value is a spike if it is more than _DEVIATIONS robust standard deviations (1.4826 times the median distance from the
median) and more than a tenth above the median of the last _LOOKED_AT logged values. Values that follow a spike and are
as high belong to it. The median does not move with single spikes, as a mean would.
"""

from collections import deque
from collections.abc import Iterable
from statistics import median

from qwenvl_train.reporting.reporter import Row
from qwenvl_train.reporting.wording import is_finite

SPIKE = "loss_spike"
"""The key of a row whose loss begins a spike."""
_LOOKED_AT, _LEAST = 20, 10
"""The numbers of logged values that a new one is compared with, at most and at least."""
_DEVIATIONS = 6


class Spikes:
    def __init__(self, before: Iterable[Row] = ()):
        """`before` are the rows that were logged before the run was resumed."""
        self._losses: deque[float] = deque(maxlen=_LOOKED_AT)
        self._is_high = False
        for row in before:
            self.marked(row)

    def marked(self, row: Row) -> Row:
        """Return the next logged row, with the key SPIKE if a spike begins at it."""
        loss = row.get("loss")
        if loss is None or not is_finite(loss):
            return row
        was_high, self._is_high = self._is_high, is_spike(loss, self._losses)
        self._losses.append(loss)
        return row | {SPIKE: True} if self._is_high and not was_high else row


def is_spike(loss: float, before: Iterable[float]) -> bool:
    values = list(before)
    if len(values) < _LEAST:
        return False
    middle = median(values)
    deviation = 1.4826 * median(abs(value - middle) for value in values)
    return loss - middle > max(_DEVIATIONS * deviation, abs(middle) / 10)
