"""A folder of answers: those that it has so far, and what they follow from.

The answers are appended while they are generated, each process to a file of its own, so that a job that was killed goes
on where it was. At the end they become one file, in the order of the samples.
"""

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from qwenvl_train.evaluation.answering import Row
from qwenvl_train.files import cut_unfinished_line, replacing
from qwenvl_train.reporting.claimed import claim_folder
from qwenvl_train.reporting.folder import json_line


class StoredAnswers:
    """The answers to each sample that is answered completely. They stay on the disk, and are read sample by sample."""

    def __init__(self, files: Sequence[Path], tries: int):
        """
        Args:
            tries: The number of answers to each turn of a sample.
        """
        self._files = files
        self._places = _complete(_places_in(files), tries)

    def __len__(self) -> int:
        """Return the number of answers."""
        return len(self._places)

    @property
    def indices(self) -> set[int]:
        """The indices of the samples."""
        return set(self._places[:, 0].tolist())

    def __iter__(self) -> Iterator[list[Row]]:
        """Yield the answers to each sample, in the order of the samples, their turns and the tries."""
        starts = np.flatnonzero(np.diff(self._places[:, 0], prepend=-1))
        with ExitStack() as stack:
            opened = [stack.enter_context(file.open("rb")) for file in self._files]
            for start, stop in pairwise([*starts, len(self._places)]):
                rows = []
                for file, position in self._places[start:stop, 4:].tolist():
                    opened[file].seek(position)
                    rows.append(json.loads(opened[file].readline()))
                yield rows


def _places_in(files: Sequence[Path]) -> np.ndarray:
    """[lines, 6]: what each line has an answer to (the index of the sample, the turn, the number of the try, the number
    of turns of the sample), and where it is: the number of the file, and the position of its first byte."""
    found = array("q")
    for number, path in enumerate(files):
        cut_unfinished_line(path)
        position = 0
        with path.open("rb") as file:
            for line in file:
                row = json.loads(line)
                found.extend((row["index"], row["turn"], row.get("try", 1), row["turns"], number, position))
                position += len(line)
    return np.array(found, dtype=np.int64).reshape(-1, 6)


def _complete(places: np.ndarray, tries: int) -> np.ndarray:
    """Return the places in order, without those of samples that lack answers. Of several lines for an answer, the last
    one counts."""
    latest_first = places[::-1]
    _, chosen = np.unique(latest_first[:, :3], axis=0, return_index=True)
    places = latest_first[chosen]
    _, sample, answers = np.unique(places[:, 0], return_inverse=True, return_counts=True)
    return places[answers[sample] == places[:, 3] * tries]


class AnswersFolder:
    def __init__(self, path: Path, key: str, name: str):
        """
        Args:
            key: The setting that names the folder, for error messages.
            name: The name of the file of answers, without its ending.
        """
        self.path, self._key, self._name = path, key, name

    @property
    def answers(self) -> Path:
        """The file with all answers."""
        return self.path / f"{self._name}.jsonl"

    def open(self, settings: Mapping[str, Any]) -> None:
        """Make the folder for answers that follow from these settings, or find it again.

        Raises:
            UserError: If it holds answers that were made with other settings, or other files.
        """
        claim_folder(self.path, self._key, settings)

    def stored(self, tries: int = 1) -> StoredAnswers:
        """Return the answers to each sample that is answered completely.

        Args:
            tries: The number of answers to each turn of a sample.
        """
        return StoredAnswers(sorted(self.path.glob(f"{self._name}*.jsonl")), tries)

    def append(self, rows: Sequence[Row], process: int) -> None:
        """Add the answers of one process, which are on the disk when this returns."""
        with (self.path / f"{self._name}.{process}.jsonl").open("a", encoding="utf-8") as file:
            file.write("".join(map(json_line, rows)))

    @contextmanager
    def finishing(self) -> Iterator[Callable[[Iterable[Row]], None]]:
        """Yield a function that adds answers to one file, which takes the place of those of each process when the block
        ends."""
        with replacing(self.answers, sync=True) as file:
            yield lambda rows: file.writelines(json_line(row).encode() for row in rows)
        for part in self.path.glob(f"{self._name}.*.jsonl"):
            part.unlink()
