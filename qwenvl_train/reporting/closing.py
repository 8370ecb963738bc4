"""The table at the end of a run: its losses and scores, the first and the last of each, with its curve."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from qwenvl_train.config.best import GENERATED
from qwenvl_train.reporting.console import print_table, say, width_of
from qwenvl_train.reporting.encoding import can_encode
from qwenvl_train.reporting.reporter import Row, is_evaluation
from qwenvl_train.reporting.sparkline import LEVELS, sparkline
from qwenvl_train.reporting.wording import figure, label, main_metrics

_MOST_SOURCES = 6
_CURVE_WIDTHS = (24, 12)


class Curve(NamedTuple):
    name: str
    metric: str
    values: list[float | None]


def print_curves(rows: list[Row], console: Console, best_metric: str | None = None) -> None:
    """Print the table. Where it is too wide, it has no curves, or is a line for each metric."""
    curves = list(curves_of(rows, best_metric))
    if not curves:
        return
    widths = _CURVE_WIDTHS if can_encode(LEVELS, console.encoding) else ()
    for width in (*widths, 0):
        table = _table(curves, width, plain=not console.is_terminal)
        if width_of(table, console) <= console.width:
            print_table(table, console)
            return
    for curve in curves:
        first, last = _first_and_last(curve)
        say(console, f"{curve.name}: {first} → {last}", hanging=4)


def curves_of(rows: list[Row], best_metric: str | None = None) -> Iterator[Curve]:
    """Yield the curve of the training loss, of the main scores of evaluations, and of the main score of each source.
    The score that train.best_metric names comes first."""
    yield from _curve("training loss", "loss", [row for row in rows if not is_evaluation(row)])
    evaluations = [row for row in rows if is_evaluation(row)]
    scores = list(dict.fromkeys(key for row in evaluations for key in main_metrics(row, best_metric)))
    generated = [key for key in scores if key.startswith(GENERATED)]
    others = [key for key in scores if key not in generated]
    chosen = [key for key in scores if key == best_metric != "eval_loss"]
    of_sources: list[Curve] = []
    for key in dict.fromkeys((*chosen, *generated, *others[:1], *(key for key in others[1:] if key == "eval_loss"))):
        yield from _curve(f"held-out {label(key)}", key, evaluations)
        if not of_sources:
            of_sources = list(islice(_curves_of_sources(key, evaluations), _MOST_SOURCES))
            yield from of_sources


def _curves_of_sources(key: str, evaluations: list[Row]) -> Iterator[Curve]:
    sources = [row["eval_sources"] for row in evaluations if "eval_sources" in row]
    for name in dict.fromkeys(name for row in sources for name in row):
        own = key.removeprefix("eval_")
        yield from _curve(f"  {name}", key, ({key: row[name][own]} for row in sources if own in row.get(name, {})))


def _curve(name: str, metric: str, rows: Iterable[Row]) -> Iterator[Curve]:
    """Yield the curve of a metric, if there is a value at all."""
    values = [row[metric] for row in rows if metric in row]
    if values:
        yield Curve(name, metric, values)


def _table(curves: list[Curve], width: int, *, plain: bool) -> Table:
    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2 if plain else 1, 0, 0))
    table.add_column("", no_wrap=True)
    for name in ("first", "last"):
        table.add_column(name, justify="right", no_wrap=True)
    if width:
        table.add_column("curve", no_wrap=True)
    for curve in curves:
        table.add_row(curve.name, *_first_and_last(curve), *([sparkline(curve.values, width)] if width else []))
    return table


def _first_and_last(curve: Curve) -> tuple[str, str]:
    first, last = figure(curve.metric, curve.values[0]), figure(curve.metric, curve.values[-1])
    return first, last if len(curve.values) > 1 else ""
