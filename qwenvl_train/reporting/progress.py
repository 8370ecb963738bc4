"""The progress of training. A terminal shows a live bar, and a log file gets plain lines."""

import time
from collections.abc import Callable

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column, Table

from qwenvl_train.config.best import GENERATED
from qwenvl_train.reporting.closing import print_curves
from qwenvl_train.reporting.console import NARROW, console_on, print_table, say, width_of
from qwenvl_train.reporting.metrics import read_metrics
from qwenvl_train.reporting.reporter import Reporter, Row, RunInfo, is_evaluation
from qwenvl_train.reporting.run_log import LOGGER
from qwenvl_train.reporting.spikes import SPIKE
from qwenvl_train.reporting.wording import (
    EVALUATION_FIRST,
    count,
    duration,
    figure,
    is_number,
    label,
    main_metrics,
    many,
    percent,
)

LEAST_BAR = 6
"""The columns of a terminal that the bar takes at least."""
WAITING = 0.2
"""The share of the time spent waiting for data from which the progress line shows it."""
EVALUATION_ASIDE = (
    "eval_answers",
    "eval_samples",
    "eval_seconds",
    "eval_sources",
    "eval_entropy",
    "eval_rewards/chosen",
    "eval_rewards/rejected",
    "eval_logps/chosen",
    "eval_logps/rejected",
)
"""The metrics that the evaluation line leaves out. They are in metrics.jsonl and in the report."""


def component_table(rows: list[Row], *, plain: bool, where: bool = True) -> Table:
    """Return the table that shows which components are trained, how, and how many of their parameters. The last line
    shows the whole model. The column `where` can be left out."""
    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2 if plain else 1, 0, 0))
    for name in ("component", "mode"):
        table.add_column(name, no_wrap=True)
    for name in ("parameters", "trained", "share", "learning rate"):
        table.add_column(name, justify="right", no_wrap=True)
    if where:
        table.add_column("where", no_wrap=True)
    shown = len(table.columns)
    for row in rows:
        table.add_row(*_component_cells(row)[:shown], style="dim" if row["mode"] == "frozen" else None)
    table.add_section()
    table.add_row(*_component_cells(whole_model(rows))[:shown], style="bold")
    return table


def whole_model(rows: list[Row]) -> Row:
    sums = {key: sum(row[key] for row in rows) for key in ("parameters", "trained")}
    return {"component": "all", "mode": "", "lr": None, "where": "", **sums}


def _component_cells(row: Row) -> list[str]:
    share = row["trained"] / row["parameters"] if row["parameters"] else 0.0
    rate = "" if row["lr"] is None else figure("lr", row["lr"])
    sizes = [count(row["parameters"]), count(row["trained"]), percent(share)]
    return [row["component"], row["mode"], *sizes, rate, row["where"]]


def print_components(rows: list[Row], console: Console | None = None) -> None:
    """Print the component table. If it is too wide for the console, the names of modules follow below it. If it is
    still too wide, each component is a line instead."""
    console = console or console_on()
    plain = not console.is_terminal
    wide, narrow = (component_table(rows, plain=plain, where=where) for where in (True, False))
    if width_of(wide, console) <= console.width:
        print_table(wide, console)
        return
    if width_of(narrow, console) <= console.width:
        print_table(narrow, console)
    else:
        for row in [*rows, whole_model(rows)]:
            say(console, _component_line(row), hanging=4)
    width = max(len(row["component"]) for row in rows)
    for row in rows:
        say(console, f"{row['component']:<{width}}  {row['where']}", hanging=width + 2)


def _component_line(row: Row) -> str:
    """Return a line such as: llm, lora: 155,648 of 870,528 parameters trained (17.9 %), learning rate 2.0e-04"""
    name, mode, parameters, trained, share, rate, _ = _component_cells(row)
    line = f"{name}{f', {mode}' if mode else ''}: {trained} of {parameters} parameters trained ({share})"
    return f"{line}, learning rate {rate}" if rate else line


def evaluation_line(row: Row) -> str:
    """Return a line such as: evaluation at step 120: exact match 97.5 %, loss 0.0213 (120 samples, 3.1 s)

    The scores of generated answers come first, with the number of these answers.
    """
    others = [key for key in row if key.startswith("eval_") and key not in EVALUATION_FIRST + EVALUATION_ASIDE]
    shown = [key for key in (*EVALUATION_FIRST, *others) if key in row and not key.startswith(GENERATED)]
    cost = [many(row["eval_samples"], "sample")] if "eval_samples" in row else []
    cost += [f"{row['eval_seconds']:.1f} s"] if "eval_seconds" in row else []
    parts = [*_generated_figures(row, row.get("eval_answers"))]
    if shown:
        parts.append(", ".join(f"{label(key)} {figure(key, row[key])}" for key in shown))
    return f"evaluation at step {row['step']}: {'; '.join(parts)}" + (f" ({', '.join(cost)})" if cost else "")


def _generated_figures(row: Row, answers: int | None) -> list[str]:
    """Return the scores of generated answers in words, with their number, or nothing if there are none."""
    keys = [key for key in row if key.startswith(GENERATED)]
    figures = ", ".join(f"{label(key)} {figure(key, row[key])}" for key in keys)
    return [figures + (f" ({many(answers, 'answer')})" if answers is not None else "")] if keys else []


def source_lines(row: Row) -> list[str]:
    """Return a line for each source of an evaluation, such as: "  receipts.jsonl: exact match 97.5 %, loss 0.0213 (60
    samples)". If all held-out samples are of one source, there is no line."""
    return [f"  {name}: {_source_figures(scores)}" for name, scores in row.get("eval_sources", {}).items()]


