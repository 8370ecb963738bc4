"""Prints the figures of a filter on the terminal."""

import shlex
from collections.abc import Iterator, Sequence

from rich.text import Text

from qwenvl_train.reporting.console import console_on, say
from qwenvl_train.reporting.wording import count, many, percent
from qwenvl_train.verbs.filter.figures import FilterFigures
from qwenvl_train.verbs.filter.folder import SUMMARY, FilterFolder
from qwenvl_train.verbs.filter.writing import DATA, DROPPED, VERDICTS


def print_figures(figures: FilterFigures, folder: FilterFolder) -> None:
    console = console_on()
    say(console, "")
    if any(rule.falls for rule in figures.rules):
        for line in table_in_lines(rule_rows(figures)):
            say(console, line, hanging=4)
    if without := [rule.name for rule in figures.rules if not rule.falls and rule.judged]:
        say(console, f"no row falls to {', '.join(without)}", hanging=4)
    if unapplied := [rule.name for rule in figures.rules if not rule.falls and not rule.judged]:
        say(console, f"no row is judged by {', '.join(unapplied)}", hanging=4)
    say(console, "")
    for line in overlaps(figures):
        say(console, line, hanging=4)
    for line in (*lengths(figures), *by_model(figures)):
        say(console, line, hanging=4)
    say(console, Text(summary(figures), "bold"))
    say(console, "")
    for name, file in (("dropped", DROPPED), ("verdicts", VERDICTS), ("figures", SUMMARY), ("report", "report.html")):
        say(console, f"{name:<9} {folder.path / file}")
    if figures.kept:
        recipe = "dpo_lora" if figures.pairs else "sft_lora"
        say(console, f"{'train':<9} qwenvl-train +recipe={recipe} {shlex.quote(f'data={folder.path / DATA}')}")


def rule_rows(figures: FilterFigures) -> list[list[str]]:
    rows = [["rule", "falls", "share", "alone", "what falls"]]
    for rule in filter(lambda rule: rule.falls, figures.rules):
        mark = "" if rule.drops else " (marked only)"
        share = percent(rule.falls / max(1, figures.rows))
        rows.append([rule.name, count(rule.falls), share, count(rule.alone), rule.summary + mark])
    return rows


def table_in_lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table whose first and last columns are texts, and whose other columns are figures."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *figures, last in rows:
        cells = (f"{cell:>{width}}" for cell, width in zip(figures, widths[1:], strict=False))
        yield "  ".join([f"{first:<{widths[0]}}", *cells, last]).rstrip()


def overlaps(figures: FilterFigures) -> Iterator[str]:
    """Yield the pairs of rules that most often fall on the same rows."""
    pairs = {
        tuple(sorted((rule.name, other))): both for rule in figures.rules for other, both in rule.with_others.items()
    }
    for (one, other), both in sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))[:3]:
        yield f"{many(both, 'row')} {'falls' if both == 1 else 'fall'} to both {one} and {other}"


def lengths(figures: FilterFigures) -> Iterator[str]:
    for what, stages in figures.words.items():
        if stages["before"] and stages["after"]:
            before, after = (_in_words(stages[stage]) for stage in ("before", "after"))
            yield f"words of {what}: {before} before, {after} after"


def by_model(figures: FilterFigures) -> Iterator[str]:
    """Yield what a model has said of the rows, in words."""
    if figures.scores:
        medians = (f"{name} {found['median']:.2f}" for name, found in figures.scores.items() if found)
        yield f"median scores: {', '.join(medians)}"
    if figures.classes:
        largest = sorted(figures.classes.items(), key=lambda one: (-one[1][0], one[0]))
        told = ", ".join(f"{name} {count(kept)} of {count(rows)}" for name, (rows, kept) in largest[:6])
        yield f"{many(len(largest), 'class', 'classes')}, with kept rows: {told}{', …' if len(largest) > 6 else ''}"
    if figures.not_judged:
        yield f"{many(figures.not_judged, 'row')} could not be judged; the first: {figures.first_not_judged}"


def _in_words(quartiles: list[int]) -> str:
    return f"median {count(quartiles[2])}, at most {count(quartiles[4])}"


def summary(figures: FilterFigures) -> str:
    share = percent(figures.kept / max(1, figures.rows))
    return f"{count(figures.kept)} of {many(figures.rows, 'row')} kept ({share})"
