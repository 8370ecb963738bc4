"""The weights of a checkpoint that has only each process's share of them, in the files of DeepSpeed
(deepspeed.gather_on_save=false).

What reads only the config of a model imports this module, too, so no models are imported with it.
"""

import re
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.serialization import config as serialization
from transformers import AutoConfig, GenerationConfig

from qwenvl_train.config.schema import ModelConfig
from qwenvl_train.errors import UserError
from qwenvl_train.model.weights_only import only_weights, reason_of_refusal

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHARDED = "its weights are divided among processes; qwenvl-train export run=… puts them together"
"""What an error says of a sharded checkpoint."""
_WEIGHTS = re.compile(r"(adapter_|pytorch_)?model.*\.(safetensors|bin)")
_OF_ADAPTER = re.compile(r"\.lora_|\.modules_to_save\.")
_ADAPTER_NAME = re.compile(r"\.default(?=\.weight$)")


class ShardedWeight:
    """A weight that is put together each time it is read. transformers reads it as it reads a slice of a safetensors
    file, so that the shares of all weights are never in memory at the same time."""

    def __init__(self, parts: Any) -> None:
        self._parts = parts
        self.shape: torch.Size = parts.shape
        self.dtype: torch.dtype = parts.dtype

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self._parts.contiguous().detach()[index]


def is_sharded(folder: Path) -> bool:
    """Return whether a folder is a checkpoint that has no weights but those in the files of DeepSpeed."""
    return (folder / "latest").is_file() and not any(_WEIGHTS.fullmatch(path.name) for path in folder.iterdir())


def sharded_weights(folder: Path) -> dict[str, ShardedWeight]:
    """Return the weights of a sharded checkpoint under the names that they have in the model. Trained ones are in
    float32. A checkpoint with adapters has only trained ones.

    Raises:
        UserError: If a file is missing or damaged, or would run code when it is read.
    """
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    told = StringIO()
    try:
        # Files that are mapped take memory only where they are read, and the optimizer state is not.
        with (
            redirect_stdout(told),
            redirect_stderr(told),
            only_weights(deepspeed=True),
            serialization.patch("load.mmap", True),
        ):
            found = get_fp32_state_dict_from_zero_checkpoint(str(folder), lazy_mode=True)
    except Exception as error:
        reason = reason_of_refusal(error) or str(error).strip().partition("\n")[0].rstrip(".")
        raise UserError(f"the weights in {folder} cannot be put together: {reason}.") from error
    return {name: ShardedWeight(parts) for name, parts in found.items()}


def refuse_sharded(model: ModelConfig) -> None:
    """Raise UserError if a run would train a sharded checkpoint as a whole model. Its adapters and exports would refer
    to a base model that no other program can read."""
    if is_sharded(Path(model.path).expanduser()):
        raise UserError(f"model.path {model.path}: {SHARDED}. Train the model that it writes.")


def load_sharded(folder: Path, **options: Any) -> "PreTrainedModel":
    """Return the whole model of a sharded checkpoint, as `from_pretrained` returns that of another checkpoint."""
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    weights = sharded_weights(folder)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    model_class = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
    model, found = model_class.from_pretrained(
        None, config=config, state_dict=weights, output_loading_info=True, **options
    )
    if found["missing_keys"]:
        raise UserError(f"the weights in {folder} cannot be put together: {min(found['missing_keys'])} is missing.")
    model.config.name_or_path = model.name_or_path = str(folder)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def read_sharded(model: torch.nn.Module, folder: Path) -> Any:
    """Read the weights of a sharded checkpoint with adapters into the layers of a model. Return the keys that are
    missing or belong to no layer, as PEFT does."""
    weights = {name: weight[...] for name, weight in sharded_weights(folder).items()}
    result = model.load_state_dict(weights, strict=False)
    result.missing_keys[:] = [key for key in result.missing_keys if _OF_ADAPTER.search(key)]
    return result


def sharded_lora(folder: Path) -> dict[str, ShardedWeight]:
    """Return the LoRA weights of a sharded checkpoint under the names that PEFT gives them in files."""
    weights = sharded_weights(folder)
    return {_ADAPTER_NAME.sub("", name): weight for name, weight in weights.items() if ".lora_" in name}
