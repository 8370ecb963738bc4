"""Adds an evaluation to the W&B run of the run that is evaluated."""

from pathlib import Path

from qwenvl_train.config.inference import run_folder_of
from qwenvl_train.evaluation.scoring import named_figures
from qwenvl_train.reporting.attached import AttachedRun, Evaluation
from qwenvl_train.run.lock import refuse_in_use
from qwenvl_train.step_folders import step_of
from qwenvl_train.verbs.eval.answers import digest_of
from qwenvl_train.verbs.eval.results import Results
from qwenvl_train.verbs.eval.settings import EvalVerbConfig


def wandb_run(config: EvalVerbConfig) -> AttachedRun | None:
    """Return the W&B run of `run` if eval.wandb asks for it. Raise UserError if there is none."""
    if not config.eval.wandb:
        return None
    assert config.run is not None
    folder = run_folder_of(config.run)
    refuse_in_use("eval.wandb", folder)
    return AttachedRun("eval.wandb", folder, config.logging.wandb)


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
        answers=[{**one.row, "scores": {"answer": one.figures()}} for one in results.worst()],
    )
