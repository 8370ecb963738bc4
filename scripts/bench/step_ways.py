"""The ways to compute one optimizer step that `step.py` compares, with the same model, samples and loss."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import send_to_device
from job import Job, Trained
from peft import PeftModel
from PIL import Image as Pillow
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.utils import is_flash_attn_2_available
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling
from workload import Conversation

from qwenvl_train.data.batches.loader import Row
from qwenvl_train.data.render.layout import IGNORED

Model = PreTrainedModel | PeftModel
Inputs = dict[str, Any]


@dataclass(frozen=True)
class Way:
    micro_batches: list[Inputs]
    """The inputs on the device. The time to make them is measured elsewhere."""
    tokens: list[int]
    """The number of tokens of each micro-batch, including padding."""
    prepare: Callable[[Trained], None]
    """Gives the model the forward pass and attention of this way."""
    loss: Callable[[Model, Inputs], torch.Tensor]
    """Returns the loss, summed over the supervised tokens."""


def packed(job: Job) -> Way:
    return Way(
        micro_batches=[send_to_device(row.batch, job.device) for row in job.rows],
        tokens=[sum(contents.lengths) for contents in job.contents],
        prepare=Trained.as_ours,
        loss=lambda model, inputs: -model(**inputs).log_probs.sum(),
    )


def padded(job: Job, attention: str) -> Way:
    """Use transformers' own forward pass and loss on the batches of TRL's collator."""
    batches = [_with_our_labels(_collated(job, index), row) for index, row in enumerate(job.rows)]

    return Way(
        micro_batches=[send_to_device(batch, job.device) for batch in batches],
        tokens=[batch["input_ids"].numel() for batch in batches],
        prepare=lambda trained: trained.as_published(attention),
        loss=_padded_loss,
    )


def _padded_loss(model: Model, inputs: Inputs) -> torch.Tensor:
    return model(**inputs, use_cache=False).loss * (inputs["labels"] != IGNORED).sum()


@torch.no_grad()
def trl_learns(job: Job, trained: Trained) -> float:
    """Return the loss of the first step as TRL's trainer computes it: the mean over the means of micro-batches, with
    labels that include the line break after each answer, which the models do not generate."""
    trained.as_published("sdpa")
    means = []
    for micro_batch in range(job.config.train.accumulation):
        inputs = send_to_device(_collated(job, micro_batch), job.device)
        with trained.autocast():
            means.append(trained.model(**inputs, use_cache=False).loss.item())
    return statistics.mean(means)


def no_flash(job: Job) -> str | None:
    """Return the reason why flash-attention 2 cannot be measured here, if there is one."""
    if job.device.type != "cuda":
        return "it needs a GPU"
    return None if is_flash_attn_2_available() else "flash-attn is not installed"


def as_trl(conversation: Conversation) -> dict[str, Any]:
    """Return the sample in TRL's format for a loss on answers only."""
    return {
        "images": conversation.pictures,
        "prompt": [{"role": "user", "content": conversation.question}],
        "completion": [{"role": "assistant", "content": conversation.answer}],
    }


def _collated(job: Job, micro_batch: int) -> Inputs:
    collator = DataCollatorForVisionLanguageModeling(job.processor, completion_only_loss=True)
    rows = [as_trl(job.conversations[sample]) for sample in job.samples(micro_batch)]
    return dict(collator([row | {"images": [Pillow.open(picture) for picture in row["images"]]} for row in rows]))


def _with_our_labels(batch: Inputs, row: Row) -> Inputs:
    real = batch["attention_mask"].bool()
    assert torch.equal(batch["input_ids"][real], row.batch["input_ids"][0]), "not the same samples"
    theirs, ours = (labels != IGNORED for labels in (batch["labels"][real], row.batch["labels"][0]))
    assert theirs[ours].all()
    assert theirs.sum() == ours.sum() + len(row.contents.lengths)
    labels = row.batch["labels"][0].split(list(row.contents.lengths))
    return batch | {"labels": pad_sequence(list(labels), batch_first=True, padding_value=IGNORED)}
