"""A whole run with TRL's trainer and with this project, for `step.py`."""

from pathlib import Path

from datasets import Dataset, Image, List
from engine import AHEAD, Measured, measured, run_ours, their_arguments
from job import Job, Trained
from step_ways import as_trl
from trl import SFTConfig, SFTTrainer

from qwenvl_train.training.objectives.sft import Answers


def trl(job: Job, trained: Trained, folder: Path) -> Measured:
    # The model already uses activation checkpointing, in the same blocks as this project.
    arguments = SFTConfig(**their_arguments(job, folder), gradient_checkpointing=False)
    samples = [sample for index in range(job.micro_batches + AHEAD) for sample in job.samples(index)]
    dataset = Dataset.from_list([as_trl(job.conversations[sample]) for sample in samples]).cast_column(
        "images", List(Image())
    )
    trained.model.zero_grad()
    trained.as_published("sdpa")
    return measured(SFTTrainer(trained.model, arguments, train_dataset=dataset, processing_class=job.processor), job)


def ours(job: Job, trained: Trained, folder: Path) -> Measured:
    trained.model.zero_grad()
    trained.as_ours()
    return run_ours(job, trained.model, Answers(), job.train.dataset(job.micro_batches + AHEAD), folder)
