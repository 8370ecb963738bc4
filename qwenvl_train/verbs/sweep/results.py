"""The results of a sweep: one row for each run, on the terminal and in comparison.csv."""

import csv
import json
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.config.sweep import Job
from qwenvl_train.files import replacing
from qwenvl_train.reporting.console import say
from qwenvl_train.reporting.wording import duration, figure, label, main_metrics

COMPARISON = "comparison.csv"


@dataclass(frozen=True)
class Result:
    """The result of a run. Figures that it does not have are None."""

    run: str
    status: str
    """done, failed or interrupted."""
    code: int
    """The exit code of the run."""
    metric: str | None
    """The held-out score that is compared, by its name in metrics.jsonl."""
    before: float | None
    after: float | None
    best: float | None
    best_step: int | None
    loss: float | None
    """The held-out loss after training."""
    seconds: float | None
    folder: str
    message: str
    """What the run said if it failed."""

    @property
    def is_interrupted(self) -> bool:
        return self.status == "interrupted"


def is_finished(job: Job[RunConfig], folder: Path) -> bool:
    """Return whether a run has finished with these settings, so that a sweep that continues need not start it."""
    if _summary(folder / job.name).get("status") != "done":
        return False
    from qwenvl_train.run.resume import changed_settings

    return not changed_settings(job.composed.config, folder / job.name)


def result_of(job: Job[RunConfig], folder: Path, code: int = 0, message: str = "") -> Result:
    summary = _summary(folder / job.name) if code == 0 else {}
    metrics = summary.get("metrics") or {}
    before, after = metrics.get("before") or {}, metrics.get("after") or {}
    metric = next(iter(main_metrics(after or before, job.composed.config.train.best_metric)), None)
    best = summary.get("best") if isinstance(summary.get("best"), dict) else None
    return Result(
        run=job.name,
        status="interrupted" if code in (130, 143) else "failed" if code else "done",
        code=code,
        metric=metric,
        before=before.get(metric),
        after=after.get(metric),
        best=best.get(metric) if best else None,
        best_step=best.get("step") if best else None,
        loss=after.get("eval_loss"),
        seconds=summary.get("seconds"),
        folder=str(folder / job.name),
        message=message,
    )


def write_results(folder: Path, results: list[Result]) -> None:
    text = StringIO()
    rows = [asdict(result) for result in results]
    table = csv.DictWriter(text, rows[0], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / COMPARISON) as file:
        file.write(text.getvalue().encode())


def print_results(results: list[Result], folder: Path, console: Console) -> None:
    """Print the comparison: a table, or one line for each run if the table is too wide. Messages follow below it."""
    say(console, "")
    cells = [_cells(result) for result in results]
    table = _table(cells, plain=not console.is_terminal)
    if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
        console.print(table)
    else:
        for run, *others in (row.items() for row in cells):
            shown = [f"{name} {cell}" for name, cell in others if cell]
            say(console, f"{run[1]}: {', '.join(shown)}", hanging=4)
    for result in results:
        if result.message:
            say(console, f"{result.run} {result.status}: {result.message}", hanging=4)
    say(console, f"comparison  {folder / COMPARISON}")


def _table(rows: list[dict[str, str]], *, plain: bool) -> Table:
    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2 if plain else 1, 0, 0))
    for name in rows[0]:
        table.add_column(name, justify="left" if name == "run" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row.values())
    return table


def _cells(result: Result) -> dict[str, str]:
    score, best = "", ""
    if (metric := result.metric) is not None:
        values = [figure(metric, value) for value in (result.before, result.after) if value is not None]
        score = f"{label(metric)} {' → '.join(values)}"
        best = "" if result.best is None else f"{figure(metric, result.best)} at step {result.best_step}"
    return {
        "run": result.run,
        "held-out score": score if result.status == "done" else result.status,
        "best": best,
        "loss": "" if result.loss is None else figure("loss", result.loss),
        "time": "" if result.seconds is None else duration(result.seconds),
    }


def _summary(folder: Path) -> dict[str, Any]:
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}
