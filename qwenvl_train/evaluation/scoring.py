"""Scores generated answers, and gives the figures of each source with the range in which they probably lie."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np

from qwenvl_train.config.entries import entry_names
from qwenvl_train.config.schema import DataConfig
from qwenvl_train.config.scoring import EvalConfig, is_own_metric
from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.metrics.choose import choose_for_source
from qwenvl_train.evaluation.metrics.metric import Metric, Part, Picture, Question, Scores
from qwenvl_train.evaluation.metrics.table import load_metric, refuse_unknown
from qwenvl_train.families.family import Family
from qwenvl_train.reporting.intervals import share_interval

Row = dict[str, Any]
"""A row of predictions.jsonl."""
ROUNDS = 1000
"""Number of resamples of the bootstrap, and of exchanges of the paired test."""
_CHUNK = 2**24
"""Number of random counts that exist at a time."""


@dataclass(frozen=True)
class Chosen:
    """The metrics of an entry of data.eval."""

    metrics: tuple[str, ...]
    reason: str


class Figure(NamedTuple):
    """A score of the samples of one entry."""

    entry: str
    metric: str
    name: str
    """Name of the sub-score. It is that of the metric if there is only one."""
    value: float
    low: float
    high: float
    """The 95 % interval."""
    samples: int
    higher_is_better: bool


class MainScore(NamedTuple):
    metric: str
    name: str
    """Name of the sub-score."""
    value: float


@dataclass(frozen=True)
class ScoredRow:
    """An answer with its scores."""

    row: Row
    scores: Mapping[str, Scores]
    """The scores by metric, without the metrics that have nothing to score in the answer."""
    right: bool | None = None
    """Whether the main score is the best one. None if there is no score, or if the metric is the user's own, whose best
    score is not known."""

    @property
    def main(self) -> MainScore | None:
        """The score by which the answer counts as good or bad: that of the first metric that scores it."""
        for metric, parts in self.scores.items():
            name, part = next(iter(parts.items()))
            return MainScore(metric, name, part.value)
        return None

    def plain(self) -> dict[str, dict[str, float]]:
        """Return the scores as numbers, as predictions.jsonl has them."""
        return {
            metric: {name: round(part.value, 6) for name, part in parts.items()}
            for metric, parts in self.scores.items()
        }

    def figures(self) -> dict[str, float]:
        """Return one number for each metric: that of its main sub-score, which comes first."""
        return {metric: next(iter(parts.values())) for metric, parts in self.plain().items()}


def choose_metrics(
    rows: Sequence[Row], wanted: Sequence[str], of_entries: Mapping[str, Sequence[str]]
) -> dict[str, Chosen]:
    """Return the metrics of each entry of data.eval.

    Args:
        wanted: The setting eval.metrics.
        of_entries: The metrics that entries name in the configuration.

    Raises:
        UserError: If a row names a function to import.
    """
    names = [name for name in wanted if name != "auto"]
    chosen: dict[str, Chosen] = {}
    for entry, mine in _by_entry(rows).items():
        found, reason = list(names), "eval.metrics names them"
        if "auto" in wanted:
            of_rows = list(dict.fromkeys(name for row in mine for name in row.get("metrics", ())))
            if own := of_entries.get(entry):
                found, reason = [*own, *found], "its entry of data.eval names them"
            elif of_rows:
                _refuse_code(of_rows, entry)
                found, reason = [*of_rows, *found], "its rows name them"
            else:
                auto = choose_for_source([(row["expected"], row["prompt"]) for row in mine])
                found, reason = [*auto.metrics, *found], auto.reason
        chosen[entry] = Chosen(tuple(dict.fromkeys(found)), reason)
    return chosen


def _refuse_code(of_rows: Sequence[str], entry: str) -> None:
    """Raise UserError if rows name a function to import, which only the settings may do."""
    if own := next(filter(is_own_metric, of_rows), None):
        raise UserError(
            f"eval.metrics=auto: a row of {entry} names the metric {own}, which would run code; name a metric of your "
            "own in eval.metrics or in metric of its entry instead."
        )


DataKey = Literal["data.train", "data.eval"]


def metrics_of_entries(data: DataConfig, key: DataKey = "data.eval") -> dict[str, tuple[str, ...]]:
    """Return the metrics that the entries of data.train or of the held-out samples name, by the names of the
    entries."""
    of_train = key == "data.train" or data.eval_share is not None
    entries = data.train if of_train else data.eval_entries
    return {name: entry.metric for name, entry in zip(entry_names(entries), entries, strict=True) if entry.metric}


def check_metrics(config: EvalConfig, data: DataConfig, key: DataKey = "data.eval") -> None:
    """Raise UserError unless there are all metrics that eval.metrics and entries of the samples name, and
    eval.allow_code allows those that run code."""
    for name in config.metrics:
        if name != "auto":
            refuse_unknown(name, "eval.metrics")
    for name in (*config.metrics, *chain.from_iterable(metrics_of_entries(data, key).values())):
        if is_own_metric(name) and not config.allow_code:
            raise UserError(
                f"{key}: metric={name} imports and runs your own code; set eval.allow_code=true to allow it."
            )
        if name != "auto":
            load_metric(name)


def load_metrics(chosen: Mapping[str, Chosen]) -> dict[str, Metric]:
    return {name: load_metric(name) for one in chosen.values() for name in one.metrics}


def load_available(chosen: Mapping[str, Chosen]) -> tuple[dict[str, Chosen], dict[str, Metric]]:
    """Return the choice with the metrics that can be loaded, and these metrics. The others need a package that is not
    installed, or are none."""
    metrics: dict[str, Metric] = {}
    for name in dict.fromkeys(name for one in chosen.values() for name in one.metrics):
        with suppress(UserError):
            metrics[name] = load_metric(name)
    found = {
        entry: replace(one, metrics=tuple(name for name in one.metrics if name in metrics))
        for entry, one in chosen.items()
    }
    return found, metrics


def score(
    rows: Sequence[Row], chosen: Mapping[str, Chosen], metrics: Mapping[str, Metric], family: Family
) -> list[ScoredRow]:
    """Score each answer by the metrics of its entry, or by those that its own row names."""
    scored = []
    for row in rows:
        question = _question(row, family)
        names = chosen[row["entry"]].metrics
        if row.get("metrics"):
            names = tuple(name for name in names if name in row["metrics"]) or names
        found = {name: _scores(row, name, metrics[name], question) for name in names}
        one = ScoredRow(row, {name: parts for name, parts in found.items() if parts})
        scored.append(replace(one, right=_is_right(one, metrics)))
    return scored


def _is_right(one: ScoredRow, metrics: Mapping[str, Metric]) -> bool | None:
    if one.main is None or is_own_metric(one.main.metric):
        return None
    return metrics[one.main.metric].is_best(one.main.value)


def _scores(row: Row, name: str, metric: Metric, question: Question) -> Scores:
    """Return the scores of an answer. One that a metric of ours cannot read counts as an empty one, so that no answer
    ends an evaluation, and with it a training."""
    try:
        return metric.score(row["answer"], row["expected"], question)
    except (ArithmeticError, LookupError, RecursionError, ValueError):
        if is_own_metric(name):
            raise
        return metric.score("", row["expected"], question)


def _question(row: Row, family: Family) -> Question:
    size = row.get("picture")
    picture = Picture(tuple(size["original"]), tuple(size["resized"])) if size else None
    targets = tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in row.get("targets", ()))
    return Question(tuple(row.get("accepted", ())), family, picture, row["prompt"], targets)


def figures_of(scored: Sequence[ScoredRow], metrics: Mapping[str, Metric], seed: int) -> list[Figure]:
    """Return the figures of each entry, and of all entries together where several have the same metric."""
    found: list[Figure] = []
    entries: dict[str, list[ScoredRow]] = defaultdict(list)
    for one in scored:
        entries[one.row["entry"]].append(one)
    if len(entries) > 1:
        entries["all"] = list(scored)
    for entry, mine in entries.items():
        for key, metric in metrics.items():
            of_metric = [one for one in mine if key in one.scores]
            sources = {one.row["entry"] for one in of_metric}
            if not of_metric or (entry == "all" and len(sources) < 2):
                continue
            for name in dict.fromkeys(name for one in of_metric for name in one.scores[key]):
                parts = Parts.of(of_metric, key, name)
                low, high = parts.interval(seed)
                better = metric.higher_is_better
                found.append(Figure(entry, key, name, parts.value(), low, high, parts.samples, better))
    return found


def named_figures(found: Iterable[Figure]) -> dict[tuple[str, str], Figure]:
    """Return figures by entry and name, as metrics.jsonl names them: the first one of a metric has the name of the
    metric, and the others begin with it."""
    named: dict[tuple[str, str], Figure] = {}
    for one in found:
        name = f"{one.metric}_{one.name}" if (one.entry, one.metric) in named else one.metric
        named[one.entry, name] = one
    return named


class Parts:
    """What each sample adds to a figure. The answers of one sample stay together, since they are not independent."""

    def __init__(self, sums: Mapping[int, tuple[float, float]], answered: Iterable[int] = ()):
        self.indices = sorted(sums)
        """The samples that count, by their index in data.eval."""
        self.answered = {*sums, *answered}
        """All samples with an answer."""
        self._sums = np.array([sums[index] for index in self.indices], dtype=np.float64).reshape(-1, 2)

    @classmethod
    def of(cls, scored: Collection[ScoredRow], metric: str, name: str) -> "Parts":
        sums: dict[int, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        for one in scored:
            part: Part | None = one.scores.get(metric, {}).get(name)
            if part is not None:
                before = sums[one.row["index"]]
                sums[one.row["index"]] = before[0] + part.numerator, before[1] + part.denominator
        return cls(sums, {one.row["index"] for one in scored})

    @property
    def samples(self) -> int:
        return len(self.indices)

    def value(self) -> float:
        return float(_ratio(self._sums.sum(0)))

    def interval(self, seed: int) -> tuple[float, float]:
        """Return the 95 % interval: that of a share if each sample is right or wrong as a whole, and else that of the
        bootstrap, for which samples are drawn anew, with repetition, ROUNDS times."""
        if self._is_share():
            return share_interval(self.value(), self.samples)
        generator, drawn, count = np.random.default_rng(seed), [], self.samples
        each = max(1, _CHUNK // count)
        for start in range(0, ROUNDS, each):
            times = generator.multinomial(count, np.full(count, 1 / count), size=min(each, ROUNDS - start))
            drawn.append(_ratio(times @ self._sums))
        low, high = np.percentile(np.concatenate(drawn), [2.5, 97.5])
        return float(low), float(high)

    def _is_share(self) -> bool:
        tops, bottoms = self._sums.T
        return bool((bottoms == 1).all() and np.isin(tops, (0, 1)).all())

    def at(self, indices: Iterable[int]) -> "Parts":
        """Return what some samples add. One that does not count adds nothing."""
        found = {index: (top, bottom) for index, (top, bottom) in zip(self.indices, self._sums.tolist(), strict=True)}
        return Parts({index: found.get(index, (0.0, 0.0)) for index in indices})

    def shared_with(self, other: "Parts") -> set[int]:
        """Return the samples that both models have answered and that count for one of them."""
        return {*self.indices, *other.indices} & self.answered & other.answered

    def compared_with(self, other: "Parts", seed: int) -> "Comparison":
        """Compare with the scores of another model on the samples that are shared with it, of which there must be one.

        The probability is that of an exchange test: if the models were alike, the scores of each sample could as well
        be those of the other model.
        """
        shared = self.shared_with(other)
        mine, theirs = self.at(shared), other.at(shared)
        difference = theirs.value() - mine.value()
        generator, extreme, each = np.random.default_rng(seed), 0, max(1, _CHUNK // max(1, len(shared)))
        drawn: list[np.ndarray] = []
        count = len(shared)
        for start in range(0, ROUNDS, each):
            rounds = min(each, ROUNDS - start)
            swapped = generator.random((rounds, count)) < 0.5
            gap = theirs._sums - mine._sums
            one = mine._sums.sum(0) + swapped @ gap
            two = theirs._sums.sum(0) - swapped @ gap
            extreme += int((np.abs(_ratio(two) - _ratio(one)) >= abs(difference) - 1e-12).sum())
            times = generator.multinomial(count, np.full(count, 1 / count), size=rounds)
            drawn.append(_ratio(times @ theirs._sums) - _ratio(times @ mine._sums))
        low, high = np.percentile(np.concatenate(drawn), [2.5, 97.5])
        return Comparison(difference, float(low), float(high), (extreme + 1) / (ROUNDS + 1), count)


class Comparison(NamedTuple):
    difference: float
    """The figure of the other model minus that of this one."""
    low: float
    high: float
    """The 95 % interval of the difference."""
    probability: float
    """How often chance alone gives a difference as large."""
    samples: int


def _ratio(sums: np.ndarray) -> np.ndarray:
    """Return numerators over denominators, which are last in `sums`. Without anything to count it is 0."""
    bottom = sums[..., 1]
    return np.divide(sums[..., 0], bottom, out=np.zeros_like(bottom), where=bottom != 0)


def _by_entry(rows: Iterable[Row]) -> dict[str, list[Row]]:
    entries: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        entries[row["entry"]].append(row)
    return entries
