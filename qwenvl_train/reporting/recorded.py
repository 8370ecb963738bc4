"""Reads what a run has recorded in its folder so far. A file that does not exist counts as empty."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from qwenvl_train.errors import UserError
from qwenvl_train.families.thoughts import without_thoughts
from qwenvl_train.holder import in_use
from qwenvl_train.reporting.folder import read_json_lines
from qwenvl_train.reporting.metrics import read_metrics
from qwenvl_train.reporting.reporter import Row, is_evaluation
from qwenvl_train.reporting.wording import count


@dataclass(frozen=True)
class RecordedRun:
    folder: Path
    config: Row
    rows: list[Row]
    """The rows of metrics.jsonl."""
    components: list[Row]
    summary: Row
    environment: Row
    predictions: list[Row]
    scores: list[Row] = field(default_factory=list)
    """The scores of the answers that were generated at the newest evaluation, with eval.generate."""

    @property
    def name(self) -> str:
        return self.config.get("run_name") or self.folder.resolve().name

    @property
    def resumed_at(self) -> list[int]:
        """The steps at which the run was resumed."""
        return [start["step"] for start in self.environment.get("starts", []) if start["step"] > 0]

    @property
    def totals(self) -> Row:
        """The summary of the run, or what its last logged step has of it if it is not finished."""
        last: Row = next((row for row in reversed(self.rows) if not is_evaluation(row)), {})
        return {**last, **({"steps": last["step"]} if last else {}), **self.summary}

    @property
    def best_metric(self) -> str | None:
        return (self.config.get("train") or {}).get("best_metric")

    @property
    def status(self) -> str:
        """How the run has ended, or how far it is."""
        if "status" in self.summary:
            return self.summary["status"]
        if not (self.config or self.rows):
            return "not begun"
        if not in_use(self.folder):
            return "not finished"
        step, steps = self.totals.get("steps", 0), self.environment.get("steps")
        return f"training, step {count(step)}{f' of {count(steps)}' if steps else ''}"


def read_run(folder: Path) -> RecordedRun:
    """Read the files of a run folder. Raise UserError for one whose content is damaged."""
    rows = read_metrics(folder)
    evaluated = next((row["step"] for row in reversed(rows) if is_evaluation(row)), None)
    return RecordedRun(
        folder,
        read_yaml(folder / "config.yaml"),
        rows,
        read_json(folder / "components.json") or [],
        read_json(folder / "summary.json") or {},
        read_json(folder / "environment.json") or {},
        read_json_lines(folder / "predictions.jsonl"),
        read_json(folder / "answers" / f"step-{evaluated}.json") or [],
    )


def is_right(row: Row, kind: str) -> bool:
    """Return whether an answer of a row of predictions.jsonl, such as that after training, is right: it is the expected
    one, or its metric gives it the best score. For pairs of answers, only the first counts."""
    if is_same(row[kind], row["expected"]):
        return True
    return row.get("rejected") is None and bool((row.get("right") or {}).get(kind))


def is_same(answer: str, expected: str) -> bool:
    """Return whether two answers are the same apart from their thoughts and white space around them."""
    return without_thoughts(answer).strip() == without_thoughts(expected).strip()


def refuse_other_folder(verb: str, folder: Path) -> None:
    """Raise UserError unless the folder is a run folder."""
    if not (folder / "config.yaml").is_file():
        what = "is not a run folder: it has no config.yaml" if folder.is_dir() else "does not exist"
        raise UserError(f"{verb}: {folder} {what}; name a run folder, such as runs/mine.")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); restore or delete it.") from None


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} is not YAML ({' '.join(str(error).split())}); restore or delete it.") from None
