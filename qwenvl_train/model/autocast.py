"""Autocast with fewer casts and copies, and extended to expert layers.

Trained weights are in float32, and autocast casts the weights and the input of each linear layer. Three things differ
from autocast's defaults:

- Autocast keeps no cache of the cast weights. Each weight is used once in a pass, so the cache would save no cast, and
  it would hold 16-bit copies of all trained weights until the end of the forward pass. Generation, which makes a pass
  for each token, keeps them (`keep_casts`).
- The norms of a block return their output in autocast's dtype, since only linear layers read it. Otherwise each of
  these layers (query, key, value; gate, up) would cast the output for itself, and keep its own copy for the backward
  pass. The loss stays the same. The gradients of these layers' inputs are added up in 16 bits, as they are when the
  weights are in 16 bits.
- Experts are given their weights in autocast's dtype, because autocast does not apply to `grouped_mm`. CUDA has no
  grouped product for float32: it would compute one expert after another, and wait before each call.
"""

import types
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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


@contextmanager
def keep_casts(model: PreTrainedModel) -> Iterator[None]:
    """Cast each weight of `model`, the base model, at most once within this context, if autocast is active.

    This is for passes without gradients. The 16-bit copies of trained weights stay in memory until the context ends.
    """
    before = torch.is_autocast_cache_enabled()

    def use_cache(*_: Any) -> None:
        torch.set_autocast_cache_enabled(True)

    with ExitStack() as stack:
        # A hook inside the pass, because accelerate's wrapper of `forward` disables the cache at each call.
        stack.callback(model.base_model.register_forward_pre_hook(use_cache).remove)
        for module in model.modules():
            if getattr(vars(module).get("forward"), "__func__", None) is _experts_forward:
                stack.enter_context(_cast_weights(module, _active_type(model.device.type)))
        try:
            yield
        finally:
            torch.set_autocast_cache_enabled(before)
            torch.clear_autocast_cache()


def _active_type(device_type: str) -> torch.dtype | None:
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None


def _cast_output(module: torch.nn.Module, arguments: Any, output: torch.Tensor) -> torch.Tensor:
    dtype = _active_type(output.device.type)
    return output if dtype is None else output.to(dtype)


def _experts_forward(self: torch.nn.Module, states: torch.Tensor, *arguments: Any) -> torch.Tensor:
    dtype = _active_type(states.device.type)
    with _cast_weights(self, dtype):
        return type(self).forward(self, states if dtype is None else states.to(dtype), *arguments)


@contextmanager
def _cast_weights(experts: torch.nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """Let `experts` find their weights in `dtype`, unless it is None or an outer context has already done so."""
    weights = {} if dtype is None else dict(experts.named_parameters(recurse=False))
    # Attribute access finds the cast weight before the parameter of that name. The gradient reaches the parameter.
    cast = {
        name: weight.to(dtype)
        for name, weight in weights.items()
        if weight.dtype != dtype and name not in vars(experts)
    }
    vars(experts).update(cast)
    try:
        yield
    finally:
        for name in cast:
            del vars(experts)[name]
