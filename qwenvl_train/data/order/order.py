"""Determines the samples of each packed row, as a pure function of seed and position, the same on every process.

The position in this order is all the state that a resumed run needs.
"""

import sys
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any, Protocol

import numpy as np

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.data.index.lengths import Lengths
from qwenvl_train.data.order.balance import balanced
from qwenvl_train.data.order.mixture import Mixture, MixtureEntry
from qwenvl_train.data.order.packing import pack
from qwenvl_train.errors import UserError

# Not 0, because numpy ignores zeros at the end of a seed, and not 1, which the mixture uses.
_BALANCE = 2


@dataclass(frozen=True)
class EpochCounts:
    samples: int
    tokens: int
    supervised: int
    epoch: float


class Order(Protocol):
    """The order of packed rows. Row i goes to process i % world, and the `world` rows of one micro-step run at the same
    time."""

    def row(self, index: int) -> np.ndarray:
        """Return the samples of row `index`, for any index from 0 on."""

    def rows(self, epochs: float) -> int:
        """Return the number of rows that `epochs` epochs take."""

    def largest(self, column: np.ndarray) -> int:
        """Return the largest sum of `column` over the samples of a row of the first epoch."""

    def samples_per_entry(self) -> list[int]:
        """Return the number of samples of each entry of data.train in the first epoch."""

    def tokens_per_epoch(self) -> int:
        """Return the number of tokens in the first epoch."""

    def seen(self, rows: int) -> EpochCounts:
        """Return the numbers of samples, tokens, learned tokens and epochs in the first `rows` rows."""


def build_order(
    lengths: Lengths, entries: list[MixtureEntry], usable: np.ndarray, config: RunConfig, balanced_for: tuple[int, int]
) -> Order:
    """Return the order of the samples of a run.

    Args:
        balanced_for: The number of processes, and of units in a packed row, whose micro-steps cost alike. A run that
            resumes with other numbers keeps those of its first start, so that its order is the same.
    """
    for number, (entry, source) in enumerate(zip(entries, config.data.train, strict=True)):
        if not usable[entry.start : entry.stop].any():
            raise UserError(
                f"data.train.{number} ({source.path}): none of its {entry.stop - entry.start} rows can be used; "
                "data.on_error=raise and data.too_long=error show what is wrong with the first."
            )
    kind = PackOrder if config.data.packing else SampleOrder
    return kind(lengths, Mixture(entries, usable, config.seed), config, balanced_for)


@dataclass(frozen=True)
class Plan:
    """One epoch, divided into units. Unit i is `samples[borders[i] : borders[i + 1]]`."""

    samples: np.ndarray
    borders: np.ndarray

    def __len__(self) -> int:
        return len(self.borders) - 1

    def sums(self, column: np.ndarray) -> np.ndarray:
        """Return the sum of `column` over the samples of each unit. No unit may be empty."""
        if len(self) == 0:
            return np.zeros(0, dtype=np.int64)
        return np.add.reduceat(column[self.samples], self.borders[:-1], dtype=np.int64)

    def reordered(self, units: np.ndarray) -> "Plan":
        sizes = np.diff(self.borders)[units]
        borders = np.concatenate([[0], np.cumsum(sizes)])
        indices = np.repeat(self.borders[units] - borders[:-1], sizes) + np.arange(len(self.samples))
        return Plan(self.samples[indices], borders)


