"""The geometry of the report's curves. It turns metric rows into coordinates, and the template turns these into SVG."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from qwenvl_train.reporting.reporter import SOURCES, Row, flat
from qwenvl_train.reporting.spikes import SPIKE
from qwenvl_train.reporting.wording import count, figure, is_finite, is_ratio, label

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 62, 20, 12, 30
MOST_POINTS = 600
LOG_METRICS, LOG_FROM = ("loss", "grad_norm"), 100
"""The metrics in LOG_METRICS use a logarithmic scale if their values span more than the factor LOG_FROM."""

Point = tuple[float, float | None]
"""A step and a value. The value is None if it was not a finite number, which leaves a gap in the line."""


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Axis:
    place: Callable[[float], float]
    """Maps a step or a value to its coordinate."""
    ticks: list[Tick]
    note: str = ""


@dataclass(frozen=True)
class Line:
    name: str
    paths: list[str]
    dots: list[tuple[float, float]]


@dataclass(frozen=True)
class Mark:
    """A point of a line that deserves attention."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Chart:
    title: str
    note: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    marks: list[Mark]
    hover: list[Row]
    """One row for each step, with x, step, and the values as [index of the line, y, text]."""


@dataclass(frozen=True)
class Curve:
    """A metric in a chart, and its name in the legend."""

    metric: str
    name: str


