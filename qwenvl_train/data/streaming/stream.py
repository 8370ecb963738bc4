"""The packed rows of a run on streamed data.

Windows are planned ahead, packed rows are cut from the windows, and workers render the packed rows.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from qwenvl_train.data.batches.loader import Row, ignore_terminal_signals, make_row, only_row, render_as_measured
from qwenvl_train.data.index.lengths import Problem
from qwenvl_train.data.order.order import EpochCounts
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.streaming.draw import Entry
from qwenvl_train.data.streaming.windows import Measured, Planner, State, Window

_COLUMNS = 4


@dataclass(frozen=True)
class FirstWindow:
    """The facts about the first window that are kept to be reported. The samples of the window are released as they
    are trained on."""

    tokens: np.ndarray
    """[samples]: the number of tokens of each sample."""
    problems: tuple[Problem, ...]
    detailed: dict[str, int]
    """The number of pictures with OpenAI's `detail`, by the name of their source."""


class Stream:
    """The packed rows of a run from number `row` on, which lies in the window that begins with `start`.

    The constructor reads the first window.
    """

    def __init__(self, planner: Planner, start: State, row: int):
        self._planner, self._row = planner, row
        self._units_per_step = planner.batch_size * planner.world
        self._units: dict[int, tuple[Measured, ...]] = {}
        self._starts = [start]
        # `_seen` holds the counts after each micro-step whose end is known, from number `_first_seen` on.
        self._first_seen = -(-start.unit // self._units_per_step)
        self._seen = array("q")
        if start.unit % self._units_per_step == 0:
            self._seen.extend((start.samples, start.tokens, start.supervised, start.passes))
        window = planner.window(start)
        self.first = FirstWindow(window.tokens, window.problems, window.detailed)
        self._described = planner.describe()
        # The files that are open now cannot be read further by the process that plans ahead.
        planner.close()
        self._take(window)

    @property
    def entries(self) -> tuple[Entry, ...]:
        return self._planner.entries

    def describe(self) -> list[str]:
        """Return a description of each entry: its files, and their format with the reason."""
        return self._described

    def seen(self, rows: int) -> EpochCounts:
        """Return the counts of the first `rows` packed rows of the run. These must be whole micro-steps that the loader
        has already yielded."""
        steps, rest = divmod(rows, self._planner.world)
        assert rest == 0
        start = (steps - self._first_seen) * _COLUMNS
        samples, tokens, supervised, passes = self._seen[start : start + _COLUMNS]
        return EpochCounts(samples, tokens, supervised, float(passes))

    def state(self, rows: int) -> State:
        """Return the beginning of the window in which the run continues after `rows` packed rows. It is the same on
        every process, however far ahead the process has planned."""
        unit = rows * self._planner.batch_size
        index = bisect_left(self._starts, unit, key=lambda state: state.unit)
        return self._starts[index if self._starts[index].unit == unit else index - 1]

    def loader(
        self, rows: int, workers: int, pin_memory: bool, report: Callable[[Sequence[Problem]], None]
    ) -> DataLoader:
        """Return a loader of this process's share of the run's `rows` packed rows. `report` is called with the problems
        of the raw rows that each window leaves out."""
        windows = iter(_windows(self._planner, self._starts[-1], workers > 0))
        share = _ProcessShare(rows // self._planner.world, partial(self._rows, rows, windows, report))
        # The loader has its own generator, so that the global one does not depend on whether a run was resumed.
        return DataLoader(
            _Rendering(self._planner.renderer),
            sampler=share,
            collate_fn=only_row,
            num_workers=workers,
            worker_init_fn=ignore_terminal_signals,
            pin_memory=pin_memory,
            generator=torch.Generator(),
        )

    def _rows(
        self, stop: int, windows: Iterator[Window], report: Callable[[Sequence[Problem]], None]
    ) -> Iterator[tuple[Measured, ...]]:
        size, rank = self._planner.batch_size, self._planner.rank
        for row in range(self._row, stop, self._planner.world):
            while self._starts[-1].unit < row * size + self._units_per_step:
                window = next(windows)
                report(window.problems)
                self._take(window)
            mine = range((row + rank) * size, (row + rank + 1) * size)
            yield tuple(measured for unit in mine for measured in self._units.pop(unit))

    def _take(self, window: Window) -> None:
        first = self._row * self._planner.batch_size
        self._units |= {unit: samples for unit, samples in window.units.items() if unit >= first}
        self._starts.append(window.after)
        self._seen.frombytes(window.seen.tobytes())


def _windows(planner: Planner, state: State, ahead: bool) -> DataLoader:
    """Return a loader of the windows from `state` on. With `ahead`, a separate process plans the next window while the
    current one is trained on."""
    options: dict[str, Any] = {"num_workers": 1, "prefetch_factor": 1} if ahead else {}
    return DataLoader(
        _Windows(planner, state),
        batch_size=None,
        collate_fn=_as_it_is,
        worker_init_fn=ignore_terminal_signals,
        **options,
        generator=torch.Generator(),
    )


class _Windows(IterableDataset):
    def __init__(self, planner: Planner, state: State):
        self._planner, self._state = planner, state

    def __iter__(self) -> Iterator[Window]:
        state = self._state
        while True:
            window = self._planner.window(state)
            yield window
            state = window.after


class _ProcessShare(Sampler):
    """The samples of each packed row of this process. The length is that of the whole run, although a resumed run
    yields only the remaining packed rows."""

    def __init__(self, length: int, rows: Callable[[], Iterator[tuple[Measured, ...]]]):
        self._length, self._rows = length, rows

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[tuple[Measured, ...]]:
        return self._rows()


class _Rendering(Dataset):
    def __init__(self, renderer: Renderer):
        self._renderer = renderer

    def __getitem__(self, row: tuple[Measured, ...]) -> Row:
        parts = [
            (
                measured.origin,
                partial(render_as_measured, measured.sample, measured.tokens, self._renderer, measured.entry),
            )
            for measured in row
        ]
        return make_row(parts, self._renderer)


def _as_it_is(window: Window) -> Window:
    return window
