"""Experts under autocast: their weights are cast around the forward pass.

Autocast casts what linear layers are given, but not what `grouped_mm` is. Trained in full, the weights are in float32,
and for that type CUDA has no grouped product: it would compute one expert after another, and wait before each call.
"""

import types
from typing import Any

import torch
from transformers import PreTrainedModel

from qwenvl_train.families.family import Family


def use_experts_in_autocast_type(model: PreTrainedModel, family: Family) -> None:
    """`model` is the bare one; each experts module is changed by itself, below its `__call__`."""
    weights = [name for name, _ in model.named_parameters() if name.endswith(family.expert_weights)]
    for path in {name.rpartition(".")[0] for name in weights}:
        experts = model.get_submodule(path)
        experts.forward = types.MethodType(_forward, experts)


def _forward(self: torch.nn.Module, states: torch.Tensor, *arguments: Any) -> torch.Tensor:
    forward = type(self).forward
    device = states.device.type
    if not torch.is_autocast_enabled(device):
        return forward(self, states, *arguments)
    dtype = torch.get_autocast_dtype(device)
    # An attribute of the instance comes before the parameter of that name, and the parameter gets the gradient.
    cast = {name: weight.to(dtype) for name, weight in self.named_parameters(recurse=False) if weight.dtype != dtype}
    vars(self).update(cast)
    try:
        return forward(self, states.to(dtype), *arguments)
    finally:
        for name in cast:
            del vars(self)[name]
