"""Translates the group deepspeed into DeepSpeed's own configuration, and keeps the files of what is on a disk."""

import shutil
from math import ceil
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import PreTrainedConfig

from qwenvl_train.config.schema import DeepSpeedConfig, OffloadDevice
from qwenvl_train.errors import UserError

_SMALLEST_BUFFER = 100_000_000
"""Number of elements of a buffer between disk and memory, by DeepSpeed's default."""


def deepspeed_settings(
    config: DeepSpeedConfig,
    architecture: PreTrainedConfig,
    processes: int,
    folder: Path | None = None,
    universal: bool = False,
) -> dict[str, Any] | None:
    """Return DeepSpeed's configuration, or None for stage 0.

    It has no optimizer or scheduler block, because DeepSpeed would silently use those instead of the trainer's.

    Args:
        folder: The folder of what is kept on a disk.
        universal: Whether the run resumes from a checkpoint in the universal form.
    """
    if config.stage == 0:
        return None
    zero: dict[str, Any] = {
        "stage": config.stage,
        "overlap_comm": config.overlap_comm,
        "contiguous_gradients": True,
        "reduce_bucket_size": config.bucket_elements,
    }
    if config.stage == 3:
        zero["stage3_prefetch_bucket_size"] = config.bucket_elements
        zero["stage3_param_persistence_threshold"] = config.whole_elements
        zero["stage3_gather_16bit_weights_on_model_save"] = config.gather_on_save
    else:
        zero["allgather_bucket_size"] = config.bucket_elements
    if config.offload_optimizer != "none":
        zero["offload_optimizer"] = _offload(config.offload_optimizer, folder)
    if config.offload_param != "none":
        largest = ceil(largest_weight(architecture) / processes)
        zero["offload_param"] = _offload(config.offload_param, folder)
        zero["offload_param"]["buffer_size"] = max(_SMALLEST_BUFFER, largest)
    types = {
        "data_types": {"grad_accum_dtype": config.grad_accum_dtype},
        "communication_data_type": config.communication_dtype,
    }
    return {
        "zero_optimization": zero,
        **{key: value for key, value in types.items() if value not in (None, {"grad_accum_dtype": None})},
        "checkpoint": {"load_universal": universal},
        "zero_allow_untested_optimizer": True,
        # torch's fused AdamW computes on the CPU, too, and needs no compiler, which DeepSpeed's own one does.
        "zero_force_ds_cpu_optimizer": False,
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto"},
        "steps_per_print": 10**9,
    }


def _offload(device: OffloadDevice, folder: Path | None) -> dict[str, Any]:
    where = {"nvme_path": str(folder)} if device == "nvme" else {}
    return {"device": device, "pin_memory": torch.cuda.is_available()} | where


def largest_weight(architecture: PreTrainedConfig) -> int:
    """Return the number of elements of the largest weight: the embeddings, or all experts of a layer together."""
    text = architecture.text_config
    experts = getattr(text, "num_experts", None) or 0
    return text.hidden_size * max(text.vocab_size, experts * 2 * getattr(text, "moe_intermediate_size", 0))


def nvme_folder(config: DeepSpeedConfig, run: str) -> Path | None:
    """Return the folder of what this run keeps on a disk, or None if it keeps nothing there."""
    if "nvme" not in (config.offload_optimizer, config.offload_param):
        return None
    assert config.nvme_path is not None
    return Path(config.nvme_path).expanduser() / f"qwenvl-train-{run}"


def refuse_missing_nvme(config: DeepSpeedConfig) -> None:
    """Raise UserError if deepspeed.nvme_path cannot be used on this host."""
    folder = nvme_folder(config, "")
    if folder is None:
        return
    if not folder.parent.is_dir():
        raise UserError(
            f"deepspeed.nvme_path={config.nvme_path}: there is no such folder; make it on a local NVMe disk."
        )
    from deepspeed.ops.op_builder import AsyncIOBuilder

    if not AsyncIOBuilder().is_compatible(verbose=False):
        raise UserError(
            "deepspeed: nvme needs a C++ compiler, ninja and the headers of libaio (libaio-dev, libaio-devel); install "
            "them, or use cpu instead of nvme."
        )


def empty(folder: Path | None, state: PartialState) -> None:
    """Make a folder on each host, or delete what a killed run has left in it. All processes must call this together."""
    if folder is not None:
        remove(folder, state)
        folder.mkdir(exist_ok=True)
        state.wait_for_everyone()


def remove(folder: Path | None, state: PartialState) -> None:
    """Delete a folder on each host."""
    if folder is not None and state.is_local_main_process:
        shutil.rmtree(folder, ignore_errors=True)
