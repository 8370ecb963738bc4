"""How far the run is, and how fast: counted from what the steps were given, over all processes."""

import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from qwenvl_train.batch import Contents
from qwenvl_train.data.order.order import EpochCounts


class Epochs(Protocol):
    def seen(self, rows: int) -> EpochCounts:
        """What the first `rows` rows hold."""


class Counts(NamedTuple):
    """Whole numbers, so that any order of adding them up gives the same."""

    samples: int = 0
    tokens: int = 0
    supervised: int = 0
    media: int = 0
    """Pictures and clips."""
    flops: int = 0
    """What training on them takes, in millions; none is counted twice for being computed again."""
    waited: int = 0
    """Microseconds for data, of all processes together."""
    chosen: int = 0
    """Of what is supervised, in the better answers of pairs."""

    @classmethod
    def of(cls, contents: Contents, flops: int) -> "Counts":
        return cls(
            samples=len(contents.pieces),
            tokens=sum(contents.lengths),
            supervised=contents.supervised,
            media=len(contents.grids),
            flops=flops // 10**6,
            chosen=contents.chosen,
        )

    def plus(self, other: "Counts") -> "Counts":
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def minus(self, other: "Counts") -> "Counts":
        return Counts(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))


@dataclass(frozen=True)
class RunProgress:
    """What was trained on by the end of a step; a checkpoint holds it."""

    step: int = 0
    seconds: float = 0.0
    counts: Counts = field(default_factory=Counts)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"counts": self.counts._asdict()}

    @classmethod
    def of(cls, stored: dict[str, Any]) -> "RunProgress":
        return cls(stored["step"], stored["seconds"], Counts(**stored["counts"]))


@dataclass(frozen=True)
class Devices:
    count: int
    peak_tflops: float | None
    """Of one, in the run's precision; None where it is not known."""


class Meter:
    def __init__(
        self, epochs: Epochs, rows_per_step: int, tokens_per_row: int | None, devices: Devices, before: RunProgress
    ):
        """`tokens_per_row` is the room where rows are filled; `before` is what the run that this one resumes had
        done."""
        self._epochs, self._rows_per_step, self._room, self._devices = epochs, rows_per_step, tokens_per_row, devices
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

    def progress(self, step: int) -> RunProgress:
        return RunProgress(step, time.perf_counter() - self._started, self._after[step])

    def totals(self, step: int) -> dict[str, float]:
        """What the run has seen after `step`."""
        return self._totals(self.progress(step))

    def row(self, step: int) -> dict[str, float]:
        """Totals after `step`, and the pace since the last row."""
        now, before = self.progress(step), self._marked
        self._marked = now
        return self._totals(now) | self._pace(now, before) | self._use(now, before)

    def pause(self, seconds: float) -> None:
        """Evaluating and saving do not count against the pace of training."""
        self._marked = replace(self._marked, seconds=self._marked.seconds + seconds)

    def _pace(self, now: RunProgress, before: RunProgress) -> dict[str, float]:
        done, seconds = now.counts.minus(before.counts), now.seconds - before.seconds
        return {
            "tokens_per_second": done.tokens / seconds,
            "supervised_tokens_per_second": done.supervised / seconds,
            "samples_per_second": done.samples / seconds,
            "images_per_second": done.media / seconds,
        }

    def _use(self, now: RunProgress, before: RunProgress) -> dict[str, float]:
        """How well the devices and the rows are used."""
        done, seconds = now.counts.minus(before.counts), now.seconds - before.seconds
        tflops = done.flops / 1e6 / seconds / self._devices.count
        use = {"tflops_per_device": tflops, "data_wait": done.waited / 1e6 / seconds / self._devices.count}
        if self._devices.peak_tflops is not None:
            use["mfu"] = tflops / self._devices.peak_tflops
        if self._room is not None:
            use["pack_fill"] = done.tokens / ((now.step - before.step) * self._rows_per_step * self._room)
        return use

    def _totals(self, now: RunProgress) -> dict[str, float]:
        return {
            "step": now.step,
            "epoch": self._epochs.seen(now.step * self._rows_per_step).epoch,
            "samples": now.counts.samples,
            "tokens": now.counts.tokens,
            "supervised_tokens": now.counts.supervised,
            "seconds": now.seconds,
        }
