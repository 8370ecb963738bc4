"""The index of lengths on disk: whole, and in parts while it is being measured."""

import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np

from qwenvl_train.data.index.lengths import COLUMNS, Lengths, Problem
from qwenvl_train.errors import UserError


@dataclass(frozen=True)
class IndexFiles:
    folder: Path
    key: str
    """Of all that the lengths depend on."""

    def whole(self) -> Lengths | None:
        return _load(self._whole)

    def save(self, lengths: Lengths) -> None:
        _save(lengths, self._whole)
        shutil.rmtree(self._parts, ignore_errors=True)

    def begun(self) -> Lengths:
        """The first rows, as far as a start that was killed had come."""
        tables = [np.zeros((len(COLUMNS), 0), dtype=np.int32)]
        problems: list[Problem] = []
        rows = 0
        while (part := _load(self._part(rows))) is not None:
            tables.append(part.table())
            problems += part.problems
            rows += len(part.tokens)
        return Lengths.of(np.concatenate(tables, axis=1), problems)

    def save_part(self, first: int, part: Lengths) -> None:
        """The rows from `first` on, which is where another part ends."""
        _save(part, self._part(first))

    @property
    def _whole(self) -> Path:
        return self.folder / f"{self.key}.npz"

    @property
    def _parts(self) -> Path:
        return self.folder / f"{self.key}.parts"

    def _part(self, first: int) -> Path:
        return self._parts / f"{first}.npz"


def _save(lengths: Lengths, file: Path) -> None:
    problems = json.dumps([problem.as_dict() for problem in lengths.problems])
    part = file.with_suffix(f".{uuid4().hex}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as written:
            np.savez(written, table=lengths.table(), problems=np.array(problems))
        part.replace(file)
    except OSError as error:
        raise UserError(f"data.cache: {file.parent} cannot be written: {error}. Name another folder.") from None


def _load(file: Path) -> Lengths | None:
    """A file that does not read is measured again."""
    try:
        with np.load(file) as stored:
            problems = json.loads(str(stored["problems"]))
            return Lengths.of(stored["table"], (Problem(**problem) for problem in problems))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
