"""The charts of a page: which metrics share a chart, and the points of their curves. The page draws them in the
browser (charts.js)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import fmean

from qwenvl_train.config.best import GENERATED
from qwenvl_train.config.flat import flat
from qwenvl_train.reporting.reporter import SOURCES, Row
from qwenvl_train.reporting.spikes import SPIKE
from qwenvl_train.reporting.wording import Format, count, format_of, is_finite, label

MOST_POINTS = 2000
LOG_METRICS, LOG_FROM = ("loss", "grad_norm"), 100
"""The metrics in LOG_METRICS use a logarithmic scale if their values span more than the factor LOG_FROM."""

Point = tuple[float, float | None]
"""A step and a value. The value is None if it was not a finite number, which leaves a gap in the line."""


@dataclass(frozen=True)
class Line:
    name: str
    number: int
    """The number of its colour."""
    steps: list[float]
    values: list[float | None]
    """The values at the steps. Of a long line, the lowest and the highest of each stretch."""
    held_out: bool
    """Whether the values are of evaluations, which are not smoothed."""
    means: list[Point] | None = None
    """The mean of each stretch of a long line, which is smoothed instead of the values."""


@dataclass(frozen=True)
class Mark:
    """A point of a chart that deserves attention."""

    step: float
    value: float
    text: str


@dataclass(frozen=True)
class Chart:
    metric: str
    """The first metric of the chart, which identifies it on the page."""
    title: str
    format: Format
    """How the values are written."""
    lines: list[Line]
    logarithmic: bool = False
    """Whether the chart starts with a logarithmic scale. The reader can change it."""
    from_zero: bool = False
    marks: list[Mark] = field(default_factory=list)


@dataclass(frozen=True)
class Curve:
    """A metric in a chart, and its name in the legend."""

    metric: str
    name: str


_BASE = "base"
_HELD_OUT = "Held-out score"
GROUPS = (
    ("Loss", (Curve("loss", "training"), Curve("eval_loss", "held out"))),
    (
        _HELD_OUT,
        (Curve("eval_exact_match", "exact match"), Curve("eval_token_accuracy", "token accuracy")),
    ),
    (
        "Reward accuracy",
        (Curve("rewards/accuracies", "training"), Curve("eval_rewards/accuracies", "held out")),
    ),
    (
        "Reward",
        (
            Curve("rewards/chosen", "chosen"),
            Curve("rewards/rejected", "rejected"),
            Curve("eval_rewards/chosen", "chosen, held out"),
            Curve("eval_rewards/rejected", "rejected, held out"),
        ),
    ),
    ("Reward margin", (Curve("rewards/margins", "training"), Curve("eval_rewards/margins", "held out"))),
    (
        "Log-probability of an answer",
        (
            Curve("logps/chosen", "chosen"),
            Curve("logps/rejected", "rejected"),
            Curve("eval_logps/chosen", "chosen, held out"),
            Curve("eval_logps/rejected", "rejected, held out"),
        ),
    ),
    ("KL to the reference, estimated", (Curve("kl", "training"), Curve("eval_kl", "held out"))),
    (
        "Learning rate",
        (
            Curve("lr", _BASE),
            Curve("lr_vision", "vision"),
            Curve("lr_mlp", "merger"),
            Curve("lr_llm", "language model"),
        ),
    ),
    (
        "Tokens per second",
        (Curve("tokens_per_second", "all"), Curve("supervised_tokens_per_second", "supervised")),
    ),
    ("Seconds of a step", (Curve("step_seconds", "seconds"),)),
    ("Most memory in use (GiB)", (Curve("memory_gib", "memory"),)),
    ("Model FLOPs utilization (MFU)", (Curve("mfu", "MFU"),)),
    ("Share of the time spent waiting for data", (Curve("data_wait", "waiting"),)),
    (
        "Gradient norm before clipping",
        (
            Curve("grad_norm", "all"),
            Curve("grad_norm_vision", "vision"),
            Curve("grad_norm_mlp", "merger"),
            Curve("grad_norm_llm", "language model"),
        ),
    ),
    (
        "Update of a step, relative to the weights",
        (
            Curve("update_ratio_vision", "vision"),
            Curve("update_ratio_mlp", "merger"),
            Curve("update_ratio_llm", "language model"),
        ),
    ),
)
FROM_ZERO = ("tokens_per_second", "step_seconds", "memory_gib", "mfu", "data_wait")
"""The metrics whose axis starts at zero, so that noise does not look like a collapse."""

BOOKKEEPING = {
    "step",
    "epoch",
    "tokens",
    "supervised_tokens",
    "samples",
    "seconds",
    "samples_per_second",
    "images_per_second",
    "tflops_per_device",
    "pack_fill",
    "save_seconds",
    "skipped_steps",
    "eval_answers",
    "eval_samples",
    "eval_seconds",
}


def charts(rows: list[Row], best_metric: str | None = None) -> list[Chart]:
    """Return the charts in GROUPS first, and then one chart for each other metric that a training method logs. Those of
    generated answers stand beside the held-out score, before it if one of them is train.best_metric."""
    rows = [flat(row, "/") for row in rows]
    known = BOOKKEEPING | {curve.metric for _, curves in GROUPS for curve in curves}
    others = sorted({key for row in rows for key, value in row.items() if is_finite(value)} - known)
    losses = [key for key in others if key.startswith(SOURCES) and key.endswith("/loss")]
    others = [key for key in others if not key.startswith((SOURCES, f"eval_{SOURCES}"))]
    of_sources = tuple(Curve(key, key[len(SOURCES) : -len("/loss")]) for key in losses)
    generated = sorted((key for key in others if key.startswith(GENERATED)), key=lambda key: key != best_metric)
    alone = {key: (_sentence(key), (Curve(key, label(key)),)) for key in others}
    place = [title for title, _ in GROUPS].index(_HELD_OUT) + (best_metric not in generated)
    groups = [
        *GROUPS[:place],
        *(alone.pop(key) for key in generated),
        *GROUPS[place:],
        *([("Loss by source", of_sources)] if losses else []),
        *alone.values(),
    ]
    return [found for title, curves in groups if (found := chart(title, curves, rows))]


def _sentence(metric: str) -> str:
    name = label(metric)
    return ("Held-out " + name) if metric.startswith("eval_") else name[:1].upper() + name[1:]


def line_of(name: str, metric: str, rows: list[Row], number: int) -> Line | None:
    """Return the line of a metric, or None if it has no number."""
    points: list[Point] = [
        (row["step"], row[metric] if is_finite(row[metric]) else None) for row in rows if metric in row
    ]
    if all(value is None for _, value in points):
        return None
    thinned = thin(points)
    steps, values = (list(column) for column in zip(*thinned, strict=True))
    line_means = means(points) if len(thinned) < len(points) else None
    return Line(name, number, steps, values, metric.startswith("eval_"), line_means)


def chart(title: str, curves: tuple[Curve, ...], rows: list[Row]) -> Chart | None:
    """Return the chart, or None if there is no point to draw. The first curve's metric decides the number format."""
    drawn = [curve for curve in curves if any(is_finite(row.get(curve.metric)) for row in rows)]
    if len(drawn) > 1:
        # If components have their own rates, the base rate either equals one of these, and its line would lie below
        # that one, or no component uses it.
        drawn = [curve for curve in drawn if curve.name != _BASE]
    found = (line_of(curve.name, curve.metric, rows, number) for number, curve in enumerate(drawn))
    lines = [line for line in found if line]
    metric = curves[0].metric
    return chart_of_lines(title, metric, lines, spike_marks(rows) if metric == "loss" else [])


