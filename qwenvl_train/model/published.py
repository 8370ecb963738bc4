"""A model as a folder of files: the names and shapes of its tensors, and what it has beside weights and processor."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open

from qwenvl_train.config.schema import ModelConfig
from qwenvl_train.errors import UserError
from qwenvl_train.model.sharded import SHARDED, is_sharded

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json",
    "added_tokens.json",
)  # fmt: skip
_LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*")
_WANTED = ("*.json", "*.jinja", "*.txt", "*.safetensors", "README.md", *_LICENCES)
_LEFT_OUT = "mtp."
_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8}
"""The types of weights, under the names of safetensors, and the bytes of one number."""


class StoredTensor(NamedTuple):
    file: str
    shape: tuple[int, ...]
    dtype: str


def local_folder(model: ModelConfig) -> Path:
    """Return the folder that holds a model, which is downloaded if it is on the hub."""
    path = Path(model.path).expanduser()
    if path.exists() or model.path.startswith((".", "/", "~")):
        return path
    try:
        return Path(snapshot_download(model.path, revision=model.revision, allow_patterns=list(_WANTED)))
    except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{model.path} is not a local folder and could not be downloaded: {reason}") from error


def tensors_in(folder: Path) -> dict[str, StoredTensor]:
    """Return the weights in a folder by name, from the headers of its files. If it has an index, this says which files
    they are in."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(names.values()))
    else:
        names, files = None, sorted(file.name for file in folder.glob("model*.safetensors"))
    if not files and is_sharded(folder):
        raise UserError(f"{folder}: {SHARDED}.")
    if not files:
        raise UserError(f"{folder} has no model.safetensors.")
    found: dict[str, StoredTensor] = {}
    for file in files:
        try:
            with safe_open(folder / file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    header = opened.get_slice(name)
                    found[name] = StoredTensor(file, tuple(header.get_shape()), header.get_dtype())
        except (OSError, SafetensorError) as error:
            raise UserError(f"{folder / file} cannot be read: {error}") from error
    for name in sorted(found.keys() | (names or found)):
        if names is not None and (name not in found or names.get(name) != found[name].file):
            raise UserError(f"{folder}: the index and the files disagree about {name}.")
    return found


def left_out(folder: Path, tensors: dict[str, StoredTensor]) -> dict[str, torch.Tensor]:
    """Return the weights in a folder that transformers does not load: those with which Qwen3.5 predicts several tokens
    at once. Training does not change them."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith(_LEFT_OUT):
            with safe_open(folder / tensor.file, "pt") as file:
                found[name] = file.get_tensor(name)
    return found


def size_in(tensors: dict[str, StoredTensor], bytes_each: int | None = None) -> int:
    """Return the bytes of all tensors, with `bytes_each` for a number, or as they are stored."""
    total = 0
    for tensor in tensors.values():
        numbers = 1
        for side in tensor.shape:
            numbers *= side
        total += numbers * (bytes_each or _BYTES.get(tensor.dtype, 4))
    return total


def copy_tokenizer(base: Path, folder: Path) -> None:
    """Copy the tokenizer's files, which training does not change, so that they have the form that was published."""
    for name in TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)


def copy_config(base: Path, folder: Path, dtype: str) -> None:
    """Copy the config, with another type of weights, and the generation config. Training changes neither, and readers
    of the base model can read its own form."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    for section in (config, config.get("text_config"), config.get("vision_config")):
        for key in ("dtype", "torch_dtype"):
            if section and key in section:
                section[key] = dtype
    config.pop("quantization_config", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if (base / "generation_config.json").is_file():
        shutil.copyfile(base / "generation_config.json", folder / "generation_config.json")


def copy_licence(base: Path, folder: Path) -> list[str]:
    """Copy the texts of the licence, and return their names."""
    files = sorted({file for pattern in _LICENCES for file in base.glob(pattern) if file.is_file()})
    for file in files:
        shutil.copyfile(file, folder / file.name)
    return [file.name for file in files]
