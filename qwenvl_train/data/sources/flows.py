"""Read the raw rows of files and hub ids from front to back, without counting or indexing them beforehand."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow
import pyarrow.parquet
from datasets import Dataset, DatasetInfo, Features
from datasets.table import InMemoryTable, table_cast

from qwenvl_train.config.schema import SourceConfig
from qwenvl_train.data.sources.source import Source, stamp, unreadable
from qwenvl_train.data.sources.table import TableRows, hub_errors, load_hub
from qwenvl_train.data.sources.text import TextRows
from qwenvl_train.errors import UserError

Place = dict[str, Any]
"""The position at which reading continues. It can be stored as JSON."""

_BOM = b"\xef\xbb\xbf"
_PIECE = 2**20
_TABLE = 32
"""The number of rows of a table that are in memory at a time."""


@dataclass(frozen=True)
class RawRow:
    line: int
    read: Callable[[], object]
    """Returns the content of the row. Raises UserError when the row cannot be read; the next row may be readable."""
    after: Place
    """The position of the next row."""


class Flow(Protocol):
    @property
    def name(self) -> str:
        """The name of the source in error messages."""

    @property
    def folder(self) -> Path:
        """The folder that relative media paths start from."""

    def size(self) -> int:
        """Return the size of the files in bytes, or 0 when they cannot change."""

    def rows(self, place: Place | None) -> Iterator[RawRow]:
        """Yield the raw rows from `place` to the end; None is the beginning. Raise UserError when no further row can be
        read."""


@dataclass(frozen=True)
class Lines:
    """A .jsonl file."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def folder(self) -> Path:
        return self.path.absolute().parent

    def size(self) -> int:
        return _size(self.path)

    def rows(self, place: Place | None) -> Iterator[RawRow]:
        offset, line = (place["offset"], place["line"]) if place else (0, 0)
        try:
            mark = stamp(self.path)
            with self.path.open("rb") as file:
                for start, size, number in _lines(file, offset, line):
                    row = TextRows(self.path, np.array([start]), np.array([size]), np.array([number]), mark)
                    yield RawRow(number, partial(row.row, 0), {"offset": start + size, "line": number})
        except OSError as error:
            raise unreadable(self.path, error) from None


@dataclass(frozen=True)
class Parquet:
    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def folder(self) -> Path:
        return self.path.absolute().parent

    def size(self) -> int:
        return _size(self.path)

    def rows(self, place: Place | None) -> Iterator[RawRow]:
        first = place["row"] if place else 0
        try:
            with pyarrow.parquet.ParquetFile(self.path, buffer_size=_PIECE) as file:
                features = Features.from_arrow_schema(file.schema_arrow)
                groups = range(file.metadata.num_row_groups)
                starts = list(accumulate((file.metadata.row_group(group).num_rows for group in groups), initial=0))
                group = bisect_right(starts, first, hi=len(groups)) - 1
                row = starts[group]
                for batch in file.iter_batches(_TABLE, groups[group:]):
                    table = pyarrow.Table.from_batches([batch])
                    if row + len(table) > first:
                        part = _part(table, features, self.name, self.folder, row)
                        for index in range(max(0, first - row), len(table)):
                            yield RawRow(part.line(index), partial(part.row, index), {"row": row + index + 1})
                    row += len(table)
        except OSError as error:
            raise unreadable(self.path, error) from None
        except (ValueError, pyarrow.ArrowException) as error:
            raise UserError(f"{self.path} cannot be read as parquet: {error}.") from None


@dataclass(frozen=True)
class IndexedFlow:
    """An arrow folder or a .json list. It is opened only when its rows are read."""

    name: str
    open: Callable[[], Source]
    path: Path

    @property
    def folder(self) -> Path:
        return self.path.absolute() if self.path.is_dir() else self.path.absolute().parent

    def size(self) -> int:
        return _size(self.path)

    def rows(self, place: Place | None) -> Iterator[RawRow]:
        source = self.open()
        for index in range(place["row"] if place else 0, len(source)):
            yield RawRow(source.line(index), partial(source.row, index), {"row": index + 1})


@dataclass(frozen=True)
class Hub:
    """A dataset of the hub. `config.revision` is one commit, so that every pass and every resumed run reads the same
    rows."""

    config: SourceConfig

    @property
    def name(self) -> str:
        config = self.config
        return "/".join(part for part in (config.path, config.subset, config.split) if part)

    @property
    def folder(self) -> Path:
        return Path.cwd()

    def size(self) -> int:
        return 0

    def rows(self, place: Place | None) -> Iterator[RawRow]:
        """Yield the raw rows from `place` on. A place holds the library's own state before a part of the table, the
        number of rows before that part, and the number of rows to skip in it."""
        state, row, skip = (place["state"], place["row"], place["skip"]) if place else (None, 0, 0)
        with hub_errors(self.config):
            loaded, _ = load_hub(self.config, streaming=True)
            dataset = loaded.with_format("arrow")
            dataset.load_state_dict(state)
            for table in dataset.iter(_TABLE):
                features = dataset.features or Features.from_arrow_schema(table.schema)
                part = _part(table, features, self.name, self.folder, row)
                for index in range(skip, len(table)):
                    after = {"state": state, "row": row, "skip": index + 1}
                    yield RawRow(part.line(index), partial(part.row, index), after)
                state, row, skip = dataset.state_dict(), row + len(table), 0


@dataclass(frozen=True, eq=False)
class _Part(TableRows):
    """The rows of a part of a table. The table has `before` rows before this part."""

    before: int

    def line(self, index: int) -> int:
        return self.before + index + 1


def _part(table: pyarrow.Table, features: Features, name: str, folder: Path, before: int) -> _Part:
    # Without this fingerprint, `datasets` would compute one from the content.
    cast = InMemoryTable(table_cast(table, features.arrow_schema))
    dataset = Dataset(cast, info=DatasetInfo(features=features), fingerprint="part")
    return _Part(name, folder, dataset.with_format("arrow"), (), before)


def _size(path: Path) -> int:
    """Return the size in bytes of a file, or of all files in a folder."""
    return sum(map(_size, path.iterdir())) if path.is_dir() else path.stat().st_size


def _lines(file: BinaryIO, offset: int, line: int) -> Iterator[tuple[int, int, int]]:
    """Yield the start, size and number of each line that contains more than white space. Begin after line `line`, which
    ends at `offset`. A line is never in memory as a whole."""
    file.seek(offset)
    if offset == 0 and file.read(len(_BOM)) == _BOM:
        offset = len(_BOM)
    file.seek(offset)
    end, blank = offset, True
    while piece := file.readline(_PIECE):
        end += len(piece)
        blank = blank and piece.isspace()
        if piece.endswith(b"\n"):
            line += 1
            if not blank:
                yield offset, end - offset, line
            offset, blank = end, True
    if not blank:
        yield offset, end - offset, line + 1
