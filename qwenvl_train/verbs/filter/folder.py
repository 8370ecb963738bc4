"""The folder of a filter: its settings, the judgements so far, and the results.

Judgements about consecutive rows are files in parts/, so that a filter that was killed goes on where it was.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

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
            return pq.read_metadata(self._file(rows.start)).num_rows == len(rows)
        except (OSError, pa.ArrowException):
            return False

    def save(self, rows: range, table: pa.Table) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        with replacing(self._file(rows.start)) as file:
            pq.write_table(table, file, compression="zstd")

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield all tables in the order of the rows, or only some of their columns."""
        for path in sorted(self._path.glob("*.parquet")):
            yield pq.read_table(path, columns=None if columns is None else list(columns))

    def _file(self, first: int) -> Path:
        return self._path / f"{first:012d}.parquet"


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
