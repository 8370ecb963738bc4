"""How far the run is. The order of samples is known ahead, so every process knows the counts of all without asking."""

import time

import numpy as np

from qwenvl_train.data.lengths import Lengths
from qwenvl_train.data.order import epoch_order


class Meter:
    def __init__(
        self, lengths: Lengths, samples_per_step: int, seed: int, start_step: int = 0, seconds_before: float = 0.0
    ):
        """`seconds_before` were spent by the run that this one resumes at `start_step`."""
        self._lengths, self._samples_per_step, self._seed = lengths, samples_per_step, seed
        self._seconds_before = seconds_before
        self._marked = (start_step, seconds_before)
        self.start()

    def start(self) -> None:
        """The clock runs from here: loading the model is not training."""
        self._started = time.perf_counter() - self._seconds_before

    def totals(self, step: int) -> dict[str, float]:
        """What the run has seen after `step`."""
        samples = step * self._samples_per_step
        return {
            "step": step,
            "epoch": samples / len(self._lengths.tokens),
            "samples": samples,
            "tokens": self._total(self._lengths.tokens, samples),
            "supervised_tokens": self._total(self._lengths.supervised, samples),
            "seconds": self._seconds(),
        }

    def row(self, step: int) -> dict[str, float]:
        """Totals after `step`, and the pace since the last row."""
        row = self.totals(step)
        marked_step, marked_seconds = self._marked
        done, seconds = (step - marked_step) * self._samples_per_step, row["seconds"] - marked_seconds
        tokens = row["tokens"] - self._total(self._lengths.tokens, marked_step * self._samples_per_step)
        self._marked = (step, row["seconds"])
        return row | {"tokens_per_second": tokens / seconds, "samples_per_second": done / seconds}

    def pause(self, seconds: float) -> None:
        """Evaluating and saving do not count against the pace of training."""
        step, marked = self._marked
        self._marked = (step, marked + seconds)

    def _seconds(self) -> float:
        return time.perf_counter() - self._started

    def _total(self, column: np.ndarray, samples: int) -> int:
        epochs, rest = divmod(samples, len(column))
        part = epoch_order(len(column), self._seed, epochs)[:rest]
        return int(column.sum(dtype=np.int64)) * epochs + int(column[part].sum(dtype=np.int64))
