"""Read the raw rows of files and hub ids from front to back, without counting or indexing them beforehand."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import pyarrow
import pyarrow.parquet
from datasets import Features

from qwenvl_train.config.entries import SourceConfig
from qwenvl_train.data.sources.csv_tables import opened_csv
from qwenvl_train.data.sources.source import InFile, Source, keys_of_first, stamp, unreadable
from qwenvl_train.data.sources.spans import line_blocks
from qwenvl_train.data.sources.table import hub_errors, load_hub, part_of_table
from qwenvl_train.data.sources.text import TextRows
from qwenvl_train.errors import UserError

Position = dict[str, Any]
"""The position at which reading continues. It can be stored as JSON."""

_BUFFER = 2**20
_TABLE = 32
"""The number of rows of a table that are in memory at a time."""


@dataclass(frozen=True)
class RawRow:
    line: int
    read: Callable[[], object]
    """Returns the content of the row. Raises UserError when the row cannot be read; the next row may be readable."""
    after: Position
    """The position of the next row."""


class Flow(Protocol):
    @property
    def name(self) -> str:
        """The name of the source in error messages."""

    @property
    def folder(self) -> Path | str:
        """The folder that relative media paths start from, or its address."""

    def columns(self) -> list[str]:
        """Return the columns of a table, or the keys of the first rows of a text file."""

    def size(self) -> int:
        """Return the size of the files in bytes, or 0 when they cannot change."""

    def rows(self, start: Position | None) -> Iterator[RawRow]:
        """Yield the raw rows from `start` to the end; None is the beginning. Raise UserError when no further row can be
        read."""


class _FileFlow(InFile):
    def size(self) -> int:
        return _size(self.path)


@dataclass(frozen=True)
class Lines(_FileFlow):
    """A .jsonl file."""

    path: Path
    address: str | None = None

    def columns(self) -> list[str]:
        return keys_of_first(row.read for row in self.rows(None))

    def rows(self, start: Position | None) -> Iterator[RawRow]:
        offset, line = (start["offset"], start["line"]) if start else (0, 0)
        try:
            mark = stamp(self.path)
            with self.path.open("rb") as file:
                for starts, sizes, lines in line_blocks(file, offset, line):
                    block = TextRows(self.path, starts, sizes, lines, mark, self.address)
                    for index, after in enumerate((block.starts + block.sizes).tolist()):
                        line = block.line(index)
                        yield RawRow(line, partial(block.row, index), {"offset": after, "line": line})
        except OSError as error:
            raise unreadable(self.name, error) from None


@dataclass(frozen=True)
class Parquet(_FileFlow):
    path: Path
    address: str | None = None

    def columns(self) -> list[str]:
        with self._opened() as file:
            return file.schema_arrow.names

    def rows(self, start: Position | None) -> Iterator[RawRow]:
        first = start["row"] if start else 0
        with self._opened() as file:
            features = Features.from_arrow_schema(file.schema_arrow)
            groups = range(file.metadata.num_row_groups)
            starts = list(accumulate((file.metadata.row_group(group).num_rows for group in groups), initial=0))
            group = bisect_right(starts, first, hi=len(groups)) - 1
            row = starts[group]
            for batch in file.iter_batches(_TABLE, groups[group:]):
                table = pyarrow.Table.from_batches([batch])
                if row + len(table) > first:
                    part = part_of_table(table, features, self.name, self.folder, row)
                    for index in range(max(0, first - row), len(table)):
                        yield RawRow(part.line(index), partial(part.row, index), {"row": row + index + 1})
                row += len(table)

    @contextmanager
    def _opened(self) -> Iterator[pyarrow.parquet.ParquetFile]:
        try:
            with pyarrow.parquet.ParquetFile(self.path, buffer_size=_BUFFER) as file:
                yield file
        except OSError as error:
            raise unreadable(self.name, error) from None
        except (ValueError, pyarrow.ArrowException) as error:
            raise UserError(f"{self.name} cannot be read as parquet: {error}.") from None


@dataclass(frozen=True)
class Csv(_FileFlow):
    """A .csv or .tsv file."""

    path: Path
    address: str | None = None

    def columns(self) -> list[str]:
        with opened_csv(self.path, self.name) as reader:
            return reader.schema.names

    def rows(self, start: Position | None) -> Iterator[RawRow]:
        first, row = start["row"] if start else 0, 0
        with opened_csv(self.path, self.name) as reader:
            features = Features.from_arrow_schema(reader.schema)
            for batch in reader:
                for offset in range(max(0, first - row), len(batch), _TABLE):
                    table = pyarrow.Table.from_batches([batch.slice(offset, _TABLE)])
                    part = part_of_table(table, features, self.name, self.folder, row + offset)
                    for index in range(len(table)):
                        yield RawRow(part.line(index), partial(part.row, index), {"row": part.line(index)})
                row += len(batch)


@dataclass(frozen=True)
class IndexedFlow:
    """An arrow folder or a .json list. It is opened only when its rows are read."""

    name: str
    open: Callable[[], Source]
    path: Path
    address: str | None = None

    @property
    def folder(self) -> Path | str:
        if self.address:
            return self.address.rpartition("/")[0]
        return self.path.absolute() if self.path.is_dir() else self.path.absolute().parent

    def columns(self) -> list[str]:
        return self.open().columns()

    def size(self) -> int:
        return _size(self.path)

    def rows(self, start: Position | None) -> Iterator[RawRow]:
        source = self.open()
        for index in range(start["row"] if start else 0, len(source)):
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

    def columns(self) -> list[str]:
        return keys_of_first(row.read for row in self.rows(None))

    def size(self) -> int:
        return 0

    def rows(self, start: Position | None) -> Iterator[RawRow]:
        """Yield the raw rows from `start` on. A position holds the library's own state before a part of the table, the
        number of rows before that part, and the number of rows to skip in it."""
        state, row, skip = (start["state"], start["row"], start["skip"]) if start else (None, 0, 0)
        with hub_errors(self.config):
            loaded, _ = load_hub(self.config, streaming=True)
            dataset = loaded.with_format("arrow")
            dataset.load_state_dict(state)
            for table in dataset.iter(_TABLE):
                features = dataset.features or Features.from_arrow_schema(table.schema)
                part = part_of_table(table, features, self.name, self.folder, row)
                for index in range(skip, len(table)):
                    after = {"state": state, "row": row, "skip": index + 1}
                    yield RawRow(part.line(index), partial(part.row, index), after)
                state, row, skip = dataset.state_dict(), row + len(table), 0


def _size(path: Path) -> int:
    """Return the size in bytes of a file, or of all files in a folder."""
    return sum(map(_size, path.iterdir())) if path.is_dir() else path.stat().st_size
