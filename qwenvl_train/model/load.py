"""Load the weights of model.path, or of its base model if it is an adapter, and identify them by a string that changes
when they do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig, PreTrainedModel
from transformers.core_model_loading import Transpose

from qwenvl_train.config.schema import ModelConfig
from qwenvl_train.families.family import Family
from qwenvl_train.model.pretrained import from_pretrained, load_config
from qwenvl_train.model.stored_adapter import stored_adapter, whole_model

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def load_model(config: ModelConfig, family: Family, precision: str) -> PreTrainedModel:
    quantization = None
    if config.quantize == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=DTYPES[precision],
            # Only the language model is quantized. The vision tower and the mergers are small and would lose most.
            llm_int8_skip_modules=[family.vision_path, "lm_head"],
        )
    with shapes_before_sharding():
        model = from_pretrained(
            whole_model(config),
            AutoModelForImageTextToText,
            dtype=DTYPES[precision],
            attn_implementation="sdpa",
            **({"quantization_config": quantization} if quantization else {}),
        )
    for module in model.modules():
        # On some CPUs bitsandbytes repacks weights for inference at the first evaluation, and cannot train them then.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


@contextmanager
def shapes_before_sharding() -> Iterator[None]:
    """Let transformers compare expert weights in files with the shapes that the model's have before ZeRO-3 shards them.

    transformers transposes expert weights whose shape is not that of the model's, when it reads and when it writes
    them, since published files have them the other way round from those that it writes. Sharded weights have no shape,
    so that it would transpose all. Square ones that it had transposed in a file, it would not transpose again.
    """
    transposed = Transpose.convert

    def convert(self: Transpose, *arguments: Any, model: Any = None, **options: Any) -> dict[str, torch.Tensor]:
        return transposed(self, *arguments, model=_Shapes(model), **options)

    with patch.object(Transpose, "convert", convert):
        yield


class _Shapes:
    """A model whose parameters have the shapes from before ZeRO-3 has sharded them, and nothing else."""

    def __init__(self, model: PreTrainedModel):
        self._model = model

    def get_parameter(self, name: str) -> SimpleNamespace:
        parameter = self._model.get_parameter(name)
        return SimpleNamespace(shape=getattr(parameter, "ds_shape", parameter.shape))


def identity_of(config: ModelConfig) -> str:
    """Return a string that identifies the checkpoint: its commit on the hub, or the sizes and times of its files. The
    string of an adapter includes that of its base model."""
    if adapter := stored_adapter(config):
        return f"{_identity(config)} {_identity(adapter.base)}"
    return _identity(config)


def _identity(config: ModelConfig) -> str:
    local = Path(config.path).expanduser()
    if not local.exists():
        return f"{config.path} {load_config(config)._commit_hash}"
    there = [*local.resolve().iterdir(), *local.resolve().glob("global_step*/*")]  # the second are those of DeepSpeed
    files = sorted(file for file in there if file.suffix in (".json", ".safetensors", ".bin", ".pt"))
    return repr([(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files])
