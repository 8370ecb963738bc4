"""The file metrics.jsonl. It has one JSON object for each logged step or evaluation, and can be read during the run."""

import json
from pathlib import Path
from typing import TextIO

from qwenvl_train.errors import UserError
from qwenvl_train.reporting.folder import json_line, write_json_lines_atomic
from qwenvl_train.reporting.reporter import Reporter, Row, RunInfo, is_evaluation

FILE_NAME = "metrics.jsonl"


def read_metrics(folder: Path) -> list[Row]:
    """Return the rows that are in the file so far. Drop an incomplete last line, which a killed run leaves. Raise
    UserError for any other line that is not JSON."""
    path = folder / FILE_NAME
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise UserError(f"{path}, line {number}: this is not a JSON object ({error.msg})") from error
    return rows


def before_and_after(rows: list[Row]) -> tuple[Row | None, Row | None]:
    """Return the evaluation before the first step, and the last evaluation after it. Each is None if there is none, so
    that a run with a single evaluation never shows it twice."""
    evaluations = [row for row in rows if is_evaluation(row)]
    before = next((row for row in evaluations if row["step"] == 0), None)
    return before, next((row for row in reversed(evaluations) if row["step"] > 0), None)


class MetricsFile(Reporter):
    """A reporter that appends every row at once, so that a killed run loses at most the line it was writing."""

    _file: TextIO

    def start(self, run: RunInfo) -> None:
        """Open the file. If the run is resumed, first drop the rows after its checkpoint: these steps run again."""
        kept = [row for row in read_metrics(run.folder) if row["step"] <= run.start_step] if run.resumed else []
        path = run.folder / FILE_NAME
        write_json_lines_atomic(path, kept)
        self._file = path.open("a", encoding="utf-8")

    def log(self, row: Row) -> None:
        self._file.write(json_line(row))
        self._file.flush()

    def finish(self, summary: Row) -> None:
        self._file.close()