_BASE = "base"
GROUPS = (
    ("Loss", (Curve("loss", "training"), Curve("eval_loss", "held out"))),
    (
        "Held-out score",
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
FROM_ZERO = ("tokens_per_second", "mfu", "data_wait")
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
    "memory_gib",
    "save_seconds",
    "skipped_steps",
    "eval_samples",
    "eval_seconds",
}


def charts(rows: list[Row]) -> list[Chart]:
    """Return the charts in GROUPS first, and then one chart for each other metric that a training method logs."""
    if not rows:
        return []
    rows = [flat(row) for row in rows]
    known = BOOKKEEPING | {curve.metric for _, curves in GROUPS for curve in curves}
    others = sorted({key for row in rows for key, value in row.items() if is_finite(value)} - known)
    losses = [key for key in others if key.startswith(SOURCES) and key.endswith("/loss")]
    others = [key for key in others if not key.startswith((SOURCES, f"eval_{SOURCES}"))]
    of_sources = tuple(Curve(key, key[len(SOURCES) : -len("/loss")]) for key in losses)
    groups = [
        *GROUPS,
        *([("Loss by source", of_sources)] if losses else []),
        *((_sentence(key), (Curve(key, label(key)),)) for key in others),
    ]
    steps = step_axis([row["step"] for row in rows])
    return [found for title, curves in groups if (found := chart(title, curves, rows, steps))]


def _sentence(metric: str) -> str:
    name = label(metric)
    return ("Held-out " + name) if metric.startswith("eval_") else name[:1].upper() + name[1:]


def points(rows: list[Row], metric: str) -> list[Point]:
    return [(row["step"], row[metric] if is_finite(row[metric]) else None) for row in rows if metric in row]


def chart(title: str, curves: tuple[Curve, ...], rows: list[Row], steps: Axis) -> Chart | None:
    """Return the chart, or None if there is no point to draw. The first curve's metric decides the number format."""
    lines = {curve.name: points(rows, curve.metric) for curve in curves}
    if sum(map(_has_number, lines.values())) > 1:
        # If components have their own rates, the base rate either equals one of these, and its line would lie below
        # that one, or no component uses it.
        lines.pop(_BASE, None)
    metric = curves[0].metric
    return chart_of_lines(title, metric, lines, steps, rows if metric == "loss" else [])


def chart_of_lines(
    title: str, metric: str, lines: dict[str, list[Point]], steps: Axis, marked: list[Row]
) -> Chart | None:
    """Return the chart of the lines that have a point to draw, or None if there are none. `marked` are rows whose
    spikes of the loss are marked."""
    lines = {name: thin(line) for name, line in lines.items() if _has_number(line)}
    if not lines:
        return None
    values = value_axis(metric, [y for line in lines.values() for _, y in _numbers(line)])
    return Chart(
        title=title,
        note=values.note,
        lines=[_line(name, line, steps.place, values.place) for name, line in lines.items()],
        x_ticks=steps.ticks,
        y_ticks=values.ticks,
        marks=spike_marks(marked, steps, values),
        hover=_hover(lines, metric, steps.place, values.place),
    )


def compared_charts(runs: dict[str, list[Row]]) -> list[Chart]:
    """Return a chart for each metric that a run has, with a line for each run. `runs` are the rows by name."""
    flat_rows = {name: [flat(row) for row in rows] for name, rows in runs.items()}
    steps = step_axis([row["step"] for rows in flat_rows.values() for row in rows] or [0])
    found = {key for rows in flat_rows.values() for row in rows for key, value in row.items() if is_finite(value)}
    known = {curve.metric: _in_full(title, curve, curves) for title, curves in GROUPS for curve in curves}
    if any(key.startswith("lr_") for key in found):
        del known["lr"]
    others = {key: _sentence(key) for key in sorted(found - BOOKKEEPING - known.keys() - {"lr"})}
    return [
        made
        for metric, title in (known | others).items()
        if (made := chart_of_lines(title, metric, _lines(flat_rows, metric), steps, []))
    ]


def _in_full(title: str, curve: Curve, curves: tuple[Curve, ...]) -> str:
    return title if len(curves) == 1 else f"{title}, {curve.name}"


def _lines(runs: dict[str, list[Row]], metric: str) -> dict[str, list[Point]]:
    return {name: points(rows, metric) for name, rows in runs.items()}


def spike_marks(rows: list[Row], steps: Axis, values: Axis) -> list[Mark]:
    return [
        Mark(steps.place(row["step"]), values.place(row["loss"]), f"loss spike at step {count(row['step'])}")
        for row in rows
        if row.get(SPIKE)
    ]


def step_axis(steps: list[int]) -> Axis:
    """Return the axis of steps. All charts of a run share it, so that they can be compared one below the other."""
    first, last = min(steps), max(steps)
    place = scale(first, last, LEFT, WIDTH - RIGHT)
    return Axis(place, [Tick(place(step), count(step)) for step in step_ticks(first, last)])


def value_axis(metric: str, values: list[float]) -> Axis:
    if metric in LOG_METRICS and is_logarithmic(values):
        powers = log_ticks(values)
        place = scale(min(*values, powers[0]), max(*values, powers[-1]), HEIGHT - BOTTOM, TOP, math.log10)
        return Axis(place, [Tick(place(y), tick_text(metric, y, y)) for y in powers], "logarithmic scale")
    marks = linear_ticks(0.0 if metric in FROM_ZERO else min(values), max(values))
    if is_ratio(metric):
        marks = [mark for mark in marks if -1e-9 <= mark <= 1 + 1e-9]
    apart = min((after - before for before, after in pairwise(marks)), default=1.0)
    place = scale(min(*values, *marks), max(*values, *marks), HEIGHT - BOTTOM, TOP)
    return Axis(place, [Tick(place(y), tick_text(metric, y, apart)) for y in marks])


def thin(line: list[Point], most: int = MOST_POINTS) -> list[Point]:
    """Reduce a line to about `most` points. Each stretch keeps its lowest point, its highest point and one gap, so that
    the chart of a long run still shows every spike."""
    if len(line) <= most:
        return line
    size = math.ceil(2 * len(line) / most)
    kept: list[Point] = []
    for start in range(0, len(line), size):
        stretch = line[start : start + size]
        numbers = [point for point in stretch if point[1] is not None]
        ends = {min(numbers, key=_value), max(numbers, key=_value)} if numbers else set()
        gap = [point for point in stretch if point[1] is None][:1]
        kept += sorted([*ends, *gap], key=_step)
    return kept


def _step(point: Point) -> float:
    return point[0]


def _value(point: Point) -> float:
    return point[1] or 0.0


def is_logarithmic(values: list[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) > LOG_FROM


def log_ticks(values: list[float]) -> list[float]:
    powers = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)
    stride = math.ceil(len(powers) / 6)
    return [10.0**power for power in powers[::stride]]


def linear_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers that cover `low` to `high`. Their distance is 1, 2 or 5 times a power of ten."""
    if low == high:
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if low else (0.0, 1.0)
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    stride = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / stride + 1e-9), math.ceil(high / stride - 1e-9)
    return [index * stride for index in range(first, last + 1)]


def step_ticks(first: float, last: float) -> list[float]:
    if first == last:
        return [first]
    return [x for x in linear_ticks(first, last, most=6) if first <= x <= last and float(x).is_integer()]


def tick_text(metric: str, value: float, apart: float) -> str:
    """Format a value with enough digits to distinguish it from its neighbours on the axis."""
    if is_ratio(metric):
        return f"{100 * value:.3g} %"
    if value and (apart < 1e-3 or abs(value) >= 1e6):
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    digits = 0 if apart < 1e-3 else max(0, -math.floor(math.log10(apart) + 1e-9))
    return f"{value + 0.0:,.{digits}f}"


def scale(
    low: float, high: float, start: float, end: float, of: Callable[[float], float] = float
) -> Callable[[float], float]:
    low, high = of(low), of(high)
    if low == high:
        return lambda value: round((start + end) / 2, 1)
    return lambda value: round(start + (of(value) - low) / (high - low) * (end - start), 1)


def _line(name: str, line: list[Point], x_of: Callable[[float], float], y_of: Callable[[float], float]) -> Line:
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in line:
        if y is None:
            runs.append([])
        else:
            runs[-1].append((x_of(x), y_of(y)))
    paths = ["M" + " L".join(f"{x:g},{y:g}" for x, y in run) for run in runs if len(run) > 1]
    few = sum(map(len, runs)) <= 40  # a few points are drawn as dots, and so is a single point, which has no line
    return Line(name, paths, [point for run in runs for point in run if few or len(run) == 1])


def _hover(
    series: dict[str, list[Point]],
    metric: str,
    x_of: Callable[[float], float],
    y_of: Callable[[float], float],
) -> list[Row]:
    at: dict[float, list[tuple[int, float, str]]] = {}
    for index, line in enumerate(series.values()):
        for x, y in _numbers(line):
            at.setdefault(x, []).append((index, y_of(y), figure(metric, y)))
    return [{"x": x_of(x), "step": count(x), "values": values} for x, values in sorted(at.items())]


def _has_number(line: list[Point]) -> bool:
    return any(y is not None for _, y in line)


def _numbers(line: list[Point]) -> Iterable[tuple[float, float]]:
    return ((x, y) for x, y in line if y is not None)
