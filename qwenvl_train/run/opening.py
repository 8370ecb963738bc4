"""Opens a run: its processes, processor, data and starting point. Nothing is written to the run folder, and no weights
are read, so mistakes in the user's input are reported early."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from accelerate import PartialState

from qwenvl_train.config.compose import Composed
from qwenvl_train.config.schema import RunConfig
from qwenvl_train.data.batches.loader import Rows
from qwenvl_train.data.order.step_size import FirstStart, MicroStep, StepSize
from qwenvl_train.data.render.renderer import Renderer
from qwenvl_train.evaluation.scoring import check_metrics
from qwenvl_train.families.family import Family
from qwenvl_train.model.attention import refuse_kernel
from qwenvl_train.model.build import refuse_what_needs_a_gpu
from qwenvl_train.model.processor import load_processor
from qwenvl_train.model.sharded import refuse_sharded
from qwenvl_train.model.stored_adapter import whole_model, with_stored_lora
from qwenvl_train.reporting.console import print_line
from qwenvl_train.reporting.metrics import MetricsFile
from qwenvl_train.reporting.progress import ProgressReporter
from qwenvl_train.reporting.reporter import Reporter
from qwenvl_train.reporting.tensorboard import TensorBoardRun
from qwenvl_train.reporting.wandb import WandbRun
from qwenvl_train.run.context import RunContext
from qwenvl_train.run.held_out import overlap_in_words
from qwenvl_train.run.lock import locked
from qwenvl_train.run.resume import (
    ResumePoint,
    checkpoint_to_resume,
    facts_of_start,
    first_start_of,
    refuse_changes,
)
from qwenvl_train.run.rows import make_renderer
from qwenvl_train.run.training_data import MeasuredData, TrainingData, open_data
from qwenvl_train.step_folders import step_of
from qwenvl_train.training.distributed.cpu_group import CpuGroup
from qwenvl_train.training.distributed.store import agree, call_on_main
from qwenvl_train.training.distributed.zero import refuse_missing_nvme
from qwenvl_train.training.patience import evaluations_without_improvement


@dataclass
class RunData:
    """The data that a run trains on, and the data that it is evaluated on."""

    train: TrainingData
    held_out: Rows | None
    steps: int
    rows_per_step: int
    overlap: str
    """A line that counts what is trained on and held out alike. It is empty if there is nothing."""


@dataclass(frozen=True)
class StartingPoint:
    """The run folder, and where the run resumes."""

    folder: Path
    config: RunConfig
    """The configuration as the user wrote it, in which auto is not fitted to the data."""
    facts: dict[str, Any]
    """Values that the loss curve depends on but that are not in the configuration."""
    recipe: str | None
    changes: Mapping[str, tuple[object, object]]
    """The settings that differ from those of the recipe, with the values of both."""
    point: ResumePoint

    @property
    def checkpoint(self) -> Path | None:
        return self.point.path

    @property
    def staging(self) -> Path:
        """The folder where checkpoints are written before they are complete."""
        return self.folder / ".staging"

    @property
    def universal(self) -> Path:
        """The folder of a checkpoint of another number of processes in DeepSpeed's universal form."""
        return self.staging / "universal"

    @property
    def step(self) -> int:
        return step_of(self.checkpoint) if self.checkpoint else 0


