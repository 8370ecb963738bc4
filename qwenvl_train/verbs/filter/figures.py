"""The figures of a filter: how many rows fall to each rule, to which together, and what that changes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from qwenvl_train.curation.rules.rule import Described
from qwenvl_train.data.samples import Samples
from qwenvl_train.verbs.filter.by_model import PROBLEM, SCORE
from qwenvl_train.verbs.filter.folder import FilterFolder
from qwenvl_train.verbs.filter.judged import EVIDENCE, UNUSABLE, VALUE
from qwenvl_train.verbs.filter.outcome import Outcome

_QUANTILES = {"least": 0.0, "10 %": 0.1, "median": 0.5, "90 %": 0.9, "99 %": 0.99, "largest": 1.0}


@dataclass(frozen=True)
class RuleFigures:
    name: str
    summary: str
    of_report: bool
    measures: str | None
    """What the rule measures of a row, or None."""
    unit: str
    """The unit of what it measures, as in `Measure`."""
    drops: bool
    """Whether rows that fall to the rule are left out. Otherwise they are only marked."""
    falls: int
    """Number of rows that fall to the rule."""
    alone: int
    """Number of rows that are left out by this rule and by no other one."""
    judged: int
    """Number of rows that the rule applies to."""
    quantiles: dict[str, float]
    """Quantiles of the figures that the rule has measured, by their names. Empty if it measures none."""
    with_others: dict[str, int]
    """Number of rows that fall to this rule and to another one, by the name of the other."""


@dataclass(frozen=True)
class FilterFigures:
    rows: int
    kept: int
    rules: tuple[RuleFigures, ...]
    sources: dict[str, tuple[int, int]]
    """Number of rows and of kept rows of each source."""
    words: dict[str, dict[str, list[int]]]
    """The smallest number of words, the quartiles and the largest, of all questions and answers before and after."""
    classes: dict[str, tuple[int, int]]
    """Number of rows and of kept rows of each class that has any. Empty without classes."""
    scores: dict[str, dict[str, float]]
    """The quantiles of each score of a model. Empty without scores."""
    pairs: bool
    """Whether the rows that are kept are preference pairs."""
    first_unusable: str | None
    """Why the first row that no training can use cannot be used."""
    not_judged: int
    """Number of rows that a model could not judge. They are kept, unless another rule leaves them out."""
    first_not_judged: str | None
    """The reason for the first of them."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, stored: dict[str, Any]) -> "FilterFigures":
        """Return the figures that `as_dict` has given."""
        sources = {name: (rows, kept) for name, (rows, kept) in stored["sources"].items()}
        classes = {name: (rows, kept) for name, (rows, kept) in stored["classes"].items()}
        rules = tuple(RuleFigures(**rule) for rule in stored["rules"])
        return cls(**stored | {"rules": rules, "sources": sources, "classes": classes})


def figures_of(
    samples: Samples, outcome: Outcome, folder: FilterFolder, described: Mapping[str, Described]
) -> FilterFigures:
    """Return the figures. `described` has all rules by name."""
    kept = outcome.kept
    sources = {name: (len(rows), int(kept[rows.start : rows.stop].sum())) for name, rows in samples.files()}
    words = {
        what: {"before": _quartiles(column[column >= 0]), "after": _quartiles(column[kept])}
        for what, column in zip(("questions", "answers"), outcome.words.T, strict=True)
    }
    values = _values(folder, outcome)
    rules = tuple(_of_rule(number, outcome, values, described) for number in range(len(outcome.rules)))
    scores, not_judged, first = _of_model(folder)
    unusable = _first_unusable(folder)
    classes, pairs = _classes(outcome), _are_pairs(samples, outcome)
    return FilterFigures(
        len(kept), int(kept.sum()), rules, sources, words, classes, scores, pairs, unusable, not_judged, first
    )


def _are_pairs(samples: Samples, outcome: Outcome) -> bool:
    return any(samples[row].rejected for row in np.flatnonzero(outcome.kept)[:1].tolist())


def _first_unusable(folder: FilterFolder) -> str | None:
    for table in folder.by_rules.tables([f"{UNUSABLE}.{EVIDENCE}"]):
        if found := table.column(0).drop_null().to_pylist():
            return found[0]
    return None


def _classes(outcome: Outcome) -> dict[str, tuple[int, int]]:
    if outcome.class_of is None:
        return {}
    before, after = Counter(outcome.class_of.tolist()), Counter(outcome.class_of[outcome.kept].tolist())
    return {name: (before[number], after[number]) for number, name in enumerate(outcome.classes) if before[number]}


def _of_model(folder: FilterFolder) -> tuple[dict[str, dict[str, float]], int, str | None]:
    """Return the quantiles of the scores of a model, the number of rows that it could not judge, and why it could not
    judge the first of them."""
    scores: dict[str, list[np.ndarray]] = {}
    not_judged, first = 0, None
    for table in folder.by_model.tables():
        for name in table.column_names:
            if name.startswith(SCORE):
                scores.setdefault(name.removeprefix(SCORE), []).append(table[name].drop_null().to_numpy())
        problems = table[PROBLEM].drop_null()
        not_judged += len(problems)
        first = problems[0].as_py() if first is None and len(problems) else first
    return {name: _quantiles(np.concatenate(found)) for name, found in scores.items()}, not_judged, first


def _of_rule(
    number: int, outcome: Outcome, values: dict[str, tuple[int, np.ndarray]], described: Mapping[str, Described]
) -> RuleFigures:
    rule, falls = described[outcome.rules[number]], outcome.falls[:, number]
    others = np.array(outcome.drops)
    others[number] = False
    alone = falls & ~outcome.falls[:, others].any(axis=1) if outcome.drops[number] else np.zeros_like(falls)
    shared = (outcome.falls & falls[:, None]).sum(axis=0).tolist()
    judged, measured = values[rule.name]
    return RuleFigures(
        rule.name,
        rule.summary,
        rule.of_report,
        rule.measure.what if rule.measure else None,
        rule.measure.unit if rule.measure else "",
        outcome.drops[number],
        int(falls.sum()),
        int(alone.sum()),
        judged,
        _quantiles(measured),
        {other: count for other, count in zip(outcome.rules, shared, strict=True) if count and other != rule.name},
    )


def _values(folder: FilterFolder, outcome: Outcome) -> dict[str, tuple[int, np.ndarray]]:
    """Return the number of rows that each rule applies to, and the figures that it has measured. Rules that only
    compare rows with each other have measured those that fall."""
    judged: Counter[str] = Counter()
    values: dict[str, list[np.ndarray]] = {}
    for table in folder.tables(outcome.by_model):
        for name in filter(table.column_names.__contains__, outcome.rules):
            judged[name] += len(table) - table[name].null_count
            # A copy, since the array would keep the whole table in memory.
            values.setdefault(name, []).append(table[f"{name}.{VALUE}"].drop_null().to_numpy().copy())
    compared = {name: (len(outcome.kept), late.values) for name, late in outcome.late.items()}
    return compared | {name: (judged[name], np.concatenate(found)) for name, found in values.items()}


def _quantiles(values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return {}
    found = np.quantile(values.astype(np.float64), list(_QUANTILES.values()))
    return dict(zip(_QUANTILES, found.round(4).tolist(), strict=True))


def _quartiles(column: Sequence[int] | np.ndarray) -> list[int]:
    return np.quantile(column, (0, 0.25, 0.5, 0.75, 1)).round().astype(int).tolist() if len(column) else []
