"""An adapter of LoRA tensors alone, without modules that were trained in full, as servers load it."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file

from qwenvl_train.errors import UserError
from qwenvl_train.model.adapters import OLDER_NAMES
from qwenvl_train.model.sharded import is_sharded, sharded_lora
from qwenvl_train.model.stored_adapter import ADAPTER_CONFIG, StoredAdapter

_PREFIX = "base_model.model."
_PARTS = re.compile(r"\.lora_[AB]\.weight$")


def lora_tensors(adapter: StoredAdapter) -> dict[str, torch.Tensor]:
    """Return the LoRA tensors of a stored adapter under the present names of modules."""
    if is_sharded(Path(adapter.path)):
        return {name: weight[...] for name, weight in sharded_lora(Path(adapter.path)).items()}
    file = Path(adapter.path) / SAFETENSORS_WEIGHTS_NAME
    if not Path(adapter.path).exists():
        file = Path(hf_hub_download(adapter.path, SAFETENSORS_WEIGHTS_NAME, revision=adapter.revision))
    if not file.is_file():
        raise UserError(f"{adapter.path} has no {SAFETENSORS_WEIGHTS_NAME}.")
    stored = load_file(file)
    return {_present_name(name): tensor for name, tensor in stored.items() if _PARTS.search(name)}


def size_of_lora(adapter: StoredAdapter) -> int:
    """Return about how many bytes the LoRA tensors of a stored adapter take in a file. For one on the hub, it is not
    known, and 0."""
    folder = Path(adapter.path)
    if is_sharded(folder):
        return sum(weight.shape.numel() * weight.dtype.itemsize for weight in sharded_lora(folder).values())
    return (folder / SAFETENSORS_WEIGHTS_NAME).stat().st_size if folder.is_dir() else 0


def write_adapter(adapter: StoredAdapter, base: str, folder: Path) -> dict[str, Any]:
    """Write the LoRA tensors, in their own precision, with a config that names `base` as their base model. Return the
    config."""
    tensors = lora_tensors(adapter)
    own = {"base_model_name_or_path": base, "modules_to_save": None, "ensure_weight_tying": False}
    own["revision"] = None if Path(base).is_absolute() else adapter.base.revision
    config = adapter.settings | own | {"inference_mode": True, "target_modules": targets_of(tensors)}
    folder.mkdir()
    save_file(tensors, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return config


def targets_of(tensors: dict[str, torch.Tensor]) -> list[str]:
    """Return the names of the linear layers that LoRA tensors belong to. Some servers do not read the patterns that
    PEFT allows, and short names would match layers of other components. Weights of experts are no layers."""
    names = {_PARTS.sub("", name).removeprefix(_PREFIX) for name in tensors}
    return sorted(name for name in names if not name.endswith((".experts", ".experts.base_layer")))


def _present_name(name: str) -> str:
    inner = name.removeprefix(_PREFIX)
    for pattern, replacement in OLDER_NAMES.items():
        inner = re.sub(pattern, replacement, inner)
    return _PREFIX + inner
