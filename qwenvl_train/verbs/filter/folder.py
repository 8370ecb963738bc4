"""The folder of a filter: its settings, the judgements so far, and the results.

Judgements about consecutive rows are files in parts/, so that a filter that was killed goes on where it was.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qwenvl_train.errors import UserError
from qwenvl_train.files import replacing
from qwenvl_train.reporting.folder import write_json_atomic

SETTINGS, SUMMARY = "settings.json", "summary.json"


class FilterFolder:
    def __init__(self, path: Path):
        self.path = path
        self._parts = path / "parts"

    def open(self, settings: Mapping[str, Any]) -> None:
        """Make the folder for these settings, or find it again.

        Raises:
            UserError: If it holds the results of other settings, or other files.
        """
        stored = self._settings()
        if stored is None and self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(f"filter.to={self.path} exists and is not a folder of this filter; name a new folder.")
        if stored is not None and stored != settings:
            changed = [key for key in settings | stored if stored.get(key) != settings.get(key)]
            raise UserError(
                f"filter.to={self.path} holds results of other settings ({', '.join(changed)}); name another folder, "
                "or delete it."
            )
        self._parts.mkdir(parents=True, exist_ok=True)
        if stored is None:
            write_json_atomic(self.path / SETTINGS, settings)

    def _settings(self) -> Any:
        try:
            return json.loads((self.path / SETTINGS).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError):
            raise UserError(f"filter.to={self.path}: its {SETTINGS} is damaged; name another folder.") from None

    def summary(self) -> Any:
        """Return the figures of a filter that is finished, or None."""
        try:
            return json.loads((self.path / SUMMARY).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def has_part(self, first: int, rows: int) -> bool:
        """Return whether the judgements about `rows` rows from number `first` on are stored whole."""
        try:
            return pq.read_metadata(self._part(first)).num_rows == rows
        except (OSError, pa.ArrowException):
            return False

    def save_part(self, first: int, table: pa.Table) -> None:
        with replacing(self._part(first)) as file:
            pq.write_table(table, file, compression="zstd")

    def parts(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Yield all judgements in the order of the rows, or only some of their columns."""
        for path in sorted(self._parts.glob("*.parquet")):
            yield pq.read_table(path, columns=columns)

    def remove_parts(self) -> None:
        shutil.rmtree(self._parts, ignore_errors=True)

    def _part(self, first: int) -> Path:
        return self._parts / f"{first:012d}.parquet"
