"""Time a whole run from files, including data loading, with this project. Also contains what the runs of others
share."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job import Job
from peft import PeftModel
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_utils import SaveStrategy

from qwenvl_train.training.arguments import training_arguments
from qwenvl_train.training.distributed.cpu_group import CpuGroup
from qwenvl_train.training.meter import Devices, Meter, RunProgress
from qwenvl_train.training.objectives.objective import Objective
from qwenvl_train.training.skipped import Skipped
from qwenvl_train.training.trainer import VisionTrainer
from qwenvl_train.training.trainer_inputs import Hooks, TrainerData, TrainerRecords, TrainerSetup

# Loaders read one micro-batch ahead. With one more than is trained on, as many are read as steps are timed.
AHEAD = 1


@dataclass(frozen=True)
class Measured:
    seconds: float
    """The time of all steps but the first, which starts workers and warms up."""
    waited: float
    """The wait for data within that time."""
    first: dict[str, float]
    """The metrics of the first step."""


class _Clock(TrainerCallback):
    """Reads the time only twice, so that a step synchronizes no more than in a real run. It also wraps the trainer's
    reading of data."""

    def __init__(self, trainer: Trainer, job: Job):
        self._read, self._job = trainer.get_batch_samples, job
        self.marks: list[float] = []
        self.waited = 0.0
        trainer.get_batch_samples = self._timed
        trainer.add_callback(self)

    def _timed(self, *arguments: Any) -> Any:
        # The device may still be busy, and this does not count as waiting for data.
        clock = time.process_time if self._job.device.type == "cpu" else time.perf_counter
        start = clock()
        batches = self._read(*arguments)
        if self.marks:
            self.waited += clock() - start
        return batches

    def on_step_end(self, args, state, control, **_: Any) -> None:
        if state.global_step in (1, state.max_steps):
            self.marks.append(self._job.now())


def measured(trainer: Trainer, job: Job) -> Measured:
    trainer.remove_callback(PrinterCallback)
    clock = _Clock(trainer, job)
    trainer.train()
    start, end = clock.marks
    return Measured(end - start, clock.waited, trainer.state.log_history[0])


def their_arguments(job: Job, folder: Path) -> dict[str, Any]:
    """Return the arguments with which TRL's trainers train as this project does. Other arguments keep TRL's
    defaults."""
    train, workers = job.config.train, job.config.data.workers
    return {
        "output_dir": str(folder),
        "seed": job.config.seed,
        "max_steps": job.steps,
        "per_device_train_batch_size": train.batch_size,
        "gradient_accumulation_steps": train.accumulation,
        "learning_rate": train.lr,
        "max_grad_norm": train.clip,
        "bf16": job.precision == "bf16",
        "use_cpu": job.device.type == "cpu",
        "train_sampling_strategy": "sequential",
        "max_length": None,
        "router_aux_loss_coef": 0.0,  # as in this project
        "logging_steps": job.steps,
        "logging_first_step": True,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_num_workers": workers,
        "dataloader_persistent_workers": workers > 0,
        **({"optim": "adamw_bnb_8bit"} if job.config.optim.name == "adamw_8bit" else {}),
    }


def run_ours(
    job: Job, model: PreTrainedModel | PeftModel, objective: Objective, dataset: Dataset, folder: Path
) -> Measured:
    arguments = training_arguments(job.config, folder, job.steps, job.precision, resumed=False)
    arguments.save_strategy = SaveStrategy.NO
    told: list[dict[str, float]] = []
    meter = Meter(job.train.counts, job.config.train.accumulation, None, Devices(1, None), RunProgress())
    skipped = Skipped([], 0, True, folder / "skipped.jsonl", resumed=False)
    hooks = Hooks(
        logged=told.append,
        evaluated=lambda trainer: None,
        written=lambda folder, step: None,
        saved=lambda path: None,
        broken=lambda trainer, step: None,
    )
    trainer = VisionTrainer(
        model,
        arguments,
        TrainerSetup(job.config, job.family, job.processor, objective, CpuGroup(1)),
        TrainerData(dataset, stream=None, held_out=None, skipped=skipped),
        TrainerRecords(meter, job.count, folder, 0, hooks),
    )
    run = measured(trainer, job)
    return Measured(run.seconds, run.waited, told[0])
