"""The folder of an evaluation: the answers that it has so far, and its scores.

The answers are appended while they are generated, each process to a file of its own, so that an evaluation that was
killed goes on where it was. At the end they become one file, predictions.jsonl, in the order of the samples.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.answering import Row
from qwenvl_train.files import replacing, whole_lines
from qwenvl_train.reporting.folder import json_line, write_json_atomic

PREDICTIONS, SETTINGS = "predictions.jsonl", "settings.json"


class EvalFolder:
    def __init__(self, path: Path):
        self.path = path

    @property
    def predictions(self) -> Path:
        return self.path / PREDICTIONS

    def open(self, settings: Mapping[str, Any]) -> None:
        """Make the folder for an evaluation with these settings, or find it again.

        Raises:
            UserError: If it holds the answers of an evaluation with other settings, or other files.
        """
        stored = self._settings()
        if stored is None and self.path.is_dir() and any(self.path.iterdir()):
            raise UserError(f"eval.to={self.path} has other files in it; name a new folder.")
        if stored is not None and stored != settings:
            changed = [key for key in settings if stored.get(key) != settings[key]]
            raise UserError(
                f"eval.to={self.path} holds answers that were made with other settings ({', '.join(changed)}); name "
                "another folder, or delete it."
            )
        if stored is None:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json_atomic(self.path / SETTINGS, settings)

    def _settings(self) -> Any:
        try:
            return json.loads((self.path / SETTINGS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            raise UserError(f"eval.to={self.path}: its {SETTINGS} is damaged; name another folder.") from None

    def answered(self) -> dict[int, list[Row]]:
        """Return the answers of each sample that is answered completely, by the index of the sample."""
        found: dict[int, dict[int, Row]] = defaultdict(dict)
        for file in sorted(self.path.glob("predictions*.jsonl")):
            for line in whole_lines(file):
                row = json.loads(line)
                found[row["index"]][row["turn"]] = row
        return {
            index: [turns[turn] for turn in sorted(turns)]
            for index, turns in sorted(found.items())
            if len(turns) == next(iter(turns.values()))["turns"]
        }

    def append(self, rows: Sequence[Row], process: int) -> None:
        """Add the answers of one process, which are on the disk when this returns."""
        with (self.path / f"predictions.{process}.jsonl").open("a", encoding="utf-8") as file:
            file.write("".join(map(json_line, rows)))

    def finish(self, rows: Sequence[Row]) -> None:
        """Write all answers in one file, in place of those of each process."""
        with replacing(self.predictions, sync=True) as file:
            file.write("".join(map(json_line, rows)).encode())
        for part in self.path.glob("predictions.*.jsonl"):
            part.unlink()
