"""The optimizer, and DeepSpeed's settings: which of torch's and DeepSpeed's ways they ask for."""

import os

import pytest
import torch

from qwenvl_train import cli
from qwenvl_train.config.compose import compose
from qwenvl_train.training.arguments import deepspeed_settings
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


@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_deepspeed_adds_up_gradients_in_float32(stage):
    settings = deepspeed_settings(compose(["+recipe=sft_full", f"deepspeed={stage}"]).config.deepspeed)
    assert settings["data_types"] == {"grad_accum_dtype": "fp32"}
    assert "communication_data_type" not in settings


def test_deepspeed_takes_other_types_where_asked():
    types = ["deepspeed.grad_accum_dtype=null", "deepspeed.communication_dtype=fp32"]
    settings = deepspeed_settings(compose(["+recipe=sft_full", "deepspeed=zero2", *types]).config.deepspeed)
    assert "data_types" not in settings
    assert settings["communication_data_type"] == "fp32"


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
    cli._prepare_environment()
    assert {key: value for key, value in os.environ.items() if "ALLOC_CONF" in key} == found
