"""Adds an adapter to the weights of its base model, and writes the result as a whole checkpoint."""

from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from qwenvl_train.config.schema import ModelConfig
from qwenvl_train.model.adapters import read_weights, with_stored_adapter
from qwenvl_train.model.pretrained import from_pretrained
from qwenvl_train.model.processor_files import save_processor
from qwenvl_train.model.stored_adapter import StoredAdapter, processor_source


@torch.no_grad()
def write_merged(adapter: StoredAdapter, model: ModelConfig, folder: Path) -> None:
    """Write the merged weights, in the precision of the base model, and the processor. The whole model is in the memory
    of the CPU meanwhile.

    Args:
        model: The settings whose path is the adapter.
    """
    base = from_pretrained(adapter.base, AutoModelForImageTextToText, dtype="auto")
    adapted = with_stored_adapter(base, adapter)
    read_weights(adapted, adapter)
    merged = adapted.merge_and_unload()
    merged.to(base.dtype).save_pretrained(folder)
    save_processor(from_pretrained(processor_source(model), AutoProcessor), folder)
