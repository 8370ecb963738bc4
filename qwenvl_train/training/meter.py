"""Measures the progress and the speed of a run from the contents of its steps, over all processes."""

import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from qwenvl_train.batch import Contents
from qwenvl_train.data.order.order import EpochCounts


class Epochs(Protocol):
    def seen(self, rows: int) -> EpochCounts:
        """Return the numbers of samples, tokens, learned tokens and epochs in the first `rows` packed rows."""


class Counts(NamedTuple):
    """Totals of what was trained on. They are integers, so that the order of summation does not change the result."""

    samples: int = 0
    tokens: int = 0
    supervised: int = 0
    media: int = 0
    """Number of pictures and clips."""
    flops: int = 0
    """Floating-point operations of training, in millions. Operations that are computed a second time count once."""
    waited: int = 0
    """Time spent waiting for data, in microseconds, summed over all processes."""
    chosen: int = 0
    """Number of learned tokens in the chosen answers of preference pairs."""

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
    """The progress of a run at the end of a step: steps, seconds and counts. Every checkpoint stores it."""

    step: int = 0
    seconds: float = 0.0
    counts: Counts = field(default_factory=Counts)
    skipped_steps: int = 0
    """The number of steps that have not changed the weights, because their loss or gradient was not a number."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"counts": self.counts._asdict()}

    @classmethod
    def of(cls, stored: dict[str, Any]) -> "RunProgress":
        # Older versions did not skip steps.
        return cls(stored["step"], stored["seconds"], Counts(**stored["counts"]), stored.get("skipped_steps", 0))


@dataclass(frozen=True)
class Devices:
    count: int
    peak_tflops: float | None
    """Peak speed of one device at the run's precision, in TFLOPS. None if it is not known."""


class Meter:
    def __init__(
        self, epochs: Epochs, rows_per_step: int, tokens_per_row: int | None, devices: Devices, before: RunProgress
    ):
        """`tokens_per_row` is the number of tokens that a packed row has room for, or None if rows are not filled up to
        a limit. `before` is the progress of the run at the checkpoint that it resumes from."""
        self._epochs, self._rows_per_step, self._room, self._devices = epochs, rows_per_step, tokens_per_row, devices
        self._before = self._marked = before
        self._skipped_steps = before.skipped_steps
        self._saving = 0.0
        # Holds the counts after the last finished step and after the current one, which does not count until it ends.
        self._after = {before.step: before.counts}
        self.start()

    def start(self) -> None:
        """Start the clock. Time before this call does not count, because loading the model is not training."""
        self._started = time.perf_counter() - self._before.seconds

    def took(self, step: int, counts: Counts) -> None:
        """Add the counts of one step, summed over all processes. `step` is the number of steps done when it ends."""
        self._after = {step - 1: self._after[step - 1], step: self._after[step - 1].plus(counts)}

    def skipped_step(self) -> None:
        """Count a step that has not changed the weights."""
        self._skipped_steps += 1

    def progress(self, step: int) -> RunProgress:
        return RunProgress(step, time.perf_counter() - self._started, self._after[step], self._skipped_steps)

    def totals(self, step: int) -> dict[str, float]:
        """Return the totals of the run after `step` steps."""
        return self._totals(self.progress(step))

    def row(self, step: int) -> dict[str, float]:
        """Return the totals after `step` steps, and the speed since the previous call."""
        now, before = self.progress(step), self._marked
        saving, self._marked, self._saving = self._saving, now, 0.0
        figures = self._totals(now) | self._pace(now, before) | self._use(now, before)
        return figures | ({"save_seconds": saving} if saving else {})

    def pause(self, seconds: float) -> None:
        """Leave `seconds` out of the speed of training, because they were spent on something else."""
        self._marked = replace(self._marked, seconds=self._marked.seconds + seconds)

    def saved(self, seconds: float) -> None:
        """Count the time that training has waited for a checkpoint. It is left out of the speed of training."""
        self._saving += seconds
        self.pause(seconds)

    def _pace(self, now: RunProgress, before: RunProgress) -> dict[str, float]:
        done, seconds = now.counts.minus(before.counts), now.seconds - before.seconds
        return {
            "tokens_per_second": done.tokens / seconds,
            "supervised_tokens_per_second": done.supervised / seconds,
            "samples_per_second": done.samples / seconds,
            "images_per_second": done.media / seconds,
            "step_seconds": seconds / (now.step - before.step),
        }

    def _use(self, now: RunProgress, before: RunProgress) -> dict[str, float]:
        """Return how well the devices and the room in packed rows are used since `before`."""
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
        } | ({"skipped_steps": now.skipped_steps} if now.skipped_steps else {})
