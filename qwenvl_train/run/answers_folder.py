"""A folder of answers: those that it has so far, and what they follow from.

The answers are appended while they are generated, each process to a file of its own, so that a job that was killed goes
on where it was. At the end they become one file, in the order of the samples.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qwenvl_train.evaluation.answering import Row
from qwenvl_train.files import replacing, whole_lines
from qwenvl_train.reporting.claimed import claim_folder
from qwenvl_train.reporting.folder import json_line


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

    def answered(self, tries: int = 1) -> dict[int, list[Row]]:
        """Return the answers of each sample that is answered completely, by the index of the sample. `tries` is the
        number of answers to each of its turns."""
        found: dict[int, dict[tuple[int, int], Row]] = defaultdict(dict)
        for file in sorted(self.path.glob(f"{self._name}*.jsonl")):
            for line in whole_lines(file):
                row = json.loads(line)
                found[row["index"]][row["turn"], row.get("try", 1)] = row
        return {
            index: [rows[place] for place in sorted(rows)]
            for index, rows in sorted(found.items())
            if len(rows) == next(iter(rows.values()))["turns"] * tries
        }

    def append(self, rows: Sequence[Row], process: int) -> None:
        """Add the answers of one process, which are on the disk when this returns."""
        with (self.path / f"{self._name}.{process}.jsonl").open("a", encoding="utf-8") as file:
            file.write("".join(map(json_line, rows)))

    def finish(self, rows: Sequence[Row]) -> None:
        """Write all answers in one file, in place of those of each process."""
        with replacing(self.answers, sync=True) as file:
            file.write("".join(map(json_line, rows)).encode())
        for part in self.path.glob(f"{self._name}.*.jsonl"):
            part.unlink()
