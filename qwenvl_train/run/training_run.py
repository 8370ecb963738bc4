"""A training run that is ready: the training itself, and what it tells and writes."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from socket import gethostname
from typing import Any

import torch
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, ProcessorMixin

from qwenvl_train.config.best import about_best, about_patience, about_unscored
from qwenvl_train.config.paths import with_absolute_paths
from qwenvl_train.errors import UserError, message_of
from qwenvl_train.files import is_full_disk
from qwenvl_train.model.build import (
    about_fp16,
    about_liger,
    base_model,
    suggest_liger,
)
from qwenvl_train.model.linear_attention import about_missing_kernels
from qwenvl_train.model.weights_only import only_weights, reason_of_refusal
from qwenvl_train.reporting.console import print_line
from qwenvl_train.reporting.folder import RunFolder
from qwenvl_train.reporting.progress import print_components
from qwenvl_train.reporting.run_log import RunLog, log_file
from qwenvl_train.reporting.wording import figure, label
from qwenvl_train.run.context import RunContext
from qwenvl_train.run.lineage import in_words
from qwenvl_train.run.lock import locked
from qwenvl_train.run.opening import RunData, StartingPoint
from qwenvl_train.run.recorder import Recorder
from qwenvl_train.run.resume import DAMAGED, about_damaged
from qwenvl_train.step_folders import saved
from qwenvl_train.training.broken_steps import BrokenRun
from qwenvl_train.training.disk_space import NoRoom
from qwenvl_train.training.distributed.store import agree
from qwenvl_train.training.distributed.universal import converted, needs_conversion
from qwenvl_train.training.distributed.watch import Watch, naming_lost_processes
from qwenvl_train.training.distributed.workers import naming_dead_workers
from qwenvl_train.training.distributed.zero import nvme_folder, remove
from qwenvl_train.training.full_memory import naming_full_memory, plan_command
from qwenvl_train.training.interrupt import StopOnSignal
from qwenvl_train.training.meter import Meter
from qwenvl_train.training.patience import Patience
from qwenvl_train.training.skipped import Skipped, UnusableRows
from qwenvl_train.training.trainer import VisionTrainer


@dataclass
class Run:
    """A run that is ready to train."""

    context: RunContext
    data: RunData
    start: StartingPoint
    model: PreTrainedModel | PeftModel
    trainer: VisionTrainer
    recorder: Recorder
    meter: Meter
    stop: StopOnSignal
    skipped: Skipped
    patience: Patience | None

    @property
    def folder(self) -> Path:
        return self.start.folder

    @property
    def processor(self) -> ProcessorMixin:
        return self.context.processor

    def train_dataloader(self) -> DataLoader:
        """Return a loader of the packed rows of this process, from the step at which the run starts. Each item is a
        Batch, with its `contents`, `problems` and `origins`."""
        return self.trainer.get_train_dataloader()

    def loss(self, row: dict[str, Any]) -> torch.Tensor:
        """Return the loss of one packed row alone: the mean over its learned tokens, or over its preference pairs. A
        training step divides by the counts of all its rows instead."""
        return self.trainer.loss_of_row(row)

    def train(self, log: RunLog | None = None) -> int | None:
        """Train from the starting point to the last step, and write the run folder. Return the number of the signal
        that ended the run early, if there was one. With a log, what happened before is written to log.txt, too."""
        folder_lock = locked(self.folder) if self.context.is_main else nullcontext()
        with nullcontext(log) if log else RunLog() as log, folder_lock:
            watch = Watch(self.context.state, self.context.config.train.stall_seconds, self._advice)
            # Every pass, in training, evaluation or generation, goes through the language model.
            language_model = base_model(self.model).get_submodule(self.context.family.language_path)
            hook = language_model.register_forward_pre_hook(watch.progress)
            try:
                with watch:
                    return self._train(log)
            finally:
                hook.remove()
                remove(nvme_folder(self.context.config.deepspeed, self.folder.name), self.context.state)

    def _train(self, log: RunLog) -> int | None:
        self.stop.catch()
        state, trainer, stop, resumed = self.context.state, self.trainer, self.stop, self.start.checkpoint
        state.wait_for_everyone()  # until all have read the content of the folder
        log.open(log_file(self.folder, agree(state, gethostname())))
        if self.context.is_main:
            self._open_folder()
            self.skipped.write()
            self._introduce()
        state.wait_for_everyone()
        self.recorder.start()
        self.meter.start()
        try:
            remedy = partial(plan_command, self.folder / "config.yaml", self.context.processes)
            full_memory = naming_full_memory(lambda: trainer.window, remedy)
            lost = naming_lost_processes(self._advice)
            with naming_dead_workers(), lost, full_memory, self._reading_only_weights(), trainer.publishing():
                if resumed and needs_conversion(resumed, self.context.processes):
                    resumed = converted(resumed, self.start.universal, state)
                trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        except UserError as error:
            stop.restore()
            error.on_every_process = isinstance(error, UnusableRows | NoRoom | BrokenRun)
            self._finish("failed", message_of(error))
            raise
        except BaseException as error:
            stop.restore()
            if is_full_disk(error):
                raise self._ended_by_full_disk() from error
            self._finish("interrupted" if isinstance(error, KeyboardInterrupt) else "failed", repr(error))
            raise
        stop.has_saved()
        before_last = trainer.state.global_step < self.data.steps
        ended_early = self.patience is not None and self.patience.ended_at is not None and before_last
        cut_short = stop.received is not None and before_last and not ended_early
        if ended_early:
            self.recorder.answer_for_report(trainer)
        reason = about_patience(self.context.config, self.data.steps) if ended_early else None
        report = self._finish("interrupted" if cut_short else "done", reason)
        if self.context.is_main:
            shutil.rmtree(self.start.staging, ignore_errors=True)
            if reason:
                print_line(reason)
            self._conclude(report)
            if cut_short:
                print_line(f"to resume: the same command with run_name={self.start.folder.name}")
        state.wait_for_everyone()  # a launcher ends the others when one process exits early
        stop.restore()
        return stop.received if cut_short else None

    @contextmanager
    def _reading_only_weights(self) -> Iterator[None]:
        """Raise UserError if a file of the checkpoint would run code when it is read."""
        try:
            with only_weights(deepspeed=self.context.config.deepspeed.stage > 0):
                yield
        except (UnpicklingError, RuntimeError) as error:
            if self.start.checkpoint is None or (reason := reason_of_refusal(error)) is None:
                raise
            raise UserError(
                f"train.resume: {self.start.checkpoint} was not read: {reason}. Resume from another checkpoint, or "
                "choose another run_name."
            ) from error

    def _advice(self) -> str:
        """Return how to go on after the run has ended early."""
        checkpoints = saved(self.folder / "checkpoints")
        if not checkpoints:
            return "The run has no checkpoint yet; start the same command again."
        return f"Start the same command with run_name={self.folder.name} to go on from {checkpoints[-1].name}."

    def _open_folder(self) -> None:
        info, folder = self.recorder.info, RunFolder(self.start.folder)
        folder.write_config(with_absolute_paths(self.start.config.model_dump(mode="json"), Path.cwd()))
        gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        facts = {
            "model": info.lineage,
            "recipe": self.start.recipe,
            "changes": dict(self.start.changes),
            "steps": self.data.steps,
            "overlap": self.data.overlap,
            "forecast": asdict(info.forecast),
        }
        folder.write_environment(gpus, self.start.facts, facts, self.start.step)
        folder.write_components(info.components)
        (folder.path / "summary.json").unlink(missing_ok=True)  # of the run as it ended before
        # A checkpoint that a killed run was writing is incomplete.
        shutil.rmtree(self.start.staging, ignore_errors=True)
        for path in map(Path, self.start.point.damaged):
            path.rename(path.with_name(DAMAGED + path.name))

    def _introduce(self) -> None:
        config, data = self.context.config, self.data
        about = data.train.about(data.held_out, data.steps, data.rows_per_step)
        lines = (about, data.overlap, in_words(self.recorder.info.lineage), about_damaged(self.start.point))
        for line in lines:
            if line:
                print_line(line)
        print_components(self.recorder.info.components)
        liger = about_liger(self.model, self.context.family) if config.train.liger else suggest_liger(config)
        kernels = about_missing_kernels(self.context.family)
        precision = about_fp16(config, self.context.precision)
        for line in (liger, kernels, precision, about_unscored(config), about_best(config, data.steps)):
            if line:
                print_line(line)

    def _conclude(self, report: Path | None) -> None:
        newest, best = self.recorder.checkpoint, self.recorder.best()
        print_line(f"checkpoint  {newest}")
        if best and best["checkpoint"] != newest:
            metric = best["metric"]
            score = f"{label(metric)} {figure(metric, best[metric])}"
            print_line(f"best        {best['checkpoint']} (held-out {score})")
        print_line(f"report      {report}")

    def _ended_by_full_disk(self) -> UserError:
        """Record that the run failed, as far as the disk has room, and return the error."""
        reason = (
            f"{self.folder}: the disk is full. The run ended after step {self.trainer.state.global_step}; free some "
            f"space, then start the same command with run_name={self.folder.name}."
        )
        with suppress(OSError):
            shutil.rmtree(self.start.staging, ignore_errors=True)  # an incomplete checkpoint takes the last room
            self._finish("failed", reason)
        error = UserError(reason)
        error.on_every_process = False
        return error

    def _finish(self, status: str, reason: str | None = None) -> Path | None:
        step = max(self.trainer.state.global_step, self.start.step)
        return self.recorder.finish(status, self.meter.totals(step), reason)
