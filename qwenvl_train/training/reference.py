"""The log-probabilities that a model is held to: of a row's learned tokens, by the model as it was before the run."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from accelerate import Accelerator
from peft import PeftModel
from transformers import PreTrainedModel
from trl.models.utils import prepare_deepspeed

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.model.components import COMPONENTS, mode_of

Kind = Literal["adapter", "model", "cached", "none"]
Reference = Callable[[dict[str, Any]], torch.Tensor]
"""From a row to [L]."""


def reference_of(config: RunConfig) -> Kind:
    if config.dpo.reference != "auto":
        return config.dpo.reference
    return "adapter" if "lora" in (mode_of(component, config) for component in COMPONENTS) else "model"


def without_adapters(model: PeftModel) -> Reference:
    """What is trained in full beside adapters is as it was, too: PEFT keeps the original."""

    def log_probs(row: dict[str, Any]) -> torch.Tensor:
        with torch.no_grad(), model.disable_adapter():
            return model(**row).log_probs

    return log_probs


def of_copy(copy: PreTrainedModel, accelerator: Accelerator) -> Reference:
    copy.eval().requires_grad_(False)
    if accelerator.state.deepspeed_plugin is not None:
        held = prepare_deepspeed(copy, accelerator)
    else:
        held = copy.to(accelerator.device)

    def log_probs(row: dict[str, Any]) -> torch.Tensor:
        with torch.no_grad():
            return held(**row).log_probs

    return log_probs


def stored(row: dict[str, Any]) -> torch.Tensor:
    """Computed before the run; the row brings them, where there is anything in it."""
    return row["reference"] if "reference" in row else none(row)


def none(row: dict[str, Any]) -> torch.Tensor:
    """As if all answers were certain, and so alike."""
    return torch.zeros(len(row["learned"]), device=row["learned"].device)
