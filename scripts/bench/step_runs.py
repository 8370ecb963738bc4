"""A whole run by TRL's own trainer and by ours, for `step.py`: loader, loop and all, on files."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, Image, List
from step_job import Job, Trained
from step_ways import as_trl
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_utils import SaveStrategy
from trl import SFTConfig, SFTTrainer

from qwenvl_train.training.arguments import training_arguments
from qwenvl_train.training.meeting import Meeting
from qwenvl_train.training.meter import Devices, Meter, Progress
from qwenvl_train.training.sft import Answers
from qwenvl_train.training.skipped import Skipped
from qwenvl_train.training.trainer import Hooks, VisionTrainer

# Loaders read one micro-batch ahead. With one more than is trained on, as many are read as steps are timed.
AHEAD = 1


@dataclass(frozen=True)
class Measured:
    seconds: float
    """Of all steps but the first, which starts workers and warms up."""
    waited: float
    """For data, within them."""
    loss: float
    """Of the first step."""


class _Clock(TrainerCallback):
    """Looks at the time twice, so that a step waits for the device no more than it does in a real run; besides, it
    wraps the trainer's reading of data."""

    def __init__(self, trainer: SFTTrainer, job: Job):
        self._read, self._job = trainer.get_batch_samples, job
        self.marks: list[float] = []
        self.waited = 0.0
        trainer.get_batch_samples = self._timed
        trainer.add_callback(self)

    def _timed(self, *arguments: Any) -> Any:
        # The device may still be busy, which is no wait for data.
        clock = time.process_time if self._job.device.type == "cpu" else time.perf_counter
        start = clock()
        batches = self._read(*arguments)
        if self.marks:
            self.waited += clock() - start
        return batches

    def on_step_end(self, args, state, control, **_: Any) -> None:
        if state.global_step in (1, state.max_steps):
            self.marks.append(self._job.now())


def run_trl(job: Job, trained: Trained, folder: Path) -> Measured:
    train = job.config.train
    arguments = SFTConfig(
        output_dir=str(folder),
        seed=job.config.seed,
        max_steps=job.steps,
        per_device_train_batch_size=train.batch_size,
        gradient_accumulation_steps=train.accumulation,
        learning_rate=train.lr,
        max_grad_norm=train.clip,
        bf16=job.precision == "bf16",
        use_cpu=job.device.type == "cpu",
        gradient_checkpointing=False,  # the model checkpoints already, where ours does
        train_sampling_strategy="sequential",
        max_length=None,
        router_aux_loss_coef=0.0,  # as ours
        logging_steps=job.steps,
        logging_first_step=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_num_workers=job.config.data.workers,
        dataloader_persistent_workers=job.config.data.workers > 0,
        **({"optim": "adamw_bnb_8bit"} if job.config.optim.name == "adamw_8bit" else {}),
    )
    samples = [sample for index in range(job.micro_batches + AHEAD) for sample in job.samples(index)]
    dataset = Dataset.from_list([as_trl(job.conversations[sample]) for sample in samples]).cast_column(
        "images", List(Image())
    )
    trained.as_published("sdpa")
    return _measured(SFTTrainer(trained.model, arguments, train_dataset=dataset, processing_class=job.processor), job)


def run_ours(job: Job, trained: Trained, folder: Path) -> Measured:
    trained.as_ours()
    arguments = training_arguments(job.config, folder, job.steps, job.precision, resumed=False)
    arguments.save_strategy = SaveStrategy.NO
    trainer = VisionTrainer(
        model=trained.model,
        args=arguments,
        config=job.config,
        family=job.family,
        objective=Answers(),
        processing_class=job.processor,
        train_dataset=job.train.dataset(job.micro_batches + AHEAD),
        stream=None,
        eval_rows=None,
        meter=Meter(job.train.counts, job.config.train.accumulation, None, Devices(1, None), Progress()),
        flops=job.count,
        meeting=Meeting(1),
        skipped=Skipped([], 0, True, folder / "skipped.jsonl", resumed=False),
        checkpoints=folder,
        hooks=Hooks(logged=lambda row: None, evaluated=lambda trainer: None, saved=lambda path: None),
    )
    return _measured(trainer, job)


def _measured(trainer: SFTTrainer, job: Job) -> Measured:
    trainer.remove_callback(PrinterCallback)
    clock = _Clock(trainer, job)
    trainer.train()
    start, end = clock.marks
    return Measured(end - start, clock.waited, trainer.state.log_history[0]["loss"])
