"""How far the run is. The order of samples is known ahead, so every process knows the counts of all without asking."""

import time
from typing import Protocol

from qwenvl_train.data.order.order import Seen


class Counts(Protocol):
    def seen(self, rows: int) -> Seen:
        """What the first `rows` rows hold."""


class Meter:
    def __init__(self, order: Counts, rows_per_step: int, start_step: int = 0, seconds_before: float = 0.0):
        """`seconds_before` were spent by the run that this one resumes at `start_step`."""
        self._order, self._rows_per_step = order, rows_per_step
        self._seconds_before = seconds_before
        self._marked = (start_step, seconds_before)
        self.start()

    def start(self) -> None:
        """The clock runs from here: loading the model is not training."""
        self._started = time.perf_counter() - self._seconds_before

    def totals(self, step: int) -> dict[str, float]:
        """What the run has seen after `step`."""
        seen = self._order.seen(step * self._rows_per_step)
        return {
            "step": step,
            "epoch": seen.epoch,
            "samples": seen.samples,
            "tokens": seen.tokens,
            "supervised_tokens": seen.supervised,
            "seconds": self._seconds(),
        }

    def row(self, step: int) -> dict[str, float]:
        """Totals after `step`, and the pace since the last row."""
        row = self.totals(step)
        marked_step, marked_seconds = self._marked
        before = self._order.seen(marked_step * self._rows_per_step)
        seconds = row["seconds"] - marked_seconds
        self._marked = (step, row["seconds"])
        return row | {
            "tokens_per_second": (row["tokens"] - before.tokens) / seconds,
            "samples_per_second": (row["samples"] - before.samples) / seconds,
        }

    def pause(self, seconds: float) -> None:
        """Evaluating and saving do not count against the pace of training."""
        step, marked = self._marked
        self._marked = (step, marked + seconds)

    def _seconds(self) -> float:
        return time.perf_counter() - self._started
