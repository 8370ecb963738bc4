"""The page of a filter: how many rows fall to each rule, and examples of them with their pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qwenvl_train.reporting.folder import write_text_atomic
from qwenvl_train.reporting.pages.answers import Shown, card_of
from qwenvl_train.reporting.pages.page import Tile, fill_template
from qwenvl_train.reporting.wording import count, percent, with_unit
from qwenvl_train.verbs.filter.figures import FilterFigures, RuleFigures
from qwenvl_train.verbs.filter.folder import FilterFolder
from qwenvl_train.verbs.filter.shown import ShownRow

PAGE = "report.html"
_SHOWN = ("median", "99 %", "largest")
"""The quantiles of what a rule measured that stand on the page. summary.json has all."""


def write_page(figures: FilterFigures, shown: Sequence[ShownRow], folder: FilterFolder) -> Path:
    path = folder.path / PAGE
    cards: dict[str, list[Any]] = {}
    for one in shown:
        cards.setdefault(one.rule, []).append(_card(one, figures))
    page = {
        "folder": str(folder.path),
        "tiles": _tiles(figures),
        "rules": [_rule(rule, figures) for rule in figures.rules],
        "sources": [(name, rows, kept) for name, (rows, kept) in figures.sources.items()],
        "words": figures.words,
        "overlaps": _overlaps(figures),
        "classes": [(name, rows, kept) for name, (rows, kept) in figures.classes.items()],
        "scores": figures.scores,
        "cards": cards,
    }
    write_text_atomic(path, fill_template(Path(__file__).with_name("page.html.j2"), page))
    return path


def _tiles(figures: FilterFigures) -> list[Tile]:
    share = percent(figures.kept / max(1, figures.rows))
    left_out = figures.rows - figures.kept
    return [
        Tile("Rows", count(figures.rows)),
        Tile("Kept", f"{count(figures.kept)} ({share})"),
        Tile("Left out", count(left_out)),
    ]


def _rule(rule: RuleFigures, figures: FilterFigures) -> dict[str, Any]:
    return {
        "name": rule.name,
        "summary": rule.summary,
        "origin": "Qwen2.5-VL report" if rule.of_report else "",
        "effect": "left out" if rule.drops else "marked only",
        "falls": rule.falls,
        "share": percent(rule.falls / max(1, figures.rows)),
        "alone": rule.alone,
        "judged": rule.judged,
        "measures": rule.measures if rule.quantiles else "",
        "measured": ", ".join(
            f"{name} {with_unit(rule.quantiles[name], rule.unit)}" for name in _SHOWN if rule.quantiles
        ),
    }


def _overlaps(figures: FilterFigures) -> dict[str, Any]:
    """Return a table with the number of rows that fall to two rules, of the rules that share rows with others."""
    names = [rule.name for rule in figures.rules if rule.with_others]
    of_rules = {rule.name: rule for rule in figures.rules}
    cells = [
        [of_rules[one].falls if one == other else of_rules[one].with_others.get(other, 0) for other in names]
        for one in names
    ]
    return {"names": names, "rows": list(zip(names, cells, strict=True))}


def _card(one: ShownRow, figures: FilterFigures) -> dict[str, Any]:
    drops = {rule.name for rule in figures.rules if rule.drops}
    answers = [Shown("answer", "answer", text) for text in one.answers]
    for rule, verdict in one.verdicts.items():
        answers.append(Shown("verdict", rule, verdict.evidence, False, "left out" if rule in drops else "marked"))
    return card_of(one.row, answers)
