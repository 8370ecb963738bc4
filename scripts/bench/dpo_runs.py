"""A whole DPO run with TRL's trainer and with this project, for `dpo.py`.

Each round has a new model, since TRL's trainer leaves hooks and settings on it.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Image, List
from engine import AHEAD, Measured, measured, run_ours, their_arguments
from figures import Tokens
from job import Job, Trained
from PIL import Image as Pillow
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference
from workload import SEED, Conversation

from qwenvl_train.data.batches.loader import Row, TrainRows, make_row
from qwenvl_train.data.render.renderer import Rendered
from qwenvl_train.model.build import base_model
from qwenvl_train.model.load import DTYPES
from qwenvl_train.model.vision_features import with_shared_features
from qwenvl_train.training.objectives.dpo import Preferences
from qwenvl_train.training.objectives.reference import of_copy, without_adapters

NUDGE = 0.02
"""The size of the adapters' second matrices, which would begin as zeros, and of the relative change of a reference
copy."""


def trl(job: Job, folder: Path) -> Measured:
    """Run TRL's trainer with padding, sdpa, its own activation checkpointing and its own collator."""
    config, dpo = job.config, job.config.dpo
    trained, reference = _models(job.with_training(checkpointing="none"))
    for model in filter(None, (trained, reference)):
        model.as_published("sdpa")
    arguments = DPOConfig(
        **their_arguments(job, folder),
        gradient_checkpointing=config.train.checkpointing != "none",
        loss_type=list(dpo.loss),
        loss_weights=list(dpo.weights) if dpo.weights else None,
        beta=dpo.beta,
        label_smoothing=dpo.label_smoothing,
        discopop_tau=dpo.discopop_tau,
        use_weighting=dpo.wpo,
        ld_alpha=dpo.ld_alpha,
    )
    samples = [sample for index in range(job.micro_batches + AHEAD) for sample in job.samples(index)]
    dataset = Dataset.from_list([_as_trl(job.conversations[sample]) for sample in samples]).cast_column(
        "images", List(Image())
    )
    trainer = DPOTrainer(
        trained.model,
        reference.model if reference else None,
        arguments,
        data_collator=Collator(job.processor),
        train_dataset=dataset,
        processing_class=job.processor,
    )
    if reference is None:
        trained.model.delete_adapter("ref")  # TRL makes it of adapters that it did not add itself
    return measured(trainer, job)


def ours(job: Job, folder: Path) -> Measured:
    return _ours(job, job.train.dataset(job.micro_batches + AHEAD), folder)


def apart(job: Job, folder: Path) -> Measured:
    """Run this project with the two conversations of a pair computed separately."""
    return _ours(job, ApartRows(job.train.rows, job.train.counts, job.micro_batches + AHEAD), folder)


def _ours(job: Job, dataset: TrainRows, folder: Path) -> Measured:
    trained, reference = _models(job)
    look = None
    if not job.config.tuned("vision"):
        look = with_shared_features(base_model(trained.model), job.family, job.processor.image_processor)
    if reference is None:
        objective = Preferences(job.config.dpo, lambda _: without_adapters(trained.model), look)
    else:
        objective = Preferences(job.config.dpo, lambda accelerator: of_copy(reference.model, accelerator), look)
    return run_ours(job, trained.model, objective, dataset, folder)


def padded_tokens(job: Job) -> Tokens:
    """Return the number of tokens as TRL's collator pads them."""
    collator = Collator(job.processor)
    masks = []
    for micro_batch in job.timed:
        rows = [_as_trl(job.conversations[sample]) for sample in job.samples(micro_batch)]
        opened = [row | {"images": [Pillow.open(picture) for picture in row["images"]]} for row in rows]
        masks.append(collator(opened)["attention_mask"])
    return Tokens(sum(int(mask.sum()) for mask in masks), sum(mask.numel() for mask in masks))


def shared_tokens(job: Job) -> Tokens:
    count = sum(sum(job.contents[index].lengths) for index in job.timed)
    return Tokens(count, count)


def apart_tokens(job: Job) -> Tokens:
    """Return the number of tokens of each answer with its context."""
    pairs = [pair for index in job.timed for pair in job.contents[index].pieces]
    count = sum(piece.context + piece.length for pair in pairs for piece in pair[1:])
    return Tokens(count, count)


@dataclass(frozen=True)
class ApartRows(TrainRows):
    """The packed rows of a run, with the two conversations of a pair laid out separately."""

    def __getitem__(self, row: int) -> Row:
        origin = self.rows.samples.origin
        parts = ((origin(index), partial(self._rendered, index)) for index in self.order.row(row).tolist())
        return make_row(parts, self.rows.renderer)

    def _rendered(self, index: int) -> Rendered:
        sample = self.rows.samples[index]
        return self.rows.renderer.render(replace(sample, rejected=sample.rejected_conversation.turns, shared=0))


class Collator(DataCollatorForVisionPreference):
    """TRL's collator, without loss on the line break after each answer, which the models do not generate."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super().torch_call(examples)
        mask = batch["completion_mask"]
        last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
        mask[torch.arange(len(mask)), last] = 0
        return batch


def _as_trl(conversation: Conversation) -> dict[str, Any]:
    return {
        "images": conversation.pictures,
        "prompt": [{"role": "user", "content": conversation.question}],
        "chosen": [{"role": "assistant", "content": conversation.answer}],
        "rejected": [{"role": "assistant", "content": conversation.rejected}],
    }


@torch.no_grad()
def _models(job: Job) -> tuple[Trained, Trained | None]:
    """Return the trained model, and the reference if it is not the model without its adapters. They differ slightly, or
    all pairs would have a loss of ln 2, whatever the answers."""
    trained = Trained(job)
    reference = Trained(job) if job.config.reference == "model" else None
    torch.manual_seed(SEED)
    if reference is None:
        for name, weights in trained.model.named_parameters():
            if "lora_B" in name:
                weights.normal_(std=NUDGE)
    else:
        for weights in reference.model.parameters():
            if weights.requires_grad:
                weights.data = (weights + NUDGE * weights.std() * torch.randn_like(weights)).to(DTYPES[job.precision])
    return trained, reference
