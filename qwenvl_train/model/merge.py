"""Adds an adapter to the weights of its base model, and writes weights in the names and the layout of the published
model."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.modeling_utils import remove_tied_weights_from_state_dict

from qwenvl_train.config.schema import ModelConfig
from qwenvl_train.errors import UserError
from qwenvl_train.model.adapters import read_weights, with_stored_adapter
from qwenvl_train.model.pretrained import from_pretrained
from qwenvl_train.model.processor_files import save_processor
from qwenvl_train.model.stored_adapter import StoredAdapter, processor_source

HEAD = "lm_head.weight"
Progress = Callable[[int], None]


@torch.no_grad()
def write_merged(adapter: StoredAdapter, model: ModelConfig, folder: Path) -> None:
    """Write the merged weights, in the precision of the base model, and the processor. The whole model is in the memory
    of the CPU meanwhile.

    Args:
        model: The settings whose path is the adapter.
    """
    base = from_pretrained(adapter.base, AutoModelForImageTextToText, dtype="auto")
    dtype = base.dtype
    merged = merged_in_place(adapted(base, adapter))
    merged.to(dtype).save_pretrained(folder)
    save_processor(from_pretrained(processor_source(model), AutoProcessor), folder)


def adapted(base: PreTrainedModel, adapter: StoredAdapter) -> PeftModel:
    """Return a model with the layers and the weights of a stored adapter."""
    model = with_stored_adapter(base, adapter)
    read_weights(model, adapter)
    return model


@torch.no_grad()
def merged_in_place(model: PeftModel, progress: Progress = lambda done: None) -> PreTrainedModel:
    """Add the adapters to the weights below them, and put modules that were trained in full in place of the originals.

    The sums are computed in float32 and rounded once. PEFT would round what it adds before it adds it to the weights of
    experts.
    """
    done = 0
    for module in model.modules():
        if isinstance(module, BaseTunerLayer) and not module.merged:
            weights = list(module.get_base_layer().parameters(recurse=False))
            dtypes = [weight.dtype for weight in weights]
            for weight in weights:
                weight.data = weight.data.float()
            module.merge()
            for weight, dtype in zip(weights, dtypes, strict=True):
                weight.data = weight.data.to(dtype)
            done += 1
            progress(done)
    return model.unload()


def adapted_layers(model: PeftModel) -> int:
    return sum(isinstance(module, BaseTunerLayer) for module in model.modules())


def published_weights(model: PreTrainedModel, head: bool) -> dict[str, torch.Tensor]:
    """Return the weights under the names of the published model. With `head`, this includes an output layer that is
    the embedding, as some published models have it."""
    state = remove_tied_weights_from_state_dict(model.state_dict(), model)
    weights = revert_weight_conversion(model, state)
    if head and HEAD not in weights:
        weights[HEAD] = model.get_output_embeddings().weight.detach()
    return weights


def use_names_of(base: ModelConfig, model: PreTrainedModel) -> None:
    """Let `published_weights` give a whole model the names that its base model has in its files. Those in its own files
    can be others: under ZeRO-3, transformers 5.23 saves full weights as model.model.…, and reads them again."""
    # Without weights, this only reads which names are in the files.
    named = from_pretrained(base, AutoModelForImageTextToText, device_map="meta")
    model._weight_conversions = named._weight_conversions


def write_weights(
    weights: dict[str, torch.Tensor], folder: Path, dtype: torch.dtype, shard_size: str, progress: Progress
) -> None:
    """Write weights, and an index if they do not fit into one file. `progress` takes the number of weights written.
    The dictionary is empty afterwards."""
    shards = split_torch_state_dict_into_shards(
        {name: torch.empty_like(tensor, dtype=dtype, device="meta") for name, tensor in weights.items()},
        max_shard_size=shard_size,
    )
    done = 0
    for file, names in shards.filename_to_tensors.items():
        part = {}
        for name in names:
            given = weights.pop(name)
            part[name] = given.to("cpu", dtype, copy=True).contiguous()
            if dtype == torch.float16 and not torch.isfinite(part[name]).all():
                raise UserError(f"export.dtype=fp16: {name} has numbers beyond the range of fp16; choose bf16 or fp32.")
        save_file(part, folder / file, metadata={"format": "pt"})
        done += len(names)
        progress(done)
    if shards.is_sharded:
        index = {"metadata": shards.metadata, "weight_map": shards.tensor_to_filename}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
