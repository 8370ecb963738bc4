"""Prints the results of an evaluation on the terminal."""

from collections.abc import Iterator
from pathlib import Path

from rich.text import Text

from qwenvl_train.evaluation.metrics.table import METRICS
from qwenvl_train.evaluation.scoring import Figure, ScoredRow
from qwenvl_train.reporting.console import console_on, say
from qwenvl_train.reporting.wording import duration, many
from qwenvl_train.verbs.eval.results import ModelResults, Results

_SHOWN = 120
"""The most characters of a text in the list of answers."""


def print_results(results: Results) -> None:
    console = console_on()
    for line in results.first.answers.described:
        say(console, line)
    for model in results.models:
        for line in _answers(model, results):
            say(console, line, hanging=4)
    for line in metrics_in_words(results):
        say(console, line, hanging=4)
    say(console, "")
    for line in _table(results):
        say(console, line)
    if results.config.eval.worst:
        for worst in _worst(results):
            say(console, worst, hanging=4)
    say(console, "")
    for model in results.models:
        say(console, f"predictions  {model.answers.folder.answers}")
    say(console, f"scores       {results.first.answers.folder.path / 'scores.json'}")


def _worst(results: Results) -> Iterator[str | Text]:
    """Yield the answers with the lowest scores that are not right."""
    of = f" of {results.first.answers.model}" if len(results.models) > 1 else ""
    scored = [one for one in results.first.scored if one.main]
    if all(one.right for one in scored):
        if scored:
            kind = "answers" if len(scored) == len(results.first.scored) else "scored answers"
            yield Text(f"\nAll {kind}{of} are right", "bold")
        return
    yield Text(f"\nThe answers with the lowest scores{of}", "bold")
    yield from (_answer(one) for one in results.worst() if one.main and not one.right)


def _answers(model: ModelResults, results: Results) -> Iterator[str]:
    answers = model.answers
    found = len(answers.rows) - answers.generated
    name = f"{answers.model}: " if len(results.models) > 1 else ""
    if answers.generated:
        rate = answers.generated / answers.seconds
        line = f"{name}{many(answers.generated, 'answer')} in {duration(answers.seconds)}, {rate:,.3g} a second"
        yield line + (f"; {many(found, 'further answer')} from before" if found else "")
    else:
        yield f"{name}all {many(found, 'answer')} are from before; nothing was generated"
    if model.cut:
        limit = results.config.eval.max_new_tokens
        yield f"{name}{many(model.cut, 'answer')} cut at {limit} tokens (eval.max_new_tokens)"
    if answers.problems:
        first = answers.problems[0]
        samples = many(len(answers.problems), "sample")
        yield f"{samples} could not be decoded; the first: {first.reason}"


def metrics_in_words(results: Results) -> Iterator[str]:
    """Yield the metrics of each source with the reason, and the convention of each metric."""
    for entry, chosen in results.chosen.items():
        yield f"{entry}: scored by {', '.join(chosen.metrics)} ({chosen.reason})"
    for name, metric in results.metrics.items():
        yield f"{name}: {metric.convention}"
    for entry, names in results.without_figure().items():
        yield f"{entry}: nothing to score by {', '.join(names)}"


def _table(results: Results) -> list[str]:
    several = len(results.models) > 1
    rows = [["source", "metric", "score", "95 % interval", "samples"]]
    if several:
        rows[0] += ["difference", "95 % interval", "p"]
    for model in results.models:
        if several:
            rows.append([model.answers.model])
        rows += [[figure.entry, name_of(figure), *cells_of(results, model, figure)] for figure in model.figures]
    columns = range(len(rows[0]))
    widths = [max(len(row[column]) for row in rows if len(row) > max(1, column)) for column in columns]
    return [_aligned(row, widths) for row in rows]


def name_of(figure: Figure) -> str:
    return figure.metric if figure.name == figure.metric else f"{figure.metric} {figure.name}"


def cells_of(results: Results, model: ModelResults, figure: Figure) -> list[str]:
    """Return the score, its interval and the number of samples, and for a model of eval.compare how it differs."""
    value, low, high = (_number(figure.metric, number) for number in (figure.value, figure.low, figure.high))
    cells = [value, f"{low} to {high}", f"{figure.samples:,}"]
    for one in results.differences:
        same = (one.figure.entry, one.figure.metric, one.figure.name) == (figure.entry, figure.metric, figure.name)
        if same and one.model == model.answers.model:
            found = one.comparison
            gap, low, high = (_number(figure.metric, value, "+") for value in (found.difference, found.low, found.high))
            cells += [gap, f"{low} to {high}", f"{found.probability:.3f}"]
    return cells


def _number(metric: str, value: float, sign: str = "") -> str:
    """Format a score. Those of our metrics are shares of 1, and those of the user's are any numbers."""
    return f"{100 * value:{sign}.1f} %" if metric in METRICS else f"{value:{sign}.4g}"


def _aligned(row: list[str], widths: list[int]) -> str:
    if len(row) == 1:
        return row[0]
    words = [
        cell.ljust(width) if place < 2 else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(row, widths, strict=False))
    ]
    return "  ".join(words).rstrip()


def _answer(one: ScoredRow) -> str:
    row = one.row
    where = f"{Path(row['source']).name}:{row['line']}" + (f", answer {row['turn']}" if row["turns"] > 1 else "")
    asked, expected, answer = (_short(row[key]) for key in ("prompt", "expected", "answer"))
    return f"  {where}  {main_score_in_words(one)}  {asked} | expected {expected} | got {answer}"


def main_score_in_words(one: ScoredRow) -> str:
    if one.main is None:
        return "no score"
    return f"{one.main.name} {_number(one.main.metric, one.main.value)}"


def _short(text: str) -> str:
    words = " ".join(text.split())
    return repr(words if len(words) <= _SHOWN else f"{words[: _SHOWN - 1]}…")
