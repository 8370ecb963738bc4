"""Read the first raw rows of a streamed run, so that they can be checked before the run. Later rows are not read."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.data.index.lengths import COLUMNS, Lengths
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.data.sample import Sample
from qwenvl_train.data.streaming.draw import NothingUsable, open_entries
from qwenvl_train.data.streaming.windows import Measured, Planner, State, UnusableRow, columns_of, detail_by_source
from qwenvl_train.errors import UserError


@dataclass(frozen=True)
class Head:
    """The raw rows of the first window, numbered in the order of reading. Each row occurs once, even when weights make
    a short entry begin again within the window."""

    rows: tuple[Measured | UnusableRow, ...]
    whole: bool
    """Whether the entries have no rows other than these."""
    units: np.ndarray
    """[units]: the number of tokens of each unit that the window is cut into."""
    sources: list[str]
    """The names of all sources, including sources that were not read from."""
    described: list[str]
    """A readable description of each entry."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[index]
        if row.sample is None:
            raise UserError(row.problem.reason)
        return row.sample

    def origin(self, index: int) -> tuple[str, int]:
        """Return the name of the source and the line of row `index`."""
        return self.rows[index].origin

    def id(self, index: int) -> str | None:
        """Return the id of a raw row, or None when the row could not be read."""
        row = self.rows[index]
        return row.sample.id if isinstance(row, Measured) else row.id

    def names(self) -> list[str]:
        return self.sources

    def files(self) -> Iterator[tuple[str, list[int]]]:
        """Return the name of each source with the indices of its rows."""
        found: dict[str, list[int]] = {name: [] for name in self.sources}
        for index, row in enumerate(self.rows):
            found[row.origin[0]].append(index)
        return ((name, found[name]) for name in self.sources)

    def describe(self) -> list[str]:
        return self.described if self.whole else [*self.described, self.extent]

    @property
    def extent(self) -> str:
        if self.whole:
            return "all rows"
        rows = "row" if len(self) == 1 else f"{len(self):,} rows"
        return f"the first {rows}; the rest is not read"

    def detailed(self) -> dict[str, int]:
        """Return the number of pictures with OpenAI's `detail`, by the name of their source."""
        return detail_by_source(row for row in self.rows if isinstance(row, Measured))

    def lengths(self) -> Lengths:
        table = np.zeros((len(COLUMNS), len(self)), dtype=np.int64)
        for index, row in enumerate(self.rows):
            if isinstance(row, Measured):
                table[:, index] = row.columns
        return Lengths.of(table, (row.problem for row in self.rows if isinstance(row, UnusableRow)))


def read_head(config: RunConfig, renderer: Renderer, cache: Path, tolerated: frozenset[str]) -> Head:
    """Read the raw rows of the first window. Raise UserError for a row with a problem that is not tolerated."""
    entries = open_entries(config.data, cache)
    planner = Planner(entries, renderer, tolerated, config, rank=0, world=1)
    start = State.beginning(entries)
    each: dict[tuple[str, int], Measured | UnusableRow] = {}
    measured = []
    # When an entry has no usable row, the problem of each of its rows gives the reason, so this error adds nothing.
    with suppress(NothingUsable):
        for row in planner.rows(start):
            each.setdefault(row.origin, row)
            if isinstance(row, Measured):
                measured.append(row)
    columns = columns_of(measured)
    head = Head(
        rows=tuple(each.values()),
        whole=planner.whole(),
        units=planner.plan(columns, start).sums(columns["tokens"]),
        sources=[flow.name for entry in entries for flow, _ in entry.files],
        described=planner.describe(),
    )
    planner.close()
    return head