@dataclass
class OpenedRun:
    context: RunContext
    data: RunData
    start: StartingPoint
    reporters: list[Reporter]

    @property
    def is_finished(self) -> bool:
        return self.start.step >= self.data.steps or self._has_lost_patience()

    def _has_lost_patience(self) -> bool:
        """Return whether train.patience ended the run at the checkpoint."""
        train = self.context.config.train
        if train.patience is None or self.start.checkpoint is None:
            return False
        state = json.loads((self.start.checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        return evaluations_without_improvement(state["log_history"], train.best_metric) >= train.patience


def run_folder(composed: Composed[RunConfig], state: PartialState) -> Path:
    """Return the folder of a run. If the run has no name, each call returns another one."""
    config = composed.config
    return Path(config.output_dir) / agree(state, config.run_name or _new_name(composed.recipe, config.method))


@contextmanager
def locked_folder(composed: Composed[RunConfig], state: PartialState) -> Iterator[Path]:
    """Yield the folder of a run, which the main process has locked. Raise UserError on all processes if another run
    uses it."""
    folder = run_folder(composed, state)
    with ExitStack() as stack:
        call_on_main(state, lambda: stack.enter_context(locked(folder)))
        yield folder


def open_run(
    composed: Composed[RunConfig], folder: Path, family: Family, precision: str, state: PartialState
) -> OpenedRun:
    config = with_stored_lora(composed.config, composed.given)
    composed = replace(composed, config=config)
    refuse_sharded(whole_model(config.model))
    refuse_kernel(config.train.attention, precision)
    refuse_what_needs_a_gpu(config)
    refuse_missing_nvme(config.deepspeed)
    if config.data.eval is not None and (config.eval.generate or config.logging.predictions):
        check_metrics(config.eval, config.data)
    reporters = _reporters(config, state)  # a missing W&B login is reported here, before slow work
    processor = load_processor(config.model, family)
    renderer = make_renderer(config, processor, family)
    point = _resume_point(config, folder, state)
    checkpoint = point.path
    first = _first_start(checkpoint, state)
    data = _open_data(config, renderer, state, first)
    config = data.train.config
    now = FirstStart(StepSize.of(config), MicroStep.of(config, state.num_processes))
    facts = {"precision_used": precision} | facts_of_start(now) | data.train.facts
    if checkpoint is not None:
        refuse_changes(composed.config, facts, checkpoint)
    facts |= facts_of_start(first or now)
    start = StartingPoint(folder, composed.config, facts, composed.recipe, composed.changes(), point)
    context = RunContext(config, family, processor, renderer, precision, state, CpuGroup(state.num_processes))
    return OpenedRun(context, data, start, reporters)


def _open_data(config: RunConfig, renderer: Renderer, state: PartialState, first: FirstStart | None) -> RunData:
    train, held_out = open_data(config, renderer, state, first)
    rows_per_step = train.config.accumulation * state.num_processes
    warning = ""
    if state.is_main_process and held_out and isinstance(train, MeasuredData) and config.data.eval_share is None:
        warning = overlap_in_words(config, train.rows, held_out)
    return RunData(train, held_out, train.steps(rows_per_step), rows_per_step, agree(state, warning))


def _resume_point(config: RunConfig, folder: Path, state: PartialState) -> ResumePoint:
    """Return where the run resumes, as the main process sees it. Only one process reads the checkpoints, because they
    may be large."""
    found = call_on_main(state, lambda: checkpoint_to_resume(config, folder))
    return ResumePoint(*json.loads(agree(state, json.dumps(found))))


def _first_start(checkpoint: Path | None, state: PartialState) -> FirstStart | None:
    """Return the size of the steps at the first start of the run that wrote the checkpoint."""
    stored = json.loads(agree(state, json.dumps(first_start_of(checkpoint) if checkpoint else None)))
    return stored and FirstStart(StepSize(*stored[0]), MicroStep(*stored[1]))


def _reporters(config: RunConfig, state: PartialState) -> list[Reporter]:
    if not state.is_main_process:
        return []
    wandb = [] if config.logging.wandb.mode == "disabled" else [WandbRun(config.logging.wandb, print_line)]
    tensorboard = [TensorBoardRun()] if config.logging.tensorboard else []
    return [MetricsFile(), ProgressReporter(), *tensorboard, *wandb]


def _new_name(recipe: str | None, method: str) -> str:
    return f"{Path(recipe or method).name}-{datetime.now():%Y%m%d-%H%M%S}"
