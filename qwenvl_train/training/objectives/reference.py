"""The reference model's log-probabilities of a packed row's learned tokens. The reference model is the model as it was
before the run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from peft import PeftModel
from transformers import PreTrainedModel
from trl.models.utils import prepare_deepspeed

Row = dict[str, Any]
"""A Batch, as the transformers Trainer passes it to the objective."""
Reference = Callable[[Row], torch.Tensor]
"""Function that returns the log-probabilities of a packed row's learned tokens, [L]."""


def without_adapters(model: PeftModel) -> Reference:
    """Return a reference that runs the model with its adapters disabled. Modules that are trained in full beside
    adapters also have their original weights then, because PEFT keeps them."""

    def log_probs(row: Row) -> torch.Tensor:
        with torch.no_grad(), model.disable_adapter():
            return model(**row).log_probs

    return log_probs


def of_first_weights(model: PeftModel) -> Reference:
    """Return a reference that runs the model with the values that its trained weights have now. They take the place of
    the trained values during the pass, so nothing but the trained weights is held twice."""
    # DeepSpeed creates the weights that it trains later, so their type and device are known only at the first pass.
    first = [(weight, weight.detach().clone()) for weight in model.parameters() if weight.requires_grad]

    @contextmanager
    def exchanged() -> Iterator[None]:
        trained = [weight.data for weight, _ in first]
        for position, (weight, value) in enumerate(first):
            first[position] = weight, value.to(weight.device, weight.dtype)
            weight.data = first[position][1]
        try:
            yield
        finally:
            for (weight, _), value in zip(first, trained, strict=True):
                weight.data = value

    def log_probs(row: Row) -> torch.Tensor:
        with torch.no_grad(), exchanged():
            return model(**row).log_probs

    return log_probs


def of_copy(copy: PreTrainedModel | PeftModel, accelerator: Accelerator) -> Reference:
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
    """Return log-probabilities that were computed before the run. A packed row carries them unless it is empty."""
    return row["reference"] if "reference" in row else none(row)


def none(row: Row) -> torch.Tensor:
    """Return zeros, as if all answers were certain and therefore equally likely."""
    return torch.zeros(len(row["learned"]), device=row["learned"].device)