def _source_figures(scores: Row) -> str:
    row = {f"eval_{key}": value for key, value in scores.items()}
    figures = ", ".join(f"{label(key)} {figure(key, row[key])}" for key in EVALUATION_FIRST if key in row)
    return "; ".join(
        [*_generated_figures(row, scores.get("answers")), f"{figures} ({many(scores['samples'], 'sample')})"]
    )


def step_figures(row: Row) -> list[str]:
    """Return the figures of a step in words, the most important first."""
    figures = [f"loss {figure('loss', row['loss'])}"] if "loss" in row else []
    if row.get(SPIKE):
        figures.append("loss spike")
    if is_number(row.get("rewards/accuracies")):
        figures.append(f"reward accuracy {percent(row['rewards/accuracies'])}")
    if is_number(row.get("tokens_per_second")):
        figures.append(f"{count(row['tokens_per_second'])} tokens/s")
    if "lr" in row:
        figures.append(f"lr {figure('lr', row['lr'])}")
    if is_number(row.get("mfu")):
        figures.append(f"MFU {percent(row['mfu'])}")
    if is_number(row.get("data_wait")) and row["data_wait"] >= WAITING:
        figures.append(f"waiting for data {percent(row['data_wait'])}")
    return figures


def closing_line(summary: Row, best_metric: str | None = None) -> str:
    """Return a line such as: done: 120 steps in 3m 42s, exact match 5.0 % → 97.5 %"""
    text = f"{summary['status']}: {many(summary['steps'], 'step')} in {duration(summary['seconds'])}"
    if summary.get("skipped"):
        text += f", {many(summary['skipped'], 'row')} left out (skipped.jsonl)"
    if summary.get("skipped_steps"):
        text += f", {many(summary['skipped_steps'], 'step')} skipped (nan)"
    metrics = summary.get("metrics") or {}
    before, after = metrics.get("before") or {}, metrics.get("after") or {}
    for key in main_metrics(after, best_metric):
        if key in before:
            return f"{text}, {label(key)} {figure(key, before[key])} → {figure(key, after[key])}"
    return text


def score_of(row: Row, best_metric: str | None = None) -> str:
    """Return the score of an evaluation that says most, such as: exact match 97.5 %"""
    return next((f"{label(key)} {figure(key, row[key])}" for key in main_metrics(row, best_metric)), "")


class ProgressReporter(Reporter):
    """A reporter that prints a line, or updates the bar, at each logged step. Evaluations are printed above the bar. At
    the end, it prints a table of the losses and scores."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or console_on()
        self._clock = clock
        self._bar: Bar | None = None
        self._figures: list[str] = []
        """The figures of the last logged step, without the time left."""
        self._score = ""
        """The score of the last evaluation."""

    def start(self, run: RunInfo) -> None:
        self._total, self._start_step, self._folder = run.total_steps, run.start_step, run.folder
        self._best_metric = run.config["train"].get("best_metric")
        self._started, self._evaluating = self._clock(), 0.0
        if self._console.is_interactive:
            self._heading = "training" if self._console.width >= NARROW else ""
            self._bar = self._new_bar(run)
            self._bar.start()

    def _new_bar(self, run: RunInfo) -> Bar:
        columns: tuple[ProgressColumn, ...] = (
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        if self._heading:
            columns = (TextColumn(self._heading), *columns)
        bar = Bar(*columns, console=self._console, expand=True)
        bar.add_task("training", total=run.total_steps, completed=run.start_step, figures="")
        return bar

    def log(self, row: Row) -> None:
        if is_evaluation(row):
            self._evaluating += row.get("eval_seconds") or 0.0
            self._score = score_of(row, self._best_metric)
            for line in (evaluation_line(row), *source_lines(row)):
                self._say(line)
            return
        self._figures, left = step_figures(row), self._left(row["step"])
        line = f"step {row['step']}/{self._total}  {'  '.join([*self._figures, *left])}"
        if self._bar:
            LOGGER.info(line)
            self._move(self._bar, row["step"], left)
        else:
            self._say(line)

    def _move(self, bar: Bar, step: int, left: list[str]) -> None:
        """Move the bar to a step. If the terminal is too narrow for all figures, the least important are left out."""
        room = self._console.width - len(f"{self._heading} {self._total}/{self._total}  ") - LEAST_BAR
        loss, others = self._figures[:1], self._figures[1:]
        shown = [*loss, *([self._score] if self._score else []), *others]
        while shown and len("  ".join([*shown, *left])) > room:
            if len(shown) > 1 or not left:
                shown.pop()
            else:
                left = []
        bar.update(bar.task_ids[0], completed=step, figures="  ".join([*shown, *left]), refresh=True)

    def _left(self, step: int) -> list[str]:
        """Return the time left until the last step, or nothing if it is not known. The estimate uses the pace of this
        run so far, without the time of evaluations. It needs more than one step, since the first step includes work
        that is done only once."""
        done, to_do = step - self._start_step, self._total - step
        if done <= 1 or to_do <= 0:
            return []
        training = self._clock() - self._started - self._evaluating
        return [f"{duration(max(training, 0.0) / done * to_do)} left"]

    def finish(self, summary: Row) -> None:
        if self._bar:
            self._move(self._bar, summary["steps"], [])  # the last step is often not a logged one
            self._bar.stop()
        print_curves(read_metrics(self._folder), self._console, self._best_metric)
        self._say(closing_line(summary, self._best_metric))

    def _say(self, line: str) -> None:
        say(self._console, line)
