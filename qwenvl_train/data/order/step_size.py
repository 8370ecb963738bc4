"""Fits the size of a step to the data, where the configuration leaves it to them.

The result is a pure function of configuration, lengths and number of processes, so it is equal on every process.
"""

from math import ceil
from typing import NamedTuple, TypeVar

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.data.index.lengths import Lengths
from qwenvl_train.data.order.order import Order

C = TypeVar("C", bound=RunConfig)

ENOUGH_STEPS = 20
"""The least number of steps of an epoch that the settings on auto are chosen for."""


class StepSize(NamedTuple):
    accumulation: int
    """Number of micro-batches in a step of one process."""
    pack_length: int | None
    """Length of packed rows in tokens, or None without packing."""

    @classmethod
    def of(cls, config: RunConfig) -> "StepSize":
        return cls(config.accumulation, config.pack_length)

    def in_config(self, config: C) -> C:
        """Return the configuration with this size in place of auto. A value that the user has set is kept."""
        train, data = config.train, config.data
        if train.accumulation == "auto":
            train = train.model_copy(update={"accumulation": self.accumulation})
        if data.pack_length == "auto" and self.pack_length is not None:
            data = data.model_copy(update={"pack_length": self.pack_length})
        return config.model_copy(update={"train": train, "data": data})


class MicroStep(NamedTuple):
    """The packed rows that run at the same time, one on each process. The order of samples is balanced for them."""

    processes: int
    batch_size: int
    """Number of units (samples or packs) in a packed row."""

    @property
    def units(self) -> int:
        return self.processes * self.batch_size

    @classmethod
    def of(cls, config: RunConfig, processes: int) -> "MicroStep":
        return cls(processes, config.train.batch_size)


class FirstStart(NamedTuple):
    """The size of the steps of a run when it was started for the first time. When it resumes, its steps have the same
    samples, even if the number of processes is another one."""

    step: StepSize
    micro_step: MicroStep

    def in_config(self, config: C, processes: int) -> C:
        """Return the configuration with this size in place of auto, for a number of processes."""
        accumulation, rest = divmod(
            self.step.accumulation * self.micro_step.units, MicroStep.of(config, processes).units
        )
        return self.step._replace(accumulation=self.step.accumulation if rest else accumulation).in_config(config)


def fitting(config: RunConfig, order: Order, lengths: Lengths, world: int) -> StepSize:
    """Return the size of a step with which an epoch has ENOUGH_STEPS steps or more, as far as auto allows it.

    `order` is that of the largest size, in which auto is not fitted yet. Accumulation is lowered first, since a device
    is as busy with fewer micro-batches as with more. Packed rows become shorter only if this is not enough, and never
    shorter than the longest sample.
    """
    (accumulation, pack_length), rows = StepSize.of(config), order.rows(1)
    if config.train.accumulation == "auto":
        accumulation = max(1, min(accumulation, rows // (ENOUGH_STEPS * world)))
    wanted = ENOUGH_STEPS * world * accumulation
    if config.data.pack_length == "auto" and pack_length is not None and rows < wanted:
        # Even if packed rows of this length were full, there would be enough of them.
        length = order.tokens_per_epoch() // (wanted * config.train.batch_size)
        pack_length = min(pack_length, max(length, int(lengths.tokens.max())))
    return StepSize(accumulation, pack_length)


def fitted_in_words(largest: RunConfig, fitted: RunConfig, steps: tuple[int, int]) -> str:
    """Return a line that says how auto was fitted to the data. `steps` are those of an epoch before and after."""
    settings, instead = [], []
    if fitted.accumulation != largest.accumulation:
        settings.append(f"train.accumulation={fitted.accumulation}")
        instead.append(f"{largest.accumulation}")
    if fitted.pack_length != largest.pack_length:
        settings.append(f"data.pack_length={fitted.pack_length}")
        instead.append(f"{largest.pack_length}")
    return (
        f"auto chose {' and '.join(settings)} for this small dataset, which gives {steps[1]} steps an epoch; the usual "
        f"{' and '.join(instead)} would give {steps[0]}"
    )


def steps_of_epoch(config: RunConfig, order: Order, world: int) -> int:
    return ceil(order.rows(1) / (config.accumulation * world))
