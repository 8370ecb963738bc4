"""The figures of a filter: how many rows fall to each rule, to which together, and what that changes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from qwenvl_train.curation.rules.table import RULES
from qwenvl_train.data.samples import Samples
from qwenvl_train.verbs.filter.folder import FilterFolder
from qwenvl_train.verbs.filter.judged import DUPLICATES, UNUSABLE, VALUE
from qwenvl_train.verbs.filter.outcome import Outcome

_QUANTILES = (0.5, 0.9, 0.99, 1.0)
_SUMMARIES = {
    UNUSABLE: "no training can use the row",
    DUPLICATES: "nearly the same as an earlier row",
}


@dataclass(frozen=True)
class RuleFigures:
    name: str
    summary: str
    of_report: bool
    drops: bool
    """Whether rows that fall to the rule are left out. Otherwise they are only marked."""
    falls: int
    """Number of rows that fall to the rule."""
    alone: int
    """Number of rows that are left out by this rule and by no other one."""
    judged: int
    """Number of rows that the rule applies to."""
    quantiles: dict[str, float]
    """The median, the 90th and 99th percentile and the largest of the figures that the rule has measured, by names.
    Empty if the rule measures none."""
    with_others: dict[str, int]
    """Number of rows that fall to this rule and to another one, by the name of the other."""


@dataclass(frozen=True)
class Figures:
    rows: int
    kept: int
    rules: tuple[RuleFigures, ...]
    sources: dict[str, tuple[int, int]]
    """Number of rows and of kept rows of each source."""
    words: dict[str, dict[str, list[int]]]
    """The smallest number of words, the quartiles and the largest, of all questions and answers before and after."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, stored: dict[str, Any]) -> "Figures":
        """Return the figures that `as_dict` has given."""
        sources = {name: (rows, kept) for name, (rows, kept) in stored["sources"].items()}
        rules = tuple(RuleFigures(**rule) for rule in stored["rules"])
        return cls(**stored | {"rules": rules, "sources": sources})


def figures_of(samples: Samples, outcome: Outcome, folder: FilterFolder) -> Figures:
    kept = outcome.kept
    sources = {name: (len(rows), int(kept[rows.start : rows.stop].sum())) for name, rows in samples.files()}
    usable = ~outcome.falls[:, outcome.rules.index(UNUSABLE)]
    words = {
        what: {"before": _quartiles(column[usable]), "after": _quartiles(column[kept])}
        for what, column in zip(("questions", "answers"), outcome.words.T, strict=True)
    }
    values = _values(folder, outcome)
    rules = tuple(_of_rule(number, outcome, values) for number in range(len(outcome.rules)))
    return Figures(len(kept), int(kept.sum()), rules, sources, words)


def _of_rule(number: int, outcome: Outcome, values: dict[str, tuple[int, np.ndarray]]) -> RuleFigures:
    name, falls = outcome.rules[number], outcome.falls[:, number]
    others = np.array(outcome.drops)
    others[number] = False
    alone = falls & ~outcome.falls[:, others].any(axis=1) if outcome.drops[number] else np.zeros_like(falls)
    shared = (outcome.falls & falls[:, None]).sum(axis=0).tolist()
    rule = RULES.get(name)
    judged, measured = values.get(name, (len(falls), np.zeros(0)))
    return RuleFigures(
        name,
        rule.summary if rule else _SUMMARIES[name],
        bool(rule and rule.of_report),
        outcome.drops[number],
        int(falls.sum()),
        int(alone.sum()),
        judged,
        _quantiles(measured),
        {other: count for other, count in zip(outcome.rules, shared, strict=True) if count and other != name},
    )


def _values(folder: FilterFolder, outcome: Outcome) -> dict[str, tuple[int, np.ndarray]]:
    """Return the number of rows that each rule applies to, and the figures that it has measured."""
    names = [name for name in outcome.rules if name not in (UNUSABLE, DUPLICATES)]
    judged, values = dict.fromkeys(names, 0), {name: [np.zeros(0, np.float32)] for name in names}
    for table in folder.parts([*names, *(f"{name}.{VALUE}" for name in names)]):
        for name in names:
            judged[name] += len(table) - table[name].null_count
            values[name].append(table[f"{name}.{VALUE}"].drop_null().to_numpy())
    return {name: (judged[name], np.concatenate(values[name])) for name in names}


def _quantiles(values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return {}
    names = ("median", "90 %", "99 %", "largest")
    return dict(zip(names, np.quantile(values, _QUANTILES).round(4).tolist(), strict=True))


def _quartiles(column: Sequence[int] | np.ndarray) -> list[int]:
    return np.quantile(column, (0, 0.25, 0.5, 0.75, 1)).round().astype(int).tolist() if len(column) else []
