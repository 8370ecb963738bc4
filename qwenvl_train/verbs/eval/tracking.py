"""Adds an evaluation to the W&B run of the run that is evaluated."""

from pathlib import Path

from qwenvl_train.evaluation.scoring import named_figures
from qwenvl_train.reporting.attached import Evaluation
from qwenvl_train.step_folders import step_of
from qwenvl_train.verbs.eval.answers import digest_of
from qwenvl_train.verbs.eval.results import Results


def evaluation_of(results: Results) -> Evaluation:
    """Return what W&B gets of the first model, which is that of the run."""
    config, first = results.config, results.first
    figures: dict[str, dict[str, float]] = {}
    for (entry, name), figure in named_figures(first.figures).items():
        figures.setdefault(entry, {})[name] = figure.value
    data = config.data.eval if isinstance(config.data.eval, str) else [one.path for one in config.data.eval_entries]
    return Evaluation(
        step=step_of(Path(first.answers.model)),
        asked=digest_of(first.answers.asked),
        facts=first.answers.asked | {"data": data},
        figures=figures,
        answers=[
            {**one.row, "scores": {"answer": one.figures()}, "right": {"answer": one.right}} for one in results.worst()
        ],
    )
