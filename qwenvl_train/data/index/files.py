"""Files of the index of lengths: one file for the whole index, and part files while it is being measured."""

import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qwenvl_train.data.cache_files import replacing_index
from qwenvl_train.data.index.lengths import COLUMNS, Lengths, Problem


@dataclass(frozen=True)
class IndexFiles:
    """The files of one index of lengths."""

    folder: Path
    key: str
    """Hash of everything that the lengths depend on."""

    def load(self) -> Lengths | None:
        return _load(self._whole)

    def save(self, lengths: Lengths) -> None:
        _save(lengths, self._whole)
        shutil.rmtree(self._parts, ignore_errors=True)

    def load_parts(self) -> Lengths:
        """Return the lengths of the first samples, as far as an earlier start that was killed had measured them."""
        tables = [np.zeros((len(COLUMNS), 0), dtype=np.int32)]
        problems: list[Problem] = []
        rows = 0
        while (part := _load(self._part(rows))) is not None:
            tables.append(part.table())
            problems += part.problems
            rows += len(part.tokens)
        return Lengths.of(np.concatenate(tables, axis=1), problems)

    def save_part(self, first: int, part: Lengths) -> None:
        """Save lengths of the samples from index `first` on. `first` must be the end of the previous part, or 0."""
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
    with replacing_index(file) as written:
        np.savez(written, table=lengths.table(), problems=np.array(problems))


def _load(file: Path) -> Lengths | None:
    """Return the stored lengths, or None if the file is missing or unreadable and has to be measured again."""
    try:
        with np.load(file) as stored:
            problems = json.loads(str(stored["problems"]))
            return Lengths.of(stored["table"], (Problem(**problem) for problem in problems))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
