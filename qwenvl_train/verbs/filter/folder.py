"""The folder of a filter: its settings, the judgements so far, and the results.

Judgements about consecutive rows are files in parts/, so that a filter that was killed goes on where it was.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from qwenvl_train.files import replacing
from qwenvl_train.reporting.claimed import claim_folder

SUMMARY = "summary.json"


class Parts:
    """Tables about consecutive rows, each in a file of its own."""

    def __init__(self, path: Path):
        self._path = path

    def has(self, rows: range) -> bool:
        """Return whether the table about these rows is stored whole."""
        try:
            return self._read(self._file(rows.start), None).num_rows == len(rows)
        except (OSError, pa.ArrowException):
            return False

    def save(self, rows: range, table: pa.Table) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
        with (
            replacing(self._file(rows.start)) as file,
            pa.ipc.new_file(file, table.schema, options=options) as writer,
        ):
            writer.write_table(table)

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield all tables in the order of the rows, or only some of their columns."""
        for path in sorted(self._path.glob("*.arrow")):
            yield self._read(path, columns)

    def _read(self, path: Path, columns: Sequence[str] | None) -> pa.Table:
        with pa.OSFile(str(path)) as file:
            # Opening a file takes longer than reading all columns of so few rows.
            table = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(use_threads=False)).read_all()
        return table if columns is None else table.select(list(columns))

    def _file(self, first: int) -> Path:
        return self._path / f"{first:012d}.arrow"


class FilterFolder:
    def __init__(self, path: Path):
        self.path = path
        self.by_rules = Parts(path / "parts" / "rules")
        """The judgements of the rules that judge a row alone."""
        self.by_model = Parts(path / "parts" / "model")
        """The judgements by a model."""

    def open(self, settings: Mapping[str, Any]) -> None:
        """Make the folder for these settings, or find it again.

        Raises:
            UserError: If it holds the results of other settings, or other files.
        """
        claim_folder(self.path, "filter.to", settings)

    def summary(self) -> Any:
        """Return the figures of a filter that is finished, or None."""
        try:
            return json.loads((self.path / SUMMARY).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def tables(self, by_model: bool) -> Iterator[pa.Table]:
        """Yield the judgements about consecutive rows, with those of a model if there is one."""
        if not by_model:
            yield from self.by_rules.tables()
            return
        for one, other in zip(self.by_rules.tables(), self.by_model.tables(), strict=True):
            for name in other.column_names:
                one = one.append_column(name, other[name])
            yield one

    def remove_parts(self) -> None:
        shutil.rmtree(self.path / "parts", ignore_errors=True)
