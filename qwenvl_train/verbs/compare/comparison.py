"""What is compared of several runs: scores and costs, settings that differ, and answers that differ."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from qwenvl_train.config.flat import flat
from qwenvl_train.reporting.metrics import before_and_after
from qwenvl_train.reporting.progress import EVALUATION_ASIDE, EVALUATION_FIRST
from qwenvl_train.reporting.recorded import RecordedRun
from qwenvl_train.reporting.reporter import Row
from qwenvl_train.reporting.wording import count, duration, figure, is_finite, label

_OWN = ("run_name", "output_dir")
"""The settings that differ between any two runs."""


@dataclass(frozen=True)
class ComparedRow:
    """A name, and what each run has. A run that has nothing has an empty text."""

    name: str
    cells: list[str]


@dataclass(frozen=True)
class ComparedAnswer:
    """A held-out sample that several runs have answered, with the row of predictions.jsonl of each."""

    rows: dict[str, Row]
    """The rows by the names of their runs."""

    @property
    def differs(self) -> bool:
        return len({row["after"] for row in self.rows.values()}) > 1


@dataclass(frozen=True)
class Comparison:
    runs: dict[str, RecordedRun]
    """The runs by their names, or by their paths if two have one name."""
    figures: list[ComparedRow]
    settings: list[ComparedRow]
    answers: list[ComparedAnswer]
    same_samples: bool
    """Whether the settings name the same held-out samples for all runs."""


def compare(found: Sequence[RecordedRun]) -> Comparison:
    names = [run.name for run in found]
    runs = {run.name if names.count(run.name) == 1 else str(run.folder): run for run in found}
    held_out = [_held_out(run.config) for run in found]
    return Comparison(
        runs,
        [row for row in (*_costs(found), *_scores(found)) if any(row.cells)],
        _settings(found),
        _answers(runs),
        all(one == held_out[0] for one in held_out),
    )


def _held_out(config: Row) -> Any:
    data = config.get("data") or {}
    share = data.get("eval_share")
    return [data.get("eval"), share and (share, data.get("train"), config.get("seed"))]


def _costs(runs: Sequence[RecordedRun]) -> list[ComparedRow]:
    ways: dict[str, tuple[str, Callable[[Any], str]]] = {
        "steps": ("steps", count),
        "samples": ("samples", count),
        "tokens": ("tokens", count),
        "time": ("seconds", duration),
    }
    rows = [ComparedRow("status", [run.status for run in runs])]
    totals = [run.totals for run in runs]
    for name, (key, text) in ways.items():
        rows.append(ComparedRow(name, [text(total[key]) if key in total else "" for total in totals]))
    losses = [next((row["loss"] for row in reversed(run.rows) if row.get("loss") is not None), None) for run in runs]
    rows.append(ComparedRow("training loss", ["" if loss is None else figure("loss", loss) for loss in losses]))
    return rows


def _scores(runs: Sequence[RecordedRun]) -> list[ComparedRow]:
    """Return the held-out scores before and after training."""
    pairs = [tuple(flat(row or {}, "/") for row in before_and_after(run.rows)) for run in runs]
    found = dict.fromkeys(key for pair in pairs for row in pair for key in row if key.startswith("eval_"))
    aside = [*EVALUATION_ASIDE, *EVALUATION_FIRST]
    keys = [*(key for key in EVALUATION_FIRST if key in found), *(key for key in found if key not in aside)]
    return [ComparedRow(f"held-out {label(key)}", [_change(key, *pair) for pair in pairs]) for key in keys]


def _change(metric: str, before: Row, after: Row) -> str:
    return " → ".join(figure(metric, row[metric]) for row in (before, after) if is_finite(row.get(metric)))


def _settings(runs: Sequence[RecordedRun]) -> list[ComparedRow]:
    settings = [flat(_numbered(run.config)) for run in runs]
    keys = dict.fromkeys(key for one in settings for key in one)
    rows = []
    for key in keys:
        values = [one.get(key) for one in settings]
        if key not in _OWN and any(value != values[0] for value in values):
            cells = ["null" if value is None else str(value) for value in values]
            rows.append(ComparedRow(key, cells))
    return rows


def _numbered(settings: Any) -> Any:
    """Return the settings with the entries of data files by their numbers, so that each is compared by itself."""
    if isinstance(settings, dict):
        return {key: _numbered(value) for key, value in settings.items()}
    if isinstance(settings, list) and any(isinstance(item, dict) for item in settings):
        return {str(number): _numbered(item) for number, item in enumerate(settings, start=1)}
    return settings


def _answers(runs: dict[str, RecordedRun]) -> list[ComparedAnswer]:
    """Return the samples that at least two runs have answered after training."""
    found: dict[tuple, dict[str, Row]] = {}
    for name, run in runs.items():
        for row in run.predictions:
            if row.get("after") is not None:
                found.setdefault((row["source"], row["line"], row.get("turn", 1)), {})[name] = row
    return [ComparedAnswer(rows) for rows in found.values() if len(rows) > 1]
