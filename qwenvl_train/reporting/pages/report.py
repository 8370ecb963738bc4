"""The file report.html. This page shows the whole run, needs no other file, and is made from the files of the run
folder alone."""

import json
from pathlib import Path
from typing import Any

import yaml

from qwenvl_train.reporting.checkpoints import best_of
from qwenvl_train.reporting.folder import write_text_atomic
from qwenvl_train.reporting.metrics import before_and_after
from qwenvl_train.reporting.pages.answers import card, gallery
from qwenvl_train.reporting.pages.charts import charts
from qwenvl_train.reporting.pages.findings import evaluation_table, findings, held_out_score
from qwenvl_train.reporting.pages.page import Tile, fill_template
from qwenvl_train.reporting.progress import whole_model
from qwenvl_train.reporting.recorded import RecordedRun, read_run
from qwenvl_train.reporting.repeat import commands, repeat_rows
from qwenvl_train.reporting.reporter import Row
from qwenvl_train.reporting.wording import EVALUATION_FIRST, count, duration, figure, label, percent
from qwenvl_train.step_folders import saved


def write_report(folder: Path) -> Path:
    """Write the page from the files that the folder holds so far. The page leaves out the part of a missing file."""
    path = folder / "report.html"
    write_text_atomic(path, render(folder))
    return path


def render(folder: Path, live: bool = False, with_answers: bool = True) -> str:
    """Return the page. A live page asks its server for the newer state of the run, and gets the answers only when they
    have changed."""
    run = read_run(folder)
    config, rows, components = run.config, run.rows, run.components
    page = {
        "live": live,
        "name": run.name,
        "subtitle": subtitle(run),
        "status": run.status,
        "reason": run.summary.get("reason") or "",
        "findings": findings(run),
        "tiles": [*tiles(run), *filter(None, [best_tile(folder, config)])],
        "evaluations": evaluation_table(run),
        "sources": source_scores(rows),
        "charts": charts(rows, run.best_metric),
        "resumed": run.resumed_at,
        "components": [*components, whole_model(components)] if components else [],
        "gallery": gallery([card(with_short_source(row, run)) for row in run.predictions]) if with_answers else None,
        "commands": commands(folder) if config else [],
        "config": yaml.safe_dump(config, sort_keys=False, allow_unicode=True) if config else "",
        "changes": [(key, *map(setting, change)) for key, change in (run.environment.get("changes") or {}).items()],
        "recipe": run.environment.get("recipe"),
        "repeat": repeat_rows(run.environment),
        "environment": environment_rows(run.environment),
    }
    return fill_template(Path(__file__).with_name("report.html.j2"), page)


def subtitle(run: RecordedRun) -> str:
    """Return a line that names the model and the training data."""
    model = (run.config.get("model") or {}).get("path")
    sources = (run.config.get("data") or {}).get("train") or []
    data = ", ".join(short(source["path"], run) for source in sources)
    return " · ".join(part for part in (model and short(model, run), f"trained on {data}" if data else None) if part)


def short(path: str, run: RecordedRun) -> str:
    """Return a path from the folder in which the run was started, if it is inside."""
    start = run.environment.get("working_directory")
    return str(Path(path).relative_to(start)) if start and Path(path).is_relative_to(start) else path


def with_short_source(row: Row, run: RecordedRun) -> Row:
    return row | {"source": short(row["source"], run)}


def tiles(run: RecordedRun) -> list[Tile]:
    """Return the tiles of key figures. If the run is not finished, they come from its last logged step."""
    last, components = run.totals, run.components
    shown = [score_tile(run)]
    if "steps" in last:
        shown.append(Tile("Steps", count(last["steps"])))
    shown += [Tile(name.capitalize(), count(last[name])) for name in ("samples", "tokens") if name in last]
    if last.get("seconds"):
        shown.append(Tile("Training time", duration(last["seconds"])))
        if "tokens" in last:
            shown.append(Tile("Tokens per second", count(last["tokens"] / last["seconds"])))
    if components:
        trained, size = (sum(row[key] for row in components) for key in ("trained", "parameters"))
        shown.append(Tile("Trained parameters", percent(trained / size)))
    return [tile for tile in shown if tile]


def score_tile(run: RecordedRun) -> Tile | None:
    """Return the tile of the held-out score before and after training, or None if there is no score. A run with a
    single evaluation has one figure, and the name of the tile says when it was."""
    score = held_out_score(run)
    if score is None:
        return None
    name = f"Held-out {label(score.metric)}" + (" before training" if score.step == 0 else "")
    before = "" if score.before is None else figure(score.metric, score.before)
    return Tile(name, figure(score.metric, score.value), before)


def best_tile(folder: Path, config: Row) -> Tile | None:
    """Return the tile that names the best checkpoint on disk, or None if no checkpoint has a score."""
    metric: str = (config.get("train") or {}).get("best_metric") or ""
    best = best_of(saved(folder / "checkpoints"), metric) if metric else None
    return best and Tile(f"Best checkpoint ({label(metric)} {figure(metric, best.value)})", best.checkpoint.name)


def source_scores(rows: list[Row]) -> Row | None:
    """Return the table of the held-out scores of each source before and after training, or None if the held-out samples
    are of one source."""
    before, after = (((row or {}).get("eval_sources") or {}) for row in before_and_after(rows))
    last = after or before
    keys = [key for key in EVALUATION_FIRST if any(key.removeprefix("eval_") in scores for scores in last.values())]
    if not keys:
        return None
    return {
        "headings": [label(key) for key in keys],
        "rows": [
            (name, count(scores["samples"]), [_change(key, (after and before).get(name), scores) for key in keys])
            for name, scores in last.items()
        ],
    }


def setting(value: Any) -> str:
    """Return a value as it is written on the command line, or almost so."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _change(metric: str, before: Row | None, after: Row) -> tuple[str, str]:
    """Return a figure before and after training. The first is empty if there is none."""
    key = metric.removeprefix("eval_")
    return figure(metric, before[key]) if before else "", figure(metric, after[key])


def environment_rows(environment: Row) -> list[tuple[str, str]]:
    """Return the name and the value of each known fact about the environment."""
    hardware = environment.get("hardware") or {}
    memory = hardware.get("memory_gib")
    cores = hardware.get("cores")
    found = [
        ("GPU", ", ".join(hardware.get("gpus") or []) or ("none" if hardware else None)),
        ("CPU", f"{hardware['cpu']}, {cores} cores" if hardware.get("cpu") else None),
        ("memory", f"{memory} GiB" if memory else None),
        ("system", environment.get("platform")),
    ]
    return [(name, value) for name, value in found if value]
