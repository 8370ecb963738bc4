"""Adds what verbs find later, scores and exports, to the W&B run of a finished run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwenvl_train.config.schema import WandbConfig
from qwenvl_train.errors import UserError
from qwenvl_train.reporting.recorded import read_run
from qwenvl_train.reporting.reporter import Row, RunInfo
from qwenvl_train.reporting.wandb import EVALUATIONS, ID_FILE, WandbRun

EXPORTS = "exports"
"""The section of the facts about exports."""


@dataclass(frozen=True)
class Evaluation:
    """The scores of a checkpoint on some samples."""

    step: int
    """That of the checkpoint."""
    asked: str
    """A digest of the samples and of how they are asked. Only evaluations with the same one can be compared."""
    facts: Row
    """What the digest stands for."""
    figures: dict[str, dict[str, float]]
    """The figures of each entry of data.eval, by metric."""
    answers: list[Row]
    """The answers to show, as rows of predictions.jsonl."""


@dataclass(frozen=True)
class Export:
    folder: Path
    step: int
    name: str
    """Its form and the type of its weights, such as merged-bf16."""
    facts: Row


class AttachedRun:
    """The W&B run of a run folder.

    Raises:
        UserError: If the run has none, or if it must be online and there is no login.
    """

    def __init__(self, key: str, folder: Path, config: WandbConfig, say: Callable[[str], None] = print):
        """`key` is the setting that asks for it."""
        if not (folder / ID_FILE).is_file():
            raise UserError(f"{key}=true: {folder} was not tracked by W&B: it has no {ID_FILE}; leave {key} out.")
        self._folder, self._config = folder, config
        self._recorded = read_run(folder)
        self._reporter = WandbRun(config, say)

    def add_evaluation(self, found: Evaluation) -> None:
        """Add the figures at the step of the checkpoint, under a name for each entry and each way of asking, so that no
        evaluation writes over another one and those of several checkpoints are one curve."""
        named = {
            f"{EVALUATIONS}/{entry}-{found.asked}/{metric}": value
            for entry, figures in found.figures.items()
            for metric, value in figures.items()
        }
        entry = next(iter(found.figures)) if len(found.figures) == 1 else "all"
        self._start(found.step)
        if found.answers:
            self._reporter.send_answers(f"answers/{entry}-{found.asked}", found.step, found.answers)

        def last(run: Any) -> None:
            run.config.update({f"evaluation_{found.asked}": found.facts}, allow_val_change=True)
            run.log({"step": found.step, **named})

        self._close(last)

    def add_export(self, made: Export) -> None:
        """Add the facts about an export, and the export itself as an artifact if logging.wandb.artifacts asks for
        models."""
        name = self._start(made.step)
        if self._config.artifacts != "none":
            facts = {"step": made.step, **made.facts}
            self._reporter.send_model(f"{name}-{made.name}", made.folder, facts, [f"step-{made.step}"])
        facts = {f"{EXPORTS}/step-{made.step}/{made.name}/{key}": value for key, value in made.facts.items()}
        self._close(lambda run: run.summary.update(facts))

    def _start(self, step: int) -> str:
        """Open the run, and return its name."""
        recorded, name = self._recorded, self._folder.resolve().name
        lineage = recorded.environment.get("model", {})
        steps = recorded.summary.get("steps", step)
        self._reporter.start(
            RunInfo(name, self._folder, recorded.config, recorded.components, steps, max(step, 1), lineage)
        )
        return name

    def _close(self, last: Callable[[Any], None]) -> None:
        self._reporter.close(lambda: last(self._reporter.opened), succeeded=self._recorded.status == "done")