def chart_of_lines(title: str, metric: str, lines: list[Line], marks: list[Mark]) -> Chart | None:
    """Return the chart of some lines, or None if there are none."""
    if not lines:
        return None
    values = [value for line in lines for value in line.values if value is not None]
    return Chart(
        metric=metric,
        title=title,
        format=format_of(metric),
        lines=lines,
        logarithmic=metric in LOG_METRICS and is_logarithmic(values),
        from_zero=metric in FROM_ZERO,
        marks=marks,
    )


def compared_charts(runs: dict[str, list[Row]]) -> list[Chart]:
    """Return a chart for each metric that a run has, with a line for each run. `runs` are the rows by name."""
    flat_rows = {name: [flat(row, "/") for row in rows] for name, rows in runs.items()}
    found = {key for rows in flat_rows.values() for row in rows for key, value in row.items() if is_finite(value)}
    known = {curve.metric: _in_full(title, curve, curves) for title, curves in GROUPS for curve in curves}
    if any(key.startswith("lr_") for key in found):
        del known["lr"]
    others = {key: _sentence(key) for key in sorted(found - BOOKKEEPING - known.keys() - {"lr"})}
    generated = {key: title for key, title in others.items() if key.startswith(GENERATED)}
    first = {key: known[key] for key in ("loss", "eval_loss")}
    return [
        made
        for metric, title in (first | generated | known | others).items()
        if (made := chart_of_lines(title, metric, _lines(flat_rows, metric), []))
    ]


def _in_full(title: str, curve: Curve, curves: tuple[Curve, ...]) -> str:
    return title if len(curves) == 1 else f"{title}, {curve.name}"


def _lines(runs: dict[str, list[Row]], metric: str) -> list[Line]:
    found = (line_of(name, metric, rows, number) for number, (name, rows) in enumerate(runs.items()))
    return [line for line in found if line]


def spike_marks(rows: list[Row]) -> list[Mark]:
    return [
        Mark(row["step"], row["loss"], f"loss spike at step {count(row['step'])}") for row in rows if row.get(SPIKE)
    ]


def thin(line: list[Point], most: int = MOST_POINTS) -> list[Point]:
    """Reduce a line to about `most` points. Each stretch keeps its lowest point, its highest point and one gap, so that
    the chart of a long run still shows every spike. The first and the last point stay."""
    if len(line) <= most:
        return line
    kept: list[Point] = line[:1]
    for stretch in _stretches(line[1:-1], most):
        numbers = [point for point in stretch if point[1] is not None]
        ends = {min(numbers, key=_value), max(numbers, key=_value)} if numbers else set()
        gap = [point for point in stretch if point[1] is None][:1]
        kept += sorted([*ends, *gap], key=_step)
    return kept + line[-1:]


def means(line: list[Point], most: int = MOST_POINTS) -> list[Point]:
    """Return the mean of each stretch of a line, at its last step."""
    found: list[Point] = []
    for stretch in _stretches(line, most):
        values = [value for _, value in stretch if value is not None]
        found.append((stretch[-1][0], fmean(values) if values else None))
    return found


def _stretches(line: list[Point], most: int) -> Iterator[list[Point]]:
    size = math.ceil(2 * len(line) / most)
    return (line[start : start + size] for start in range(0, len(line), size))


def _step(point: Point) -> float:
    return point[0]


def _value(point: Point) -> float:
    return point[1] or 0.0


def is_logarithmic(values: list[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) > LOG_FROM
