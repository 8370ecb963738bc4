"""The results of an evaluation: the scores of each model, and how the models compare."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.answering import Row
from qwenvl_train.evaluation.episodes import with_episodes
from qwenvl_train.evaluation.metrics.metric import Metric
from qwenvl_train.evaluation.scoring import (
    Chosen,
    Comparison,
    Figure,
    Parts,
    ScoredRow,
    choose_metrics,
    figures_of,
    load_metrics,
    metrics_of_entries,
    score,
)
from qwenvl_train.reporting.folder import plain, write_json_atomic
from qwenvl_train.verbs.eval.answers import Answers
from qwenvl_train.verbs.eval.settings import EvalVerbConfig


@dataclass(frozen=True)
class ModelResults:
    answers: Answers
    scored: list[ScoredRow]
    figures: list[Figure]

    @property
    def cut(self) -> int:
        """Number of answers that were cut at eval.max_new_tokens."""
        return sum(not row["ended"] for row in self.answers.rows)


@dataclass(frozen=True)
class Difference:
    """How a model of eval.compare differs from the first one in a figure."""

    figure: Figure
    """The figure of the first model."""
    model: str
    comparison: Comparison


@dataclass(frozen=True)
class Results:
    config: EvalVerbConfig
    models: list[ModelResults]
    chosen: dict[str, Chosen]
    """The metrics of each entry of data.eval."""
    metrics: dict[str, Metric]
    differences: list[Difference]

    @property
    def first(self) -> ModelResults:
        return self.models[0]

    def worst(self) -> list[ScoredRow]:
        """Return the answers of the first model with the lowest scores, by the first metric of each that scores it."""
        return sorted(self.first.scored, key=self._goodness)[: self.config.eval.worst]

    def without_figure(self) -> dict[str, list[str]]:
        """Return the metrics that have nothing to score in any answer of the first model, by entry."""
        found = {(figure.entry, figure.metric) for figure in self.first.figures}
        idle = {
            entry: [name for name in one.metrics if (entry, name) not in found] for entry, one in self.chosen.items()
        }
        return {entry: names for entry, names in idle.items() if names}

    def _goodness(self, one: ScoredRow) -> list[float]:
        """Return the main score of each metric, higher ones for better answers. An answer without one is last."""
        parts = {name: next(iter(found.values())).value for name, found in one.scores.items()}
        found = [value if self.metrics[name].higher_is_better else 1 - value for name, value in parts.items()]
        return found or [math.inf]

    def as_dict(self) -> dict[str, Any]:
        """Return the results as plain data, as scores.json and output=json have them."""
        return plain(
            {
                "model": self.first.answers.model,
                "samples": len({row["index"] for row in self.first.answers.rows}),
                "answers": len(self.first.answers.rows),
                "generated": self.first.answers.generated,
                "seconds": round(self.first.answers.seconds, 3),
                "cut": self.first.cut,
                "problems": [problem.as_dict() for problem in self.first.answers.problems],
                "metrics": {entry: {"names": one.metrics, "reason": one.reason} for entry, one in self.chosen.items()},
                "nothing_to_score": self.without_figure(),
                "conventions": {name: metric.convention for name, metric in self.metrics.items()},
                "scores": [_figure(figure) for figure in self.first.figures],
                "compare": [
                    {
                        "model": other.answers.model,
                        "scores": [_figure(figure) for figure in other.figures],
                        "differences": [
                            _difference(one) for one in self.differences if one.model == other.answers.model
                        ],
                    }
                    for other in self.models[1:]
                ],
                "predictions": self.first.answers.folder.answers,
            }
        )


def _figure(figure: Figure) -> dict[str, Any]:
    return figure._asdict() | {key: round(getattr(figure, key), 6) for key in ("value", "low", "high")}


def _difference(one: Difference) -> dict[str, Any]:
    facts = {"entry": one.figure.entry, "metric": one.figure.metric, "name": one.figure.name}
    return facts | {key: round(value, 6) for key, value in one.comparison._asdict().items()}


def results_of(config: EvalVerbConfig, answers: Sequence[Answers]) -> Results:
    """Score the answers of all models, and write the predictions and the scores of each to its folder."""
    first = answers[0]
    if not first.rows:
        raise UserError(f"data.eval: no sample could be answered; the first problem: {first.problems[0].reason}")
    chosen = choose_metrics(first.rows, config.eval.metrics, metrics_of_entries(config.data))
    metrics = load_metrics(chosen)
    models = []
    for one in answers:
        scored = with_episodes(score(one.rows, chosen, metrics, one.family), metrics)
        models.append(ModelResults(one, scored, figures_of(scored, metrics, config.seed)))
    differences = [
        found
        for other in models[1:]
        for figure in models[0].figures
        if (found := _compared(models[0], other, figure, config.seed))
    ]
    results = Results(config, models, chosen, metrics, differences)
    for model in models:
        with model.answers.folder.finishing() as add:
            add(map(_with_scores, model.scored))
    write_json_atomic(first.folder.path / "scores.json", results.as_dict())
    return results


def _with_scores(one: ScoredRow) -> Row:
    return {**one.row, "scores": one.plain()}


def _compared(first: ModelResults, other: ModelResults, figure: Figure, seed: int) -> Difference | None:
    """Return how a model differs from the first one, or None if no sample of both counts."""
    mine, theirs = (
        Parts.of([one for one in model.scored if figure.entry in ("all", one.row["entry"])], figure.metric, figure.name)
        for model in (first, other)
    )
    if not mine.shared_with(theirs):
        return None
    return Difference(figure, other.answers.model, mine.compared_with(theirs, seed))
