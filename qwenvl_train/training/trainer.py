"""The trainer, a subclass of the transformers Trainer: it reads packed rows, computes the loss of an objective, and
writes complete checkpoints.

The loss is a sum, divided by counts over the accumulation window and all processes, so that it does not depend on how a
batch is split. This module also adds the loading of packed rows, the learning rates per component, the evaluation on
held-out samples, and the checkpoints. A step never waits for the device (except for the gradient norm that DeepSpeed
returns). Figures are copied from the device only when metrics are logged.
"""

import json
import time
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import AutocastKwargs, send_to_device
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.utils import ADAPTER_SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_NAME
from trl.models import get_act_offloading_ctx_manager

from qwenvl_train.data.batches.loader import ignore_terminal_signals, only_row
from qwenvl_train.errors import UserError
from qwenvl_train.evaluation.loop import eval_loader, evaluate
from qwenvl_train.model.load import shapes_before_sharding
from qwenvl_train.model.processor_files import add_older_files
from qwenvl_train.reporting.checkpoints import EVALUATION
from qwenvl_train.reporting.folder import write_json_atomic
from qwenvl_train.step_folders import saved
from qwenvl_train.training.broken_steps import BrokenSteps, with_broken_gradient
from qwenvl_train.training.checkpoint import PROGRESS, STREAM, CheckpointPublisher
from qwenvl_train.training.component_norms import ComponentNorms
from qwenvl_train.training.devices import peak_memory_gib
from qwenvl_train.training.disk_space import NoRoom, about_missing_space
from qwenvl_train.training.meter import Counts, Meter
from qwenvl_train.training.optim import build_optimizer, keep_masters, parameter_groups, round_trained
from qwenvl_train.training.trainer_inputs import TrainerData, TrainerRecords, TrainerSetup
from qwenvl_train.training.window import MicroBatch, Window


