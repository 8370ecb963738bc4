"""The log-probabilities that a model is held to: of a row's learned tokens, by the model as it was before the run."""

from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from peft import PeftModel
from transformers import PreTrainedModel
from trl.models.utils import prepare_deepspeed

Row = dict[str, Any]
"""A Batch, as the engine hands it on."""
Reference = Callable[[Row], torch.Tensor]
"""To [L]."""


def without_adapters(model: PeftModel) -> Reference:
    """What is trained in full beside adapters is as it was, too: PEFT keeps the original."""

    def log_probs(row: Row) -> torch.Tensor:
        with torch.no_grad(), model.disable_adapter():
            return model(**row).log_probs

    return log_probs


def of_copy(copy: PreTrainedModel, accelerator: Accelerator) -> Reference:
    copy.eval().requires_grad_(False)
    if accelerator.state.deepspeed_plugin is not None:
        held = prepare_deepspeed(copy, accelerator)
    else:
        held = copy.to(accelerator.device)

    def log_probs(row: Row) -> torch.Tensor:
        with torch.no_grad(), accelerator.autocast():
            return held(**row).log_probs

    return log_probs


def stored(row: Row) -> torch.Tensor:
    """Computed before the run; the row brings them, where there is anything in it."""
    return row["reference"] if "reference" in row else none(row)


def none(row: Row) -> torch.Tensor:
    """As if all answers were certain, and so alike."""
    return torch.zeros(len(row["learned"]), device=row["learned"].device)
