"""How far the run is, and how fast: counted from what the steps were given, over all processes."""

import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from qwenvl_train.batch import Contents
from qwenvl_train.data.order.order import Seen


class Epochs(Protocol):
    def seen(self, rows: int) -> Seen:
        """What the first `rows` rows hold."""


class Counts(NamedTuple):
    samples: int = 0
    tokens: int = 0
    supervised: int = 0

    @classmethod
    def of(cls, contents: Contents) -> "Counts":
        return cls(len(contents.lengths), sum(contents.lengths), contents.supervised)

    def plus(self, other: "Counts") -> "Counts":
        return Counts(*map(sum, zip(self, other, strict=True)))


@dataclass(frozen=True)
class Progress:
    """What was trained on by the end of a step; a checkpoint holds it."""

    step: int = 0
    seconds: float = 0.0
    counts: Counts = field(default_factory=Counts)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"counts": self.counts._asdict()}

    @classmethod
    def of(cls, stored: dict[str, Any]) -> "Progress":
        return cls(stored["step"], stored["seconds"], Counts(**stored["counts"]))


class Meter:
    def __init__(self, epochs: Epochs, rows_per_step: int, before: Progress):
        """`before` is what the run that this one resumes had done."""
        self._epochs, self._rows_per_step = epochs, rows_per_step
        self._before = self._marked = before
        # Only the newest are asked for: a step that did not end counts for nothing.
        self._after = {before.step: before.counts}
        self.start()

    def start(self) -> None:
        """The clock runs from here: loading the model is not training."""
        self._started = time.perf_counter() - self._before.seconds

    def took(self, step: int, counts: Counts) -> None:
        """What all processes were given for the step that makes `step` steps."""
        self._after = {step - 1: self._after[step - 1], step: self._after[step - 1].plus(counts)}

    def progress(self, step: int) -> Progress:
        return Progress(step, time.perf_counter() - self._started, self._after[step])

    def totals(self, step: int) -> dict[str, float]:
        """What the run has seen after `step`."""
        return self._totals(self.progress(step))

    def row(self, step: int) -> dict[str, float]:
        """Totals after `step`, and the pace since the last row."""
        now, before = self.progress(step), self._marked
        self._marked = now
        seconds = now.seconds - before.seconds
        return self._totals(now) | {
            "tokens_per_second": (now.counts.tokens - before.counts.tokens) / seconds,
            "samples_per_second": (now.counts.samples - before.counts.samples) / seconds,
        }

    def pause(self, seconds: float) -> None:
        """Evaluating and saving do not count against the pace of training."""
        self._marked = replace(self._marked, seconds=self._marked.seconds + seconds)

    def _totals(self, now: Progress) -> dict[str, float]:
        return {
            "step": now.step,
            "epoch": self._epochs.seen(now.step * self._rows_per_step).epoch,
            "samples": now.counts.samples,
            "tokens": now.counts.tokens,
            "supervised_tokens": now.counts.supervised,
            "seconds": now.seconds,
        }