class VisionTrainer(Trainer):
    """The trainer for every objective."""

    # The loss is divided by counts over the whole accumulation window, so the transformers Trainer must not divide it
    # again by the number of micro-batches.
    loss_is_scaled_for_ga = True
    optimizer: torch.optim.Optimizer | None
    control: TrainerControl

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        arguments: TrainingArguments,
        setup: TrainerSetup,
        data: TrainerData,
        records: TrainerRecords,
    ):
        super().__init__(
            model,
            arguments,
            only_row,
            train_dataset=data.train,
            # The transformers Trainer requires an eval_dataset for evaluation, but `evaluate` below reads held_out.
            eval_dataset=data.train if data.held_out else None,
            processing_class=setup.processor,
        )
        # Gradients are views of the buckets that DDP reduces, instead of copies beside them.
        self.accelerator.ddp_handler.gradient_as_bucket_view = True
        self.accelerator.autocast_handler = AutocastKwargs(cache_enabled=False)  # as in model/autocast.py
        self.remove_callback(PrinterCallback)
        self.add_callback(_Clock(records.meter))
        self.add_callback(_Intervals())
        if getattr(self.model, "is_loaded_in_4bit", False):
            round_trained(self.model)
        if not self.is_deepspeed_enabled:  # DeepSpeed keeps float32 copies of its own
            keep_masters(self.model)
        self._offloading: AbstractContextManager = nullcontext()
        if setup.config.train.offload_activations:
            # Only now, because it identifies weights by their address, which the functions above change.
            self._offloading = get_act_offloading_ctx_manager(self.model)
        self._config, self._family = setup.config, setup.family
        self._objective, self._cpu_group = setup.objective, setup.cpu_group
        self._stream, self._held_out, self._skipped = data.stream, data.held_out, data.skipped
        self._meter, self._flops = records.meter, records.flops
        self._checkpoints, self._hooks = records.checkpoints, records.hooks
        self._checkpoint_bytes = records.checkpoint_bytes
        self._publisher = CheckpointPublisher(records.checkpoints, setup.config.train, records.hooks.saved)
        self._evaluated: tuple[int, dict[str, Any]] = (-1, {})
        """The step and the metrics of the last evaluation."""
        self.group_settings: list[dict[str, Any]] = []
        """The settings of each group of parameters, from the time that the optimizer is made."""
        self.window = Window(0, [])
        self._broken_steps = BrokenSteps(setup.config.train.on_nan, self.accelerator, setup.cpu_group)
        self._component_norms = ComponentNorms(self.accelerator)
        self.add_callback(self._component_norms)
        self._objective.prepare(self.accelerator)

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Wait until the last checkpoint is published, when the block ends or raises."""
        try:
            yield
        finally:
            self._publisher.wait()

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            groups = parameter_groups(model or self.model, self._family, self._config)
            self.group_settings = [{key: group[key] for key in group if key != "params"} for group in groups]
            self.optimizer = build_optimizer(groups, self._config.optim)
        return self.optimizer

    def get_train_dataloader(self) -> DataLoader:
        if self._stream is None:
            loader = super().get_train_dataloader()
            # Replaces the seeding of workers, because packed rows need no random numbers.
            loader.base_dataloader.worker_init_fn = ignore_terminal_signals
            # _prepare_inputs copies rows to the device. After a resume, accelerate would wait for each copy.
            loader.device = None
            return loader
        return self._stream.loader(
            rows=self._rows_before(self.args.max_steps),
            workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            # All processes leave out the same samples, so only the main process reports them.
            report=self._skipped.record if self.accelerator.is_main_process else lambda problems: None,
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], torch.Tensor]:
        """Return the packed rows of one step on this process, and the divisors of the step's loss. Share samples that
        could not be decoded with all processes."""
        started = time.perf_counter()
        rows = list(islice(epoch_iterator, num_batches))
        counts = Counts(waited=round(1e6 * (time.perf_counter() - started)))
        self.window = Window(self.state.global_step + 1, [])
        self._broken_steps.begin(self._tr_loss)
        for row in rows:
            contents = row.pop("contents")
            self.window.micro_batches.append(MicroBatch(contents, row.pop("origins")))
            counts = counts.plus(Counts.of(contents, self._flops.training(contents).total))
            self._skipped.record(row.pop("problems"))
        *sums, unshared = self._cpu_group.sum([*counts, self._skipped.unshared])
        if unshared:
            self._skipped.share(self._cpu_group, self.accelerator.is_main_process)
        totals = Counts(*sums)
        self._meter.took(self.state.global_step + 1, totals)
        divisors = [torch.full((), max(count, 1), device=device) for count in self._objective.divisors(totals)]
        return rows, torch.stack(divisors)

    def training_step(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        with self._offloading:
            loss = super().training_step(*arguments, **keywords)
        self.window.losses.append(loss)
        return loss

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> torch.Tensor | float:
        """Return the norm of the gradient. The transformers Trainer calls this before each step of the optimizer."""
        norm = super()._get_grad_norm(model, grad_norm)
        self._component_norms.before_update(norm)
        self._broken_steps.before_update(self.window, norm, self.optimizer, self._tr_loss)
        return norm

    def _maybe_log_save_evaluate(self, *arguments: Any, **keywords: Any) -> None:
        """Look for broken steps after each step, and before what follows it."""
        self._publisher.check()
        control, step = self.control, self.state.global_step
        everything = control.should_log or control.should_save or control.should_evaluate
        for broken in self._broken_steps.found(step, everything or control.should_training_stop):
            self._meter.skipped_step()
            if self.is_deepspeed_enabled and not self.args.fp16:
                self.lr_scheduler.step()  # left out by the transformers Trainer where DeepSpeed left out the step
            self._hooks.broken(self, broken)
        self._steps_to_log = step - self._globalstep_last_logged
        super()._maybe_log_save_evaluate(*arguments, **keywords)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        assert num_items_in_batch is not None
        # Gradients are averaged over processes. The factor turns the average into a sum.
        loss = self._objective.loss(model, inputs, num_items_in_batch) * self.accelerator.num_processes
        return with_broken_gradient(loss)

    def loss_of_row(self, row: dict[str, Any]) -> torch.Tensor:
        """Return the loss of one packed row, as the loader returns it, divided by the counts of this row alone."""
        batch = {key: value for key, value in row.items() if key not in ("contents", "problems", "origins")}
        counts = Counts.of(row["contents"], 0)
        divisors = torch.tensor([max(count, 1) for count in self._objective.divisors(counts)], device=self.args.device)
        with self.compute_loss_context_manager():
            return self._objective.loss(self.model_wrapped, self._prepare_inputs(batch), divisors)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0. The formula of the transformers Trainer ignores pictures, and visits all weights in each pass."""
        return 0

    @torch.no_grad()
    def evaluate(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Return the metrics over all held-out samples. They are exact for any batch size and number of processes."""
        assert self._held_out is not None
        started = time.perf_counter()
        loader = eval_loader(self._held_out, self.args.dataloader_num_workers)
        result = evaluate(self.model_wrapped, loader, self._objective, self.args.device)
        self._skipped.record(result.problems)
        self._skipped.share(self._cpu_group, self.accelerator.is_main_process)
        metrics = result.metrics()
        further = self._hooks.evaluated(self)
        for source, scores in further.pop("eval_sources", {}).items():
            metrics.setdefault("eval_sources", {}).setdefault(source, {}).update(scores)
        metrics |= further
        metrics["eval_seconds"] = time.perf_counter() - started
        self._evaluated = (self.state.global_step, metrics)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.model_wrapped.train()
        self._meter.pause(time.perf_counter() - started)
        return metrics

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the batch on the device. The method of the transformers Trainer overlooks Segments, and under
        DeepSpeed rounds the input of the vision tower."""
        return send_to_device(inputs, self.args.device, non_blocking=self.args.dataloader_pin_memory)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs["loss"] *= self._broken_steps.share_in_loss(self._steps_to_log)
        super().log(logs, start_time)
        if "eval_loss" in logs:
            place = self._meter.totals(self.state.global_step)
            self._hooks.logged({key: place[key] for key in ("step", "epoch", "seconds")} | _only(logs, "eval_"))
        elif "loss" in logs:
            figures: dict[str, float] = {key: logs[key] for key in ("loss", "grad_norm") if key in logs}
            figures |= self._component_norms.take()
            figures |= self._objective.take(self.accelerator)
            figures |= self._rates(logs["learning_rate"])
            figures["memory_gib"] = max(self._cpu_group.everything([peak_memory_gib()]))
            self._hooks.logged(self._meter.row(self.state.global_step) | figures)

    def _rates(self, first: float) -> dict[str, float]:
        """Return the current learning rates. All parameter groups follow one schedule, so their rates follow from
        `first`, the rate of the first group."""
        assert self.optimizer is not None
        groups = self.optimizer.param_groups
        share = first / groups[0]["initial_lr"]
        peaks = {group["component"]: group["initial_lr"] for group in groups}
        if len(set(peaks.values())) == 1:
            return {"lr": first}
        return {"lr": self._config.train.lr * share} | {f"lr_{name}": peak * share for name, peak in peaks.items()}

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save what transformers loads: weights, configuration and processor. With deepspeed.gather_on_save=false, the
        weights are left to DeepSpeed's files, which `_save_checkpoint` writes. The method of transformers would write
        them here, too, or gather adapters nevertheless."""
        if self._config.deepspeed.saves_whole_weights:
            with shapes_before_sharding():
                super().save_model(output_dir, _internal_call)
        elif self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            # PEFT looks up each weight that it writes.
            names = [name for name, weight in self.model.named_parameters() if weight.requires_grad]
            self._save(str(folder), dict.fromkeys(names, torch.empty(0)) if isinstance(self.model, PeftModel) else {})
            for name in (SAFE_WEIGHTS_NAME, ADAPTER_SAFE_WEIGHTS_NAME):
                (folder / name).unlink(missing_ok=True)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save a checkpoint. The transformers Trainer writes it to the staging folder. When every process has finished
        writing, the main process starts to publish it, and training goes on."""
        started = time.perf_counter()
        self._publisher.wait()
        self._refuse_full_disk()
        super()._save_checkpoint(model, trial)
        step = self.state.global_step
        written = Path(self.args.output_dir) / f"checkpoint-{step}"
        self._save_stream(written / STREAM)
        if self.accelerator.is_main_process:
            add_older_files(self.processing_class, written)
            (written / PROGRESS).write_text(json.dumps(self._meter.progress(step).as_dict()), encoding="utf-8")
            evaluated, metrics = self._evaluated
            if evaluated == step:
                write_json_atomic(written / EVALUATION, _only(metrics, "eval_"))
            self._hooks.written(written, step)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self._publisher.start(written, step)
        self._meter.saved(time.perf_counter() - started)

    def _refuse_full_disk(self) -> None:
        """End the run on all processes if the next checkpoint does not fit on the disk."""
        missing = None
        if self.accelerator.is_main_process:
            missing = about_missing_space(saved(self._checkpoints), self._checkpoint_bytes, self._checkpoints.parent)
        if found := self._cpu_group.everything([missing] if missing else []):
            raise NoRoom(found[0])

    def _save_stream(self, file: Path) -> None:
        if self._stream is None:
            return
        stored = json.dumps(self._stream.state(self._rows_before(self.state.global_step)).as_dict())
        digest = torch.tensor([zlib.crc32(stored.encode())], device=self.args.device)
        if (self.accelerator.gather(digest) != digest).any():
            raise UserError(
                "The processes have read different rows from data.train, so some rows were used twice and some never; "
                "a file or URL could not be read on every process. Resume from the last checkpoint."
            )
        if self.accelerator.is_main_process:
            file.write_text(stored, encoding="utf-8")

    def _rows_before(self, step: int) -> int:
        """Return the number of packed rows in the first `step` steps, over all processes."""
        return step * self.args.gradient_accumulation_steps * self.args.world_size

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        """Load the weights of a checkpoint. The method of transformers 5.23 looks for its own module names in a file
        with published names, finds none, and would continue with the initial weights; `from_pretrained` translates the
        names."""
        if isinstance(self.model, PeftModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            stored = type(self.model).from_pretrained(resume_from_checkpoint, dtype=torch.float32)
            self.model.load_state_dict(stored.state_dict())


class _Clock(TrainerCallback):
    """Callback that starts the meter's clock when training begins. A resumed run reads its weights before that, which
    does not count as training."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._meter.start()


class _Intervals(TrainerCallback):
    """Callback that takes the intervals between logs, evaluations and checkpoints from the settings. The transformers
    Trainer would take those that the checkpoint was written with."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        state.compute_steps(args, state.max_steps)


def _only(logs: dict[str, float], prefix: str) -> dict[str, float]:
    return {key: value for key, value in logs.items() if key.startswith(prefix)}
