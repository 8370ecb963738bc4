"""How far the run is. The order of samples is known ahead, so every process knows the counts of all without asking."""

import time
from dataclasses import dataclass, field

import numpy as np

from qwenvl_train.data.lengths import Lengths
from qwenvl_train.data.order import epoch_order


@dataclass
class Meter:
    lengths: Lengths
    samples_per_step: int
    seed: int
    seconds_before: float = 0.0
    """Spent by the run that this one resumes."""
    _started: float = field(default_factory=time.perf_counter)
    _last: tuple[int, float] | None = None

    def row(self, step: int) -> dict[str, float]:
        """Totals after `step`, and the pace since the last call."""
        samples = step * self.samples_per_step
        tokens = self._total(self.lengths.tokens, samples)
        seconds = self.seconds_before + time.perf_counter() - self._started
        row = {
            "step": step,
            "epoch": samples / len(self.lengths.tokens),
            "samples": samples,
            "tokens": tokens,
            "supervised_tokens": self._total(self.lengths.supervised, samples),
            "seconds": seconds,
        }
        if self._last is not None and step > self._last[0]:
            steps, pace = step - self._last[0], seconds - self._last[1]
            done = steps * self.samples_per_step
            row["samples_per_second"] = done / pace
            row["tokens_per_second"] = (tokens - self._total(self.lengths.tokens, samples - done)) / pace
        self._last = (step, seconds)
        return row

    def pause(self, seconds: float) -> None:
        """Evaluation and saving do not count against the pace of training."""
        if self._last is not None:
            self._last = (self._last[0], self._last[1] + seconds)

    def _total(self, column: np.ndarray, samples: int) -> int:
        epochs, rest = divmod(samples, len(column))
        part = epoch_order(len(column), self.seed, epochs)[:rest]
        return int(column.sum(dtype=np.int64)) * epochs + int(column[part].sum(dtype=np.int64))
