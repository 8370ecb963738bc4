"""The file report.html. This page shows the whole run, needs no other file, and is made from the files of the run
folder alone."""

import json
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, ImageOps

from qwenvl_train.reporting.charts import charts
from qwenvl_train.reporting.folder import read_json_lines, write_text_atomic
from qwenvl_train.reporting.metrics import read_metrics
from qwenvl_train.reporting.page import Tile, data_uri, fill_template
from qwenvl_train.reporting.progress import EVALUATION_FIRST, whole_model
from qwenvl_train.reporting.reporter import Row, is_evaluation
from qwenvl_train.reporting.wording import count, duration, figure, label, percent

THUMBNAIL = 160


def write_report(folder: Path) -> Path:
    """Write the page from the files that the folder holds so far. The page leaves out the part of a missing file."""
    path = folder / "report.html"
    write_text_atomic(path, render(folder))
    return path


def render(folder: Path) -> str:
    config, rows = read_yaml(folder / "config.yaml"), read_metrics(folder)
    components, summary = (
        read_json(folder / "components.json") or [],
        read_json(folder / "summary.json") or {},
    )
    page = {
        "name": config.get("run_name") or folder.resolve().name,
        "subtitle": subtitle(config),
        "status": summary.get("status", "not finished"),
        "reason": summary.get("reason") or "",
        "tiles": tiles(rows, summary, components),
        "broken_steps": [row["step"] for row in rows if "loss" in row and row["loss"] is None],
        "charts": charts(rows),
        "components": [*components, whole_model(components)] if components else [],
        "predictions": [prediction(row) for row in read_json_lines(folder / "predictions.jsonl")],
        "config": yaml.safe_dump(config, sort_keys=False, allow_unicode=True) if config else "",
        "environment": environment_rows(read_json(folder / "environment.json") or {}),
    }
    return fill_template(Path(__file__).with_name("report.html.j2"), page)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def read_yaml(path: Path) -> dict[str, Any]:
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}


def subtitle(config: dict[str, Any]) -> str:
    """Return a line that names the model and the training data."""
    model = (config.get("model") or {}).get("path")
    sources = (config.get("data") or {}).get("train") or []
    data = ", ".join(source["path"] for source in sources)
    return " · ".join(part for part in (model, f"trained on {data}" if data else None) if part)


def tiles(rows: list[Row], summary: Row, components: list[Row]) -> list[Tile]:
    """Return the tiles of key figures. If the run is not finished, they come from its last logged step."""
    steps = [row for row in rows if not is_evaluation(row)]
    last: Row = {**(steps[-1] if steps else {}), **summary}
    last |= {"step": summary["steps"]} if "steps" in summary else {}
    shown = [score_tile(rows, summary)]
    if "step" in last:
        shown.append(Tile("Steps", count(last["step"])))
    shown += [Tile(name.capitalize(), count(last[name])) for name in ("samples", "tokens") if name in last]
    if last.get("seconds"):
        shown.append(Tile("Training time", duration(last["seconds"])))
        if "tokens" in last:
            shown.append(Tile("Tokens per second", count(last["tokens"] / last["seconds"])))
    if components:
        trained, size = (sum(row[key] for row in components) for key in ("trained", "parameters"))
        shown.append(Tile("Trained parameters", percent(trained / size)))
    return [tile for tile in shown if tile]


def score_tile(rows: list[Row], summary: Row) -> Tile | None:
    """Return the tile of the held-out score before and after training, or None if there is no score. The scores come
    from the summary if it has them, and otherwise from the first and the last evaluation."""
    metrics = summary.get("metrics") or {}
    evaluations = [row for row in rows if is_evaluation(row)]
    first, last = (evaluations[0], evaluations[-1]) if evaluations else ({}, {})
    before, after = metrics.get("before") or first, metrics.get("after") or last
    metric = next((key for key in EVALUATION_FIRST if after.get(key) is not None), None)
    if not metric:
        return None
    changed = before.get(metric) is not None and (before is not after)
    name = f"Held-out {label(metric)}"
    return Tile(name, figure(metric, after[metric]), figure(metric, before[metric]) if changed else "")


def prediction(row: Row) -> Row:
    return {
        **row,
        "pictures": [thumbnail(Path(path)) for path in row["images"]],
        "right_before": is_right(row["before"], row["expected"]),
        "right": is_right(row["after"], row["expected"]),
    }


def is_right(answer: str | None, expected: str) -> bool | None:
    """Return whether the answer is the expected one. Return None if there is no answer, which is the case for the
    answers before a resumed run."""
    return None if answer is None else answer.strip() == expected.strip()


def thumbnail(path: Path) -> str | None:
    """Return the picture as a data: address, so that the page needs no other file. Return None if the picture cannot
    be read."""
    try:
        with Image.open(path) as picture:
            small = ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, Image.DecompressionBombError):
        return None
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return data_uri(small, "webp", quality=85)


def environment_rows(environment: Row) -> list[tuple[str, str]]:
    """Return the name and the value of each known fact about the environment."""
    hardware, checkout = environment.get("hardware") or {}, environment.get("checkout") or {}
    memory = hardware.get("memory_gib")
    cores = hardware.get("cores")
    changes = " with uncommitted changes" if checkout.get("uncommitted_changes") else ""
    found = [
        ("GPU", ", ".join(hardware.get("gpus") or []) or ("none" if hardware else None)),
        ("CPU", f"{hardware['cpu']}, {cores} cores" if hardware.get("cpu") else None),
        ("memory", f"{memory} GiB" if memory else None),
        ("commit", checkout["commit"] + changes if checkout.get("commit") else None),
        ("system", environment.get("platform")),
        ("Python", environment.get("python")),
        *(environment.get("packages") or {}).items(),
    ]
    return [(name, value) for name, value in found if value]
