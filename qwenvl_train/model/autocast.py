"""Autocast with fewer casts and copies, and extended to expert layers.

Trained weights are in float32, and autocast casts the weights and the input of each linear layer. Three things differ
from autocast's defaults:

- Autocast keeps no cache of the cast weights. Each weight is used once in a pass, so the cache would save no cast, and
  it would hold 16-bit copies of all trained weights until the end of the forward pass.
- The norms of a block return their output in autocast's dtype, since only linear layers read it. Otherwise each of
  these layers (query, key, value; gate, up) would cast the output for itself, and keep its own copy for the backward
  pass. The loss stays the same. The gradients of these layers' inputs are added up in 16 bits, as they are when the
  weights are in 16 bits.
- Experts are given their weights in autocast's dtype, because autocast does not apply to `grouped_mm`. CUDA has no
  grouped product for float32: it would compute one expert after another, and wait before each call.
"""

import types
from typing import Any

import torch
from transformers import PreTrainedModel

from qwenvl_train.config.schema import RunConfig
from qwenvl_train.families.family import Family
from qwenvl_train.model.checkpointing import blocks_of
from qwenvl_train.model.load import DTYPES


def autocast_to(config: RunConfig, precision: str) -> torch.dtype | None:
    """Return the dtype of autocast. None if passes compute in the dtype of the weights, as under DeepSpeed."""
    return DTYPES[precision] if config.deepspeed.stage == 0 and precision != "fp32" else None


def autocast(device_type: str, dtype: torch.dtype | None) -> torch.autocast:
    return torch.autocast(device_type, dtype=dtype, enabled=dtype is not None, cache_enabled=False)


def use_autocast_once(model: PreTrainedModel, family: Family) -> None:
    """Change the norms and the experts of `model`, the base model. Without autocast they compute as before."""
    for path in (family.vision_path, family.language_path):
        for block in blocks_of(model.get_submodule(path)):
            for module in block.children():
                if "Norm" in type(module).__name__:
                    module.register_forward_hook(_cast_output)
    if family.expert_weights:
        weights = [name for name, _ in model.named_parameters() if name.endswith(family.expert_weights)]
        for path in {name.rpartition(".")[0] for name in weights}:
            experts = model.get_submodule(path)
            experts.forward = types.MethodType(_experts_forward, experts)


def _active_type(device_type: str) -> torch.dtype | None:
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None


def _cast_output(module: torch.nn.Module, arguments: Any, output: torch.Tensor) -> torch.Tensor:
    dtype = _active_type(output.device.type)
    return output if dtype is None else output.to(dtype)


def _experts_forward(self: torch.nn.Module, states: torch.Tensor, *arguments: Any) -> torch.Tensor:
    forward = type(self).forward
    dtype = _active_type(states.device.type)
    if dtype is None:
        return forward(self, states, *arguments)
    # Attribute access finds the cast weight before the parameter of that name. The gradient reaches the parameter.
    cast = {name: weight.to(dtype) for name, weight in self.named_parameters(recurse=False) if weight.dtype != dtype}
    vars(self).update(cast)
    try:
        return forward(self, states.to(dtype), *arguments)
    finally:
        for name in cast:
            del vars(self)[name]
