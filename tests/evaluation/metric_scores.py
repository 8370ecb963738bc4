"""Scores answers, for the tests of metrics."""

from collections.abc import Iterable

from qwenvl_train.evaluation.metrics.metric import Question, figures
from qwenvl_train.evaluation.metrics.table import load_metric


def score(metric: str, answer: str, expected: str, **question) -> dict[str, float]:
    """The scores of one answer, by the name of the sub-score."""
    found = load_metric(metric).score(answer, expected, Question(**question))
    return {name: part.value for name, part in found.items()}


def main(metric: str, answer: str, expected: str, **question) -> float:
    """The main score of one answer."""
    return next(iter(score(metric, answer, expected, **question).values()))


def of_source(metric: str, pairs: Iterable[tuple[str, str]]) -> dict[str, float]:
    """The figures of a source, from its answers and the expected ones."""
    return figures(load_metric(metric).score(answer, expected) for answer, expected in pairs)
