"""The optimizer, and DeepSpeed's settings: which of torch's and DeepSpeed's ways they ask for."""

import os
from pathlib import Path

import pytest
import torch

from qwenvl_train import cli
from qwenvl_train.config.compose import compose
from qwenvl_train.errors import UserError
from qwenvl_train.model.shapes import architecture
from qwenvl_train.training.distributed.zero import deepspeed_settings, largest_weight, refuse_missing_nvme
from qwenvl_train.training.optim import build_optimizer
from tests.settings import run_config


@pytest.mark.parametrize(("cuda", "fused"), [(True, True), (False, None)])
def test_adamw_is_fused_on_a_gpu_wherever_weights_are_now(cuda, fused, monkeypatch):
    """DeepSpeed moves them later; None leaves torch the choice between its other two."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    group = {"params": [torch.nn.Parameter(torch.ones(2))], "lr": 1.0, "weight_decay": 0.0}
    optimizer = build_optimizer([group], run_config().optim)
    assert optimizer.defaults["fused"] is fused
    assert optimizer.defaults["foreach"] is None


def settings_of(*words: str, processes: int = 2, folder: Path | None = None) -> dict:
    config = compose(["+recipe=sft_full", "model=qwen2_5_vl_7b", "data.train=x.jsonl", *words]).config
    found = deepspeed_settings(config.deepspeed, architecture(config.model), processes, folder)
    assert found is not None
    return found


@pytest.mark.parametrize("stage", ["zero1", "zero2", "zero2_offload", "zero3", "zero3_offload"])
def test_deepspeed_adds_up_gradients_in_float32(stage):
    settings = settings_of(f"deepspeed={stage}")
    assert settings["zero_optimization"]["stage"] == int(stage[4])
    assert not {"optimizer", "scheduler"} & settings.keys(), "they would replace those of the trainer"
    assert settings["data_types"] == {"grad_accum_dtype": "fp32"}
    assert "communication_data_type" not in settings


def test_deepspeed_takes_other_types_where_asked():
    settings = settings_of("deepspeed=zero2", "deepspeed.grad_accum_dtype=null", "deepspeed.communication_dtype=fp32")
    assert "data_types" not in settings
    assert settings["communication_data_type"] == "fp32"


@pytest.mark.parametrize(("processes", "elements"), [(1, 152064 * 3584), (8, 10**8)])
def test_the_buffers_of_a_disk_hold_the_largest_weight(processes, elements, tmp_path):
    """DeepSpeed would fail at a weight whose share is larger than a buffer."""
    words = ["deepspeed=zero3", f"deepspeed.nvme_path={tmp_path}"]
    words += [f"deepspeed.offload_{kind}=nvme" for kind in ("optimizer", "param")]
    zero = settings_of(*words, processes=processes, folder=tmp_path / "run")["zero_optimization"]
    assert zero["offload_param"]["buffer_size"] == elements
    assert zero["offload_param"]["nvme_path"] == zero["offload_optimizer"]["nvme_path"] == str(tmp_path / "run")


def test_all_experts_of_a_layer_are_one_weight():
    sizes = architecture(compose(["tune_mm_mlp=true", "model=qwen3_vl_235b_a22b", "data.train=x.jsonl"]).config.model)
    assert largest_weight(sizes) == 128 * 2 * 1536 * 4096


def test_a_missing_disk_is_told_before_anything_is_loaded(tmp_path):
    words = ["deepspeed=zero3", "deepspeed.offload_param=nvme", f"deepspeed.nvme_path={tmp_path / 'none'}"]
    with pytest.raises(UserError, match="there is no such folder"):
        refuse_missing_nvme(compose(["+recipe=sft_full", *words]).config.deepspeed)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}),
        ({"PYTORCH_ALLOC_CONF": "backend:native"}, {"PYTORCH_ALLOC_CONF": "backend:native"}),
        ({"PYTORCH_CUDA_ALLOC_CONF": ""}, {"PYTORCH_CUDA_ALLOC_CONF": ""}),
    ],
)
def test_segments_of_memory_grow_unless_the_user_says_otherwise(given, found, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(given))
    cli.prepare_environment("train")
    assert {key: value for key, value in os.environ.items() if "ALLOC_CONF" in key} == found