class _EpochOrder(ABC):
    """Divides the endless stream of epochs into rows of `batch_size` units. Subclasses define what a unit is."""

    def __init__(self, lengths: Lengths, mixture: Mixture, config: RunConfig, balanced_for: tuple[int, int]):
        self._lengths, self._mixture, self._seed = lengths, mixture, config.seed
        self._batch_size, self._balanced_for = config.train.batch_size, balanced_for
        self._plans: dict[int, Plan] = {}
        self._totals: dict[int, tuple[int, int, int]] = {}

    def row(self, index: int) -> np.ndarray:
        unit, stop = index * self._batch_size, (index + 1) * self._batch_size
        parts = []
        while unit < stop:
            epoch = self._epoch_of(unit)
            plan, start = self._plan(epoch), self._before(epoch)
            last = min(stop - start, len(plan))
            parts.append(plan.samples[plan.borders[unit - start] : plan.borders[last]])
            unit = start + last
        return np.concatenate(parts)

    def rows(self, epochs: float) -> int:
        exact = Fraction(str(epochs))
        units = self._before(int(exact))
        if exact % 1:
            plan = self._plan(int(exact))
            units += int(np.searchsorted(plan.borders, ceil(exact % 1 * len(plan.samples))))
        return -(-units // self._batch_size)

    def largest(self, column: np.ndarray) -> int:
        units, size = self._plan(0).sums(column), self._batch_size
        whole = len(units) // size
        sums = units[: whole * size].reshape(whole, size).sum(axis=1)
        # The last row may go on with samples of the next epoch.
        last = [int(column[self.row(row)].sum(dtype=np.int64)) for row in range(whole, self.rows(1))]
        return max([int(sums.max(initial=0)), *last])

    def samples_per_entry(self) -> list[int]:
        return self._mixture.drawn(1)

    def tokens_per_epoch(self) -> int:
        return self._mixture.total(self._lengths.tokens, 1)

    def seen(self, rows: int) -> EpochCounts:
        if rows == 0:
            return EpochCounts(0, 0, 0, 0.0)
        units = rows * self._batch_size
        epoch = self._epoch_of(units - 1)
        plan = self._plan(epoch)
        part = plan.samples[: plan.borders[units - self._before(epoch)]]
        samples, tokens, supervised = self._total_before(epoch)
        return EpochCounts(
            samples + len(part),
            tokens + int(self._lengths.tokens[part].sum(dtype=np.int64)),
            supervised + int(self._lengths.supervised[part].sum(dtype=np.int64)),
            (epoch * len(plan.samples) + len(part)) / len(plan.samples),
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the plans, because a worker that receives a copy makes its own."""
        return self.__dict__ | {"_plans": {}}

    @abstractmethod
    def _before(self, epoch: int) -> int:
        """Return the number of units before `epoch`."""

    @abstractmethod
    def _epoch_of(self, unit: int) -> int: ...

    @abstractmethod
    def _make(self, epoch: int) -> Plan: ...

    def _plan(self, epoch: int) -> Plan:
        """Return the plan of `epoch`. Two plans are kept, because a row may extend over the border of two epochs."""
        if epoch not in self._plans:
            plan = self._make(epoch)
            if len(self._plans) == 2:
                del self._plans[next(iter(self._plans))]
            self._plans[epoch] = plan
        return self._plans[epoch]

    def _total_before(self, epoch: int) -> tuple[int, int, int]:
        if epoch not in self._totals:
            columns = self._lengths.tokens, self._lengths.supervised
            tokens, supervised = (self._mixture.total(column, epoch) for column in columns)
            self._totals[epoch] = self._mixture.before(epoch), tokens, supervised
        return self._totals[epoch]

    def _balanced(self, plan: Plan, epoch: int) -> Plan:
        tokens, patches = plan.sums(self._lengths.tokens), plan.sums(self._lengths.patches)
        rng = np.random.default_rng((self._seed, epoch, _BALANCE))
        return plan.reordered(balanced(tokens, patches, *self._balanced_for, self._before(epoch), rng))


class SampleOrder(_EpochOrder):
    """An order whose units are samples. With `bucketing`, the rows of one micro-step cost alike."""

    def __init__(self, lengths: Lengths, mixture: Mixture, config: RunConfig, balanced_for: tuple[int, int]):
        super().__init__(lengths, mixture, config, balanced_for)
        self._bucketing = config.data.bucketing

    def _before(self, epoch: int) -> int:
        return self._mixture.before(epoch)

    def _epoch_of(self, unit: int) -> int:
        return bisect_right(range(sys.maxsize), unit, key=self._before) - 1

    def _make(self, epoch: int) -> Plan:
        samples = self._mixture.epoch(epoch)
        plan = Plan(samples, np.arange(len(samples) + 1))
        return self._balanced(plan, epoch) if self._bucketing else plan


class PackOrder(_EpochOrder):
    """An order whose units are packs of samples of at most `capacity` tokens. The rows of one micro-step cost alike.

    The number of packs in an epoch is known only once the epoch is planned. To find a position in a later epoch, all
    epochs before it are planned.
    """

    def __init__(self, lengths: Lengths, mixture: Mixture, config: RunConfig, balanced_for: tuple[int, int]):
        super().__init__(lengths, mixture, config, balanced_for)
        assert config.pack_length is not None
        self._capacity = config.pack_length
        self._starts = [0]

    def _before(self, epoch: int) -> int:
        while len(self._starts) <= epoch:
            self._starts.append(self._starts[-1] + len(self._plan(len(self._starts) - 1)))
        return self._starts[epoch]

    def _epoch_of(self, unit: int) -> int:
        while self._starts[-1] <= unit:
            self._before(len(self._starts))
        return bisect_right(self._starts, unit) - 1

    def _make(self, epoch: int) -> Plan:
        samples = self._mixture.epoch(epoch)
        packs = pack(self._lengths.tokens[samples], self._capacity)
        borders = np.concatenate([[0], np.cumsum(np.bincount(packs))])
        return self._balanced(Plan(samples[np.argsort(packs, kind="stable")], borders), epoch)
